"""TripoSplat: Gaussian splats from a picture."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_extras.absent_families import absent_node
from comfy_extras.video_inputs import sides_out

TripoSplatPreprocessImage = absent_node(
    "TripoSplatPreprocessImage",
    "TripoSplat",
    display_name="TripoSplat Preprocess Image",
    category="model/conditioning/triposplat",
    inputs=lambda: [
        io.Image.Input("image"),
        io.Mask.Input("mask"),
        io.Int.Input("erode_radius", default=1, min=0, max=16),
        io.Int.Input("size", default=1024, min=256, max=4096, step=16),
    ],
    outputs=lambda: [io.Image.Output(display_name="image")],
)


TripoSplatConditioning = absent_node(
    "TripoSplatConditioning",
    "TripoSplat",
    display_name="TripoSplat Conditioning",
    category="model/conditioning/triposplat",
    inputs=lambda: [io.ClipVision.Input("clip_vision"), io.Vae.Input("vae"), io.Image.Input("image")],
    outputs=lambda: sides_out(),
)


VAEDecodeTripoSplat = absent_node(
    "VAEDecodeTripoSplat",
    "TripoSplat",
    display_name="TripoSplat Decode",
    category="model/latent/triposplat",
    inputs=lambda: [
        io.Latent.Input("samples"),
        io.Vae.Input("vae"),
        io.Int.Input("num_gaussians", default=262144, min=32768, max=1048576, step=32),
        io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF),
    ],
    outputs=lambda: [io.Splat.Output(display_name="splat")],
)


TripoSplatSamplingPreview = absent_node(
    "TripoSplatSamplingPreview",
    "TripoSplat",
    display_name="TripoSplat Sampling Preview",
    category="model/latent/triposplat",
    inputs=lambda: [
        io.Model.Input("model"),
        io.Vae.Input("vae"),
        io.Int.Input("octree_level", default=5, min=2, max=8, advanced=True),
        io.Int.Input("num_gaussians", default=16384, min=1024, max=262144, step=32),
        io.Float.Input("yaw", default=90.0, min=-360.0, max=360.0, step=1.0, advanced=True),
        io.Float.Input("pitch", default=15.0, min=-89.0, max=89.0, step=1.0, advanced=True),
        io.Int.Input("point_size", default=3, min=1, max=16),
    ],
    outputs=lambda: [io.Model.Output()],
)


class TriposplatExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [
            TripoSplatPreprocessImage,
            TripoSplatConditioning,
            VAEDecodeTripoSplat,
            TripoSplatSamplingPreview,
        ]


def comfy_entrypoint():
    return TriposplatExtension()
