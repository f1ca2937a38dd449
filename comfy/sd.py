# ruff: noqa: B006 - defaults like upstream's; they are only read
"""From model files to the MODEL, CLIP and VAE of a workflow."""

from __future__ import annotations

import logging
from enum import Enum

import torch

import comfy.clip_vision
import comfy.families
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.utils
from comfy import scaled_weights
from comfy.families import ldm_unet, open_clip_text
from comfy.families.base import build_empty
from comfy.mapped_memory import cast_weights
from comfy.vae import VAE
from comfy_depot import hooks as depot

__all__ = [
    "CLIP", "CLIPType", "VAE", "load_checkpoint", "load_checkpoint_guess_config", "load_clip",
    "load_diffusion_model", "load_diffusion_model_state_dict", "load_state_dict_guess_config",
    "load_text_encoder_state_dicts", "save_checkpoint",
]  # fmt: skip


class CLIPType(Enum):
    """Which model a separate text encoder file is for."""

    STABLE_DIFFUSION = 1
    STABLE_CASCADE = 2
    SD3 = 3
    STABLE_AUDIO = 4
    HUNYUAN_DIT = 5
    FLUX = 6
    MOCHI = 7
    LTXV = 8
    HUNYUAN_VIDEO = 9
    PIXART = 10
    COSMOS = 11
    LUMINA2 = 12
    WAN = 13
    HIDREAM = 14
    CHROMA = 15
    ACE = 16
    OMNIGEN2 = 17
    QWEN_IMAGE = 18
    HUNYUAN_IMAGE = 19
    HUNYUAN_VIDEO_15 = 20
    OVIS = 21
    KANDINSKY5 = 22
    KANDINSKY5_IMAGE = 23
    NEWBIE = 24
    FLUX2 = 25
    LONGCAT_IMAGE = 26
    COGVIDEOX = 27
    LENS = 28
    PIXELDIT = 29
    IDEOGRAM4 = 30
    BOOGU = 31
    KREA2 = 32
    JOYIMAGE = 33
    MAGE = 34
    MINIMAX = 35
    FLUX3 = 36
    MOSS_IMAGE = 37
    FIBO2 = 38


