"""Hunyuan3D: shapes from pictures."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_extras.absent_families import absent_node
from comfy_extras.video_inputs import batch_size, sides_out

EmptyLatentHunyuan3Dv2 = absent_node(
    "EmptyLatentHunyuan3Dv2",
    "Hunyuan3D",
    category="model/latent/hunyuan 3d",
    inputs=lambda: [io.Int.Input("resolution", default=3072, min=1, max=8192), batch_size()],
    outputs=lambda: [io.Latent.Output()],
)


Hunyuan3Dv2Conditioning = absent_node(
    "Hunyuan3Dv2Conditioning",
    "Hunyuan3D",
    category="model/conditioning/hunyuan 3d",
    inputs=lambda: [io.ClipVisionOutput.Input("clip_vision_output")],
    outputs=lambda: sides_out(latent=False),
)


Hunyuan3Dv2ConditioningMultiView = absent_node(
    "Hunyuan3Dv2ConditioningMultiView",
    "Hunyuan3D",
    category="model/conditioning/hunyuan 3d",
    inputs=lambda: [
        io.ClipVisionOutput.Input("front", optional=True),
        io.ClipVisionOutput.Input("left", optional=True),
        io.ClipVisionOutput.Input("back", optional=True),
        io.ClipVisionOutput.Input("right", optional=True),
    ],
    outputs=lambda: sides_out(latent=False),
)


VAEDecodeHunyuan3D = absent_node(
    "VAEDecodeHunyuan3D",
    "Hunyuan3D",
    category="model/latent/hunyuan 3d",
    inputs=lambda: [
        io.Latent.Input("samples"),
        io.Vae.Input("vae"),
        io.Int.Input("num_chunks", default=8000, min=1000, max=500000, advanced=True),
        io.Int.Input("octree_resolution", default=256, min=16, max=512, advanced=True),
    ],
    outputs=lambda: [io.Voxel.Output()],
)


class Hunyuan3dExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [
            EmptyLatentHunyuan3Dv2,
            Hunyuan3Dv2Conditioning,
            Hunyuan3Dv2ConditioningMultiView,
            VAEDecodeHunyuan3D,
        ]


def comfy_entrypoint():
    return Hunyuan3dExtension()
