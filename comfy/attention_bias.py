"""Masks over the tokens of a text and a picture together, as added to the logits of attention.

A mask is (B, tokens, tokens), rows look at columns; the text's tokens come first, then those of a picture of
`size` (rows, columns), which is small until the size of the latent is known.
"""

from __future__ import annotations

import torch


def with_tokens_after_text(mask, text, count: int, size: tuple[int, int], weight: float) -> torch.Tensor:
    """The mask with `count` tokens more between text (B, tokens, width) and picture.

    What text and picture see of the new tokens weighs `weight` (0 hides them); the new ones see everything.
    A boolean mask says what may be seen; None hides nothing.
    """
    words, pixels = text.shape[1], size[0] * size[1]
    if mask is None:
        mask = torch.zeros(len(text), words + pixels, words + pixels)
    elif mask.dtype == torch.bool:
        mask = mask.float().log()
    out = torch.zeros(len(text), words + count + pixels, words + count + pixels)
    old = torch.cat([torch.arange(words), torch.arange(words + count, words + count + pixels)])
    out[:, old[:, None], old] = mask.to(out)
    out[:, old, words : words + count] = torch.tensor(float(weight)).log()
    return out.half().to(text.device)


def resized(mask: torch.Tensor, size: tuple[int, int], wanted: tuple[int, int]) -> torch.Tensor:
    """The mask for a picture of another size: what concerns the picture is interpolated along its sides."""
    if tuple(size) == tuple(wanted):
        return mask
    dtype, mask = mask.dtype, mask if mask.ndim == 3 else mask.unsqueeze(0)
    mask = mask.float().clamp(min=torch.finfo(torch.float16).min)  # no infinity, which times 0 is no number
    words = mask.shape[1] - size[0] * size[1]

    def along_columns(part):
        """The last axis, a picture's tokens, to the wanted size."""
        picture = part[..., words:].unflatten(-1, tuple(size))
        scaled = torch.nn.functional.interpolate(picture, size=tuple(wanted), mode="bilinear")
        return torch.cat([part[..., :words], scaled.flatten(-2)], dim=-1)

    return along_columns(along_columns(mask).transpose(1, 2)).transpose(1, 2).to(dtype)
