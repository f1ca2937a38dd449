"""LTX-Video: latents, guides, noise levels and guidance."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_extras.absent_families import absent_node
from comfy_extras.video_inputs import guided, sides_out, video_size

EmptyLTXVLatentVideo = absent_node(
    "EmptyLTXVLatentVideo",
    "LTX-Video",
    category="model/latent/ltxv",
    inputs=lambda: video_size(768, 512, 97, low=64, step=32, length_step=8),
    outputs=lambda: [io.Latent.Output()],
)


LTXVImgToVideo = absent_node(
    "LTXVImgToVideo",
    "LTX-Video",
    category="model/conditioning/ltxv",
    inputs=lambda: [
        *guided(),
        io.Image.Input("image"),
        *video_size(768, 512, 97, low=64, step=32, shortest=9, length_step=8),
        io.Float.Input("strength", default=1.0, min=0.0, max=1.0),
    ],
    outputs=lambda: sides_out(),
)


LTXVImgToVideoInplace = absent_node(
    "LTXVImgToVideoInplace",
    "LTX-Video",
    category="model/conditioning/ltxv",
    inputs=lambda: [
        io.Vae.Input("vae"),
        io.Image.Input("image"),
        io.Latent.Input("latent"),
        io.Float.Input("strength", default=1.0, min=0.0, max=1.0),
        io.Boolean.Input("bypass", default=False),
    ],
    outputs=lambda: [io.Latent.Output(display_name="latent")],
)


ModelSamplingLTXV = absent_node(
    "ModelSamplingLTXV",
    "LTX-Video",
    category="model/patch/ltxv",
    inputs=lambda: [
        io.Model.Input("model"),
        io.Float.Input("max_shift", default=2.05, min=0.0, max=100.0, step=0.01),
        io.Float.Input("base_shift", default=0.95, min=0.0, max=100.0, step=0.01),
        io.Latent.Input("latent", optional=True),
    ],
    outputs=lambda: [io.Model.Output()],
)


LTXVConditioning = absent_node(
    "LTXVConditioning",
    "LTX-Video",
    category="model/conditioning/ltxv",
    inputs=lambda: [
        *guided(vae=False),
        io.Float.Input("frame_rate", default=25.0, min=0.0, max=1000.0, step=0.01),
    ],
    outputs=lambda: sides_out(latent=False),
)


LTXVScheduler = absent_node(
    "LTXVScheduler",
    "LTX-Video",
    category="model/sampling/schedulers",
    inputs=lambda: [
        io.Int.Input("steps", default=20, min=1, max=10000),
        io.Float.Input("max_shift", default=2.05, min=0.0, max=100.0, step=0.01),
        io.Float.Input("base_shift", default=0.95, min=0.0, max=100.0, step=0.01),
        io.Boolean.Input("stretch", default=True, advanced=True),
        io.Float.Input("terminal", default=0.1, min=0.0, max=0.99, step=0.01, advanced=True),
        io.Latent.Input("latent", optional=True),
    ],
    outputs=lambda: [io.Sigmas.Output()],
)


GetICLoRAParameters = absent_node(
    "GetICLoRAParameters",
    "LTX-Video",
    display_name="Get IC-LoRA Parameters",
    category="model/conditioning/ltxv",
    search_aliases=["ic-lora", "ic lora", "iclora", "downscale factor", "reference downscale"],
    inputs=lambda: [io.Model.Input("iclora_model")],
    outputs=lambda: [io.Custom("IC_LORA_PARAMETERS").Output(display_name="iclora_parameters")],
)


LTXVAddGuide = absent_node(
    "LTXVAddGuide",
    "LTX-Video",
    category="model/conditioning/ltxv",
    inputs=lambda: [
        *guided(),
        io.Latent.Input("latent"),
        io.Image.Input("image"),
        io.Int.Input("frame_idx", default=0, min=-9999, max=9999),
        io.Float.Input("strength", default=1.0, min=0.0, max=10.0, step=0.01),
        io.Mask.Input("attention_mask", optional=True),
        io.Custom("IC_LORA_PARAMETERS").Input("iclora_parameters", optional=True),
    ],
    outputs=lambda: sides_out(),
)


LTXVPreprocess = absent_node(
    "LTXVPreprocess",
    "LTX-Video",
    display_name="LTXV Preprocess",
    category="video/preprocessors",
    inputs=lambda: [io.Image.Input("image"), io.Int.Input("img_compression", default=35, min=0, max=100)],
    outputs=lambda: [io.Image.Output(display_name="output_image")],
)


LTXVCropGuides = absent_node(
    "LTXVCropGuides",
    "LTX-Video",
    category="model/conditioning/ltxv",
    inputs=lambda: [*guided(vae=False), io.Latent.Input("latent")],
    outputs=lambda: sides_out(),
)


LTXVConcatAVLatent = absent_node(
    "LTXVConcatAVLatent",
    "LTX-Video",
    display_name="Concat AV Latent",
    category="model/latent/ltxv",
    inputs=lambda: [io.Latent.Input("video_latent"), io.Latent.Input("audio_latent")],
    outputs=lambda: [io.Latent.Output(display_name="latent")],
)


LTXVSeparateAVLatent = absent_node(
    "LTXVSeparateAVLatent",
    "LTX-Video",
    display_name="Separate AV Latent",
    category="model/latent/ltxv",
    inputs=lambda: [io.Latent.Input("av_latent")],
    outputs=lambda: [
        io.Latent.Output(display_name="video_latent"),
        io.Latent.Output(display_name="audio_latent"),
    ],
)


LTXVReferenceAudio = absent_node(
    "LTXVReferenceAudio",
    "LTX-2",
    display_name="LTXV Reference Audio (ID-LoRA)",
    category="model/conditioning/ltxv",
    inputs=lambda: [
        io.Model.Input("model"),
        *guided(vae=False),
        io.Audio.Input("reference_audio"),
        io.Vae.Input("audio_vae", display_name="Audio VAE"),
        io.Float.Input("identity_guidance_scale", default=3.0, min=0.0, max=100.0, step=0.01, round=0.01),
        io.Float.Input("start_percent", default=0.0, min=0.0, max=1.0, step=0.001, advanced=True),
        io.Float.Input("end_percent", default=1.0, min=0.0, max=1.0, step=0.001, advanced=True),
    ],
    outputs=lambda: [
        io.Model.Output(),
        io.Conditioning.Output(display_name="positive"),
        io.Conditioning.Output(display_name="negative"),
    ],
)


LTXVDualCFGGuider = absent_node(
    "LTXVDualCFGGuider",
    "LTX-2",
    display_name="LTXV Dual CFG Guider",
    category="model/sampling/guiders",
    inputs=lambda: [
        io.Model.Input("model"),
        *guided(vae=False),
        io.Float.Input("video_cfg", default=3.0, min=0.0, max=100.0, step=0.1, round=0.01),
        io.Float.Input("audio_cfg", default=7.0, min=0.0, max=100.0, step=0.1, round=0.01),
    ],
    outputs=lambda: [io.Guider.Output()],
)


LTXVModalityGuidance = absent_node(
    "LTXVModalityGuidance",
    "LTX-2",
    display_name="LTXV Modality Guidance (A/V coupling)",
    category="advanced/guidance",
    inputs=lambda: [
        io.Model.Input("model"),
        io.Float.Input("modality_scale", default=3.0, min=1.0, max=100.0, step=0.1, round=0.01),
        io.Float.Input("start_percent", default=0.0, min=0.0, max=1.0, step=0.001, advanced=True),
        io.Float.Input("end_percent", default=1.0, min=0.0, max=1.0, step=0.001, advanced=True),
    ],
    outputs=lambda: [io.Model.Output()],
)


LTXVSpatioTemporalGuidance = absent_node(
    "LTXVSpatioTemporalGuidance",
    "LTX-Video",
    display_name="LTXV Spatio-Temporal Guidance (STG)",
    category="advanced/guidance",
    inputs=lambda: [
        io.Model.Input("model"),
        io.Float.Input("scale", default=1.0, min=0.0, max=100.0, step=0.01, round=0.01),
        io.String.Input("blocks", default="29"),
        io.Float.Input("start_percent", default=0.0, min=0.0, max=1.0, step=0.001, advanced=True),
        io.Float.Input("end_percent", default=1.0, min=0.0, max=1.0, step=0.001, advanced=True),
    ],
    outputs=lambda: [io.Model.Output()],
)


LTXVDurationPredictor = absent_node(
    "LTXVDurationPredictor",
    "LTX-2",
    display_name="LTXV Duration Predictor",
    category="conditioning/video_models",
    search_aliases=["auto duration", "duration head", "num_frames"],
    inputs=lambda: [
        io.Model.Input("model"),
        io.Conditioning.Input("positive"),
        io.ModelPatch.Input("duration_head"),
        io.Float.Input("frame_rate", default=24.0, min=1.0, max=120.0, step=0.01),
        io.Float.Input("min_seconds", default=1.0, min=0.5, max=120.0, step=0.1),
        io.Float.Input("max_seconds", default=20.0, min=0.5, max=120.0, step=0.1),
    ],
    outputs=lambda: [io.Int.Output(display_name="num_frames"), io.Float.Output(display_name="seconds")],
)


class LtExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [
            EmptyLTXVLatentVideo,
            LTXVImgToVideo,
            LTXVImgToVideoInplace,
            ModelSamplingLTXV,
            LTXVConditioning,
            LTXVScheduler,
            GetICLoRAParameters,
            LTXVAddGuide,
            LTXVPreprocess,
            LTXVCropGuides,
            LTXVConcatAVLatent,
            LTXVSeparateAVLatent,
            LTXVReferenceAudio,
            LTXVDualCFGGuider,
            LTXVModalityGuidance,
            LTXVSpatioTemporalGuidance,
            LTXVDurationPredictor,
        ]


def comfy_entrypoint():
    return LtExtension()
