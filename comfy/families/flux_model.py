# ruff: noqa: B006 - defaults like upstream's; they are only read
"""The transformer of Flux.1: from the original layout to diffusers' FluxTransformer2DModel.

A variant is data: `FluxShape` names the hyper-parameters, `shape_of` reads them off the weights. The wrapper
takes what ComfyUI's samplers pass: latents (B, C, H, W), timesteps, context, y, guidance, control.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import torch
from diffusers import FluxTransformer2DModel

import comfy.patcher_extension
from comfy import lora_names, scaled_weights
from comfy.errors import ModelFileError
from comfy.families.base import StateDict, build_empty, count_indices, load_exactly
from comfy.families.flux_forward import predict

PATCH = 2  # latent pixels per side of a token
MLP_RATIO = 4


@dataclass(frozen=True)
class FluxShape:
    """Hyper-parameters, with the names that ComfyUI's `unet_config` gives them."""

    in_channels: int  # of the latent, before patches of 2x2 are made
    out_channels: int
    vec_in_dim: int
    context_in_dim: int
    hidden_size: int
    num_heads: int
    depth: int
    depth_single_blocks: int
    axes_dim: tuple[int, int, int]
    guidance_embed: bool

    def as_unet_config(self) -> dict:
        return {"image_model": "flux", "patch_size": PATCH, "mlp_ratio": float(MLP_RATIO), **asdict(self)}


def axes_of(head_width: int) -> tuple[int, int, int]:
    """Channels of a head that encode index, row and column: 16, 56 and 56 of 128."""
    return head_width // 8, head_width // 16 * 7, head_width // 16 * 7


def shape_of(weights: StateDict, prefix: str) -> FluxShape:
    """Read the hyper-parameters off the shapes of the weights below `prefix`."""
    hidden_size, patch_channels = weights[prefix + "img_in.weight"].shape
    head_width = weights[prefix + "double_blocks.0.img_attn.norm.key_norm.scale"].shape[0]
    return FluxShape(
        in_channels=patch_channels // PATCH**2,
        out_channels=weights[prefix + "final_layer.linear.weight"].shape[0] // PATCH**2,
        vec_in_dim=weights[prefix + "vector_in.in_layer.weight"].shape[1],
        context_in_dim=weights[prefix + "txt_in.weight"].shape[1],
        hidden_size=hidden_size,
        num_heads=hidden_size // head_width,
        depth=count_indices(weights, prefix + "double_blocks.{}."),
        depth_single_blocks=count_indices(weights, prefix + "single_blocks.{}."),
        axes_dim=axes_of(head_width),
        guidance_embed=prefix + "guidance_in.in_layer.weight" in weights,
    )


_EMBEDDERS = {
    "time_in": "timestep_embedder",
    "vector_in": "text_embedder",
    "guidance_in": "guidance_embedder",
}
_ENDS = {
    "img_in": "x_embedder", "txt_in": "context_embedder", "final_layer.linear": "proj_out",
    "final_layer.adaLN_modulation.1": "norm_out.linear",
    **{f"{old}.{side}_layer": f"time_text_embed.{new}.linear_{number}"
       for old, new in _EMBEDDERS.items() for side, number in (("in", 1), ("out", 2))},
}  # fmt: skip
_DOUBLE = {
    "img_mod.lin": "norm1.linear", "txt_mod.lin": "norm1_context.linear",
    "img_attn.norm.query_norm": "attn.norm_q", "img_attn.norm.key_norm": "attn.norm_k",
    "txt_attn.norm.query_norm": "attn.norm_added_q", "txt_attn.norm.key_norm": "attn.norm_added_k",
    "img_attn.proj": "attn.to_out.0", "txt_attn.proj": "attn.to_add_out",
    "img_mlp.0": "ff.net.0.proj", "img_mlp.2": "ff.net.2",
    "txt_mlp.0": "ff_context.net.0.proj", "txt_mlp.2": "ff_context.net.2",
}  # fmt: skip
_SINGLE = {
    "modulation.lin": "norm.linear", "linear2": "proj_out",
    "norm.query_norm": "attn.norm_q", "norm.key_norm": "attn.norm_k",
}  # fmt: skip
# Layers of the file that are several of the zoo, one below the other.
_DOUBLE_FUSED = {
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
}
_SINGLE_FUSED = {"linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")}


def layer_names(depth: int, depth_single_blocks: int, guidance_embed: bool) -> dict[str, tuple[str, ...]]:
    """Layer of the file -> its layers in the zoo's module."""
    names = {old: (new,) for old, new in _ENDS.items() if guidance_embed or "guidance" not in old}
    kinds = (
        (depth, "double_blocks", "transformer_blocks", _DOUBLE, _DOUBLE_FUSED),
        (depth_single_blocks, "single_blocks", "single_transformer_blocks", _SINGLE, _SINGLE_FUSED),
    )
    for count, old_kind, new_kind, single, fused in kinds:
        inside = {**{old: (new,) for old, new in single.items()}, **fused}
        for block in range(count):
            for old, new in inside.items():
                names[f"{old_kind}.{block}.{old}"] = tuple(f"{new_kind}.{block}.{name}" for name in new)
    return names


def _swap_halves(tensor: torch.Tensor) -> torch.Tensor:
    """The last layer's modulation is shift, scale in the file and scale, shift in the zoo."""
    return torch.cat(tensor.chunk(2)[::-1]) if tensor.numel() > 1 else tensor


