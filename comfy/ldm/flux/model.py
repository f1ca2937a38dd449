# ruff: noqa: B006 - defaults like upstream's; they are only read
"""Flux.1's transformer with the names of weights that its files have, and with its places for patches.

Models that run here are `comfy.families.flux_model.FluxModel`; this is the network for packs that build one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

import comfy.ldm.common_dit
import comfy.patcher_extension
from comfy.families.flux_forward import from_patches, to_patches
from comfy.ldm.flux.layers import (
    DoubleStreamBlock,
    EmbedND,
    LastLayer,
    MLPEmbedder,
    Modulation,
    SingleStreamBlock,
    timestep_embedding,
)


@dataclass
class FluxParams:
    """The numbers of a variant, with the names of `unet_config`."""

    in_channels: int
    out_channels: int
    vec_in_dim: int
    context_in_dim: int
    hidden_size: int
    mlp_ratio: float
    num_heads: int
    depth: int
    depth_single_blocks: int
    axes_dim: list
    theta: int
    patch_size: int
    qkv_bias: bool
    guidance_embed: bool
    txt_ids_dims: list
    global_modulation: bool = False
    mlp_silu_act: bool = False
    ops_bias: bool = True
    default_ref_method: str = "offset"
    ref_index_scale: float = 1.0
    yak_mlp: bool = False
    txt_norm: bool = False


def invert_slices(slices, length):
    """The parts [(start, end), ...] of 0..length that no slice covers."""
    gaps, at = [], 0
    for start, end in [*sorted(slices), (length, length)]:
        if start > at:
            gaps.append((at, start))
        at = max(at, end)
    return gaps


class Flux(nn.Module):
    """Double blocks, then single blocks, over patches of latents x (B, C, H, W)."""

    def __init__(
        self, image_model=None, final_layer=True, dtype=None, device=None, operations=None, **kwargs
    ):
        super().__init__()
        params = FluxParams(**kwargs)
        self.params, self.dtype, self.patch_size = params, dtype, params.patch_size
        self.in_channels, self.out_channels = (
            channels * params.patch_size**2 for channels in (params.in_channels, params.out_channels)
        )
        width, heads = params.hidden_size, params.num_heads
        if width % heads or sum(params.axes_dim) != width // heads:
            raise ValueError(
                f"Flux: hidden_size {width} must be num_heads {heads} times the sum of axes_dim "
                f"{params.axes_dim}."
            )
        self.hidden_size, self.num_heads = width, heads
        kind = {"dtype": dtype, "device": device}
        made = {"operations": operations, **kind}
        biased = {"bias": params.ops_bias, **kind}
        self.pe_embedder = EmbedND(dim=width // heads, theta=params.theta, axes_dim=params.axes_dim)
        self.img_in = operations.Linear(self.in_channels, width, **biased)
        self.time_in = MLPEmbedder(256, width, operations=operations, **biased)
        self.vector_in = (
            MLPEmbedder(params.vec_in_dim, width, **made) if params.vec_in_dim is not None else None
        )
        self.guidance_in = nn.Identity()
        if params.guidance_embed:
            self.guidance_in = MLPEmbedder(256, width, operations=operations, **biased)
        self.txt_in = operations.Linear(params.context_in_dim, width, **biased)
        self.txt_norm = operations.RMSNorm(params.context_in_dim, **kind) if params.txt_norm else None
        block = {
            "mlp_ratio": params.mlp_ratio, "modulation": not params.global_modulation,
            "mlp_silu_act": params.mlp_silu_act, "yak_mlp": params.yak_mlp, **made,
        }  # fmt: skip
        self.double_blocks = nn.ModuleList(
            DoubleStreamBlock(width, heads, qkv_bias=params.qkv_bias, proj_bias=params.ops_bias, **block)
            for _ in range(params.depth)
        )
        self.single_blocks = nn.ModuleList(
            SingleStreamBlock(width, heads, bias=params.ops_bias, **block)
            for _ in range(params.depth_single_blocks)
        )
        if final_layer:
            self.final_layer = LastLayer(width, 1, self.out_channels, bias=params.ops_bias, **made)
        if params.global_modulation:
            shared = {"bias": False, **made}
            self.double_stream_modulation_img = Modulation(width, double=True, **shared)
            self.double_stream_modulation_txt = Modulation(width, double=True, **shared)
            self.single_stream_modulation = Modulation(width, double=False, **shared)

    # --- one evaluation over tokens ---

    def forward_orig(
        self, img, img_ids, txt, txt_ids, timesteps, y, guidance=None, control=None, timestep_zero_index=None,
        transformer_options={}, attn_mask=None,
    ):  # fmt: skip
        """img (B, tokens, patch), txt (B, tokens, width) and their positions -> (B, picture's tokens, patch).

        `timestep_zero_index` [[start, end]] are tokens of the picture that are at time 0; `timesteps` is then
        twice as long.
        """
        if img.ndim != 3 or txt.ndim != 3:
            raise ValueError(
                f"Flux takes tokens (B, tokens, width), not a picture {tuple(img.shape)} and a text "
                f"{tuple(txt.shape)}."
            )
        options = dict(transformer_options)
        img = self.img_in(img)
        vec = self._vector(timesteps, guidance, y, img)
        txt = self.txt_in(txt if self.txt_norm is None else self.txt_norm(txt))
        for patch in options.get("patches", {}).get("post_input", ()):
            out = patch(
                {
                    "img": img,
                    "txt": txt,
                    "img_ids": img_ids,
                    "txt_ids": txt_ids,
                    "transformer_options": options,
                }
            )
            img, txt, img_ids, txt_ids = (out[name] for name in ("img", "txt", "img_ids", "txt_ids"))
        pe = None if img_ids is None else self.pe_embedder(torch.cat((txt_ids, img_ids), dim=1))
        walk = _Walk(self, vec, pe, attn_mask, control or {}, options)
        if timestep_zero_index is not None:
            walk.at_time_zero(timestep_zero_index, img.shape[1], txt.shape[1])
        img, txt = walk.double(img, txt)
        img = walk.single(img, txt)
        return self.final_layer(img, walk.vec, **walk.dims_of("modulation_dims", 0))

    def _vector(self, timesteps, guidance, y, img):
        """What modulates every block (B, hidden)."""
        vec = self.time_in(timestep_embedding(timesteps, 256).to(img.dtype))
        if self.params.guidance_embed and guidance is not None:
            vec = vec + self.guidance_in(timestep_embedding(guidance, 256).to(img.dtype))
        if self.vector_in is not None:
            width = self.params.vec_in_dim
            y = img.new_zeros(len(img), width) if y is None else y
            vec = vec + self.vector_in(y[:, :width])
        return vec

    # --- from latents to tokens ---

    def process_img(self, x, index=0, h_offset=0, w_offset=0, transformer_options={}):
        """(tokens (B, n, patch), positions (B, n, axes)) of latents; offsets in latent pixels."""
        size = self.patch_size
        rows, columns = ((side + size // 2) // size for side in x.shape[-2:])
        tokens = to_patches(x, size)
        top, left = ((offset + size // 2) // size for offset in (h_offset, w_offset))
        stretch = transformer_options.get("rope_options") or {}
        ids = torch.zeros(rows, columns, len(self.params.axes_dim), device=x.device)
        ids[..., 0] = index + stretch.get("shift_t", 0.0)
        along = {"dtype": torch.float32, "device": x.device}
        y = torch.arange(rows, **along) * stretch.get("scale_y", 1.0) + top + stretch.get("shift_y", 0.0)
        across = torch.arange(columns, **along) * stretch.get("scale_x", 1.0) + left
        ids[..., 1], ids[..., 2] = y[:, None], across + stretch.get("shift_x", 0.0)
        return tokens, ids.flatten(0, 1).expand(len(x), -1, -1)

    def forward(
        self, x, timestep, context, y=None, guidance=None, ref_latents=None, control=None,
        transformer_options={}, **kwargs,
    ):  # fmt: skip
        """The velocity (B, C, H, W) at timestep (B,), 1 to 0, for a context (B, tokens, width)."""
        wrappers = comfy.patcher_extension.get_all_wrappers(
            comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, transformer_options
        )
        executor = comfy.patcher_extension.WrapperExecutor.new_class_executor(self._forward, self, wrappers)
        return executor.execute(
            x, timestep, context, y, guidance, ref_latents, control, transformer_options, **kwargs
        )

    def _forward(
        self, x, timestep, context, y=None, guidance=None, ref_latents=None, control=None,
        transformer_options={}, **kwargs,
    ):  # fmt: skip
        options = dict(transformer_options)
        img, img_ids = self.process_img(x, transformer_options=options)
        own, zero = img.shape[1], None
        if ref_latents is not None:
            method = kwargs.get("ref_latents_method") or self.params.default_ref_method
            refs = list(self._references(x, ref_latents, method, options))
            img = torch.cat([img, *(tokens for tokens, _ in refs)], dim=1)
            img_ids = torch.cat([img_ids, *(ids for _, ids in refs)], dim=1)
            options["reference_image_num_tokens"] = [tokens.shape[1] for tokens, _ in refs]
            if method == "index_timestep_zero" and refs:
                timestep, zero = torch.cat([timestep, timestep * 0]), [[own, img.shape[1]]]
        txt_ids = torch.zeros(len(x), context.shape[1], len(self.params.axes_dim), device=x.device)
        for axis in self.params.txt_ids_dims:
            txt_ids[:, :, axis] = torch.arange(context.shape[1], dtype=torch.float32, device=x.device)
        out = self.forward_orig(
            img, img_ids, context, txt_ids, timestep, y, guidance, control, timestep_zero_index=zero,
            transformer_options=options, attn_mask=kwargs.get("attention_mask"),
        )  # fmt: skip
        return from_patches(out[:, :own], *x.shape[-2:], self.patch_size)

    def _references(self, x, ref_latents, method: str, options: dict):
        """Tokens and positions of each reference: at an index of its own, along the diagonal, or beside."""
        size, bottom, right = self.patch_size, 0, 0
        for number, ref in enumerate(ref_latents, start=1):
            height, width = ref.shape[-2:]
            place = {"index": 1}
            if method in ("index", "index_timestep_zero"):
                place = {"index": number * self.params.ref_index_scale}
            elif method == "uxo":
                rows, columns = ((side + size // 2) // size * size for side in x.shape[-2:])
                place = {"index": 0, "h_offset": rows + bottom, "w_offset": columns + right}
                bottom, right = bottom + height, right + width
            else:
                if height + bottom > width + right:
                    place["w_offset"] = right
                else:
                    place["h_offset"] = bottom
                bottom = max(bottom, height + place.get("h_offset", 0))
                right = max(right, width + place.get("w_offset", 0))
            yield self.process_img(ref, **place, transformer_options=options)


class _Walk:
    """One evaluation of the blocks: what they are told, what control adds, what stands in their place."""

    def __init__(self, net: Flux, vec, pe, mask, control: dict, options: dict):
        self.net, self.vec, self.text_vec, self.pe, self.mask = net, vec, vec, pe, mask
        self.control, self.options = control, options
        self.replaced = options.get("patches_replace", {}).get("dit", {})
        self.dims = None

    def at_time_zero(self, slices, pixels: int, words: int) -> None:
        batch = len(self.vec) // 2
        self.vec = self.vec.unflatten(0, (2, batch)).transpose(0, 1)  # (B, now and zero, hidden)
        self.text_vec = self.vec[:, 0]
        now = [(start, end, 0) for start, end in invert_slices(slices, pixels)]
        self.dims = now + [(start, end, 1) for start, end in slices]

    def dims_of(self, name: str, words: int) -> dict:
        """The parts of the tokens; the text's, which are now, stand before the picture's."""
        if self.dims is None:
            return {}
        return {name: [(start and start + words, end + words, row) for start, end, row in self.dims]}

    def _run(self, kind: str, index: int, block, given: dict, extra: dict):
        """A block, or what stands in its place."""
        names = ("img", "txt") if kind == "double" else ("img",)

        def original(told):
            told = {key: value for key, value in told.items() if key in given}
            if kind == "single":
                told["x"] = told.pop("img")
            out = block(**told, **extra)
            return dict(zip(names, out if kind == "double" else (out,)))

        self.options["block_index"] = index
        replacement = self.replaced.get((f"{kind}_block", index))
        return original(given) if replacement is None else replacement(given, {"original_block": original})

    def _told(self, vec, **tokens) -> dict:
        return {
            **tokens, "vec": vec, "pe": self.pe, "attn_mask": self.mask, "transformer_options": self.options
        }  # fmt: skip

    def _controlled(self, name: str, index: int, img, start: int):
        added = self.control.get(name) or ()
        added = added[index] if index < len(added) else None
        if added is None:
            return img
        room = img.shape[1] - start - added.shape[1]
        return img + nn.functional.pad(added, (0, 0, start, room))

    def double(self, img, txt):
        net, vec = self.net, self.vec
        if net.params.global_modulation:
            vec = (
                net.double_stream_modulation_img(self.vec),
                net.double_stream_modulation_txt(self.text_vec),
            )
        self.options.update(total_blocks=len(net.double_blocks), block_type="double")
        for index, block in enumerate(net.double_blocks):
            given = self._told(vec, img=img, txt=txt)
            out = self._run("double", index, block, given, self.dims_of("modulation_dims_img", 0))
            img, txt = self._controlled("input", index, out["img"], 0), out["txt"]
        if img.dtype == torch.float16:
            img = torch.nan_to_num(img, nan=0.0, posinf=65504, neginf=-65504)
        return img, txt

    def single(self, img, txt):
        net, vec, words = self.net, self.vec, txt.shape[1]
        if net.params.global_modulation:
            vec, _ = net.single_stream_modulation(self.vec)
        img = torch.cat((txt, img), dim=1)
        self.options.update(
            total_blocks=len(net.single_blocks), block_type="single", img_slice=[words, img.shape[1]]
        )
        for index, block in enumerate(net.single_blocks):
            extra = self.dims_of("modulation_dims", words)
            img = self._run("single", index, block, self._told(vec, img=img), extra)["img"]
            img = self._controlled("output", index, img, words)
        return img[:, words:]


__all__ = [
    "DoubleStreamBlock",
    "EmbedND",
    "Flux",
    "FluxParams",
    "LastLayer",
    "MLPEmbedder",
    "Modulation",
    "SingleStreamBlock",
    "invert_slices",
    "timestep_embedding",
]
