"""Pictures and masks that the user paints."""

from __future__ import annotations

import os

import folder_paths
from comfy_api.latest import ComfyExtension, io, ui


def _painted(name, width, height):
    """What was painted, (H, W, 4) in 0..1, in the size of the picture below it."""
    import numpy as np
    import torch
    from PIL import Image

    import node_helpers

    path = folder_paths.get_annotated_filepath(name)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"The painting '{name}' is not in the input folder any more. Paint it again.")
    with node_helpers.pillow(Image.open, path) as file:
        painting = file.convert("RGBA")
    if painting.size != (width, height):
        painting = painting.resize((width, height), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(painting, dtype=np.float32) / 255)


class PainterNode(io.ComfyNode):
    """A canvas to paint on."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Painter",
            display_name="Painter",
            category="image",
            description="A canvas to paint on; the mask is what was painted.",
            inputs=[
                io.Image.Input(
                    "image", optional=True, tooltip="A picture to paint on, instead of an empty canvas."
                ),
                io.String.Input(
                    "mask",
                    default="",
                    socketless=True,
                    extra_dict={"widgetType": "PAINTER", "image_upload": True},
                ),
                _side("width"),
                _side("height"),
                io.Color.Input("bg_color", default="#000000"),
            ],
            outputs=[io.Image.Output(), io.Mask.Output()],
            has_intermediate_output=True,
        )

    @classmethod
    def execute(cls, mask, width, height, bg_color="#000000", image=None):
        import torch

        from comfy.color_spaces import parse_hex

        if image is None:
            below = torch.tensor(parse_hex(bg_color) or (0.0, 0.0, 0.0)).repeat(1, height, width, 1)
        else:
            below = image[:1]
        rows, columns = below.shape[1:3]
        if not mask.strip():
            return io.NodeOutput(below, torch.zeros(1, rows, columns), ui=ui.PreviewImage(below))
        painting = _painted(mask, columns, rows)[None].to(below.device)
        opacity = painting[..., 3:]
        picture = painting[..., :3] * opacity + below[..., :3] * (1 - opacity)
        return io.NodeOutput(picture, opacity[..., 0], ui=ui.PreviewImage(picture))

    @classmethod
    def fingerprint_inputs(cls, mask, width, height, bg_color="#000000", image=None):
        from comfy.picture_files import content_hash

        if not mask.strip():
            return ""
        path = folder_paths.get_annotated_filepath(mask)
        return content_hash(path) if os.path.isfile(path) else ""


def _side(name):
    hidden = {"hidden": True}
    return io.Int.Input(name, default=512, min=64, max=4096, step=64, socketless=True, extra_dict=hidden)


class PainterExtension(ComfyExtension):
    """The node of this topic."""

    async def get_node_list(self):
        return [PainterNode]


def comfy_entrypoint():
    return PainterExtension()