def zoo_weights(weights: StateDict, names: dict[str, tuple[str, ...]], hidden_size: int) -> dict:
    """The weights under the zoo's names; parts of fused layers are views. Unknown keys stay as they are."""
    out = {}
    for key, tensor in weights.items():
        layer, _, leaf = key.rpartition(".")
        targets = names.get(layer, (layer,))
        leaf = "weight" if leaf == "scale" and layer in names else leaf
        if targets[0] == "norm_out.linear":
            tensor = _swap_halves(tensor)
        parts = (tensor,) * len(targets)  # one scale for all parts
        if len(targets) > 1 and tensor.numel() > 1:
            parts = tensor.tensor_split([hidden_size * i for i in range(1, len(targets))])
        out.update({f"{target}.{leaf}" if target else leaf: part for target, part in zip(targets, parts)})
    return out


def checkpoint_weights(weights: StateDict, names: dict[str, tuple[str, ...]]) -> dict:
    """The opposite of `zoo_weights`: fused layers are put together again."""
    out = {}
    for layer, targets in names.items():
        for leaf in ("weight", "bias", "scale_weight"):
            parts = [weights[f"{target}.{leaf}"] for target in targets if f"{target}.{leaf}" in weights]
            if not parts:
                continue
            tensor = parts[0] if len(parts) == 1 or parts[0].numel() == 1 else torch.cat(parts)
            if targets[0] == "norm_out.linear":
                tensor = _swap_halves(tensor)
            out[f"{layer}.scale" if layer.endswith("_norm") else f"{layer}.{leaf}"] = tensor
    if any(key.endswith(".scale_weight") for key in out):
        out["scaled_fp8"] = torch.zeros(2, dtype=torch.float8_e4m3fn)  # two numbers: weights are scaled only
    return out


def file_keys(names: Iterable[str]) -> list[str]:
    """Every key that a file with these layers has."""
    return [f"{layer}.{leaf}" for layer in names
            for leaf in (("scale",) if layer.endswith("_norm") else ("weight", "bias"))]  # fmt: skip


class FluxModel(FluxTransformer2DModel):
    """diffusers' transformer built from ComfyUI's `unet_config` and called with ComfyUI's arguments."""

    # Set here and by ModelPatcher; diffusers' own properties could not be.
    dtype = None
    device = None

    def __init__(
        self, in_channels, out_channels, vec_in_dim, context_in_dim, hidden_size, num_heads, depth,
        depth_single_blocks, axes_dim, guidance_embed, patch_size=PATCH, dtype=None, device=None,
        operations=None, **_unused,
    ):  # fmt: skip
        super().__init__(
            patch_size=1,
            in_channels=in_channels * PATCH**2,
            out_channels=out_channels * PATCH**2,
            num_layers=depth,
            num_single_layers=depth_single_blocks,
            attention_head_dim=hidden_size // num_heads,
            num_attention_heads=num_heads,
            joint_attention_dim=context_in_dim,
            pooled_projection_dim=vec_in_dim,
            guidance_embeds=guidance_embed,
            axes_dims_rope=tuple(axes_dim),
        )
        self.dtype = dtype
        self.patch_size = PATCH
        self.layer_names = layer_names(depth, depth_single_blocks, guidance_embed)

    @classmethod
    def empty(cls, device=None, **unet_config) -> FluxModel:
        """Without memory for weights; `load_weights` brings them."""
        return build_empty(lambda: cls(**unet_config))

    def lora_names(self) -> lora_names.Names:
        """Layers of LoRA files: in the checkpoint's names, where one is several here, and in diffusers'."""
        rows = {key: tensor.shape[0] for key, tensor in self.state_dict().items() if tensor.ndim}
        names = lora_names.of_fused_layers(self.layer_names, rows)
        last = "norm_out.linear.weight"  # scale and shift stand the other way round in checkpoints
        half = rows[last] // 2
        swapped = tuple(
            lora_names.Rows((last, (0, half - at, half)), at, half, 2 * half) for at in (0, half)
        )
        names.update(dict.fromkeys(lora_names.names_of_layer("final_layer.adaLN_modulation.1"), swapped))
        return names

    def load_weights(self, weights: StateDict) -> None:
        """Take the weights of a file, as they are named there without their prefix.

        Raises:
            ModelFileError: a weight is missing (named as in the file), unknown or of a wrong shape.
        """
        missing = [key for key in file_keys(self.layer_names) if key not in weights]
        if missing:
            raise ModelFileError(
                f"The diffusion model (Flux) in this file lacks weights ({len(missing)}): "
                f"{', '.join(missing[:4])}{', ...' if len(missing) > 4 else ''}. "
                "The file is damaged or of an unsupported variant."
            )
        renamed = zoo_weights(weights, self.layer_names, self.inner_dim)
        scaled_weights.make_room(self, renamed)
        load_exactly(self, renamed, what="diffusion model (Flux)")

    def forward(
        self, x, timestep, context, y=None, guidance=None, ref_latents=None, control=None,
        transformer_options={}, **kwargs,
    ):  # fmt: skip
        """The velocity (B, C, H, W) for latents x at timestep (B,), 1 to 0; context is (B, tokens, width)."""
        wrappers = comfy.patcher_extension.get_all_wrappers(
            comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, transformer_options
        )
        executor = comfy.patcher_extension.WrapperExecutor.new_class_executor(self._predict, self, wrappers)
        return executor.execute(
            x, timestep, context, y, guidance, ref_latents, control, transformer_options, **kwargs
        )

    def _predict(
        self, x, timestep, context, y=None, guidance=None, ref_latents=None, control=None,
        transformer_options={}, **kwargs,
    ):  # fmt: skip
        return predict(
            self, x, timestep, context, y, guidance, ref_latents=ref_latents, control=control,
            options=transformer_options, **kwargs,
        )  # fmt: skip
