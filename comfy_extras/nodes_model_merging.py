"""Models made of models: weights added, subtracted and mixed, and the results saved as files."""

from __future__ import annotations

import json
import logging
import os

import folder_paths
from comfy.cli_args import args
from comfy_extras.core_inputs import float_input

CATEGORY = "advanced/model_merging"
UNET_PREFIX = "diffusion_model."
# Numbers that are no learned weights, or the same in every text encoder: mixing them means nothing.
_NOT_MERGED = (".position_ids", ".logit_scale")
# What the published model specification (modelspec 1.0.0) calls these classes of `comfy.model_base`.
_SPECIFIED = {
    "SDXL": "stable-diffusion-xl-v1-base",
    "SDXLRefiner": "stable-diffusion-xl-v1-refiner",
    "SD3": "stable-diffusion-v3-medium",
}
_PREDICTIONS = {"EPS": "epsilon", "V_PREDICTION": "v"}


def _ratio(tooltip=None):
    return float_input(1.0, 0.0, 1.0, tooltip=tooltip)


def _multiplier():
    return float_input(1.0, -10.0, 10.0, tooltip="How much of the difference is taken.")


# --- merging --------------------------------------------------------------------------------------


def _merged(first, patches, strength_of):
    """A clone of `first` in which each weight w is own * w + other * (that of `patches`), where
    (other, own) = strength_of(key). Weights of other shapes stay. Works for MODEL and CLIP.
    """
    merged = first.clone()
    own = {key: patch[0][0].shape for key, patch in merged.get_key_patches().items()}
    groups: dict[tuple[float, float], dict] = {}
    for key, patch in patches.items():
        shape = patch[0][0].shape
        if own.get(key, shape) == shape:
            groups.setdefault(strength_of(key), {})[key] = patch
        else:
            shapes = tuple(own[key]), tuple(shape)
            logging.warning("%s stays as it is: the models have %s and %s.", key, *shapes)
    found = [merged.add_patches(group, *strengths) for strengths, group in groups.items()]
    if not any(found):
        raise ValueError(
            "These models have no weights in common, so nothing can be merged. "
            "Choose two models of the same architecture."
        )
    return merged


def _unet_patches(model):
    return model.get_key_patches(UNET_PREFIX)


def _clip_patches(clip):
    return {key: p for key, p in clip.get_key_patches().items() if not key.endswith(_NOT_MERGED)}


class _Merging:
    """A node that merges `<kind>1` with `<kind>2`, each the same way in all weights."""

    FUNCTION = "merge"
    CATEGORY = CATEGORY
    kind = "model"
    knobs: dict = {}

    @classmethod
    def INPUT_TYPES(cls):
        kind = cls.kind.upper()
        both = {f"{cls.kind}1": (kind,), f"{cls.kind}2": (kind,)}
        return {"required": {**both, **cls.knobs}}


class ModelMergeSimple(_Merging):
    RETURN_TYPES = ("MODEL",)
    DESCRIPTION = "Mixes two models: ratio 1 is the first, 0 the second."
    knobs = {"ratio": _ratio("How much of the first model.")}

    def merge(self, model1, model2, ratio):
        return (_merged(model1, _unet_patches(model2), lambda key: (1.0 - ratio, ratio)),)


class ModelSubtract(_Merging):
    RETURN_TYPES = ("MODEL",)
    DESCRIPTION = "What the first model has and the second has not, times the multiplier."
    knobs = {"multiplier": _multiplier()}

    def merge(self, model1, model2, multiplier):
        return (_merged(model1, _unet_patches(model2), lambda key: (-multiplier, multiplier)),)


class ModelAdd(_Merging):
    RETURN_TYPES = ("MODEL",)
    DESCRIPTION = "The sum of a model and a difference of models."

    def merge(self, model1, model2):
        return (_merged(model1, _unet_patches(model2), lambda key: (1.0, 1.0)),)


class CLIPMergeSimple(_Merging):
    RETURN_TYPES = ("CLIP",)
    DESCRIPTION = "Mixes two text encoders: ratio 1 is the first, 0 the second."
    kind = "clip"
    knobs = {"ratio": _ratio("How much of the first text encoder.")}

    def merge(self, clip1, clip2, ratio):
        return (_merged(clip1, _clip_patches(clip2), lambda key: (1.0 - ratio, ratio)),)


