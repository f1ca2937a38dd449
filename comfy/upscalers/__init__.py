"""Upscale models: files of the `upscale_models` folder, and pictures enlarged with them tile by tile."""

from __future__ import annotations

import logging

import torch

import comfy.families
import comfy.interruption
import comfy.model_management
import comfy.model_patcher
import comfy.utils
from comfy.errors import UnknownArchitecture
from comfy.families.base import StateDict
from comfy.upscalers import compact, rrdbnet
from comfy_depot import hooks as depot

ARCHITECTURES = (rrdbnet.ARCHITECTURE, compact.ARCHITECTURE)
TILES = (512, 256, 128)  # sides in pixels of the input, tried in this order as memory allows
OVERLAP = 32
# How trainers wrap the weights, the averaged ones first.
_WRAPPERS = ("params_ema", "params", "params-ema", "model", "net")
_PREFIXES = ("module.", "netG.")
# Other architectures, by a key that only they have: an error can say what the file is.
_FOREIGN = {
    "layers.0.residual_group.overlap_attn.relative_position_bias_table": "HAT",
    "layers.0.residual_group.blocks.0.norm1.weight": "SwinIR",
    "layers.0.blocks.2.attn.attn_mask_0": "DAT",
    "block_1.c1_r.eval_conv.weight": "SPAN",
    "residual_layer.0.residual_layer.0.layer.0.fn.0.weight": "OmniSR",
    "model.1.sub.0.RDB1.conv1x1.weight": "ESRGAN+",
}


class UpscaleModel:
    """What UPSCALE_MODEL is: called with pictures (B, C, H, W) in 0..1 it gives them `scale` times as large.

    `model` is the network, `patcher` how it comes to its device. `to` is for callers that move it themselves.
    """

    def __init__(self, model: torch.nn.Module, architecture: str):
        management = comfy.model_management
        self.model = model
        self.architecture = architecture
        self.scale: int = model.scale
        self.input_channels = self.output_channels = model.channels
        self.patcher = comfy.model_patcher.ModelPatcher(
            model, load_device=management.get_torch_device(),
            offload_device=management.unet_offload_device(),
        )  # fmt: skip

    @torch.inference_mode()
    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        weight = next(self.model.parameters())
        return self.model(image.to(device=weight.device, dtype=weight.dtype)).clamp(0, 1)

    def to(self, device) -> UpscaleModel:
        """Bring the weights to a device."""
        if torch.device(device) == self.patcher.load_device:
            comfy.model_management.load_model_gpu(self.patcher)
        else:
            self.patcher.detach()
        return self

    def cpu(self) -> UpscaleModel:
        return self.to("cpu")

    def eval(self) -> UpscaleModel:
        return self

    def memory_required(self, tile: int) -> int:
        """Bytes that a tile of so many pixels a side needs, mostly for features of the output's size."""
        features = max(parameter.shape[0] for parameter in self.model.parameters() if parameter.ndim == 4)
        return 3 * features * (tile * self.scale) ** 2 * 4


@depot.keeps_resident("path")
def load_upscale_model(path) -> UpscaleModel:
    """The upscale model of a file.

    Raises:
        UnreadableModelFile: the file is damaged or no model file.
        UnknownArchitecture: it is no upscale model, or of an architecture that is not known here.
        ModelFileError: it is a variant with other weights than its architecture has.
    """
    return build_upscale_model(comfy.utils.load_torch_file(path), path)


def build_upscale_model(weights: StateDict, path="these weights") -> UpscaleModel:
    """The upscale model of weights that were read already; raises as `load_upscale_model` does."""
    weights = _unwrapped(weights)
    for architecture in ARCHITECTURES:
        if architecture.matches(weights):
            weights = {key: tensor.float() for key, tensor in weights.items()}
            model = UpscaleModel(architecture.build(weights), architecture.name)
            logging.info("This upscale model is %s, %dx.", architecture.name, model.scale)
            return model
    raise unknown_architecture(weights, path)


def _unwrapped(weights) -> dict[str, torch.Tensor]:
    """The weights alone, without the dictionaries and prefixes that trainers put around them."""
    if not isinstance(weights, dict):  # old embeddings are lists
        return {}
    for name in _WRAPPERS:
        if isinstance(weights.get(name), dict):
            weights = weights[name]
            break
    for prefix in _PREFIXES:
        if weights and all(str(key).startswith(prefix) for key in weights):
            weights = {key[len(prefix) :]: tensor for key, tensor in weights.items()}
    return {key: tensor for key, tensor in weights.items() if torch.is_tensor(tensor)}


