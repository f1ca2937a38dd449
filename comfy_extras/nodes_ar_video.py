"""Video models that make one block of frames after the other."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_extras.absent_families import absent_node

EmptyARVideoLatent = absent_node(
    "EmptyARVideoLatent",
    "Wan 2.1 (autoregressive)",
    category="model/latent/autoregressive",
    inputs=lambda: [
        io.Int.Input("width", default=832, min=16, max=8192, step=16),
        io.Int.Input("height", default=480, min=16, max=8192, step=16),
        io.Int.Input("length", default=81, min=1, max=1024, step=4),
        io.Int.Input("batch_size", default=1, min=1, max=64),
    ],
    outputs=lambda: [io.Latent.Output()],
)


SamplerARVideo = absent_node(
    "SamplerARVideo",
    "Wan 2.1 (autoregressive)",
    display_name="Sampler AR Video",
    category="model/sampling/samplers",
    description="A sampler that makes one block of frames after the other.",
    inputs=lambda: [io.Int.Input("num_frame_per_block", default=1, min=1, max=64)],
    outputs=lambda: [io.Sampler.Output()],
)


ARVideoI2V = absent_node(
    "ARVideoI2V",
    "Wan 2.1 (autoregressive)",
    category="model/conditioning/autoregressive",
    inputs=lambda: [
        io.Model.Input("model"),
        io.Vae.Input("vae"),
        io.Image.Input("start_image"),
        io.Int.Input("width", default=832, min=16, max=8192, step=16),
        io.Int.Input("height", default=480, min=16, max=8192, step=16),
        io.Int.Input("length", default=81, min=1, max=1024, step=4),
        io.Int.Input("batch_size", default=1, min=1, max=64),
    ],
    outputs=lambda: [io.Model.Output(), io.Latent.Output()],
)


class ArVideoExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [EmptyARVideoLatent, SamplerARVideo, ARVideoI2V]


def comfy_entrypoint():
    return ArVideoExtension()