class CLIPSubtract(_Merging):
    RETURN_TYPES = ("CLIP",)
    DESCRIPTION = "What the first text encoder has and the second has not, times the multiplier."
    kind = "clip"
    knobs = {"multiplier": _multiplier()}

    def merge(self, clip1, clip2, multiplier):
        return (_merged(clip1, _clip_patches(clip2), lambda key: (-multiplier, multiplier)),)


class CLIPAdd(_Merging):
    RETURN_TYPES = ("CLIP",)
    DESCRIPTION = "The sum of a text encoder and a difference of text encoders."
    kind = "clip"

    def merge(self, clip1, clip2):
        return (_merged(clip1, _clip_patches(clip2), lambda key: (1.0, 1.0)),)


def checkpoint_names(model) -> dict[str, str]:
    """Each weight of a MODEL's network -> its name in a checkpoint, without prefix. A weight that is part of
    one there has the name of the whole; others that a checkpoint cuts or joins keep their own name.
    """
    weights = {k[len(UNET_PREFIX) :]: w for k, w in model.model_state_dict(UNET_PREFIX).items()}
    saved = model.model.model_config.process_unet_state_dict_for_saving(dict(weights))
    names = {id(tensor): name.removeprefix("model." + UNET_PREFIX) for name, tensor in saved.items()}
    table = getattr(model.model.diffusion_model, "file_layers", None)
    wholes = {} if table is None else {part: whole for whole, parts in table.names.items() for part in parts}
    found = {}
    for key, tensor in weights.items():
        layer, _, leaf = key.rpartition(".")
        name = f"{wholes[layer]}.{leaf}" if layer in wholes else names.get(id(tensor), key)
        found[UNET_PREFIX + key] = name
    return found


class ModelMergeBlocks(_Merging):
    """The knobs, also of subclasses, are beginnings of names in a checkpoint; of several that fit the longest
    counts, and where none does, the first knob.
    """

    RETURN_TYPES = ("MODEL",)
    DESCRIPTION = "Mixes two models with a ratio for each part of the network: 1 is the first, 0 the second."
    knobs = {"input": _ratio(), "middle": _ratio(), "out": _ratio()}

    def merge(self, model1, model2, **ratios):
        names = checkpoint_names(model1)
        otherwise = next(iter(ratios.values()))

        def strength_of(key):
            fitting = [begin for begin in ratios if names.get(key, key).startswith(begin)]
            ratio = ratios[max(fitting, key=len)] if fitting else otherwise
            return 1.0 - ratio, ratio

        return (_merged(model1, _unet_patches(model2), strength_of),)


# --- saving ---------------------------------------------------------------------------------------


def _new_file(prefix, output_dir) -> tuple[str, str]:
    """(path, title) of the next file of this prefix."""
    folder, name, counter, *_ = folder_paths.get_save_image_path(prefix, output_dir)
    return os.path.join(folder, f"{name}_{counter:05}_.safetensors"), f"{name} {counter}"


def _workflow_metadata(prompt, extra_pnginfo) -> dict[str, str]:
    """The workflow, as it stands in the header of a file; nothing under --disable-metadata."""
    if args.disable_metadata:
        return {}
    workflow = {"prompt": "" if prompt is None else json.dumps(prompt)}
    return workflow | {key: json.dumps(value) for key, value in (extra_pnginfo or {}).items()}


def _specification(model, title) -> dict[str, str]:
    """What the model is, for programs that read modelspec."""
    specification = {}
    architecture = _SPECIFIED.get(type(model.model).__name__)
    if architecture is not None:
        specification = {
            "modelspec.sai_model_spec": "1.0.0",
            "modelspec.implementation": "sgm",
            "modelspec.architecture": architecture,
            "modelspec.title": title,
        }
    prediction = _PREDICTIONS.get(model.model.model_type.name)
    return specification | ({"modelspec.predict_key": prediction} if prediction else {})


def save_checkpoint(
    model, clip=None, vae=None, clip_vision=None, filename_prefix=None, output_dir=None, prompt=None,
    extra_pnginfo=None,
):  # fmt: skip
    """Write the parts of a checkpoint, patches applied, to the next file of the prefix; returns its path."""
    import comfy.sd

    path, title = _new_file(filename_prefix, output_dir)
    metadata = _specification(model, title) | _workflow_metadata(prompt, extra_pnginfo)
    comfy.sd.save_checkpoint(path, model, clip, vae, clip_vision, metadata=metadata)
    return path