def unknown_architecture(weights: StateDict, path) -> UnknownArchitecture:
    """The error for weights of no known architecture: what is known, what comes nearest, what was found."""
    names = list(weights)
    sample = ", ".join(f"'{name}'" for name in names[:3]) + (", ..." if len(names) > 3 else "")
    known = ", ".join(architecture.name for architecture in ARCHITECTURES)
    near = max(ARCHITECTURES, key=lambda architecture: architecture.share_found(weights))
    foreign = next((name for key, name in _FOREIGN.items() if key in weights), None)
    if foreign is not None:
        guess = f"It looks like {foreign}, which cannot be used here."
    elif near.share_found(weights) > 0.3:
        guess = f"It comes nearest to {near.name}, but is of another variant or incomplete."
    else:
        guess = str(comfy.families.kind_of_file(weights) or "It resembles none of them.")
    return UnknownArchitecture(
        f"'{path}' is of no upscale architecture that is known here ({known}). {guess} "
        f"It holds {len(names)} tensors: {sample or 'none'}."
    )


# --- pictures -----------------------------------------------------------------------------------


def upscale(model: UpscaleModel, image: torch.Tensor, tiles=TILES, overlap: int = OVERLAP) -> torch.Tensor:
    """Images (B, H, W, C) -> (B, H * scale, W * scale, C), float32 in 0..1.

    An alpha channel that the model does not take is enlarged bicubically beside it. Where memory runs out it
    goes on with the next size of `tiles`.

    Raises:
        ValueError: the pictures have other channels than the model takes.
        OOM_EXCEPTION: not even the smallest tiles fit.
    """
    pixels = image.movedim(-1, 1).float()
    pixels, alpha = _without_alpha(pixels, model.input_channels)
    for tile in tiles:
        enlarged = _in_tiles(model, pixels, tile, min(overlap, tile // 4))
        if enlarged is not None:
            break
        comfy.model_management.soft_empty_cache()
    else:
        raise comfy.model_management.OOM_EXCEPTION(
            f"Upscaling needs more memory than there is, even in tiles of {tiles[-1]} pixels. Close other "
            "programs, unload models, or choose an upscale model with a smaller scale."
        )
    if alpha is not None:
        alpha = torch.nn.functional.interpolate(alpha, size=enlarged.shape[-2:], mode="bicubic")
        enlarged = torch.cat([enlarged, alpha.to(enlarged.device)], dim=1)
    return enlarged.movedim(1, -1).clamp(0.0, 1.0)


def _without_alpha(pixels: torch.Tensor, wanted: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    found = pixels.shape[1]
    if found == wanted:
        return pixels, None
    if found == wanted + 1:
        return pixels[:, :wanted], pixels[:, wanted:]
    raise ValueError(
        f"This upscale model takes pictures with {wanted} channels, these have {found}. "
        "Choose another model, or convert the pictures first."
    )


def _in_tiles(model: UpscaleModel, pixels: torch.Tensor, tile: int, overlap: int) -> torch.Tensor | None:
    """`pixels` enlarged; None when memory ran out. The caller goes on outside of the `except`: the exception
    holds on to the tensors of its frames.
    """
    height, width = pixels.shape[-2:]
    tiles = comfy.utils.get_tiled_scale_steps(width, height, tile, tile, overlap)
    progress = comfy.utils.ProgressBar(tiles * pixels.shape[0])

    def one(part: torch.Tensor) -> torch.Tensor:
        comfy.interruption.throw_exception_if_processing_interrupted()
        return model(part).float()

    try:
        comfy.model_management.load_models_gpu(
            [model.patcher], memory_required=model.memory_required(min(tile, max(height, width)))
        )
        return comfy.utils.tiled_scale(
            pixels, one, tile, tile, overlap, upscale_amount=model.scale,
            out_channels=model.output_channels, pbar=progress,
            output_device=comfy.model_management.intermediate_device(),
        )  # fmt: skip
    except (RuntimeError, MemoryError) as error:
        if not comfy.model_management.is_oom(error):
            raise
        logging.warning("Not enough memory to upscale in tiles of %d pixels. (%s)", tile, str(error))
        return None
