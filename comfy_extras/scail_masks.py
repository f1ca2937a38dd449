"""Masks of people in SCAIL 2: a colour for each of them, and a group of channels for each colour."""

from __future__ import annotations

from typing import Any

# The colours that the network was taught: blue, red, green, magenta, cyan, yellow.
PALETTE = (
    (0.0, 0.0, 1.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (1.0, 0.0, 1.0), (0.0, 1.0, 1.0), (1.0, 1.0, 0.0),
)  # fmt: skip
# Colours in the order of their channels: white, red, green, blue, yellow, magenta, cyan.
_CHANNELS = ((1, 1, 1), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1))
_BRIGHT = 225 / 255
_SORTS = ("none", "left_to_right", "area")


def selected(track: dict[str, Any], sort_by: str, indices: str) -> Any:
    """The track with its objects in this order, of which those that `indices` names are left.

    Objects that come earlier go before; in one frame, those further left ("left_to_right") or larger
    ("area"). `indices` counts in the new order.
    """
    from comfy_extras.object_tracks import chosen, count_of, unpacked

    if sort_by not in _SORTS:
        raise ValueError(f"sort_by is {sort_by}. It is one of {', '.join(_SORTS)}.")
    packed = track["packed_masks"]
    frames, objects = count_of(track)
    order = list(range(objects))
    if objects and sort_by != "none":
        masks = unpacked(packed)
        order.sort(key=[_first_seen(masks[:, number], sort_by) for number in order].__getitem__)
    order = [order[number] for number in chosen(indices, objects)]
    return {**track, "packed_masks": packed[:, order] if order else None, "n_frames": frames}


def _first_seen(masks, sort_by):
    """(frame, place) where an object (T, H, W) comes up; one that never does is last."""
    areas = masks.flatten(1).sum(dim=1)
    frames = areas.nonzero()
    if not len(frames):
        return len(masks), 0.0
    first = int(frames[0])
    if sort_by == "area":
        return first, -int(areas[first])
    return first, float(masks[first].nonzero()[:, 1].float().mean())


def colored(track: dict[str, Any], background: float) -> Any:
    """(T, H, W, 3): each object of a track in its colour on black (0) or white (1)."""
    import torch

    from comfy_extras.object_tracks import count_of, full_masks
    from comfy_extras.video_conditioning import zeros

    frames, objects = count_of(track)
    empty = zeros(frames, *track["orig_size"], 3) + background
    if not objects:
        return empty
    masks = full_masks(track["packed_masks"].to(empty.device), track["orig_size"])
    colors = empty.new_tensor([PALETTE[number % len(PALETTE)] for number in range(objects)])
    seen = colors[masks.to(torch.uint8).argmax(dim=1)]
    return torch.where(masks.any(dim=1).unsqueeze(-1), seen, empty)


def colored_mask(mask: Any, background: float) -> Any:
    """A mask (B, H, W) or (H, W) as (B, H, W, 3) of one person, seen B times."""
    import torch

    mask = (mask if mask.ndim == 3 else mask[None]).unsqueeze(-1) > 0.5
    color = torch.tensor(PALETTE[0], device=mask.device)
    return torch.where(mask, color, torch.full_like(color, background))


def mask_channels(pictures: Any) -> Any:
    """(T, H, W, 3) in colours -> (1, latent T, 28, H / 8, W / 8): seven colours of four frames, as shares."""
    import torch

    bright = pictures[..., :3] > _BRIGHT
    colors = torch.tensor(_CHANNELS, device=pictures.device).bool()
    is_color = (bright.unsqueeze(-2) == colors).all(dim=-1).movedim(-1, 1).float()
    size = tuple(-(-side // 8) for side in pictures.shape[1:3])
    shares = torch.nn.functional.interpolate(is_color, size=size, mode="area")
    shares = torch.cat([shares[:1].expand(3, -1, -1, -1), shares])
    return shares.reshape(1, -1, 4 * len(_CHANNELS), *size)
