"""Rounding to small floating point formats by lot, so that many small changes are not all lost."""

from __future__ import annotations

import torch

PART = 4096 * 4096  # elements rounded at once: fp8 has no arithmetic, so copies are in fp16 and fp32
_FORMATS = {torch.float8_e4m3fn: (3, 7), torch.float8_e5m2: (2, 15)}  # bits of the mantissa, exponent's bias


def stochastic_rounding(value, dtype, seed=0):
    """`value` in `dtype`; to fp8 up or down by lot, up the likelier the nearer, so that the mean stays.

    Other dtypes are cast. The same seed gives the same draws on the same device.
    """
    if dtype not in _FORMATS:
        return value.to(dtype=dtype)
    generator = torch.Generator(device=value.device).manual_seed(seed)
    flat = value.reshape(-1)
    out = torch.empty_like(flat, dtype=dtype)
    for start in range(0, flat.numel(), PART):
        rows = slice(start, start + PART)
        out[rows] = manual_stochastic_round_to_float8(flat[rows], dtype, generator).to(dtype)
    return out.reshape(value.shape)


def manual_stochastic_round_to_float8(x, dtype, generator=None):
    """As `stochastic_rounding`, in the dtype that it computes in: each is a number that fp8 has.

    Raises:
        ValueError: `dtype` is none of the two fp8 formats.
    """
    if dtype not in _FORMATS:
        raise ValueError(f"Rounding to fp8 is to float8_e4m3fn or float8_e5m2, not {dtype}.")
    bits, bias = _FORMATS[dtype]
    x = x.float()
    _, exponent = torch.frexp(x)  # x = m * 2**exponent, 0.5 <= m < 1
    step = torch.ldexp(torch.ones_like(x), exponent.clamp(min=2 - bias) - 1 - bits)  # between neighbours
    draw = torch.rand(x.shape, generator=generator, device=x.device)
    rounded = torch.floor(x.abs() / step + draw) * step * x.sign()
    limit = torch.finfo(dtype)
    return rounded.clamp(limit.min, limit.max)
