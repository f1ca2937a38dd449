"""Cosmos: empty latents, and latents that begin or end with given pictures."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_extras.absent_families import absent_node
from comfy_extras.video_inputs import video_size

EmptyCosmosLatentVideo = absent_node(
    "EmptyCosmosLatentVideo",
    "Cosmos",
    category="model/latent/cosmos",
    inputs=lambda: video_size(1280, 704, 121, length_step=8),
    outputs=lambda: [io.Latent.Output()],
)


CosmosImageToVideoLatent = absent_node(
    "CosmosImageToVideoLatent",
    "Cosmos",
    category="model/conditioning/cosmos",
    inputs=lambda: [
        io.Vae.Input("vae"),
        *video_size(1280, 704, 121, length_step=8),
        io.Image.Input("start_image", optional=True),
        io.Image.Input("end_image", optional=True),
    ],
    outputs=lambda: [io.Latent.Output()],
)


CosmosPredict2ImageToVideoLatent = absent_node(
    "CosmosPredict2ImageToVideoLatent",
    "Cosmos",
    category="model/conditioning/cosmos",
    inputs=lambda: [
        io.Vae.Input("vae"),
        *video_size(848, 480, 93),
        io.Image.Input("start_image", optional=True),
        io.Image.Input("end_image", optional=True),
    ],
    outputs=lambda: [io.Latent.Output()],
)


class CosmosExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [EmptyCosmosLatentVideo, CosmosImageToVideoLatent, CosmosPredict2ImageToVideoLatent]


def comfy_entrypoint():
    return CosmosExtension()
