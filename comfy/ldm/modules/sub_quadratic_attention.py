"""Attention in chunks (Rabe & Staats 2021, "Self-attention does not need O(n^2) memory")."""

from __future__ import annotations

import math

import torch
import torch.utils.checkpoint


def efficient_dot_product_attention(
    query,
    key_t,
    value,
    query_chunk_size=1024,
    kv_chunk_size: int | None = None,
    kv_chunk_size_min: int | None = None,
    use_checkpoint=True,
    upcast_attention=False,
    mask=None,
):
    """softmax(query @ key_t / sqrt(d)) @ value without the whole matrix of scores.

    query (N, queries, d), key_t (N, d, keys), value (N, keys, d); `mask` (N or 1, queries or 1, keys) is
    added to the scores. Without `kv_chunk_size` it is the root of the number of keys, at least
    `kv_chunk_size_min`.
    """
    keys = key_t.shape[-1]
    size = min(kv_chunk_size or math.isqrt(keys), keys)
    size = max(size, min(kv_chunk_size_min or 1, keys))
    parts = []
    for start in range(0, query.shape[1], query_chunk_size):
        rows = slice(start, start + query_chunk_size)
        bias = mask if mask is None or mask.shape[1] == 1 else mask[:, rows]
        arguments = (query[:, rows], key_t, value, bias, size, upcast_attention)
        if use_checkpoint and torch.is_grad_enabled():
            parts.append(torch.utils.checkpoint.checkpoint(_of_queries, *arguments, use_reentrant=False))
        else:
            parts.append(_of_queries(*arguments))
    return torch.cat(parts, dim=1)


def _of_queries(query, key_t, value, mask, size: int, upcast: bool):
    """All keys for some queries: running maximum, sum of weights and weighted values."""
    best = total = mixed = None
    for start in range(0, key_t.shape[-1], size):
        columns = slice(start, start + size)
        scores = _scores(query, key_t[..., columns], upcast)
        if mask is not None:
            scores = scores + mask[..., columns]
        top = scores.amax(dim=-1, keepdim=True)
        new_best = top if best is None else torch.maximum(best, top)
        # Where all keys so far are hidden the maximum is -inf, and -inf - -inf would be no number.
        anchor = new_best.clamp(min=torch.finfo(scores.dtype).min)
        weights = torch.exp(scores - anchor)
        part = torch.bmm(weights.to(value.dtype), value[:, columns]).to(scores.dtype)
        if best is None:
            total, mixed = weights.sum(dim=-1, keepdim=True), part
        else:
            fade = torch.exp(best - anchor)
            total, mixed = total * fade + weights.sum(dim=-1, keepdim=True), mixed * fade + part
        best = new_best
    return (mixed / total).to(value.dtype)


def _scores(query, key_t, upcast: bool):
    if upcast:
        query, key_t = query.float(), key_t.float()
    return torch.bmm(query, key_t) * query.shape[-1] ** -0.5
