"""Colours of one picture brought to another: statistics in Lab (Reinhard 2001, Pitie 2007), or histograms.

Frames are (B, H, W, 3) in 0..1 and are worked on one by one: videos need no copy of themselves in Lab.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from comfy.color_spaces import lab_to_rgb, rgb_to_lab

BINS = 256
_SMALLEST = 1e-6

Transform = Callable[[torch.Tensor], torch.Tensor]


@dataclass
class _Stats:
    mean: torch.Tensor  # (3,)
    covariance: torch.Tensor  # (3, 3)

    @property
    def deviation(self) -> torch.Tensor:
        return self.covariance.diagonal().sqrt().clamp(min=_SMALLEST)


def _flat(frame: torch.Tensor, device) -> torch.Tensor:
    return frame.to(device, torch.float32).reshape(-1, frame.shape[-1])  # (H * W, 3)


def _stats(frames: torch.Tensor, device) -> _Stats:
    """Mean and covariance of all pixels in Lab; each frame weighs as much as its number of pixels."""
    mean = sum(rgb_to_lab(_flat(frame, device)).mean(dim=0) for frame in frames) / len(frames)
    covariance = torch.zeros(3, 3, device=device)
    for frame in frames:
        centered = rgb_to_lab(_flat(frame, device)) - mean
        covariance += centered.T @ centered / len(centered)
    return _Stats(mean, covariance / len(frames))


def _reinhard(source: _Stats, wanted: _Stats) -> Transform:
    scale = wanted.deviation / source.deviation
    return lambda lab: (lab - source.mean) * scale + wanted.mean


def _root(matrix: torch.Tensor) -> torch.Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values.clamp(min=0).sqrt() @ vectors.T


def _monge_kantorovich(source: _Stats, wanted: _Stats) -> Transform:
    """The linear map of least cost from one normal distribution to the other."""
    values, vectors = torch.linalg.eigh(source.covariance)
    lengths = values.clamp(min=0).sqrt().clamp(min=_SMALLEST)
    root = vectors * lengths @ vectors.T
    inverse = vectors / lengths @ vectors.T
    matrix = inverse @ _root(root @ wanted.covariance @ root) @ inverse
    return lambda lab: (lab - source.mean) @ matrix.T + wanted.mean


def _cumulated(frames: torch.Tensor, device) -> torch.Tensor:
    """The share of pixels up to each of 256 levels, per channel (3, 256)."""
    counts = torch.zeros(frames.shape[-1], BINS, device=device)
    for frame in frames:
        bins = (_flat(frame, device) * (BINS - 1)).long().clamp(0, BINS - 1)
        for channel in range(bins.shape[-1]):
            counts[channel] += torch.bincount(bins[:, channel], minlength=BINS)
    cumulated = counts.cumsum(dim=1)
    return cumulated / cumulated[:, -1:]


def _levels(source: torch.Tensor, wanted: torch.Tensor) -> Transform:
    """Histogram specification, from and to cumulated histograms."""
    table = torch.searchsorted(wanted, source).clamp(max=BINS - 1).float() / (BINS - 1)

    def looked_up(rgb):
        bins = (rgb * (BINS - 1)).long().clamp(0, BINS - 1)
        return torch.stack([table[channel][bins[:, channel]] for channel in range(bins.shape[-1])], dim=-1)

    return looked_up


# method -> (what is measured of frames, the transform between two measurements)
_METHODS = {
    "reinhard_lab": (_stats, _reinhard),
    "mkl_lab": (_stats, _monge_kantorovich),
    "histogram": (_cumulated, _levels),
}
METHODS = list(_METHODS)


def _transforms(target, reference, method, baseline, device) -> Iterator[Transform]:
    """The transform of each frame. `baseline` are frames measured for all, None for each by itself."""
    measure, between = _METHODS[method]
    if baseline is not None:
        shared = between(measure(baseline, device), measure(reference, device))
        yield from (shared for _ in target)
        return
    known: dict[int, object] = {}
    for index, frame in enumerate(target):
        which = min(index, len(reference) - 1)
        if which not in known:
            known = {which: measure(reference[which : which + 1], device)}
        yield between(measure(frame.unsqueeze(0), device), known[which])


def matched(target, reference, method, *, baseline=None, strength=1.0, device=None) -> Iterator[torch.Tensor]:
    """The frames of `target` with the colours of `reference`, one after the other (H, W, 3).

    With `baseline` None each frame is measured by itself and compared with the reference of its number (the
    last, where there are fewer); else all get one transform, from the baseline to all references.
    """
    device = target.device if device is None else device
    is_lab = method != "histogram"
    for frame, transform in zip(target, _transforms(target, reference, method, baseline, device)):
        before = _flat(frame, device)
        before = rgb_to_lab(before) if is_lab else before
        after = torch.lerp(before, transform(before), strength)
        after = lab_to_rgb(after) if is_lab else after
        yield after.clamp(0, 1).reshape(frame.shape)