class CLIP:
    """The text encoders of a model with their tokenizers.

    Weights are kept in half precision and cast to fp32 when they are used.
    """

    def __init__(
        self, target=None, embedding_directory=None, no_init=False, tokenizer_data={}, parameters=0,
        state_dict={},
        model_options={},
    ):  # fmt: skip
        if no_init:
            return
        management = comfy.model_management
        load_device = model_options.get("load_device", management.text_encoder_device())
        offload_device = model_options.get("offload_device", management.text_encoder_offload_device())
        self.dtype = model_options.get("dtype") or management.text_encoder_dtype(load_device)
        params = {
            **target.params,
            "dtype": self.dtype,
            "device": offload_device,
            "model_options": model_options,
        }
        self.cond_stage_model = build_empty(lambda: target.clip(**params))
        self.tokenizer = target.tokenizer(
            embedding_directory=embedding_directory, tokenizer_data=tokenizer_data
        )
        for weights in state_dict if isinstance(state_dict, list) else [state_dict]:
            self.load_sd(weights, full_model=not isinstance(state_dict, list))
        self.patcher = comfy.model_patcher.ModelPatcher(
            self.cond_stage_model, load_device=load_device, offload_device=offload_device
        )
        self.patcher.is_clip = True
        self.layer_idx = None
        self.use_clip_schedule = False
        self.apply_hooks_to_conds = None
        self.tokenizer_options: dict = {}

    def clone(self) -> CLIP:
        """Shares the model; patches, the layer and options are its own."""
        new = CLIP(no_init=True)
        new.__dict__.update(self.__dict__)
        new.patcher = self.patcher.clone()
        new.tokenizer_options = self.tokenizer_options.copy()
        return new

    # --- text to tokens ---

    def set_tokenizer_option(self, option_name: str, value) -> None:
        self.tokenizer_options[option_name] = value

    def tokenize(self, text: str, return_word_ids=False, **kwargs):
        """Per text encoder: chunks of (token, weight), or (token, weight, word id)."""
        options = {**self.tokenizer_options, **kwargs.pop("tokenizer_options", {})}
        if options:
            kwargs["tokenizer_options"] = options
        return self.tokenizer.tokenize_with_weights(text, return_word_ids, **kwargs)

    # --- tokens to conditioning ---

    def clip_layer(self, layer_idx) -> None:
        """Take the output of this layer: -1 is the last, -2 the one before."""
        self.layer_idx = layer_idx

    def _encode(self, tokens, *, unprojected: bool):
        model = self.cond_stage_model
        model.reset_clip_options()
        if self.layer_idx is not None:
            model.set_clip_options({"layer": self.layer_idx})
        if unprojected:
            model.set_clip_options({"projected_pooled": False})
        self.load_model()
        model.set_clip_options({"execution_device": self.patcher.load_device})
        return model.encode_token_weights(tokens)

    def encode_from_tokens(self, tokens, return_pooled=False, return_dict=False):
        """The conditioning (1, tokens, width); with the pooled output, or as a dictionary of all outputs."""
        cond, pooled, *more = self._encode(tokens, unprojected=return_pooled == "unprojected")
        if return_dict:
            out = {"cond": cond, "pooled_output": pooled, **(more[0] if more else {})}
            return self.add_hooks_to_dict(out)
        return (cond, pooled) if return_pooled else cond

    def encode_from_tokens_scheduled(self, tokens, unprojected=False, add_dict={}, show_pbar=True):
        """A CONDITIONING: [[conditioning, {"pooled_output": ..., **add_dict}]]."""
        if self.patcher.forced_hooks is not None and self.use_clip_schedule:
            return self._encode_scheduled(tokens, unprojected, add_dict)
        out = self.encode_from_tokens(
            tokens, return_pooled="unprojected" if unprojected else True, return_dict=True
        )
        cond = out.pop("cond")
        return [[cond, {**out, **add_dict}]]

    def _encode_scheduled(self, tokens, unprojected, add_dict) -> list:
        """One entry for each range of the schedule in which the encoder's hooks are equally strong."""
        hooks, out = self.patcher.forced_hooks, []
        first, last = add_dict.get("start_percent", 0.0), add_dict.get("end_percent", 1.0)
        for (start, end), keyframes in hooks.get_hooks_for_clip_schedule():
            if end < first or start > last:
                continue
            self.load_model()
            for hook, keyframe in keyframes:
                hook.hook_keyframe._current_keyframe = keyframe
            self.patcher.apply_hooks(hooks)
            cond, pooled, *more = self._encode(tokens, unprojected=unprojected)
            entry = {"pooled_output": pooled, **(more[0] if more else {}),
                     "clip_start_percent": start, "clip_end_percent": end, **add_dict}  # fmt: skip
            out.append([cond, self.add_hooks_to_dict(entry)])
        hooks.reset()
        return out

    def encode(self, text: str):
        return self.encode_from_tokens(self.tokenize(text))

    def add_hooks_to_dict(self, pooled_dict: dict) -> dict:
        if self.apply_hooks_to_conds:
            pooled_dict["hooks"] = self.apply_hooks_to_conds
        return pooled_dict

    # --- weights ---

    def load_sd(self, sd, full_model=False):
        """Take weights, cast to the dtype that they are kept in; `full_model`: named as by `get_sd`."""
        cast = dict(sd)
        model = self.cond_stage_model
        if hasattr(model, "cast_weights"):  # encoders that are kept in several dtypes
            model.cast_weights(cast, self.dtype)
        else:
            cast_weights(cast, list(cast), self.dtype)
        return model.load_full_sd(cast) if full_model else model.load_sd(cast)

    def get_sd(self) -> dict:
        return {**self.cond_stage_model.state_dict(), **self.tokenizer.state_dict()}

    def load_model(self):
        comfy.model_management.load_model_gpu(self.patcher)
        return self.patcher

    def add_patches(self, patches, strength_patch=1.0, strength_model=1.0):
        return self.patcher.add_patches(patches, strength_patch, strength_model)

    def get_key_patches(self):
        return self.patcher.get_key_patches()

    def get_ram_usage(self) -> int:
        return self.patcher.get_ram_usage()


# --- checkpoints ---


