"""Guides of LTX-Video: frames behind a latent that tell what is to be shown at their time.

A guide's latent is appended to the latent (B, C, T, H, W). The conditioning says where it belongs
(`keyframe_idxs`: first and last frame, row and column of each latent pixel), and how it is attended to.
"""

from __future__ import annotations

from typing import Any

import node_helpers
from comfy_extras.video_conditioning import both, encoded, sized


def noise_mask_of(latent: dict[str, Any]) -> Any:
    """A copy of its mask, or one by which everything is to be made (B, 1, T, 1, 1)."""
    mask = latent.get("noise_mask")
    if mask is not None:
        return mask.clone()
    import torch

    samples = latent["samples"]
    return torch.ones(samples.shape[0], 1, samples.shape[2], 1, 1, device=samples.device)


def value_of(conditioning: Any, name: str) -> Any:
    """The first value of this name in a conditioning; None if there is none."""
    return next((extras[name] for _, extras in conditioning if name in extras), None)


def guide_frames(conditioning: Any, latent: Any) -> int:
    """How many latent frames at the end of a latent are guides."""
    places = value_of(conditioning, "keyframe_idxs")
    return 0 if places is None else places.shape[2] // (latent.shape[-2] * latent.shape[-1])


def cropped_guides(positive: Any, negative: Any, latent: dict[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
    """Both sides and the latent without guides."""
    samples, mask = latent["samples"].clone(), noise_mask_of(latent)
    count = guide_frames(positive, samples)
    if count:
        samples, mask = samples[:, :, :-count], mask[:, :, :-count]
        without = {"keyframe_idxs": None, "guide_attention_entries": None}
        positive, negative = both(positive, negative, without)
    return positive, negative, {"samples": samples, "noise_mask": mask}


def added_guide(
    positive: Any, negative: Any, vae: Any, latent: dict[str, Any], images: Any, frame: int, *,
    strength: float, mask: Any, lora: dict[str, Any],
) -> tuple[Any, Any, dict[str, Any]]:  # fmt: skip
    """Both sides and the latent with one more guide, which begins at `frame` (negative: from the end).

    Raises:
        ValueError: the guide would go on behind the end, or the latent's size does not fit the IC-LoRA.
    """
    samples, noise_mask = latent["samples"], noise_mask_of(latent)
    per_frame = vae.downscale_index_formula[0]
    coarse = _coarseness(lora, samples)
    length = (len(images) - 1) // per_frame * per_frame + 1
    if frame < 0:
        frame = max((samples.shape[2] - guide_frames(positive, samples) - 1) * per_frame + 1 + frame, 0)
    # A video begins with a latent frame of one frame. A guide of several frames in the middle must not: it is
    # encoded with one more frame before it, whose latent is dropped.
    is_start = frame == 0 or length == 1
    guide = _encoded_guide(vae, images, samples, coarse, is_start=is_start)
    shape = list(guide.shape[2:])
    guide, known = _dilated(guide, coarse)
    if length > 1 and frame != 0:
        frame = (frame - 1) // per_frame * per_frame + 1
    first = (frame + per_frame - 1) // per_frame
    if first + guide.shape[2] > samples.shape[2]:
        raise ValueError(
            f"The guide has {guide.shape[2]} latent frames and would begin at {first}, but the latent has "
            f"only {samples.shape[2]}. Give fewer frames, an earlier frame_idx, or a longer latent."
        )
    _require_same_channels(samples, guide)
    places = _places(guide, vae.downscale_index_formula, frame, coarse, is_start=is_start)
    entry = {
        "pre_filter_count": guide.shape[2] * guide.shape[3] * guide.shape[4],
        "strength": strength,
        "pixel_mask": None if mask is None else mask[None, None],
        "latent_shape": shape,
    }
    sides = [_with_guide(side, places, entry) for side in (positive, negative)]
    return *sides, _appended(samples, noise_mask, guide, known, strength)


def _coarseness(lora: dict[str, Any], samples: Any) -> int:
    """How many times smaller than the latent the guides of an IC-LoRA are."""
    try:
        coarse = max(1, round(float(lora.get("reference_downscale_factor", 1))))
    except (TypeError, ValueError):
        coarse = 1
    height, width = samples.shape[-2:]
    if height % coarse or width % coarse:
        raise ValueError(
            f"The IC-LoRA takes guides that are {coarse} times smaller than the latent, but {width}x{height} "
            f"latent pixels cannot be divided by {coarse}. Choose another size."
        )
    return coarse


def _require_same_channels(samples: Any, guide: Any) -> None:
    if samples.shape[1] != guide.shape[1]:
        raise ValueError(
            f"The latent has {samples.shape[1]} channels and the guide {guide.shape[1]}. Add guides to a "
            "video latent, before sound is joined to it."
        )


def _encoded_guide(vae: Any, images: Any, samples: Any, coarse: int, *, is_start: bool) -> Any:
    import torch

    per_frame, high, wide = vae.downscale_index_formula
    if not is_start:
        images = torch.cat([images[:1], images])
    images = images[: (len(images) - 1) // per_frame * per_frame + 1]
    width, height = samples.shape[-1] * wide // coarse, samples.shape[-2] * high // coarse
    guide = encoded(vae, sized(images, width, height))
    return guide if is_start else guide[:, :, 1:]


def _dilated(guide: Any, coarse: int) -> tuple[Any, Any]:
    """The guide in the size of the latent, and where it has values (1) and where not (-1)."""
    if coarse == 1:
        return guide, None
    size = (guide.shape[3] * coarse, guide.shape[4] * coarse)
    wide = guide.new_zeros(*guide.shape[:3], *size)
    wide[..., ::coarse, ::coarse] = guide
    known = guide.new_full((guide.shape[0], 1, guide.shape[2], *size), -1.0)
    known[..., ::coarse, ::coarse] = 1.0
    return wide, known


def _places(guide: Any, scales: Any, frame: int, coarse: int, *, is_start: bool) -> Any:
    """(B, 3, T H W, 2): begin and end of each latent pixel in frames, rows and columns."""
    import torch

    axes = [torch.arange(side, device=guide.device) for side in guide.shape[2:]]
    begins = torch.stack([one.flatten() for one in torch.meshgrid(*axes, indexing="ij")])  # (3, N)
    factors = torch.tensor(scales, device=guide.device)[:, None, None]
    places = torch.stack([begins, begins + 1], dim=-1) * factors
    if is_start:  # the first latent frame is one frame
        places[0] = (places[0] + 1 - scales[0]).clamp(min=0)
    places[0] += frame
    places[1:, :, 1:] += (coarse - 1) * factors[1:]  # a pixel of a smaller guide covers more
    return places[None].repeat(guide.shape[0], 1, 1, 1)


def get_keyframe_idxs(cond: Any, latent_shape: Any = None) -> tuple[Any, int]:
    """(positions of the guides in a conditioning, how many latent frames they are); (None, 0) without any."""
    places = value_of(cond, "keyframe_idxs")
    if places is None:
        return None, 0
    if latent_shape is not None and len(latent_shape) == 5:
        return places, places.shape[2] // (latent_shape[-2] * latent_shape[-1])
    entries = value_of(cond, "guide_attention_entries")
    if entries:
        return places, sum(entry["latent_shape"][0] for entry in entries)
    return places, len(places[:, 0, :, 0].unique())  # guides that begin at one time count once


def with_entry(side: Any, entry: dict[str, Any]) -> Any:
    """A conditioning that knows one more guide for the attention."""
    entries = [*(value_of(side, "guide_attention_entries") or ()), entry]
    return node_helpers.conditioning_set_values(side, {"guide_attention_entries": entries})


def _with_guide(side: Any, places: Any, entry: dict[str, Any]) -> Any:
    import torch

    before = value_of(side, "keyframe_idxs")
    places = places if before is None else torch.cat([before, places], dim=2)
    return node_helpers.conditioning_set_values(with_entry(side, entry), {"keyframe_idxs": places})


def _appended(samples: Any, noise_mask: Any, guide: Any, known: Any, strength: float) -> dict[str, Any]:
    import torch

    if known is None:
        shape = (noise_mask.shape[0], 1, guide.shape[2], *noise_mask.shape[3:])
        mask = noise_mask.new_full(shape, max(0.0, 1.0 - strength))  # stronger than 1 is left to attention
    else:
        if 1 in noise_mask.shape[3:]:
            noise_mask = noise_mask.expand(-1, -1, -1, *known.shape[3:])
        mask = known - strength
    parts = {"samples": (samples, guide), "noise_mask": (noise_mask, mask)}
    return {name: torch.cat(pair, dim=2) for name, pair in parts.items()}
