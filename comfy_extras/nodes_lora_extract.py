"""LoRA files made of differences between models, by singular values."""

from __future__ import annotations

import logging
import os

import folder_paths
from comfy_api.latest import ComfyExtension, io

# Values beyond this quantile are cut off: a few large ones would make fp16 coarse for all others.
CLAMP_QUANTILE = 0.99


def extract_lora(diff, rank: int):
    """(up (out, r, ...), down (r, in, ...)): the nearest product of this rank to a difference of weights."""
    import torch

    out_dim, in_dim, *kernel = diff.shape
    rank = min(rank, in_dim, out_dim)
    u, s, vh = torch.linalg.svd(diff.float().flatten(1), full_matrices=False)
    up, down = u[:, :rank] * s[:rank], vh[:rank]
    bound = _quantile(torch.cat([up.flatten(), down.flatten()]), CLAMP_QUANTILE)
    up, down = (part.clamp(-bound, bound) for part in (up, down))
    if kernel:
        return up.reshape(out_dim, rank, 1, 1), down.reshape(rank, in_dim, *kernel)
    return up, down


def _quantile(values, share: float):
    """As torch.quantile, which refuses more than 2**24 values."""
    place = share * (values.numel() - 1)
    low, high = (values.kthvalue(int(at) + 1).values for at in (place, min(place + 1, values.numel() - 1)))
    return low + (high - low) * (place - int(place))


def lora_of(weights: dict, prefix: str, rank: int, *, is_full: bool, has_bias: bool) -> dict:
    """The tensors of a LoRA file for differences by their names in model files; what is zero is left out."""
    found = {}
    for key, diff in weights.items():
        layer, _, leaf = key.rpartition(".")
        if leaf not in ("weight", "bias") or not diff.any():
            continue
        name, diff = prefix + layer, diff.cpu()
        if leaf == "bias" or (diff.ndim < 2 and not is_full):
            if has_bias:
                found[f"{name}.{'diff_b' if leaf == 'bias' else 'diff'}"] = diff
        elif is_full:
            found[f"{name}.diff"] = diff
        else:
            found[f"{name}.lora_up.weight"], found[f"{name}.lora_down.weight"] = extract_lora(diff, rank)
    return {key: tensor.half().contiguous() for key, tensor in found.items()}


class LoraSave(io.ComfyNode):
    """The difference is a MODEL or a CLIP of ModelMergeSubtract or CLIPMergeSubtract."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LoraSave",
            display_name="Extract and Save Lora",
            category="experimental",
            description="Saves the difference of two models (Model Merge Subtract) as a LoRA.",
            search_aliases=["export lora"],
            is_experimental=True,
            is_output_node=True,
            inputs=[
                io.String.Input(
                    "filename_prefix", default="loras/ComfyUI_extracted_lora", multiline=False
                ),
                io.Int.Input(
                    "rank", default=8, min=1, max=4096, step=1, advanced=True,
                    tooltip="More keeps more of the difference, in a larger file.",
                ),
                io.Combo.Input(
                    "lora_type", options=["standard", "full_diff"], advanced=True,
                    tooltip="full_diff saves the whole difference.",
                ),
                io.Boolean.Input("bias_diff", default=True, advanced=True, tooltip="Save biases too."),
                io.Model.Input("model_diff", optional=True, tooltip="The difference of two models."),
                io.Clip.Input(
                    "text_encoder_diff", optional=True, tooltip="The difference of two text encoders."
                ),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, filename_prefix, rank, lora_type, bias_diff, model_diff=None, text_encoder_diff=None
    ):  # fmt: skip
        if model_diff is None and text_encoder_diff is None:
            return io.NodeOutput()
        import comfy.model_management
        import comfy.utils

        how = {"is_full": lora_type == "full_diff", "has_bias": bias_diff}
        tensors = {}
        if model_diff is not None:
            comfy.model_management.load_models_gpu([model_diff], force_patch_weights=True)
            named = model_diff.model.state_dict_for_saving()
            begin = "model.diffusion_model."
            own = {key.removeprefix(begin): w for key, w in named.items() if key.startswith(begin)}
            tensors |= lora_of(own, "diffusion_model.", rank, **how)
        if text_encoder_diff is not None:
            patcher = text_encoder_diff.load_model()
            tensors |= lora_of(patcher.model.state_dict(), "text_encoders.", rank, **how)
        if not tensors:
            raise ValueError(
                "The models are equal: there is no difference to save. "
                "Connect Model Merge Subtract with two different models."
            )
        folder, name, counter, *_ = folder_paths.get_save_image_path(
            filename_prefix, folder_paths.get_output_directory()
        )
        path = os.path.join(folder, f"{name}_{counter:05}_.safetensors")
        comfy.utils.save_torch_file(tensors, path, metadata=None)
        logging.info("Saved a LoRA of %d tensors to %s.", len(tensors), path)
        return io.NodeOutput()

    save = execute


class LoraSaveExtension(ComfyExtension):
    async def get_node_list(self):
        return [LoraSave]


async def comfy_entrypoint():
    return LoraSaveExtension()
