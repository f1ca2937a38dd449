"""Weights that are added to a diffusion model: control of Qwen-Image, Z-Image, Wan and others."""

from __future__ import annotations

import folder_paths
from comfy_api.latest import io
from comfy_extras.absent_families import absent_node, raise_absent
from comfy_extras.core_inputs import float_input

# A tensor of the file -> what the file is.
KINDS = {
    "lllite_conditioning1.conv1.weight": "Anima LLLite",
    "controlnet_blocks.0.y_rms.weight": "Qwen-Image DiffSynth ControlNet",
    "feature_embedder.mid_layer_norm.bias": "USO style reference",
    "control_all_x_embedder.2-1.weight": "Z-Image Fun ControlNet",
    "controlnet_patch_embedding.weight": "Wan Uni3C ControlNet",
    "attention_pooler.query_tokens": "LTX-2 duration predictor",
    "audio_proj.proj1.weight": "Wan InfiniteTalk and MultiTalk",
    "control_model.input_hint_block.0.weight": "SUPIR",
}


def kind_of_patch(names) -> str:
    """What a file with tensors of these names is, for the error."""
    names = list(names)
    for ending, kind in KINDS.items():
        if any(name.endswith(ending) for name in names):
            return kind
    return "model patches of an unknown kind"


class ModelPatchLoader:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"name": (folder_paths.get_filename_list("model_patches"),)}}

    RETURN_TYPES = ("MODEL_PATCH",)
    FUNCTION = "load_model_patch"
    CATEGORY = "model/loaders"
    EXPERIMENTAL = True
    DESCRIPTION = "Loads weights that are added to a diffusion model."

    def load_model_patch(self, name):
        path = folder_paths.get_full_path_or_raise("model_patches", name)
        import comfy.utils

        raise_absent(kind_of_patch(comfy.utils.load_torch_file(path, safe_load=True)), "ModelPatchLoader")


class _Applied:
    """A node that adds such weights to a model. `FAMILY` is what they are."""

    RETURN_TYPES = ("MODEL",)
    FUNCTION = "apply_patch"
    EXPERIMENTAL = True
    FAMILY = ""

    def apply_patch(self, **_values):
        raise_absent(self.FAMILY, type(self).__name__)


def _strength():
    return float_input(1.0, -10.0, 10.0)


def _from_to():
    return {
        "start_percent": float_input(0.0, 0.0, 1.0, 0.001),
        "end_percent": float_input(1.0, 0.0, 1.0, 0.001),
    }


class QwenImageDiffsynthControlnet(_Applied):
    FUNCTION = "diffsynth_controlnet"
    CATEGORY = "model/patch/qwen"
    DESCRIPTION = "Lets a picture control Qwen-Image."
    FAMILY = "Qwen-Image"

    @classmethod
    def INPUT_TYPES(cls):
        links = {"model": ("MODEL",), "model_patch": ("MODEL_PATCH",), "vae": ("VAE",), "image": ("IMAGE",)}
        return {"required": {**links, "strength": _strength()}, "optional": {"mask": ("MASK",)}}

    def diffsynth_controlnet(self, **values):
        self.apply_patch(**values)


class ZImageFunControlnet(QwenImageDiffsynthControlnet):
    CATEGORY = "model/patch/z-image"
    DESCRIPTION = "Lets a picture control Z-Image, or fills masked parts."
    FAMILY = KINDS["control_all_x_embedder.2-1.weight"]

    @classmethod
    def INPUT_TYPES(cls):
        links = {"model": ("MODEL",), "model_patch": ("MODEL_PATCH",), "vae": ("VAE",)}
        pictures = {"image": ("IMAGE",), "inpaint_image": ("IMAGE",), "mask": ("MASK",)}
        return {"required": {**links, "strength": _strength()}, "optional": pictures}


class WanUni3CControlnetApply(_Applied):
    CATEGORY = "model/patch/wan"
    DESCRIPTION = "Lets a rendered video control the camera of Wan."
    FAMILY = KINDS["controlnet_patch_embedding.weight"]

    @classmethod
    def INPUT_TYPES(cls):
        links = {"model": ("MODEL",), "model_patch": ("MODEL_PATCH",), "vae": ("VAE",)}
        how = {"render_video": ("IMAGE", {}), "strength": _strength(), **_from_to()}
        return {"required": {**links, **how}}


class USOStyleReference(_Applied):
    CATEGORY = "model/patch/flux"
    DESCRIPTION = "Lets an encoded picture give the style of Flux with USO."
    FAMILY = KINDS["feature_embedder.mid_layer_norm.bias"]

    @classmethod
    def INPUT_TYPES(cls):
        links = {"model": ("MODEL",), "model_patch": ("MODEL_PATCH",)}
        return {"required": {**links, "clip_vision_output": ("CLIP_VISION_OUTPUT",)}}


class AnimaLLLiteApply(_Applied):
    CATEGORY = "model_patches/anima"
    DESCRIPTION = "Lets a picture control Anima."
    FAMILY = KINDS["lllite_conditioning1.conv1.weight"]

    @classmethod
    def INPUT_TYPES(cls):
        links = {"model": ("MODEL",), "model_patch": ("MODEL_PATCH",), "image": ("IMAGE",)}
        return {
            "required": {**links, "strength": _strength(), **_from_to()},
            "optional": {"mask": ("MASK",)},
        }


SUPIRApply = absent_node(
    "SUPIRApply",
    "SUPIR",
    category="model/patch/supir",
    description="Lets SDXL restore a picture with SUPIR.",
    is_experimental=True,
    inputs=lambda: [
        io.Model.Input("model"),
        io.ModelPatch.Input("model_patch"),
        io.Vae.Input("vae"),
        io.Image.Input("image"),
        io.Float.Input("strength_start", default=1.0, min=0.0, max=10.0, step=0.01),
        io.Float.Input("strength_end", default=1.0, min=0.0, max=10.0, step=0.01),
        io.Float.Input("restore_cfg", default=4.0, min=0.0, max=20.0, step=0.1, advanced=True),
        io.Float.Input("restore_cfg_s_tmin", default=0.05, min=0.0, max=1.0, step=0.01, advanced=True),
    ],
    outputs=lambda: [io.Model.Output()],
)

_NODES = (
    ModelPatchLoader, QwenImageDiffsynthControlnet, ZImageFunControlnet, WanUni3CControlnetApply,
    USOStyleReference, AnimaLLLiteApply, SUPIRApply,
)  # fmt: skip
NODE_CLASS_MAPPINGS = {node.__name__: node for node in _NODES}
NODE_DISPLAY_NAME_MAPPINGS = {
    "ModelPatchLoader": "Load Model Patch",
    "QwenImageDiffsynthControlnet": "Apply Qwen Image DiffSynth ControlNet",
    "ZImageFunControlnet": "Apply Z-Image Fun ControlNet",
    "WanUni3CControlnetApply": "Apply Wan Uni3C ControlNet",
    "USOStyleReference": "Apply USO Style Reference",
    "AnimaLLLiteApply": "Apply Anima LLLite",
}
