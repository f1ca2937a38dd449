"""Prompts that are written as JSON."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io


def _line(name, tooltip):
    return io.String.Input(name, default="", tooltip=tooltip)


def palette_of(colors):
    """Colours in capitals, out of a list, or a dictionary of them; what is no text is left out."""
    given = colors.values() if isinstance(colors, dict) else colors or []
    return [color.upper() for color in given if isinstance(color, str) and color]


class BuildJsonPromptIdeogram(io.ComfyNode):
    """The caption of Ideogram's models."""

    @classmethod
    def define_schema(cls):
        kind = [
            io.DynamicCombo.Option("none", []),
            io.DynamicCombo.Option("photo", [_line("photo", "Camera, lens and the like.")]),
            io.DynamicCombo.Option("art_style", [_line("art_style", "Such as: flat vector poster.")]),
        ]
        return io.Schema(
            node_id="BuildJsonPromptIdeogram",
            display_name="Build JSON Prompt (Ideogram)",
            category="text",
            description="Gathers what a picture is to be into the structure that Ideogram's models read.",
            is_experimental=True,
            inputs=[
                io.Array.Input("element", tooltip="What is in the picture, one entry each."),
                io.String.Input(
                    "high_level_description", default="", multiline=True, tooltip="All in short."
                ),
                io.String.Input("background", default="", multiline=True, tooltip="What is behind it all."),
                io.DynamicCombo.Input("style", options=kind, tooltip="Which of its fields are written."),
                _line("aesthetics", "The look, in a few words."),
                _line("lighting", "Where light comes from, and how hard it is."),
                _line("medium", "Such as: photograph, oil painting."),
                io.Colors.Input("color_palette", default=[], socketless=False, tooltip="Colours to be used."),
            ],
            outputs=[io.Dict.Output(display_name="prompt")],
        )

    @classmethod
    def execute(
        cls, element, style, high_level_description="", background="", aesthetics="", lighting="", medium="",
        color_palette=None,
    ):  # fmt: skip
        caption = {}
        if high_level_description.strip():
            caption["high_level_description"] = high_level_description
        kind = style.get("style", "none")
        if kind != "none":
            # The order of the keys is the one that the models were taught.
            if kind == "photo":
                fields = {"photo": style.get("photo", ""), "medium": medium}
            else:
                fields = {"medium": medium, "art_style": style.get("art_style", "")}
            described = {"aesthetics": aesthetics, "lighting": lighting, **fields}
            palette = palette_of(color_palette)
            caption["style_description"] = described | ({"color_palette": palette} if palette else {})
        elements = element if isinstance(element, list) else []
        caption["compositional_deconstruction"] = {"background": background, "elements": elements}
        return io.NodeOutput(caption)


class JsonPromptExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [BuildJsonPromptIdeogram]


def comfy_entrypoint():
    return JsonPromptExtension()
