"""SeedVR2: videos restored and enlarged."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_extras.absent_families import absent_node
from comfy_extras.core_inputs import MAX_RESOLUTION
from comfy_extras.video_inputs import sides_out

SeedVR2Conditioning = absent_node(
    "SeedVR2Conditioning",
    "SeedVR2",
    display_name="Apply SeedVR2 Conditioning",
    category="model/conditioning",
    search_aliases=["seedvr2", "upscale", "conditioning"],
    inputs=lambda: [io.Model.Input("model"), io.Latent.Input("vae_conditioning", display_name="latent")],
    outputs=lambda: sides_out(latent=False),
)


SeedVR2Preprocess = absent_node(
    "SeedVR2Preprocess",
    "SeedVR2",
    display_name="Pre-Process SeedVR2 Input",
    category="image/pre-processors",
    search_aliases=["seedvr2", "upscale", "video upscale", "pad", "preprocess"],
    inputs=lambda: [io.Image.Input("resized_images")],
    outputs=lambda: [io.Image.Output(display_name="images")],
)


SeedVR2PostProcessing = absent_node(
    "SeedVR2PostProcessing",
    "SeedVR2",
    display_name="Post-Process SeedVR2 Output",
    category="image/post-processors",
    search_aliases=["seedvr2", "upscale", "color correction", "color match", "postprocess"],
    inputs=lambda: [
        io.Image.Input("images"),
        io.Image.Input("original_resized_images"),
        io.Combo.Input("color_correction_method", options=["lab", "wavelet", "adain", "none"], default="lab"),
    ],
    outputs=lambda: [io.Image.Output(display_name="images")],
)


SeedVR2TemporalChunk = absent_node(
    "SeedVR2TemporalChunk",
    "SeedVR2",
    display_name="Split SeedVR2 Latent",
    category="model/latent/batch",
    search_aliases=["seedvr2", "split", "chunk", "temporal", "video upscale", "rebatch"],
    inputs=lambda: [
        io.Latent.Input("latent"),
        io.Int.Input("temporal_overlap", default=0, min=0, max=MAX_RESOLUTION),
        io.DynamicCombo.Input(
            "chunking_mode",
            [
                io.DynamicCombo.Option("auto", []),
                io.DynamicCombo.Option(
                    "manual",
                    [io.Int.Input("frames_per_chunk", default=21, min=1, max=MAX_RESOLUTION, step=4)],
                ),
            ],
        ),
    ],
    outputs=lambda: [
        io.Latent.Output(display_name="latents", is_output_list=True),
        io.Int.Output(display_name="temporal_overlap"),
    ],
)


SeedVR2TemporalMerge = absent_node(
    "SeedVR2TemporalMerge",
    "SeedVR2",
    display_name="Merge SeedVR2 Latents",
    category="model/latent/batch",
    is_input_list=True,
    search_aliases=["seedvr2", "merge", "temporal", "hann", "crossfade"],
    inputs=lambda: [
        io.Latent.Input("latents"),
        io.Int.Input("temporal_overlap", default=0, min=0, max=MAX_RESOLUTION, force_input=True),
    ],
    outputs=lambda: [io.Latent.Output(display_name="latent")],
)


class SeedvrExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [
            SeedVR2Conditioning,
            SeedVR2Preprocess,
            SeedVR2PostProcessing,
            SeedVR2TemporalChunk,
            SeedVR2TemporalMerge,
        ]


def comfy_entrypoint():
    return SeedvrExtension()
