"""The core nodes, with the class names, inputs and categories that workflows and node packs know.

A node declares its inputs in `INPUT_TYPES` and does its work in the method that `FUNCTION` names. Heavy
modules (torch, the model library, Pillow) are imported by the methods that use them, and called through their
module: the lists of nodes need none of them, and node packs can replace functions. Nodes that only change
data stand in `comfy_extras/core_<topic>.py`.
"""

from __future__ import annotations

import importlib
import logging
import sys
import threading

import comfy.interruption
import folder_paths
import latent_preview
from comfy import sampler_names, taesd
from comfy.cli_args import args
from comfy_execution import node_packs
from comfy_extras.core_conditioning import (
    CLIPTextEncode,
    ConditioningAverage,
    ConditioningCombine,
    ConditioningConcat,
    ConditioningMultiply,
    ConditioningSetArea,
    ConditioningSetAreaPercentage,
    ConditioningSetAreaStrength,
    ConditioningSetMask,
    ConditioningSetTimestepRange,
    ConditioningZeroOut,
    InpaintModelConditioning,
)
from comfy_extras.core_controlnet import (
    ControlNetApply,
    ControlNetApplyAdvanced,
    ControlNetLoader,
    DiffControlNetLoader,
)
from comfy_extras.core_files import (
    LoadImage,
    LoadImageMask,
    LoadImageOutput,
    LoadLatent,
    PreviewImage,
    SaveImage,
    SaveLatent,
)
from comfy_extras.core_gligen import GLIGENLoader, GLIGENTextBoxApply
from comfy_extras.core_images import (
    EmptyImage,
    ImageBatch,
    ImageInvert,
    ImagePadForOutpaint,
    ImageScale,
    ImageScaleBy,
)
from comfy_extras.core_inputs import MAX_RESOLUTION, float_input, int_input
from comfy_extras.core_latents import (
    EmptyLatentImage,
    LatentBlend,
    LatentComposite,
    LatentCrop,
    LatentFlip,
    LatentFromBatch,
    LatentRotate,
    LatentUpscale,
    LatentUpscaleBy,
    RepeatLatentBatch,
    SetLatentNoiseMask,
    VAEDecode,
    VAEDecodeTiled,
    VAEEncode,
    VAEEncodeForInpaint,
    VAEEncodeTiled,
)
from comfy_extras.core_loaders import (
    CheckpointLoader,
    CLIPLoader,
    DiffusersLoader,
    DualCLIPLoader,
    UNETLoader,
)
from comfy_extras.core_vision import (
    CLIPVisionEncode,
    CLIPVisionLoader,
    StyleModelApply,
    StyleModelLoader,
    unCLIPCheckpointLoader,
    unCLIPConditioning,
)
from comfy_depot import hooks as depot

__all__ = ["MAX_RESOLUTION"]


def before_node_execution():
    """Called by the executor before each node: stop here if the user asked for it."""
    comfy.interruption.throw_exception_if_processing_interrupted()


def interrupt_processing(value=True):
    """Ask the running node to stop (or take the wish back)."""
    comfy.interruption.interrupt_current_processing(value)


# --- models ------------------------------------------------------------------------------------------


def start_loading_the_model_library() -> None:
    """Import `comfy.sd` on a thread of its own: it takes seconds, once. Whoever imports it next waits for it.
    """
    if "comfy.sd" not in sys.modules:
        threading.Thread(target=importlib.import_module, args=("comfy.sd",), daemon=True).start()


class CheckpointLoaderSimple:
    @classmethod
    def INPUT_TYPES(cls):
        tooltip = "The checkpoint file: diffusion model, text encoder and VAE in one."
        return {
            "required": {"ckpt_name": (folder_paths.get_filename_list("checkpoints"), {"tooltip": tooltip})}
        }

    RETURN_TYPES = ("MODEL", "CLIP", "VAE")
    OUTPUT_TOOLTIPS = (
        "The diffusion model, which removes noise from latents.",
        "The text encoder, which turns prompts into conditioning.",
        "The VAE, which turns latents into pictures and back.",
    )
    FUNCTION = "load_checkpoint"
    CATEGORY = "loaders"
    DESCRIPTION = "Loads a checkpoint: everything that is needed to make pictures from a prompt."

    def load_checkpoint(self, ckpt_name):
        start_loading_the_model_library()  # beside the download that the next line may wait for
        path = folder_paths.get_full_path_or_raise("checkpoints", ckpt_name)
        import comfy.sd

        embeddings = folder_paths.get_folder_paths("embeddings")
        loaded = comfy.sd.load_checkpoint_guess_config(
            path, output_vae=True, output_clip=True, embedding_directory=embeddings
        )
        return loaded[:3]


