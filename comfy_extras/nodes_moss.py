"""MOSS-Image: prompts with a layout, editing and control."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_extras.absent_families import absent_node
from comfy_extras.video_inputs import frame_size, guided, sides_out

TextEncodeMOSSImageEdit = absent_node(
    "TextEncodeMOSSImageEdit",
    "MOSS-Image",
    display_name="Text Encode (MOSS-Image Edit)",
    category="model/conditioning/moss",
    inputs=lambda: [
        io.Clip.Input("clip"),
        io.Autogrow.Input(
            "images", io.Autogrow.TemplateNames(io.Image.Input("image"), names=["image_0", "image_1"], min=1)
        ),
        io.String.Input("prompt", default="", multiline=True, dynamic_prompts=True),
        io.Combo.Input("template", options=["Moss-Image-Edit"], default="Moss-Image-Edit"),
        io.Float.Input("megapixels", default=1.0, min=0.01, max=16.0, step=0.01),
        io.Vae.Input("vae", optional=True),
    ],
    outputs=lambda: [io.Conditioning.Output()],
)


MOSSImageLayoutPrompt = absent_node(
    "MOSSImageLayoutPrompt",
    "MOSS-Image",
    display_name="MOSS-Image Layout Prompt",
    category="model/conditioning/moss",
    inputs=lambda: [
        io.Array.Input("element"),
        io.String.Input("prompt", default="", multiline=True, dynamic_prompts=True),
        *frame_size(1024, 1024),
        io.Combo.Input("format", options=["1", "2"], default="1"),
    ],
    outputs=lambda: [io.String.Output(display_name="prompt")],
)


MOSSImageControl = absent_node(
    "MOSSImageControl",
    "MOSS-Image",
    display_name="MOSS-Image Control",
    category="model/conditioning/moss",
    inputs=lambda: [
        *guided(),
        io.Float.Input("strength", default=1.0, min=0.0, max=10.0, step=0.01),
        io.Float.Input("start_percent", default=0.0, min=0.0, max=1.0, step=0.001),
        io.Float.Input("end_percent", default=1.0, min=0.0, max=1.0, step=0.001),
        io.Image.Input("color_map", optional=True),
        io.Image.Input("depth_map", optional=True),
    ],
    outputs=lambda: sides_out(latent=False),
)


class MossExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [TextEncodeMOSSImageEdit, MOSSImageLayoutPrompt, MOSSImageControl]


def comfy_entrypoint():
    return MossExtension()
