"""Text written by language models."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_extras.absent_families import absent_node, raise_absent


class TextGenerate(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TextGenerate",
            display_name="Generate Text",
            category="text",
            description=(
                "Text that a language model writes on; pictures, frames or sound may belong to the prompt."
            ),
            inputs=[
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
                                io.Float.Input(
                                    "repetition_penalty", default=1.05, min=0.0, max=5.0, step=0.01
                                ),
                                io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF),
                                io.Float.Input(
                                    "presence_penalty",
                                    default=0.0,
                                    min=0.0,
                                    max=5.0,
                                    step=0.01,
                                    optional=True,
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
            outputs=[io.String.Output(display_name="generated_text")],
            search_aliases=["LLM", "gemma"],
        )

    @classmethod
    def execute(
        cls,
        clip,
        prompt,
        max_length,
        sampling_mode,
        image=None,
        thinking=False,
        use_default_template=True,
        video=None,
        audio=None,
    ):
        if not hasattr(clip, "generate"):
            raise_absent("text-generating language models", "TextGenerate")
        given = {"image": image, "video": video, "audio": audio, "thinking": thinking}
        tokens = clip.tokenize(prompt, **given, skip_template=not use_default_template, min_length=1)
        usual = {
            "temperature": 1.0,
            "top_k": 50,
            "top_p": 1.0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "seed": None,
        }
        how = {name: sampling_mode.get(name, value) for name, value in usual.items()}
        is_sampled = sampling_mode.get("sampling_mode") == "on"
        return io.NodeOutput(
            clip.decode(clip.generate(tokens, do_sample=is_sampled, max_length=max_length, **how))
        )


TextGenerateLTX2Prompt = absent_node(
    "TextGenerateLTX2Prompt",
    "LTX-2 (its prompt writer)",
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
