"""Stable Zero123 and SV3D: other views of a thing in a picture."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_extras.absent_families import absent_node
from comfy_extras.video_inputs import batch_size, frame_size, sides_out

StableZero123_Conditioning = absent_node(
    "StableZero123_Conditioning",
    "Stable Zero123 and SV3D",
    category="model/conditioning/stable zero123",
    inputs=lambda: [
        io.ClipVision.Input("clip_vision"),
        io.Image.Input("init_image"),
        io.Vae.Input("vae"),
        *frame_size(256, 256, step=8),
        batch_size(),
        io.Float.Input("elevation", default=0.0, min=-180.0, max=180.0, step=0.1, round=False),
        io.Float.Input("azimuth", default=0.0, min=-180.0, max=180.0, step=0.1, round=False),
    ],
    outputs=lambda: sides_out(),
)


StableZero123_Conditioning_Batched = absent_node(
    "StableZero123_Conditioning_Batched",
    "Stable Zero123 and SV3D",
    category="model/conditioning/stable zero123",
    inputs=lambda: [
        io.ClipVision.Input("clip_vision"),
        io.Image.Input("init_image"),
        io.Vae.Input("vae"),
        *frame_size(256, 256, step=8),
        batch_size(),
        io.Float.Input("elevation", default=0.0, min=-180.0, max=180.0, step=0.1, round=False),
        io.Float.Input("azimuth", default=0.0, min=-180.0, max=180.0, step=0.1, round=False),
        io.Float.Input(
            "elevation_batch_increment",
            default=0.0,
            min=-180.0,
            max=180.0,
            step=0.1,
            round=False,
            advanced=True,
        ),
        io.Float.Input(
            "azimuth_batch_increment",
            default=0.0,
            min=-180.0,
            max=180.0,
            step=0.1,
            round=False,
            advanced=True,
        ),
    ],
    outputs=lambda: sides_out(),
)


SV3D_Conditioning = absent_node(
    "SV3D_Conditioning",
    "Stable Zero123 and SV3D",
    category="model/conditioning/stable video 3d",
    inputs=lambda: [
        io.ClipVision.Input("clip_vision"),
        io.Image.Input("init_image"),
        io.Vae.Input("vae"),
        *frame_size(576, 576, step=8),
        io.Int.Input("video_frames", default=21, min=1, max=4096),
        io.Float.Input("elevation", default=0.0, min=-90.0, max=90.0, step=0.1, round=False),
    ],
    outputs=lambda: sides_out(),
)


class Stable3dExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [StableZero123_Conditioning, StableZero123_Conditioning_Batched, SV3D_Conditioning]


def comfy_entrypoint():
    return Stable3dExtension()
