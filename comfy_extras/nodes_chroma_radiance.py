"""Chroma Radiance, which samples pixels instead of latents."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_extras.absent_families import absent_node
from comfy_extras.video_inputs import batch_size, frame_size

EmptyChromaRadianceLatentImage = absent_node(
    "EmptyChromaRadianceLatentImage",
    "Chroma Radiance",
    category="model/latent/chroma radiance",
    inputs=lambda: [*frame_size(1024, 1024), batch_size()],
    outputs=lambda: [io.Latent.Output()],
)


ChromaRadianceOptions = absent_node(
    "ChromaRadianceOptions",
    "Chroma Radiance",
    category="model/patch/chroma radiance",
    inputs=lambda: [
        io.Model.Input("model"),
        io.Boolean.Input("preserve_wrapper", default=True),
        io.Float.Input("start_sigma", default=1.0, min=0.0, max=1.0, advanced=True),
        io.Float.Input("end_sigma", default=0.0, min=0.0, max=1.0, advanced=True),
        io.Int.Input("nerf_tile_size", default=-1, min=-1, advanced=True),
        io.Boolean.Input("force_sequential_txt_ids", default=False, advanced=True),
    ],
    outputs=lambda: [io.Model.Output()],
)


class ChromaRadianceExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [EmptyChromaRadianceLatentImage, ChromaRadianceOptions]


def comfy_entrypoint():
    return ChromaRadianceExtension()
