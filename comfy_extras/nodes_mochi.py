"""Mochi: empty latents."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_extras.absent_families import absent_node
from comfy_extras.video_inputs import video_size

EmptyMochiLatentVideo = absent_node(
    "EmptyMochiLatentVideo",
    "Mochi",
    category="model/latent/mochi",
    inputs=lambda: video_size(848, 480, 25, shortest=7, length_step=6),
    outputs=lambda: [io.Latent.Output()],
)


class MochiExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [EmptyMochiLatentVideo]


def comfy_entrypoint():
    return MochiExtension()
