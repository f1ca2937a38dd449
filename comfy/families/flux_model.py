# ruff: noqa: B006 - defaults like upstream's; they are only read
"""The transformer of Flux.1: from the original layout to diffusers' FluxTransformer2DModel.

A variant is data: `FluxShape` names the hyper-parameters, `shape_of` reads them off the weights. The wrapper
takes what ComfyUI's samplers pass: latents (B, C, H, W), timesteps, context, y, guidance, control.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from diffusers import FluxTransformer2DModel

import comfy.patcher_extension
from comfy.families.base import StateDict, count_indices
from comfy.families.flux_forward import predict
from comfy.families.pack_attention import packs_attention
from comfy.families.zoo_layers import ZooLayers, repeated
from comfy.families.zoo_model import ZooTransformer

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
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
}  # fmt: skip
_SINGLE = {
    "modulation.lin": "norm.linear", "linear2": "proj_out",
    "norm.query_norm": "attn.norm_q", "norm.key_norm": "attn.norm_k",
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
}  # fmt: skip


def layers(depth: int, depth_single_blocks: int, guidance_embed: bool) -> ZooLayers:
    """Layers of the file and of the zoo; the last modulation is shift, scale here and scale, shift there."""
    ends = {old: (new,) for old, new in _ENDS.items() if guidance_embed or "guidance" not in old}
    double = repeated(depth, "double_blocks", "transformer_blocks", _DOUBLE)
    single = repeated(depth_single_blocks, "single_blocks", "single_transformer_blocks", _SINGLE)
    return ZooLayers({**ends, **double, **single}, frozenset({"norm_out.linear"}), {"scale": "weight"})


def zoo_weights(weights: StateDict, names: ZooLayers, hidden_size: int) -> dict[str, torch.Tensor]:
    """The weights under the zoo's names without a module at hand: q, k and v are `hidden_size` rows each."""
    rows = {}
    for layer, targets in names.names.items():
        if len(targets) > 1 and f"{layer}.weight" in weights:
            before = hidden_size * (len(targets) - 1)
            sizes = [hidden_size] * (len(targets) - 1) + [weights[f"{layer}.weight"].shape[0] - before]
            rows.update(zip((f"{target}.weight" for target in targets), sizes))
    return names.to_zoo(weights, rows)


class FluxModel(ZooTransformer, FluxTransformer2DModel):
    """diffusers' transformer built from ComfyUI's `unet_config` and called with ComfyUI's arguments."""

    title = "Flux"

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
        self.patch_size = PATCH
        self.finish(dtype, layers(depth, depth_single_blocks, guidance_embed))

    def forward(
        self, x, timestep, context, y=None, guidance=None, ref_latents=None, control=None,
        transformer_options={}, **kwargs,
    ):  # fmt: skip
        """The velocity (B, C, H, W) for latents x at timestep (B,), 1 to 0; context is (B, tokens, width)."""
        wrappers = comfy.patcher_extension.get_all_wrappers(
            comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, transformer_options
        )
        executor = comfy.patcher_extension.WrapperExecutor.new_class_executor(self.predict, self, wrappers)
        with packs_attention(transformer_options):
            return executor.execute(
                x, timestep, context, y, guidance, ref_latents, control, transformer_options, **kwargs
            )

    def predict(
        self, x, timestep, context, y=None, guidance=None, ref_latents=None, control=None,
        transformer_options={}, **kwargs,
    ):  # fmt: skip
        return predict(
            self, x, timestep, context, y, guidance, ref_latents=ref_latents, control=control,
            options=transformer_options, **kwargs,
        )  # fmt: skip