class VAELoader:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"vae_name": (cls.vae_list(),)}}

    RETURN_TYPES = ("VAE",)
    FUNCTION = "load_vae"
    CATEGORY = "loaders"
    DESCRIPTION = "Loads a VAE from its own file, or a tiny one (TAESD) from the files of vae_approx."

    @staticmethod
    def vae_list(s=None):
        tiny = taesd.available(folder_paths.get_filename_list("vae_approx"))
        return [*folder_paths.get_filename_list("vae"), *tiny]

    @staticmethod
    def load_taesd(name):
        import comfy.taesd.taesd

        halves = taesd.files_of(name, folder_paths.get_filename_list("vae_approx"))
        files = halves or (f"{name}_encoder.safetensors", f"{name}_decoder.safetensors")
        paths = [folder_paths.get_full_path_or_raise("vae_approx", file) for file in files]
        return comfy.taesd.taesd.weights_of(name, *paths)

    @depot.keeps_resident("vae_name", folder="vae")
    def load_vae(self, vae_name):
        start_loading_the_model_library()
        if vae_name in taesd.LATENTS:
            weights, metadata = self.load_taesd(vae_name), None
        else:
            path = folder_paths.get_full_path_or_raise("vae", vae_name)
            import comfy.utils

            weights, metadata = comfy.utils.load_torch_file(path, return_metadata=True)
        import comfy.sd

        vae = comfy.sd.VAE(sd=weights, metadata=metadata)
        vae.throw_exception_if_invalid()
        return (vae,)


def _lora_strength(of: str):
    return float_input(1.0, -100.0, 100.0, 0.01, f"How much the LoRA changes the {of}; may be negative.")


class LoraLoader:
    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "model": ("MODEL", {"tooltip": "The diffusion model that is changed."}),
                "clip": ("CLIP", {"tooltip": "The text encoder that is changed."}),
                "lora_name": (folder_paths.get_filename_list("loras"), {"tooltip": "The LoRA file."}),
                "strength_model": _lora_strength("diffusion model"),
                "strength_clip": _lora_strength("text encoder"),
            }
        }

    RETURN_TYPES = ("MODEL", "CLIP")
    OUTPUT_TOOLTIPS = ("The changed diffusion model.", "The changed text encoder.")
    FUNCTION = "load_lora"
    CATEGORY = "loaders"
    DESCRIPTION = (
        "Changes a diffusion model and its text encoder by a LoRA, for example to another style. Several "
        "LoRA nodes can follow each other."
    )

    def load_lora(self, model, clip, lora_name, strength_model, strength_clip):
        if strength_model == 0 and strength_clip == 0:
            return (model, clip)
        start_loading_the_model_library()
        path = folder_paths.get_full_path_or_raise("loras", lora_name)
        import comfy.lora_file

        return comfy.lora_file.load_lora_file(path, model, clip, strength_model, strength_clip)


class LoraLoaderModelOnly(LoraLoader):
    @classmethod
    def INPUT_TYPES(cls):
        inputs = super().INPUT_TYPES()["required"]
        return {"required": {name: inputs[name] for name in ("model", "lora_name", "strength_model")}}

    RETURN_TYPES = ("MODEL",)
    OUTPUT_TOOLTIPS = ("The changed diffusion model.",)
    FUNCTION = "load_lora_model_only"
    DESCRIPTION = "Changes a diffusion model by a LoRA and leaves the text encoder as it is."

    def load_lora_model_only(self, model, lora_name, strength_model):
        return (self.load_lora(model, None, lora_name, strength_model, 0)[0],)


class CLIPSetLastLayer:
    @classmethod
    def INPUT_TYPES(cls):
        layer = int_input(-1, -24, -1, 1, tooltip="-1 is the last layer, -2 the one before it.")
        return {"required": {"clip": ("CLIP",), "stop_at_clip_layer": layer}}

    RETURN_TYPES = ("CLIP",)
    FUNCTION = "set_last_layer"
    CATEGORY = "conditioning"
    DESCRIPTION = "Takes the text encoder's output from an earlier layer (CLIP skip)."

    def set_last_layer(self, clip, stop_at_clip_layer):
        clip = clip.clone()
        clip.clip_layer(stop_at_clip_layer)
        return (clip,)


# --- sampling ------------------------------------------------------------------------------------------