@depot.keeps_resident("ckpt_path")
def load_checkpoint_guess_config(
    ckpt_path, output_vae=True, output_clip=True, output_clipvision=False, embedding_directory=None,
    output_model=True, model_options={}, te_model_options={},
):  # fmt: skip
    """(ModelPatcher, CLIP, VAE, ClipVisionModel) of a checkpoint file.

    What was not asked for, or is not in the file, is None.

    Raises:
        UnreadableModelFile: the file is damaged or no model file.
        UnknownArchitecture: the file is fine, but of no known family.
    """
    weights, metadata = comfy.utils.load_torch_file(ckpt_path, return_metadata=True)
    out = load_state_dict_guess_config(
        weights, output_vae, output_clip, output_clipvision, embedding_directory, output_model, model_options,
        te_model_options=te_model_options, metadata=metadata,
    )  # fmt: skip
    if out is None:
        raise comfy.families.unknown_architecture(weights, ckpt_path)
    return out


def load_state_dict_guess_config(
    sd, output_vae=True, output_clip=True, output_clipvision=False, embedding_directory=None,
    output_model=True,
    model_options={}, te_model_options={}, metadata=None,
):  # fmt: skip
    """`load_checkpoint_guess_config` for weights in memory, which it takes out of `sd`; None if unknown."""
    found = comfy.families.recognise(sd)
    if found is None:
        return None
    family, prefix = found
    model_config = family.config(sd, prefix)
    logging.info("This is %s.", family.name)
    model = _load_model(sd, prefix, model_config, model_options) if output_model else None
    vae = _load_vae(sd, model_config) if output_vae else None
    clip = _load_clip(sd, model_config, embedding_directory, te_model_options) if output_clip else None
    return model, clip, vae, _load_clip_vision(sd, model_config) if output_clipvision else None


def _load_clip_vision(weights, model_config):
    prefix = model_config.clip_vision_prefix
    return None if prefix is None else comfy.clip_vision.load_clipvision_from_sd(weights, prefix, True)


def _load_model(weights, prefix: str, model_config, options: dict):
    management = comfy.model_management
    device = management.get_torch_device()
    scaled = scaled_weights.normalise_names(weights, prefix)
    dtype = None if scaled else options.get("dtype", options.get("weight_dtype"))
    if dtype is None:  # what is kept besides scaled fp8 has the dtype of the arithmetic
        dtype = management.unet_dtype(
            model_params=comfy.utils.calculate_parameters(weights, prefix),
            supported_dtypes=model_config.supported_inference_dtypes,
            weight_dtype=None if scaled else comfy.utils.weight_dtype(weights, prefix),
        )
    cast_dtype = management.unet_manual_cast(dtype, device, model_config.supported_inference_dtypes)
    model_config.custom_operations = options.get("custom_operations")
    model_config.set_inference_dtype(dtype, cast_dtype)
    model = model_config.get_model(weights, prefix, device=torch.device("cpu"))
    cast_weights(weights, [key for key in weights if key.startswith(prefix) and key not in scaled], dtype)
    model.load_model_weights(weights, prefix)
    if cast_dtype is not None:
        comfy.ops.cast_on_use(model.diffusion_model)
    return comfy.model_patcher.ModelPatcher(
        model, load_device=device, offload_device=management.unet_offload_device()
    )


def _load_vae(weights, model_config) -> VAE:
    prefixes = dict.fromkeys(model_config.vae_key_prefix, "")
    own = comfy.utils.state_dict_prefix_replace(weights, prefixes, filter_keys=True)
    if not own:
        logging.warning("This file holds no VAE; load one with the VAE loader.")
    return VAE(sd=model_config.process_vae_state_dict(own))


def _load_clip(weights, model_config, embedding_directory, options: dict) -> CLIP | None:
    target = model_config.clip_target(weights)
    own = model_config.process_clip_state_dict(weights) if target is not None else {}
    if not own:
        logging.warning("This file holds no text encoder; load one with the CLIP loader.")
        return None
    return CLIP(target, embedding_directory=embedding_directory, state_dict=own, model_options=options)


@depot.keeps_resident("ckpt_paths")
def load_clip(
    ckpt_paths, embedding_directory=None, clip_type=CLIPType.STABLE_DIFFUSION, model_options={}
):  # fmt: skip
    """The CLIP of text encoders in files of their own: a path for each that the model has.

    Raises:
        UnknownArchitecture: no family has such text encoders.
    """
    weights = [comfy.utils.load_torch_file(path, safe_load=True) for path in ckpt_paths]
    return load_text_encoder_state_dicts(weights, embedding_directory, clip_type, model_options)


