"""LTX-Video: latents, guides, noise levels and guidance."""

from __future__ import annotations

import math

from comfy_api.latest import ComfyExtension, io
from comfy_extras.absent_families import absent_node
from comfy_extras.ltxv_frames import compressed, fitted_audio
from comfy_extras.ltxv_guides import (
    added_guide,
    cropped_guides,
    get_keyframe_idxs,  # noqa: F401 - packs take it from here
    noise_mask_of,
    with_entry,
)
from comfy_extras.video_conditioning import both, encoded, latent_frames, sized, zeros
from comfy_extras.video_inputs import guided, sides_out, video_size

SMALL, LARGE = 1024, 4096
"""Numbers of latent pixels at which the base shift and the largest shift hold."""


def _shift(latent, base_shift, max_shift):
    pixels = LARGE if latent is None else math.prod(latent["samples"].shape[2:])
    return base_shift + (pixels - SMALL) * (max_shift - base_shift) / (LARGE - SMALL)


class EmptyLTXVLatentVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="EmptyLTXVLatentVideo",
            category="model/latent/ltxv",
            description="An empty video latent for LTX-Video.",
            inputs=video_size(768, 512, 97, low=64, step=32, length_step=8),
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, width, height, length, batch_size=1):
        samples = zeros(batch_size, 128, latent_frames(length, 8), height // 32, width // 32)
        return io.NodeOutput({"samples": samples, "downscale_ratio_spacial": 32})

    generate = execute  # the name that node packs call


class LTXVImgToVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LTXVImgToVideo",
            category="model/conditioning/ltxv",
            description="Lets a video begin with given frames.",
            inputs=[
                *guided(),
                io.Image.Input("image"),
                *video_size(768, 512, 97, low=64, step=32, shortest=9, length_step=8),
                io.Float.Input("strength", default=1.0, min=0.0, max=1.0),
            ],
            outputs=sides_out(),
        )

    @classmethod
    def execute(cls, positive, negative, image, vae, width, height, length, batch_size, strength):
        import torch

        begin = encoded(vae, sized(image, width, height))
        samples = zeros(batch_size, 128, latent_frames(length, 8), height // 32, width // 32)
        samples[:, :, : begin.shape[2]] = begin
        mask = torch.ones(batch_size, 1, samples.shape[2], 1, 1, device=samples.device)
        mask[:, :, : begin.shape[2]] = 1.0 - strength
        return io.NodeOutput(positive, negative, {"samples": samples, "noise_mask": mask})

    generate = execute  # the name that node packs call


class LTXVImgToVideoInplace(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LTXVImgToVideoInplace",
            category="model/conditioning/ltxv",
            description="Writes given frames over the beginning of a latent.",
            inputs=[
                io.Vae.Input("vae"),
                io.Image.Input("image"),
                io.Latent.Input("latent"),
                io.Float.Input("strength", default=1.0, min=0.0, max=1.0),
                io.Boolean.Input("bypass", default=False),
            ],
            outputs=[io.Latent.Output(display_name="latent")],
        )

    @classmethod
    def execute(cls, vae, image, latent, strength, bypass=False):
        if bypass:
            return io.NodeOutput(latent)
        samples = latent["samples"].clone()
        _, high, wide = vae.downscale_index_formula
        height, width = samples.shape[-2] * high, samples.shape[-1] * wide
        fits = tuple(image.shape[1:3]) == (height, width)
        begin = encoded(vae, image if fits else sized(image, width, height))
        samples[:, :, : begin.shape[2]] = begin
        mask = noise_mask_of(latent)
        mask[:, :, : begin.shape[2]] = 1.0 - strength
        return io.NodeOutput({"samples": samples, "noise_mask": mask})

    generate = execute  # the name that node packs call


class ModelSamplingLTXV(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ModelSamplingLTXV",
            category="model/patch/ltxv",
            description="The shift of LTX-Video, which grows with the size of the latent.",
            inputs=[
                io.Model.Input("model"),
                io.Float.Input("max_shift", default=2.05, min=0.0, max=100.0, step=0.01),
                io.Float.Input("base_shift", default=0.95, min=0.0, max=100.0, step=0.01),
                io.Latent.Input("latent", optional=True),
            ],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model, max_shift, base_shift, latent=None):
        from comfy_extras.nodes_model_advanced import with_sampling

        shift = _shift(latent, base_shift, max_shift)
        made = with_sampling(
            model, "ModelSamplingFlux", "CONST", lambda sampling: sampling.set_parameters(shift=shift)
        )
        return io.NodeOutput(made)


class LTXVConditioning(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LTXVConditioning",
            category="model/conditioning/ltxv",
            description="Tells the frame rate of the video.",
            inputs=[
                *guided(vae=False),
                io.Float.Input("frame_rate", default=25.0, min=0.0, max=1000.0, step=0.01),
            ],
            outputs=sides_out(latent=False),
        )

    @classmethod
    def execute(cls, positive, negative, frame_rate):
        return io.NodeOutput(*both(positive, negative, {"frame_rate": frame_rate}))


class LTXVScheduler(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LTXVScheduler",
            category="model/sampling/schedulers",
            description="Noise levels for LTX-Video, more of them high the larger the latent is.",
            inputs=[
                io.Int.Input("steps", default=20, min=1, max=10000),
                io.Float.Input("max_shift", default=2.05, min=0.0, max=100.0, step=0.01),
                io.Float.Input("base_shift", default=0.95, min=0.0, max=100.0, step=0.01),
                io.Boolean.Input("stretch", default=True, advanced=True),
                io.Float.Input("terminal", default=0.1, min=0.0, max=0.99, step=0.01, advanced=True),
                io.Latent.Input("latent", optional=True),
            ],
            outputs=[io.Sigmas.Output()],
        )

    @classmethod
    def execute(cls, steps, max_shift, base_shift, stretch, terminal, latent=None):
        import torch

        levels = torch.linspace(1.0, 0.0, steps + 1)[:-1]
        shift = math.exp(_shift(latent, base_shift, max_shift))
        levels = shift / (shift + 1 / levels - 1)
        if stretch:  # so that the last one above 0 is `terminal`
            levels = 1.0 - (1.0 - levels) * (1.0 - terminal) / (1.0 - levels[-1])
        return io.NodeOutput(torch.cat([levels, torch.zeros(1)]))


class GetICLoRAParameters(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="GetICLoRAParameters",
            display_name="Get IC-LoRA Parameters",
            category="model/conditioning/ltxv",
            description="Reads from a model with an IC-LoRA how its guides are to be given.",
            inputs=[io.Model.Input("iclora_model")],
            outputs=[io.Custom("IC_LORA_PARAMETERS").Output(display_name="iclora_parameters")],
            search_aliases=["ic-lora", "ic lora", "iclora", "downscale factor", "reference downscale"],
        )

    @classmethod
    def execute(cls, iclora_model):
        metadata = iclora_model.get_attachment("lora_metadata") or {}
        told = next(
            (value for name, value in metadata.items() if name.endswith("reference_downscale_factor")), 1
        )
        try:
            factor = max(1, round(float(told)))
        except (TypeError, ValueError):
            factor = 1
        return io.NodeOutput({"reference_downscale_factor": factor})


class LTXVAddGuide(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LTXVAddGuide",
            category="model/conditioning/ltxv",
            description=(
                "Gives frames that the video is to show at a time. A video of 8 n + 1 frames is used as a"
                " whole."
            ),
            inputs=[
                *guided(),
                io.Latent.Input("latent"),
                io.Image.Input("image"),
                io.Int.Input("frame_idx", default=0, min=-9999, max=9999),
                io.Float.Input("strength", default=1.0, min=0.0, max=10.0, step=0.01),
                io.Mask.Input("attention_mask", optional=True),
                io.Custom("IC_LORA_PARAMETERS").Input("iclora_parameters", optional=True),
            ],
            outputs=sides_out(),
        )

    @classmethod
    def execute(
        cls,
        positive,
        negative,
        vae,
        latent,
        image,
        frame_idx,
        strength,
        attention_mask=None,
        iclora_parameters=None,
    ):
        how = {"strength": strength, "mask": attention_mask, "lora": iclora_parameters or {}}
        return io.NodeOutput(*added_guide(positive, negative, vae, latent, image, frame_idx, **how))

    generate = execute  # the name that node packs call


class LTXVPreprocess(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LTXVPreprocess",
            display_name="LTXV Preprocess",
            category="video/preprocessors",
            description=(
                "Compresses pictures as videos are: LTX-Video knows frames, and no perfect pictures."
            ),
            inputs=[io.Image.Input("image"), io.Int.Input("img_compression", default=35, min=0, max=100)],
            outputs=[io.Image.Output(display_name="output_image")],
        )

    @classmethod
    def execute(cls, image, img_compression):
        import torch

        if img_compression == 0:
            return io.NodeOutput(image)
        return io.NodeOutput(torch.stack([compressed(one, img_compression) for one in image]))

    preprocess = execute  # the name that node packs call


class LTXVCropGuides(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LTXVCropGuides",
            category="model/conditioning/ltxv",
            description="Takes the guides off the end of a latent.",
            inputs=[*guided(vae=False), io.Latent.Input("latent")],
            outputs=sides_out(),
        )

    @classmethod
    def execute(cls, positive, negative, latent):
        return io.NodeOutput(*cropped_guides(positive, negative, latent))

    crop = execute  # the name that node packs call


class LTXVConcatAVLatent(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LTXVConcatAVLatent",
            display_name="Concat AV Latent",
            category="model/latent/ltxv",
            description=(
                "Joins a video latent and a sound latent; the sound of one that is joined already is "
                "replaced."
            ),
            inputs=[io.Latent.Input("video_latent"), io.Latent.Input("audio_latent")],
            outputs=[io.Latent.Output(display_name="latent")],
        )

    @classmethod
    def execute(cls, video_latent, audio_latent):
        import torch

        from comfy.nested_tensor import NestedTensor

        video, audio = video_latent["samples"], audio_latent["samples"]
        video_mask, audio_mask = video_latent.get("noise_mask"), audio_latent.get("noise_mask")
        if video.is_nested:
            video, before = video.unbind()[:2]
            video_mask = None if video_mask is None else video_mask.unbind()[0]
            audio, audio_mask = fitted_audio(before, audio, audio_mask)
        joined = {**video_latent, **audio_latent, "samples": NestedTensor((video, audio))}
        if video_mask is not None or audio_mask is not None:
            pairs = ((video_mask, video), (audio_mask, audio))
            masks = [torch.ones_like(content) if mask is None else mask for mask, content in pairs]
            joined["noise_mask"] = NestedTensor(masks)
        return io.NodeOutput(joined)


class LTXVSeparateAVLatent(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LTXVSeparateAVLatent",
            display_name="Separate AV Latent",
            category="model/latent/ltxv",
            description="Takes a latent of video and sound apart.",
            inputs=[io.Latent.Input("av_latent")],
            outputs=[
                io.Latent.Output(display_name="video_latent"),
                io.Latent.Output(display_name="audio_latent"),
            ],
        )

    @classmethod
    def execute(cls, av_latent):
        parts = [{**av_latent, "samples": samples} for samples in av_latent["samples"].unbind()[:2]]
        masks = av_latent.get("noise_mask")
        if masks is not None:
            for part, mask in zip(parts, masks.unbind()):
                part["noise_mask"] = mask
        return io.NodeOutput(*parts)


LTXVReferenceAudio = absent_node(
    "LTXVReferenceAudio",
    "LTX-2",
    display_name="LTXV Reference Audio (ID-LoRA)",
    category="model/conditioning/ltxv",
    description="Lets a person speak with the voice of a recording.",
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
    description="How strongly the prompt is followed, apart for video and sound.",
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
    description="Ties video and sound closer together, such as lips and words.",
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
    description="Leads away from what some blocks without their attention give.",
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
    description="How long the video of a prompt naturally is.",
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


get_noise_mask = noise_mask_of  # the name that packs know


def _append_guide_attention_entry(
    positive, negative, pre_filter_count, latent_shape, strength=1.0, attention_mask=None
):
    """Both sides with one more guide for the attention, of so many tokens; mask (F, H, W).."""
    mask = None if attention_mask is None else attention_mask[None, None]
    entry = {
        "pre_filter_count": pre_filter_count, "strength": strength, "pixel_mask": mask,
        "latent_shape": latent_shape,
    }  # fmt: skip
    return tuple(with_entry(side, dict(entry)) for side in (positive, negative))


def __getattr__(name):
    """What packs take from here and is imported when it is named, since it loads torch."""
    if name == "SymmetricPatchifier":
        from comfy.ldm.lightricks.symmetric_patchifier import SymmetricPatchifier

        return SymmetricPatchifier
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