def common_ksampler(
    model,
    seed,
    steps,
    cfg,
    sampler_name,
    scheduler,
    positive,
    negative,
    latent,
    denoise=1.0,
    disable_noise=False,
    start_step=None,
    last_step=None,
    force_full_denoise=False,
):
    """Sample a LATENT with previews and progress: the common part of the sampler nodes."""
    import comfy.sample
    import comfy.utils

    latent_image, noise = _latent_and_noise(model, latent, None if disable_noise else seed)
    samples = comfy.sample.sample(
        model,
        noise,
        steps,
        cfg,
        sampler_name,
        scheduler,
        positive,
        negative,
        latent_image,
        denoise=denoise,
        disable_noise=disable_noise,
        start_step=start_step,
        last_step=last_step,
        force_full_denoise=force_full_denoise,
        noise_mask=latent.get("noise_mask"),
        callback=latent_preview.prepare_callback(model, steps),
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
        seed=seed,
    )
    return (_sampled(latent, samples),)


def _latent_and_noise(model, latent, seed):
    """The latent in the model's shape, and its noise; without a seed, none."""
    import comfy.sample

    ratios = (latent.get("downscale_ratio_spacial"), latent.get("downscale_ratio_temporal"))
    latent_image = comfy.sample.fix_empty_latent_channels(model, latent["samples"], *ratios)
    if seed is None:
        return latent_image, comfy.sample.prepare_empty_noise(latent_image)
    return latent_image, comfy.sample.prepare_noise(latent_image, seed, latent.get("batch_index"))


def _sampled(latent, samples):
    made_for_size = ("downscale_ratio_spacial", "downscale_ratio_temporal")
    out = {name: value for name, value in latent.items() if name not in made_for_size}
    return {**out, "samples": samples}


def merged_ksampler(calls, model, steps, sampler_name, scheduler, *, disable_noise=False, **step_range):
    """`common_ksampler` for several calls at once: dictionaries of seed, cfg, positive, negative, latent.
    Raises CannotMerge.
    """
    import comfy.merged_sampling
    import comfy.utils
    from comfy_execution.merging import CannotMerge

    requests = []
    for call in calls:
        seed = None if disable_noise else call["seed"]
        latent_image, noise = _latent_and_noise(model, call["latent"], seed)
        sides = (call["positive"], call["negative"], call["cfg"], call["seed"])
        mask = call["latent"].get("noise_mask")
        requests.append(comfy.merged_sampling.Request(noise, latent_image, *sides, mask))
    try:
        samples = comfy.merged_sampling.sample(
            model, requests, steps=steps, sampler_name=sampler_name, scheduler=scheduler,
            callback=latent_preview.prepare_callback(model, steps),
            disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED, **step_range,
        )  # fmt: skip
    except comfy.merged_sampling.CannotMerge as error:
        raise CannotMerge(str(error)) from error
    return [(_sampled(call["latent"], one),) for call, one in zip(calls, samples, strict=True)]


def latent_key(latent_image, **others):
    """Calls with latents of one size, with or without a mask, can share a batch."""
    return (*latent_image["samples"].shape, "noise_mask" in latent_image)


def _seed_input(tooltip=None):
    return int_input(0, 0, 0xFFFFFFFFFFFFFFFF, tooltip=tooltip, control_after_generate=True)


def _cfg_input(tooltip=None):
    return float_input(8.0, 0.0, 100.0, 0.1, tooltip, round=0.01)


class KSampler:
    @classmethod
    def INPUT_TYPES(cls):
        how = "How noise is removed; it changes speed, detail and how steps count."
        levels = "How the noise levels are spread over the steps."
        keep = "1 paints anew; less keeps more of the given latents."
        return {
            "required": {
                "model": ("MODEL", {"tooltip": "The diffusion model."}),
                "seed": _seed_input("The number from which the noise follows: same seed, same picture."),
                "steps": int_input(20, 1, 10000, tooltip="In how many steps the noise is removed."),
                "cfg": _cfg_input("How strongly the prompt is followed. Too much makes pictures harsh."),
                "sampler_name": (sampler_names.samplers(), {"tooltip": how}),
                "scheduler": (sampler_names.schedulers(), {"tooltip": levels}),
                "positive": ("CONDITIONING", {"tooltip": "What the picture should show."}),
                "negative": ("CONDITIONING", {"tooltip": "What it should stay away from."}),
                "latent_image": ("LATENT", {"tooltip": "The latents to start from."}),
                "denoise": float_input(1.0, 0.0, 1.0, tooltip=keep),
            }
        }

    RETURN_TYPES = ("LATENT",)
    OUTPUT_TOOLTIPS = ("The latents without noise.",)
    FUNCTION = "sample"
    MERGE_INPUTS = ("seed", "cfg", "positive", "negative", "latent_image")
    MERGE_FUNCTION = "sample_merged"
    MERGE_KEY = "merge_key"
    CATEGORY = "sampling"
    DESCRIPTION = "Makes latents from noise with a model, guided by a positive and a negative prompt."

    def sample(
        self, model, seed, steps, cfg, sampler_name, scheduler, positive, negative, latent_image, denoise=1.0
    ):
        return common_ksampler(
            model,
            seed,
            steps,
            cfg,
            sampler_name,
            scheduler,
            positive,
            negative,
            latent_image,
            denoise=denoise,
        )

    @classmethod
    def sample_merged(cls, calls):
        one = calls[0]
        given = [{**call, "latent": call["latent_image"]} for call in calls]
        schedule = {name: one[name] for name in ("model", "steps", "sampler_name", "scheduler")}
        return merged_ksampler(given, **schedule, denoise=one.get("denoise", 1.0))

    merge_key = staticmethod(latent_key)


