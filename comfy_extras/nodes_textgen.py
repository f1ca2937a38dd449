"""Text written by language models."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_extras.absent_families import absent_node

TextGenerate = absent_node(
    "TextGenerate",
    "text-generating language models",
    display_name="Generate Text",
    category="text",
    description="Text that a language model writes on.",
    search_aliases=["LLM", "gemma"],
    inputs=lambda: [
        io.Clip.Input("clip"),
        io.String.Input("prompt", default="", multiline=True, dynamic_prompts=True),
        io.Int.Input("max_length", default=512, min=1, max=32768),
        io.DynamicCombo.Input(
            "sampling_mode",
            [
                io.DynamicCombo.Option(
                    "on",
                    [
                        io.Float.Input("temperature", default=0.7, min=0.01, max=2.0, step=1e-06),
                        io.Int.Input("top_k", default=64, min=0, max=1000),
                        io.Float.Input("top_p", default=0.95, min=0.0, max=1.0, step=0.01),
                        io.Float.Input("min_p", default=0.05, min=0.0, max=1.0, step=0.01),
                        io.Float.Input("repetition_penalty", default=1.05, min=0.0, max=5.0, step=0.01),
                        io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF),
                        io.Float.Input(
                            "presence_penalty", default=0.0, min=0.0, max=5.0, step=0.01, optional=True
                        ),
                    ],
                ),
                io.DynamicCombo.Option("off", []),
            ],
            display_name="Sampling Mode",
        ),
        io.Image.Input("image", optional=True),
        io.Image.Input("video", optional=True),
        io.Audio.Input("audio", optional=True),
        io.Boolean.Input("thinking", default=False, optional=True),
        io.Boolean.Input("use_default_template", default=True, advanced=True, optional=True),
    ],
    outputs=lambda: [io.String.Output(display_name="generated_text")],
)


TextGenerateLTX2Prompt = absent_node(
    "TextGenerateLTX2Prompt",
    "text-generating language models",
    display_name="Generate LTX2 Prompt",
    category="text",
    description="A prompt for LTX-2, written by a language model.",
    search_aliases=["prompt enhance", "LLM", "gemma"],
    inputs=lambda: [
        io.Clip.Input("clip"),
        io.String.Input("prompt", default="", multiline=True, dynamic_prompts=True),
        io.Int.Input("max_length", default=512, min=1, max=32768),
        io.DynamicCombo.Input(
            "sampling_mode",
            [
                io.DynamicCombo.Option(
                    "on",
                    [
                        io.Float.Input("temperature", default=0.7, min=0.01, max=2.0, step=1e-06),
                        io.Int.Input("top_k", default=64, min=0, max=1000),
                        io.Float.Input("top_p", default=0.95, min=0.0, max=1.0, step=0.01),
                        io.Float.Input("min_p", default=0.05, min=0.0, max=1.0, step=0.01),
                        io.Float.Input("repetition_penalty", default=1.05, min=0.0, max=5.0, step=0.01),
                        io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF),
                        io.Float.Input(
                            "presence_penalty", default=0.0, min=0.0, max=5.0, step=0.01, optional=True
                        ),
                    ],
                ),
                io.DynamicCombo.Option("off", []),
            ],
            display_name="Sampling Mode",
        ),
        io.Image.Input("image", optional=True),
        io.Image.Input("video", optional=True),
        io.Audio.Input("audio", optional=True),
        io.Boolean.Input("thinking", default=False, optional=True),
        io.Boolean.Input("use_default_template", default=True, advanced=True, optional=True),
    ],
    outputs=lambda: [io.String.Output(display_name="generated_text")],
)


class TextgenExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [TextGenerate, TextGenerateLTX2Prompt]


def comfy_entrypoint():
    return TextgenExtension()