def load_text_encoder_state_dicts(
    state_dicts=[], embedding_directory=None, clip_type=CLIPType.STABLE_DIFFUSION, model_options={}
):  # fmt: skip
    """`load_clip` for weights in memory."""
    weights = [open_clip_text.from_own_file(own) for own in state_dicts]
    target = comfy.families.text_target(weights, clip_type.name.lower())
    return CLIP(
        target, embedding_directory=embedding_directory, state_dict=weights, model_options=model_options
    )


def load_checkpoint(
    config_path=None, ckpt_path=None, output_vae=True, output_clip=True, embedding_directory=None,
    state_dict=None,
    config=None,
):  # fmt: skip
    """(MODEL, CLIP, VAE); the configuration is read off the weights, a config file is not needed."""
    wanted = {
        "output_vae": output_vae, "output_clip": output_clip, "embedding_directory": embedding_directory
    }  # fmt: skip
    if state_dict is None:
        return load_checkpoint_guess_config(ckpt_path, **wanted)[:3]
    out = load_state_dict_guess_config(state_dict, **wanted)
    if out is None:
        raise comfy.families.unknown_architecture(state_dict, ckpt_path)
    return out[:3]


def load_lora_for_models(model, clip, lora, strength_model, strength_clip):
    """(MODEL, CLIP) with a LoRA's tensors as patches on clones; see `comfy.lora_file`."""
    import comfy.lora_file

    return comfy.lora_file.load_lora_for_models(model, clip, lora, strength_model, strength_clip)


def load_bypass_lora_for_models(model, clip, lora, strength_model, strength_clip):
    """The same beside the layers, see `comfy.weight_adapter.bypass`; the weights stay as they are."""
    import comfy.lora_file

    return comfy.lora_file.load_lora_for_models(model, clip, lora, strength_model, strength_clip, beside=True)


def load_gligen(ckpt_path):
    """The GLIGEN of a file; see `comfy.gligen`."""
    import comfy.gligen

    return comfy.gligen.patcher_of(comfy.utils.load_torch_file(ckpt_path, safe_load=True))


def load_style_model(ckpt_path):
    """The STYLE_MODEL of a file; see `comfy.style_model`."""
    import comfy.style_model

    return comfy.style_model.load(ckpt_path)


def load_diffusion_model_state_dict(sd, model_options={}, metadata=None):
    """The ModelPatcher of a diffusion model alone; None for an unknown family."""
    sd = ldm_unet.from_zoo_layout(sd)
    found = comfy.families.recognise(sd)
    if found is None:
        return None
    family, prefix = found
    return _load_model(sd, prefix, family.config(sd, prefix), model_options)


@depot.keeps_resident("unet_path")
def load_diffusion_model(unet_path, model_options={}):
    """The ModelPatcher of a file that holds a diffusion model alone."""
    weights, metadata = comfy.utils.load_torch_file(unet_path, return_metadata=True)
    model = load_diffusion_model_state_dict(weights, model_options=model_options, metadata=metadata)
    if model is None:
        raise comfy.families.unknown_architecture(weights, unet_path)
    return model


def save_checkpoint(output_path, model, clip=None, vae=None, clip_vision=None, metadata=None, extra_keys={}):
    """Write MODEL, CLIP and VAE, patches applied, as one file in the layout of checkpoints."""
    loaded = [model, clip.load_model()] if clip is not None else [model]
    comfy.model_management.load_models_gpu(loaded, force_patch_weights=True)
    parts = (part.get_sd() if part is not None else None for part in (clip, vae, clip_vision))
    weights = model.model.state_dict_for_saving(*parts)
    comfy.utils.save_torch_file({**weights, **extra_keys}, output_path, metadata=metadata)


def load_unet(unet_path, dtype=None):
    """`load_diffusion_model` under its first name."""
    return load_diffusion_model(unet_path, model_options={} if dtype is None else {"dtype": dtype})


def load_unet_state_dict(sd, dtype=None):
    """`load_diffusion_model_state_dict` under its first name."""
    return load_diffusion_model_state_dict(sd, model_options={} if dtype is None else {"dtype": dtype})


def __getattr__(name: str):
    """What packs take from here, and has a room of its own that is imported when it is named."""
    if name == "StyleModel":
        from comfy.style_model import StyleModel

        return StyleModel
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