class KSamplerAdvanced:
    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "model": ("MODEL",),
                "add_noise": (["enable", "disable"],),
                "noise_seed": _seed_input(),
                "steps": int_input(20, 1, 10000),
                "cfg": _cfg_input(),
                "sampler_name": (sampler_names.samplers(),),
                "scheduler": (sampler_names.schedulers(),),
                "positive": ("CONDITIONING",),
                "negative": ("CONDITIONING",),
                "latent_image": ("LATENT",),
                "start_at_step": int_input(0, 0, 10000),
                "end_at_step": int_input(10000, 0, 10000),
                "return_with_leftover_noise": (["disable", "enable"],),
            }
        }

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "sample"
    MERGE_INPUTS = ("noise_seed", "cfg", "positive", "negative", "latent_image")
    MERGE_FUNCTION = "sample_merged"
    MERGE_KEY = "merge_key"
    CATEGORY = "sampling"
    DESCRIPTION = "A sampler for a part of the steps, so that several can share one picture."

    def sample(
        self,
        model,
        add_noise,
        noise_seed,
        steps,
        cfg,
        sampler_name,
        scheduler,
        positive,
        negative,
        latent_image,
        start_at_step,
        end_at_step,
        return_with_leftover_noise,
        denoise=1.0,
    ):
        return common_ksampler(
            model,
            noise_seed,
            steps,
            cfg,
            sampler_name,
            scheduler,
            positive,
            negative,
            latent_image,
            denoise=denoise,
            disable_noise=add_noise == "disable",
            start_step=start_at_step,
            last_step=end_at_step,
            force_full_denoise=return_with_leftover_noise != "enable",
        )

    @classmethod
    def sample_merged(cls, calls):
        one = calls[0]
        given = [{**call, "seed": call["noise_seed"], "latent": call["latent_image"]} for call in calls]
        return merged_ksampler(
            given,
            one["model"],
            one["steps"],
            one["sampler_name"],
            one["scheduler"],
            disable_noise=one["add_noise"] == "disable",
            start_step=one["start_at_step"],
            last_step=one["end_at_step"],
            force_full_denoise=one["return_with_leftover_noise"] != "enable",
        )

    merge_key = staticmethod(latent_key)


# --- the list of nodes --------------------------------------------------------------------------------

