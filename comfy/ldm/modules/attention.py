# ruff: noqa: B006 - defaults like upstream's
"""Attention, and the transformer blocks of latent diffusion's UNet.

Every attention function takes q, k and v as (B, tokens, heads * d), or with `skip_reshape` as
(B, heads, tokens, d), and gives (B, tokens, heads * d), or with `skip_output_reshape` (B, heads, tokens, d).
`optimized_attention` and `optimized_attention_masked` are looked up when they are used, here and by the
models of `comfy.families`, so that a pack may put others in their place.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import nn

import comfy.model_management as model_management
import comfy.ops
from comfy.cli_args import args
from comfy.ldm.modules.diffusionmodules.util import AlphaBlender, timestep_embedding
from comfy.ldm.modules.sub_quadratic_attention import efficient_dot_product_attention
from comfy.ldm.util import default, exists

ops = comfy.ops.disable_weight_init

REGISTERED_ATTENTION_FUNCTIONS: dict[str, Callable] = {}


def register_attention_function(name: str, func: Callable) -> None:
    """Make an attention function known by a name; the first of a name stays."""
    if name in REGISTERED_ATTENTION_FUNCTIONS:
        logging.warning("There is an attention function %s already; it stays.", name)
    else:
        REGISTERED_ATTENTION_FUNCTIONS[name] = func


def get_attention_function(name: str, default: Any = ...) -> Callable | None:
    """The function of a name; "optimized" is the one in use.

    Raises:
        KeyError: there is none, and no default was given.
    """
    if name == "optimized":
        return optimized_attention
    if name in REGISTERED_ATTENTION_FUNCTIONS:
        return REGISTERED_ATTENTION_FUNCTIONS[name]
    if default is ...:
        known = ", ".join(sorted(REGISTERED_ATTENTION_FUNCTIONS))
        raise KeyError(f"There is no attention function {name!r}. Known here: optimized, {known}.")
    return default


def get_attn_precision(attn_precision, current_dtype):
    """The dtype of the scores: what a model asks for, unless the options of the program say otherwise."""
    if args.dont_upcast_attention:
        return None
    forced = model_management.force_upcast_attention_dtype() or {}
    return forced.get(current_dtype, attn_precision)


class AttentionTensorContainer:
    """A tensor that attention may take, so that nobody keeps its memory meanwhile."""

    __slots__ = ("tensor",)

    def __init__(self, tensor):
        self.tensor = tensor

    def peek(self):
        """The tensor, which stays."""
        if self.tensor is None:
            raise RuntimeError("This attention input was taken already; each may be taken once.")
        return self.tensor

    def take(self):
        """The tensor, which is gone afterwards."""
        tensor, self.tensor = self.peek(), None
        return tensor


def wrap_attn(func):
    """Let `transformer_options["optimized_attention_override"](func, *args, **kwargs)` replace func."""

    @functools.wraps(func)
    def wrapper(*args, **kwargs):
        is_inside = kwargs.pop("_inside_attn_wrapper", False)
        options = kwargs.get("transformer_options") or {}
        override = None if is_inside else options.get("optimized_attention_override")
        chosen = wrapper if override is None else override
        if args and isinstance(args[0], AttentionTensorContainer):
            own = getattr(chosen, "container_function", None)
            if own is not None:
                return own(*args, _inside_attn_wrapper=True, **kwargs)
            args = (*(container.take() for container in args[:3]), *args[3:])
        if override is not None:
            return override(func, *args, _inside_attn_wrapper=True, **kwargs)
        return func(*args, _inside_attn_wrapper=True, **kwargs)

    wrapper.container_function = None
    return wrapper


# --- layouts and masks ---


def _by_head(q, k, v, heads, skip_reshape, *, repeat_kv):
    """q, k and v as (B, heads, tokens, d); k and v of fewer heads are repeated where asked for."""
    if not skip_reshape:
        width = q.shape[-1] // heads
        q, k, v = (t.unflatten(-1, (-1, width)).transpose(1, 2) for t in (q, k, v))
    if repeat_kv and k.shape[1] != q.shape[1]:
        k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], dim=1) for t in (k, v))
    return q, k, v


def _joined(out, skip_output_reshape):
    return out if skip_output_reshape else out.transpose(1, 2).flatten(2)


def _four_sides(mask):
    """(queries, keys), (B, queries, keys) or (B, heads, queries, keys) as the last."""
    while mask.ndim < 4:
        mask = mask.unsqueeze(0 if mask.ndim == 2 else 1)
    return mask


def _bias(mask, q):
    """A mask as what is added to the scores of q; one of truth values tells which keys are seen."""
    if mask is None:
        return None
    if mask.dtype == torch.bool:
        if mask.ndim == 2 and len(mask) == len(q):
            mask = mask[:, None, None]
        mask = torch.zeros(mask.shape, dtype=q.dtype, device=q.device).masked_fill(~mask, -torch.inf)
    return _four_sides(mask)


def _merged_heads(mask, q):
    """The bias (B, heads, queries or 1, keys) as (B * heads, queries or 1, keys)."""
    return None if mask is None else mask.expand(*q.shape[:2], -1, -1).flatten(0, 1)


# --- attention functions ---


@wrap_attn
def attention_basic(
    q, k, v, heads, mask=None, attn_precision=None, skip_reshape=False, skip_output_reshape=False, **kwargs
):
    """With the whole matrix of scores at once."""
    precision = get_attn_precision(attn_precision, q.dtype)
    q, k, v = _by_head(q, k, v, heads, skip_reshape, repeat_kv=True)
    scale = kwargs.get("scale") or q.shape[-1] ** -0.5
    if precision == torch.float32:
        q, k = q.float(), k.float()
    scores = q @ k.transpose(-1, -2) * scale
    bias = _bias(mask, q)
    if bias is not None:
        scores = scores + bias
    return _joined(scores.softmax(dim=-1).to(v.dtype) @ v, skip_output_reshape)


@wrap_attn
def attention_sub_quad(
    query, key, value, heads, mask=None, attn_precision=None, skip_reshape=False, skip_output_reshape=False,
    **kwargs,
):  # fmt: skip
    """With as many scores at once as the free memory has room for."""
    precision = get_attn_precision(attn_precision, query.dtype)
    q, k, v = _by_head(query, key, value, heads, skip_reshape, repeat_kv=True)
    if kwargs.get("scale"):
        q = q * (kwargs["scale"] * q.shape[-1] ** 0.5)  # the function divides by the root of d
    upcast = precision == torch.float32 and q.dtype != torch.float32
    free = model_management.get_free_memory(q.device)
    bytes_per_row = q.shape[0] * q.shape[1] * k.shape[2] * (4 if upcast else q.element_size()) * 4
    fitting = [size for size in (4096, 2048, 1024, 512, 256) if size * bytes_per_row <= free]
    out = efficient_dot_product_attention(
        q.flatten(0, 1), k.flatten(0, 1).transpose(1, 2), v.flatten(0, 1),
        query_chunk_size=fitting[0] if fitting else 512,
        kv_chunk_size=k.shape[2] if fitting else None,
        use_checkpoint=False, upcast_attention=upcast, mask=_merged_heads(_bias(mask, q), q),
    )  # fmt: skip
    return _joined(out.unflatten(0, q.shape[:2]), skip_output_reshape)


@wrap_attn
def attention_split(
    q, k, v, heads, mask=None, attn_precision=None, skip_reshape=False, skip_output_reshape=False, **kwargs
):
    """With the scores of some queries at once, of fewer where the memory is too small.

    Raises:
        RuntimeError: the free memory has no room for the scores of 1/64 of the queries.
    """
    precision = get_attn_precision(attn_precision, q.dtype)
    q, k, v = _by_head(q, k, v, heads, skip_reshape, repeat_kv=True)
    scale = kwargs.get("scale") or q.shape[-1] ** -0.5
    upcast = precision == torch.float32
    bias = _bias(mask, q)
    need = 3 * math.prod(q.shape[:3]) * k.shape[2] * (4 if upcast else q.element_size())
    free = max(1, model_management.get_free_memory(q.device))
    steps = 2 ** max(0, math.ceil(math.log2(need / free)))
    if steps > 64:
        raise RuntimeError(
            f"Attention over {q.shape[2]} tokens needs {need / 64 / 2**30:.1f} GB even in 64 parts, and "
            f"{free / 2**30:.1f} GB are free. Use a smaller picture or batch."
        )
    out = torch.empty((*q.shape[:3], v.shape[-1]), dtype=v.dtype, device=q.device)
    k = k.float() if upcast else k
    size = -(-q.shape[2] // steps)
    for start in range(0, q.shape[2], size):
        rows = slice(start, start + size)
        part = q[:, :, rows].float() if upcast else q[:, :, rows]
        scores = part @ k.transpose(-1, -2) * scale
        if bias is not None:
            scores = scores + (bias if bias.shape[2] == 1 else bias[:, :, rows])
        out[:, :, rows] = scores.softmax(dim=-1).to(v.dtype) @ v
    return _joined(out, skip_output_reshape)


BROKEN_XFORMERS = False
SDP_BATCH_LIMIT = 2**15  # larger batches overflow the grid of some CUDA kernels


@wrap_attn
def attention_pytorch(
    q, k, v, heads, mask=None, attn_precision=None, skip_reshape=False, skip_output_reshape=False, **kwargs
):
    """torch's own, which chooses a kernel by what it is given."""
    q, k, v = _by_head(q, k, v, heads, skip_reshape, repeat_kv=False)
    mask = None if mask is None else _four_sides(mask)
    options = {"scale": kwargs.get("scale"), "enable_gqa": k.shape[1] != q.shape[1]}
    parts = []
    for start in range(0, len(q), SDP_BATCH_LIMIT):
        rows = slice(start, start + SDP_BATCH_LIMIT)
        bias = mask if mask is None or len(mask) == 1 else mask[rows]
        parts.append(F.scaled_dot_product_attention(q[rows], k[rows], v[rows], attn_mask=bias, **options))
    return _joined(parts[0] if len(parts) == 1 else torch.cat(parts), skip_output_reshape)