class _Saving:
    """A node that writes its parts to the output folder."""

    RETURN_TYPES = ()
    FUNCTION = "save"
    OUTPUT_NODE = True
    CATEGORY = CATEGORY
    parts: tuple[str, ...] = ()
    prefix = ""

    def __init__(self):
        self.output_dir = folder_paths.get_output_directory()

    @classmethod
    def INPUT_TYPES(cls):
        tooltip = "The start of the file name, with folders if wanted."
        return {
            "required": {
                **{part: (part.upper(),) for part in cls.parts},
                "filename_prefix": ("STRING", {"default": cls.prefix, "tooltip": tooltip}),
            },
            "hidden": {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"},
        }


class CheckpointSave(_Saving):
    DESCRIPTION = "Saves a model, its text encoder and its VAE as one checkpoint that carries its workflow."
    parts = ("model", "clip", "vae")
    prefix = "checkpoints/ComfyUI"

    def save(self, model, clip, vae, filename_prefix, prompt=None, extra_pnginfo=None):
        save_checkpoint(
            model, clip=clip, vae=vae, filename_prefix=filename_prefix, output_dir=self.output_dir,
            prompt=prompt, extra_pnginfo=extra_pnginfo,
        )  # fmt: skip
        return {}


class ModelSave(_Saving):
    DESCRIPTION = "Saves a diffusion model alone."
    parts = ("model",)
    prefix = "diffusion_models/ComfyUI"

    def save(self, model, filename_prefix, prompt=None, extra_pnginfo=None):
        save_checkpoint(
            model, filename_prefix=filename_prefix, output_dir=self.output_dir, prompt=prompt,
            extra_pnginfo=extra_pnginfo,
        )  # fmt: skip
        return {}


def _text_encoders(weights) -> dict[str, dict]:
    """Weights of each text encoder by its name (`clip_l`, `t5xxl`, ...), named as in its own file."""
    shared = {key: tensor for key, tensor in weights.items() if "." not in key}  # vocabularies
    encoders: dict[str, dict] = {}
    for key in weights.keys() - shared.keys():
        encoder, _, rest = key.partition(".")
        encoders.setdefault(encoder, dict(shared))[rest.removeprefix("transformer.")] = weights[key]
    return encoders


class CLIPSave(_Saving):
    DESCRIPTION = "Saves text encoders, each to a file of its own."
    parts = ("clip",)
    prefix = "clip/ComfyUI"

    def save(self, clip, filename_prefix, prompt=None, extra_pnginfo=None):
        import comfy.model_management
        import comfy.utils

        comfy.model_management.load_models_gpu([clip.load_model()], force_patch_weights=True)
        metadata = {"format": "pt", **_workflow_metadata(prompt, extra_pnginfo)}
        for encoder, weights in _text_encoders(clip.get_sd()).items():
            path, _ = _new_file(f"{filename_prefix}_{encoder}", self.output_dir)
            comfy.utils.save_torch_file(weights, path, metadata=metadata)
        return {}


class VAESave(_Saving):
    DESCRIPTION = "Saves a VAE."
    parts = ("vae",)
    prefix = "vae/ComfyUI_vae"

    def save(self, vae, filename_prefix, prompt=None, extra_pnginfo=None):
        import comfy.utils

        vae.throw_exception_if_invalid()
        path, _ = _new_file(filename_prefix, self.output_dir)
        metadata = _workflow_metadata(prompt, extra_pnginfo)
        comfy.utils.save_torch_file(vae.state_dict_for_saving(), path, metadata=metadata)
        return {}


NODE_CLASS_MAPPINGS = {
    "ModelMergeSimple": ModelMergeSimple,
    "ModelMergeBlocks": ModelMergeBlocks,
    "ModelMergeSubtract": ModelSubtract,
    "ModelMergeAdd": ModelAdd,
    "CheckpointSave": CheckpointSave,
    "CLIPMergeSimple": CLIPMergeSimple,
    "CLIPMergeSubtract": CLIPSubtract,
    "CLIPMergeAdd": CLIPAdd,
    "CLIPSave": CLIPSave,
    "VAESave": VAESave,
    "ModelSave": ModelSave,
}

NODE_DISPLAY_NAME_MAPPINGS = {"CheckpointSave": "Save Checkpoint"}
