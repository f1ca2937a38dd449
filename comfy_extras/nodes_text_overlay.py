"""Text on pictures."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io


class TextOverlay(io.ComfyNode):
    """Captions."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TextOverlay",
            display_name="Draw Text Overlay",
            category="text",
            description="Writes a text on each picture; it is wrapped, and made smaller if it is too long.",
            search_aliases=[
                "text",
                "label",
                "caption",
                "subtitle",
                "watermark",
                "title",
                "addlabel",
                "overlay",
            ],
            inputs=[
                io.Image.Input("images"),
                io.String.Input(
                    "text",
                    default="",
                    multiline=True,
                    tooltip="\\\\n and \\\\t are a new line and a tabulator.",
                ),
                io.Float.Input(
                    "font_size",
                    default=5.0,
                    min=0.5,
                    max=50.0,
                    step=0.5,
                    tooltip="In percent of the height of the picture.",
                ),
                io.Color.Input("color", default="#ffffff", tooltip="Colour of the text."),
                io.Combo.Input("position", options=["top", "bottom"], default="top"),
                io.Combo.Input("align", options=["left", "center", "right"], default="left"),
                io.Boolean.Input("outline", default=True, tooltip="Draw a black line around the letters."),
            ],
            outputs=[io.Image.Output(display_name="images")],
        )

    @classmethod
    def execute(cls, images, text, font_size, color, position, align, outline):
        if not text.strip():
            return io.NodeOutput(images)
        from comfy.lettering import lettered

        text = text.replace("\\n", "\n").replace("\\t", "\t")
        height, width = images.shape[1:3]
        layer = lettered(
            text,
            width,
            height,
            percent=font_size,
            color=color,
            position=position,
            align=align,
            outline=outline,
        ).to(images)
        opacity = layer[..., 3:]
        out = images.clone()
        out[..., :3] = images[..., :3] * (1 - opacity) + layer[..., :3] * opacity
        if images.shape[-1] == 4:  # letters are seen on transparent pictures too
            out[..., 3:] = images[..., 3:] + opacity * (1 - images[..., 3:])
        return io.NodeOutput(out)


class TextOverlayExtension(ComfyExtension):
    """The node of this topic."""

    async def get_node_list(self):
        return [TextOverlay]


def comfy_entrypoint():
    return TextOverlayExtension()
