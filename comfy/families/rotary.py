"""Rotary embeddings of any positions, for modules of the zoo that keep a table of whole ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def rotations(ids: torch.Tensor, axes: Sequence[int], theta: float) -> torch.Tensor:
    """Complex rotations (1, tokens, sum(axes) / 2) of positions (tokens, len(axes)), also of fractions."""
    place = "cpu" if ids.device.type == "mps" else ids.device  # mps has no float64
    angles = [
        column.to(place) * theta ** -(torch.arange(0, size, 2, device=place).double() / size)
        for column, size in zip(ids.split(1, dim=1), axes)
    ]
    angle = torch.cat(angles, dim=1)
    return torch.polar(torch.ones_like(angle), angle).to(torch.complex64).unsqueeze(0).to(ids.device)


def as_matrices(rope: torch.Tensor) -> torch.Tensor:
    """The same as packs multiply by them: (1, tokens, 1, sum(axes) / 2, 2, 2)."""
    rows = torch.stack((rope.real, -rope.imag, rope.imag, rope.real), dim=-1)
    return rows.unflatten(-1, (2, 2)).unsqueeze(2)