def _library(module: str, what: str):
    """An optional library of attention kernels.

    Raises:
        ImportError: it is not installed; the message says what to install.
    """
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{what} attention needs the package {module.partition('.')[0]}, which is not installed. Install "
            "it for this Python, or choose another attention."
        ) from error


@wrap_attn
def attention_xformers(
    q, k, v, heads, mask=None, attn_precision=None, skip_reshape=False, skip_output_reshape=False, **kwargs
):
    """xformers' memory efficient attention."""
    kernels = _library("xformers.ops", "xformers")
    q, k, v = _by_head(q, k, v, heads, skip_reshape, repeat_kv=True)
    bias = _bias(mask, q)
    if bias is not None:  # its kernels read rows of a multiple of eight
        room = torch.empty((*bias.shape[:3], -(-bias.shape[-1] // 8) * 8), dtype=q.dtype, device=q.device)
        room[..., : bias.shape[-1]] = bias
        bias = room[..., : bias.shape[-1]].expand(*q.shape[:2], q.shape[2], -1)
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    out = kernels.memory_efficient_attention(q, k, v, attn_bias=bias, scale=kwargs.get("scale"))
    return out.transpose(1, 2) if skip_output_reshape else out.flatten(2)


@wrap_attn
def attention_sage(
    q, k, v, heads, mask=None, attn_precision=None, skip_reshape=False, skip_output_reshape=False, **kwargs
):
    """SageAttention's 8-bit kernels; a mask, which they do not know, goes to torch's."""
    if mask is not None:
        options = {"skip_reshape": skip_reshape, "skip_output_reshape": skip_output_reshape, **kwargs}
        return attention_pytorch(q, k, v, heads, mask, attn_precision, **options)
    kernels = _library("sageattention", "Sage")
    q, k, v = _by_head(q, k, v, heads, skip_reshape, repeat_kv=True)
    out = kernels.sageattn(q, k, v, is_causal=False, tensor_layout="HND", sm_scale=kwargs.get("scale"))
    return _joined(out, skip_output_reshape)


@wrap_attn
def attention3_sage(
    q, k, v, heads, mask=None, attn_precision=None, skip_reshape=False, skip_output_reshape=False, **kwargs
):
    """SageAttention 3's 4-bit kernels; a mask or a scale of one's own goes to torch's."""
    if mask is not None or kwargs.get("scale"):
        options = {"skip_reshape": skip_reshape, "skip_output_reshape": skip_output_reshape, **kwargs}
        return attention_pytorch(q, k, v, heads, mask, attn_precision, **options)
    kernels = _library("sageattn3", "Sage 3")
    q, k, v = _by_head(q, k, v, heads, skip_reshape, repeat_kv=True)
    return _joined(kernels.sageattn3_blackwell(q, k, v, is_causal=False), skip_output_reshape)


@wrap_attn
def attention_flash(
    q, k, v, heads, mask=None, attn_precision=None, skip_reshape=False, skip_output_reshape=False, **kwargs
):
    """FlashAttention's kernels, in fp16 or bf16; a mask, which they do not know, goes to torch's."""
    if mask is not None:
        options = {"skip_reshape": skip_reshape, "skip_output_reshape": skip_output_reshape, **kwargs}
        return attention_pytorch(q, k, v, heads, mask, attn_precision, **options)
    kernels = _library("flash_attn", "Flash")
    q, k, v = (t.transpose(1, 2) for t in _by_head(q, k, v, heads, skip_reshape, repeat_kv=True))
    out = kernels.flash_attn_func(q, k, v, softmax_scale=kwargs.get("scale"), causal=False)
    return out.transpose(1, 2) if skip_output_reshape else out.flatten(2)


def attention_comfy_kitchen_int8(*args, **kwargs):
    """Not here.

    Raises:
        NotImplementedError: always.
    """
    raise NotImplementedError(
        "There is no 8-bit attention of comfy-kitchen in this program. Use optimized_attention or "
        "attention_sage."
    )


def _is_installed(module: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(module) is not None


SAGE_ATTENTION_IS_AVAILABLE = _is_installed("sageattention")
SAGE_ATTENTION_SUPPORTS_MASK = False
SAGE_ATTENTION3_IS_AVAILABLE = _is_installed("sageattn3")
FLASH_ATTENTION_IS_AVAILABLE = _is_installed("flash_attn")
COMFY_KITCHEN_INT8_ATTENTION_IS_AVAILABLE = False

for _name, _function, _is_there in (
    ("basic", attention_basic, True),
    ("pytorch", attention_pytorch, True),
    ("sub_quad", attention_sub_quad, True),
    ("split", attention_split, True),
    ("xformers", attention_xformers, _is_installed("xformers")),
    ("sage", attention_sage, SAGE_ATTENTION_IS_AVAILABLE),
    ("sage3", attention3_sage, SAGE_ATTENTION3_IS_AVAILABLE),
    ("flash", attention_flash, FLASH_ATTENTION_IS_AVAILABLE),
):
    if _is_there:
        register_attention_function(_name, _function)


def _chosen() -> Callable:
    """The attention that the options of the program ask for; torch's where they ask for none."""
    if model_management.sage_attention_enabled():
        return attention_sage
    if model_management.flash_attention_enabled():
        return attention_flash
    if args.use_split_cross_attention:
        return attention_split
    return attention_sub_quad if args.use_quad_cross_attention else attention_pytorch


optimized_attention = _chosen()
optimized_attention_masked = optimized_attention


def optimized_attention_for_device(device, mask=False, small_input=False):
    """The function to use on a device: text encoders ask with `small_input`."""
    if small_input:
        return attention_pytorch
    return optimized_attention_masked if mask else optimized_attention


# --- layers ---


class GEGLU(nn.Module):
    """A linear layer whose output is gated by GELU of its other half (Shazeer 2020)."""

    def __init__(self, dim_in, dim_out, dtype=None, device=None, operations=ops):
        super().__init__()
        self.proj = operations.Linear(dim_in, dim_out * 2, dtype=dtype, device=device)

    def forward(self, x):
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    """Two linear layers with GELU, or GEGLU with `glu`, between."""

    def __init__(
        self, dim, dim_out=None, mult=4, glu=False, dropout=0.0, dtype=None, device=None, operations=ops
    ):
        super().__init__()
        inner = int(dim * mult)
        kind = {"dtype": dtype, "device": device}
        if glu:
            first = GEGLU(dim, inner, operations=operations, **kind)
        else:
            first = nn.Sequential(operations.Linear(dim, inner, **kind), nn.GELU())
        last = operations.Linear(inner, default(dim_out, dim), **kind)
        self.net = nn.Sequential(first, nn.Dropout(dropout), last)

    def forward(self, x):
        return self.net(x)


def Normalize(in_channels, dtype=None, device=None):  # noqa: N802 - the name that packs import
    """Group norm in 32 groups."""
    return nn.GroupNorm(32, in_channels, eps=1e-6, affine=True, dtype=dtype, device=device)


class CrossAttention(nn.Module):
    """Attention of x (B, tokens, query_dim) to a context (B, tokens, context_dim), or to itself."""

    def __init__(
        self, query_dim, context_dim=None, heads=8, dim_head=64, dropout=0.0, attn_precision=None, dtype=None,
        device=None, operations=ops,
    ):  # fmt: skip
        super().__init__()
        inner, context_dim = dim_head * heads, default(context_dim, query_dim)
        kind = {"dtype": dtype, "device": device}
        self.attn_precision, self.heads, self.dim_head = attn_precision, heads, dim_head
        self.to_q = operations.Linear(query_dim, inner, bias=False, **kind)
        self.to_k = operations.Linear(context_dim, inner, bias=False, **kind)
        self.to_v = operations.Linear(context_dim, inner, bias=False, **kind)
        self.to_out = nn.Sequential(operations.Linear(inner, query_dim, **kind), nn.Dropout(dropout))

    def forward(self, x, context=None, value=None, mask=None, transformer_options={}):
        context = default(context, x)
        q, k, v = self.to_q(x), self.to_k(context), self.to_v(default(value, context))
        options = {"attn_precision": self.attn_precision, "transformer_options": transformer_options}
        if mask is None:
            return self.to_out(optimized_attention(q, k, v, self.heads, **options))
        return self.to_out(optimized_attention_masked(q, k, v, self.heads, mask, **options))


class BasicTransformerBlock(nn.Module):
    """Self-attention, cross-attention and a feed-forward layer, with the places for packs' patches."""

    def __init__(
        self, dim, n_heads, d_head, dropout=0.0, context_dim=None, gated_ff=True, checkpoint=True,
        ff_in=False, inner_dim=None, disable_self_attn=False, disable_temporal_crossattention=False,
        switch_temporal_ca_to_sa=False, attn_precision=None, dtype=None, device=None, operations=ops,
    ):  # fmt: skip
        super().__init__()
        if disable_temporal_crossattention and switch_temporal_ca_to_sa:
            raise ValueError(
                "BasicTransformerBlock: cross-attention cannot be both disabled and made self-attention; "
                "set one of disable_temporal_crossattention and switch_temporal_ca_to_sa."
            )
        kind = {"dtype": dtype, "device": device}
        inner = default(inner_dim, dim)
        feed = {"dropout": dropout, "glu": gated_ff, "operations": operations, **kind}
        attend = {
            "heads": n_heads, "dim_head": d_head, "dropout": dropout, "attn_precision": attn_precision,
            "operations": operations, **kind,
        }  # fmt: skip
        self.is_res = inner == dim
        self.ff_in = False
        if ff_in or inner_dim is not None:
            self.norm_in = operations.LayerNorm(dim, **kind)
            del self.ff_in
            self.ff_in = FeedForward(dim, dim_out=inner, **feed)
        self.disable_self_attn = disable_self_attn
        self.attn1 = CrossAttention(inner, context_dim if disable_self_attn else None, **attend)
        self.ff = FeedForward(inner, dim_out=dim, **feed)
        self.attn2 = None
        if not disable_temporal_crossattention:
            self.attn2 = CrossAttention(inner, None if switch_temporal_ca_to_sa else context_dim, **attend)
            self.norm2 = operations.LayerNorm(inner, **kind)
        self.norm1 = operations.LayerNorm(inner, **kind)
        self.norm3 = operations.LayerNorm(inner, **kind)
        self.n_heads, self.d_head, self.attn_precision = n_heads, d_head, attn_precision
        self.switch_temporal_ca_to_sa = switch_temporal_ca_to_sa

    def forward(self, x, context=None, transformer_options={}):
        patches = transformer_options.get("patches", {})
        told = {k: v for k, v in transformer_options.items() if k not in ("patches", "patches_replace")}
        told.update(n_heads=self.n_heads, dim_head=self.d_head, attn_precision=self.attn_precision)
        if self.ff_in:
            entered = self.ff_in(self.norm_in(x))
            x = entered + x if self.is_res else entered
        own_context = context if self.disable_self_attn else None
        n = self._attend("attn1", self.norm1(x), own_context, told, transformer_options)
        x = x + n
        for patch in patches.get("middle_patch", ()):
            x = patch(x, told)
        if self.attn2 is not None:
            n = self.norm2(x)
            seen = n if self.switch_temporal_ca_to_sa else context
            n = self._attend("attn2", n, seen, told, transformer_options)
        else:  # networks without cross-attention were trained with the first attention added twice
            n = self._patched_output("attn2", n, told, patches)
        x = n + x
        out = self.ff(self.norm3(x))
        return x + out if self.is_res else out

    def _attend(self, name: str, n, context, told: dict, options: dict):
        """attn1 or attn2, through the patches of its input, its replacement and the patches of its output."""
        layer, patches = getattr(self, name), options.get("patches", {})
        value = None
        if patches.get(f"{name}_patch"):
            context = default(context, n)
            value = context
            for patch in patches[f"{name}_patch"]:
                n, context, value = patch(n, context, value, told)
        replacement = self._replacement(name, options)
        if replacement is None:
            n = layer(n, context=context, value=value, transformer_options=options)
        else:
            context = default(context, n)
            q, k, v = layer.to_q(n), layer.to_k(context), layer.to_v(default(value, context))
            n = layer.to_out(replacement(q, k, v, told))
        return self._patched_output(name, n, told, patches)

    @staticmethod
    def _patched_output(name: str, n, told: dict, patches: dict):
        for patch in patches.get(f"{name}_output_patch", ()):
            n = patch(n, told)
        return n

    @staticmethod
    def _replacement(name: str, options: dict):
        """The function for this very block, else for the block of the UNet that it is in."""
        found, block = options.get("patches_replace", {}).get(name, {}), options.get("block")
        if not found or block is None:
            return None
        return found.get((block[0], block[1], options.get("block_index", 0)), found.get(block))


class SpatialTransformer(nn.Module):
    """Transformer blocks over the pixels of x (B, C, H, W)."""

    def __init__(
        self, in_channels, n_heads, d_head, depth=1, dropout=0.0, context_dim=None, disable_self_attn=False,
        use_linear=False, use_checkpoint=True, attn_precision=None, dtype=None, device=None, operations=ops,
    ):  # fmt: skip
        super().__init__()
        inner = n_heads * d_head
        kind = {"dtype": dtype, "device": device}
        contexts = context_dim if isinstance(context_dim, list) else [context_dim] * depth
        self.in_channels, self.use_linear = in_channels, use_linear
        self.norm = operations.GroupNorm(
            num_groups=32, num_channels=in_channels, eps=1e-6, affine=True, **kind
        )

        def projection(width_in, width_out):
            if use_linear:
                return operations.Linear(width_in, width_out, **kind)
            return operations.Conv2d(width_in, width_out, kernel_size=1, stride=1, padding=0, **kind)

        self.proj_in = projection(in_channels, inner)
        self.transformer_blocks = nn.ModuleList(
            BasicTransformerBlock(
                inner, n_heads, d_head, dropout=dropout, context_dim=width,
                disable_self_attn=disable_self_attn, checkpoint=use_checkpoint,
                attn_precision=attn_precision, operations=operations, **kind,
            )
            for width in contexts
        )  # fmt: skip
        self.proj_out = projection(inner, in_channels)

    def _tokens(self, x):
        """(B, C, H, W) -> (B, H * W, inner), normed and projected."""
        x = self.norm(x)
        if self.use_linear:
            return self.proj_in(x.flatten(2).transpose(1, 2))
        return self.proj_in(x).flatten(2).transpose(1, 2).contiguous()

    def _pixels(self, x, height: int):
        """The opposite; without the norm."""
        if self.use_linear:
            return self.proj_out(x).transpose(1, 2).unflatten(2, (height, -1)).contiguous()
        return self.proj_out(x.transpose(1, 2).unflatten(2, (height, -1)).contiguous())

    def forward(self, x, context=None, transformer_options={}):
        contexts = context if isinstance(context, list) else [context] * len(self.transformer_blocks)
        transformer_options["activations_shape"] = list(x.shape)
        tokens = self._tokens(x)
        for index, (block, seen) in enumerate(zip(self.transformer_blocks, contexts)):
            transformer_options["block_index"] = index
            tokens = block(tokens, context=seen, transformer_options=transformer_options)
        return self._pixels(tokens, x.shape[2]) + x


class SpatialVideoTransformer(SpatialTransformer):
    """After each block over pixels one over the frames of a pixel, mixed in; x is (B * frames, C, H, W)."""

    def __init__(
        self, in_channels, n_heads, d_head, depth=1, dropout=0.0, use_linear=False, context_dim=None,
        use_spatial_context=False, timesteps=None, merge_strategy: str = "fixed", merge_factor: float = 0.5,
        time_context_dim=None, ff_in=False, checkpoint=False, time_depth=1, disable_self_attn=False,
        disable_temporal_crossattention=False, max_time_embed_period: int = 10000, attn_precision=None,
        dtype=None, device=None, operations=ops,
    ):  # fmt: skip
        kind = {"dtype": dtype, "device": device}
        super().__init__(
            in_channels, n_heads, d_head, depth=depth, dropout=dropout, use_checkpoint=checkpoint,
            context_dim=context_dim, use_linear=use_linear, disable_self_attn=disable_self_attn,
            attn_precision=attn_precision, operations=operations, **kind,
        )  # fmt: skip
        self.time_depth, self.depth, self.max_time_embed_period = time_depth, depth, max_time_embed_period
        self.use_spatial_context = use_spatial_context
        inner = n_heads * d_head
        self.time_stack = nn.ModuleList(
            BasicTransformerBlock(
                inner, n_heads, d_head, dropout=dropout, ff_in=ff_in, inner_dim=inner, checkpoint=checkpoint,
                context_dim=context_dim if use_spatial_context else time_context_dim,
                disable_self_attn=disable_self_attn, attn_precision=attn_precision, operations=operations,
                disable_temporal_crossattention=disable_temporal_crossattention, **kind,
            )
            for _ in range(depth)
        )  # fmt: skip
        self.time_pos_embed = nn.Sequential(
            operations.Linear(in_channels, in_channels * 4, **kind),
            nn.SiLU(),
            operations.Linear(in_channels * 4, in_channels, **kind),
        )
        self.time_mixer = AlphaBlender(alpha=merge_factor, merge_strategy=merge_strategy)

    def forward(
        self, x, context=None, time_context=None, timesteps: int | None = None, image_only_indicator=None,
        transformer_options={},
    ):  # fmt: skip
        transformer_options["activations_shape"] = list(x.shape)
        time_context = self._context_of_pixels(context, time_context, timesteps, math.prod(x.shape[2:]))
        tokens = self._tokens(x)
        frames = torch.arange(timesteps, device=x.device).repeat(len(x) // timesteps)
        place = timestep_embedding(frames, self.in_channels, max_period=self.max_time_embed_period)
        place = self.time_pos_embed(place.to(tokens.dtype))[:, None]
        for index, (block, over_frames) in enumerate(zip(self.transformer_blocks, self.time_stack)):
            transformer_options["block_index"] = index
            tokens = block(tokens, context=context, transformer_options=transformer_options)
            pixels = tokens.shape[1]
            mixed = (tokens + place).unflatten(0, (-1, timesteps)).transpose(1, 2).flatten(0, 1)
            mixed = over_frames(mixed, context=time_context, transformer_options=transformer_options)
            mixed = mixed.unflatten(0, (-1, pixels)).transpose(1, 2).flatten(0, 1)
            tokens = self.time_mixer(
                x_spatial=tokens, x_temporal=mixed, image_only_indicator=image_only_indicator
            )
        return self._pixels(tokens, x.shape[2]) + x

    def _context_of_pixels(self, context, time_context, timesteps, pixels: int):
        """What the frames of each pixel attend to: (B * pixels, tokens, width), or None."""
        if self.use_spatial_context:
            if context is None or context.ndim != 3:
                raise ValueError(
                    "SpatialVideoTransformer with use_spatial_context needs a context (B, tokens, width)."
                )
            time_context = default(time_context, context)[::timesteps]
        if time_context is None:
            return None
        out = time_context.repeat_interleave(pixels, dim=0)
        return out.unsqueeze(1) if out.ndim == 2 else out


__all__ = [
    "AlphaBlender",
    "AttentionTensorContainer",
    "BasicTransformerBlock",
    "CrossAttention",
    "FeedForward",
    "GEGLU",
    "Normalize",
    "SpatialTransformer",
    "SpatialVideoTransformer",
    "attention3_sage",
    "attention_basic",
    "attention_comfy_kitchen_int8",
    "attention_flash",
    "attention_pytorch",
    "attention_sage",
    "attention_split",
    "attention_sub_quad",
    "attention_xformers",
    "default",
    "efficient_dot_product_attention",
    "exists",
    "get_attention_function",
    "get_attn_precision",
    "optimized_attention",
    "optimized_attention_for_device",
    "optimized_attention_masked",
    "register_attention_function",
    "timestep_embedding",
    "wrap_attn",
]
