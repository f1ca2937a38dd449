"""Lets the attention that packs put in place reach networks of the zoo, which call torch's own.

`comfy.ldm.modules.attention.optimized_attention` is looked up for each evaluation, and so is
`transformer_options["optimized_attention_override"]`. Where neither is other than torch's, nothing changes.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch.overrides import TorchFunctionMode

import comfy.ldm.modules.attention as attention


def packs_attention(options: dict | None) -> AbstractContextManager:
    """While it is entered, scaled dot product attention is the one that packs or options chose."""
    options = options or {}
    is_torchs = attention.optimized_attention is attention.attention_pytorch
    if is_torchs and "optimized_attention_override" not in options:
        return nullcontext()
    return _Replaced(options)


class _Replaced(TorchFunctionMode):
    """Sends torch's attention to `optimized_attention`; inside of that the mode is off."""

    def __init__(self, options: dict):
        super().__init__()
        self.options = options

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is not torch.nn.functional.scaled_dot_product_attention:
            return func(*args, **kwargs)
        return _attention(self.options, *args, **kwargs)


def _attention(
    options, query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
):
    """q, k, v (B, heads, tokens, d) -> (B, heads, tokens, d)."""
    if is_causal:  # which those functions do not know
        return torch.nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    known = {"scale": scale} if scale is not None else {}
    if enable_gqa:
        known["enable_gqa"] = True
    heads = query.shape[1]
    function = attention.optimized_attention if attn_mask is None else attention.optimized_attention_masked
    out = function(
        query, key, value, heads, mask=attn_mask, skip_reshape=True, skip_output_reshape=True,
        transformer_options=options, **known,
    )  # fmt: skip
    if out.ndim == 3:  # a function that does not know skip_output_reshape
        out = out.unflatten(-1, (heads, -1)).transpose(1, 2)
    return out