# Every node above, with the name under which the UI shows it.
_NODES = {
    CheckpointLoaderSimple: "Load Checkpoint",
    CheckpointLoader: "Load Checkpoint With Config (DEPRECATED)",
    DiffusersLoader: "Load Diffusers Model (DEPRECATED)",
    VAELoader: "Load VAE",
    UNETLoader: "Load Diffusion Model",
    CLIPLoader: "Load CLIP",
    DualCLIPLoader: "DualCLIPLoader",
    CLIPSetLastLayer: "CLIP Set Last Layer",
    LoraLoader: "Load LoRA",
    LoraLoaderModelOnly: "LoraLoaderModelOnly",
    CLIPTextEncode: "CLIP Text Encode (Prompt)",
    ConditioningCombine: "Conditioning (Combine)",
    ConditioningAverage: "ConditioningAverage",
    ConditioningConcat: "Conditioning (Concat)",
    ConditioningMultiply: "Conditioning (Multiply)",
    ConditioningSetArea: "Conditioning (Set Area)",
    ConditioningSetAreaPercentage: "Conditioning (Set Area with Percentage)",
    ConditioningSetAreaStrength: "ConditioningSetAreaStrength",
    ConditioningSetMask: "Conditioning (Set Mask)",
    ConditioningZeroOut: "ConditioningZeroOut",
    ConditioningSetTimestepRange: "ConditioningSetTimestepRange",
    InpaintModelConditioning: "InpaintModelConditioning",
    ControlNetLoader: "Load ControlNet Model",
    DiffControlNetLoader: "Load ControlNet Model (diff)",
    ControlNetApply: "Apply ControlNet (OLD)",
    ControlNetApplyAdvanced: "Apply ControlNet",
    CLIPVisionLoader: "Load CLIP Vision",
    CLIPVisionEncode: "CLIP Vision Encode",
    unCLIPCheckpointLoader: "unCLIPCheckpointLoader",
    unCLIPConditioning: "unCLIPConditioning",
    GLIGENLoader: "Load GLIGEN Model",
    GLIGENTextBoxApply: "Apply GLIGEN Text Box",
    StyleModelLoader: "Load Style Model",
    StyleModelApply: "Apply Style Model",
    VAEDecode: "VAE Decode",
    VAEDecodeTiled: "VAE Decode (Tiled)",
    VAEEncode: "VAE Encode",
    VAEEncodeTiled: "VAE Encode (Tiled)",
    VAEEncodeForInpaint: "VAE Encode (for Inpainting)",
    EmptyLatentImage: "Empty Latent Image",
    LatentFromBatch: "Latent From Batch",
    RepeatLatentBatch: "Repeat Latent Batch",
    LatentUpscale: "Upscale Latent",
    LatentUpscaleBy: "Upscale Latent By",
    LatentRotate: "Rotate Latent",
    LatentFlip: "Flip Latent",
    LatentCrop: "Crop Latent",
    LatentComposite: "Latent Composite",
    LatentBlend: "Latent Blend",
    SetLatentNoiseMask: "Set Latent Noise Mask",
    KSampler: "KSampler",
    KSamplerAdvanced: "KSampler (Advanced)",
    SaveImage: "Save Image",
    PreviewImage: "Preview Image",
    LoadImage: "Load Image",
    LoadImageMask: "Load Image (as Mask)",
    LoadImageOutput: "Load Image (from Outputs)",
    SaveLatent: "SaveLatent",
    LoadLatent: "LoadLatent",
    ImageScale: "Upscale Image",
    ImageScaleBy: "Upscale Image By",
    ImageInvert: "Invert Image",
    ImageBatch: "Batch Images",
    EmptyImage: "EmptyImage",
    ImagePadForOutpaint: "Pad Image for Outpainting",
}

NODE_CLASS_MAPPINGS = {node.__name__: node for node in _NODES}
NODE_DISPLAY_NAME_MAPPINGS = {node.__name__: title for node, title in _NODES.items()}

# Filled when node packs are loaded: {pack: folder of its web files}, {pack: folder of its module}.
EXTENSION_WEB_DIRS: dict[str, str] = {}
LOADED_MODULE_DIRS: dict[str, str] = {}


# --- loading of node packs --------------------------------------------------------------------------------


def get_module_name(module_path: str) -> str:
    """Name of a pack from its path."""
    return node_packs.pack_name(module_path)


def _registry(protected) -> node_packs.Registry:
    return node_packs.Registry(
        NODE_CLASS_MAPPINGS,
        NODE_DISPLAY_NAME_MAPPINGS,
        EXTENSION_WEB_DIRS,
        LOADED_MODULE_DIRS,
        frozenset(protected),
    )


async def load_custom_node(module_path: str, ignore=frozenset(), module_parent: str = "custom_nodes") -> bool:
    """Load one pack; node names in `ignore` keep their class. False, and a line in the log, when it fails."""
    report = await node_packs.load_pack(module_path, _registry(ignore), parent=module_parent)
    return report.is_loaded


async def init_external_custom_nodes() -> None:
    """Load the packs of the user. A broken one is reported and skipped."""
    reports = await node_packs.load_packs(
        folder_paths.get_folder_paths("custom_nodes"),
        _registry(NODE_CLASS_MAPPINGS),
        disabled=args.disable_all_custom_nodes,
        allowed=args.whitelist_custom_nodes,
    )
    if reports:
        logging.info("Import times of node packs:\n%s", node_packs.describe(reports))


async def init_builtin_extra_nodes() -> list[str]:
    """Load the topics of comfy_extras; returns the names of those that failed."""
    reports = await node_packs.load_topics("comfy_extras", _registry(()))
    return [report.name for report in reports if not report.is_loaded]


async def init_extra_nodes(init_custom_nodes: bool = True, init_api_nodes: bool = True) -> list[str]:
    """Load every node that is not in this file; returns the built-in topics that failed."""
    failed = await init_builtin_extra_nodes()
    if init_custom_nodes:
        await init_external_custom_nodes()
    return failed
