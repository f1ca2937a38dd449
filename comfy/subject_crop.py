"""A subject under a mask, cut out and centred: what 3D and portrait models want to see."""

import logging
import math

import torch

import comfy.utils
from comfy.picture_filters import grown

log = logging.getLogger(__name__)

_FAINT = 0.05  # what is less is no part of the subject
_CERTAIN = 204  # of 255: what is above counts for the box around the subject


def masks_for(images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Masks (B, H, W) in the number and size of images (B, H, W, C)."""
    batch, rows, columns = images.shape[:3]
    if masks.shape[0] not in (1, batch):
        raise ValueError(
            f"There are {masks.shape[0]} masks for {batch} pictures. Give one per picture, or one for all."
        )
    if masks.shape[1:] != (rows, columns):
        masks = comfy.utils.common_upscale(masks.unsqueeze(1).float(), columns, rows, "bilinear", "disabled")[
            :, 0
        ]
    return masks.expand(batch, -1, -1)


def _is_inverted(mask: torch.Tensor) -> bool:
    """Is the border set and the middle not? (H, W)"""
    rows, columns = mask.shape
    border = torch.cat((mask[0], mask[-1], mask[:, 0], mask[:, -1]))
    middle = mask[rows // 4 : rows - rows // 4, columns // 4 : columns - columns // 4]
    return bool(border.mean() > 0.5) and bool(middle.mean() < 0.5)


def _grown(mask: torch.Tensor, by: int) -> torch.Tensor:
    """(1, 1, H, W), wider by some pixels, or narrower."""
    return grown(mask, by, tapered=False) if by >= 0 else 1 - grown(1 - mask, -by, tapered=False)


def _levels(mask: torch.Tensor) -> torch.Tensor:
    return (mask[0, 0].clamp(0, 1) * 255).to(torch.uint8)


def _box(mask: torch.Tensor, aspect: float, margin: float) -> tuple[int, int, int, int] | None:
    """(left, top, width, height) around the subject, in the aspect of the result; None for an empty mask."""
    places = (_levels(mask) > _CERTAIN).nonzero()
    if not len(places):
        return None
    (top, left), (bottom, right) = places.amin(dim=0).tolist(), places.amax(dim=0).tolist()
    width, height = right - left + 1, bottom - top + 1
    if width / height >= aspect:
        size = int(width * margin), int(width / aspect * margin)
    else:
        size = int(height * aspect * margin), int(height * margin)
    half_width, half_height = (math.ceil(side / 2) for side in size)
    x, y = int((left + right) / 2 - half_width), int((top + bottom) / 2 - half_height)
    return x, y, 2 * half_width, 2 * half_height


def _cut(picture: torch.Tensor, box: tuple[int, int, int, int]) -> torch.Tensor:
    """A rectangle of (1, C, H, W), with zeros where it reaches beyond."""
    x, y, width, height = box
    rows, columns = picture.shape[-2:]
    around = (max(0, -x), max(0, x + width - columns), max(0, -y), max(0, y + height - rows))
    padded = torch.nn.functional.pad(picture, around)
    x, y = max(0, x), max(0, y)
    return padded[..., y : y + height, x : x + width]


def cut_out(image, mask, width: int, height: int, *, margin: float, grow: int, background) -> torch.Tensor:
    """One image (H, W, 3) and its mask (H, W) as (height, width, 3), the subject over a colour.

    A mask that shows the background instead of the subject is turned round; an empty one gives all.
    """
    picture = image.movedim(-1, 0).unsqueeze(0).cpu().float().clamp(0, 1)
    mask = mask[None, None].cpu().float().clamp(0, 1)
    mask = _grown(1 - mask if _is_inverted(mask[0, 0]) else mask, grow)
    mask = mask.where(mask >= _FAINT, 0.0)
    rows, columns = picture.shape[-2:]
    scale = max(width, height) / max(rows, columns)
    if scale < 1:
        size = max(1, int(columns * scale)), max(1, int(rows * scale))
        picture, mask = (
            comfy.utils.common_upscale(one, *size, "lanczos", "disabled") for one in (picture, mask)
        )
        mask = mask.reshape(1, 1, *picture.shape[-2:])
    box = _box(mask, width / height, margin)
    if box is None and (box := _box(1 - mask, width / height, margin)) is not None:
        mask = 1 - mask
    if box is None:
        log.warning("A mask shows no subject, so the whole picture is taken.")
        box = (0, 0, *reversed(picture.shape[-2:]))
    picture, mask = _cut(picture, box), _cut(mask, box)
    behind = torch.tensor(background).view(1, 3, 1, 1)
    over = (picture * mask + behind * (1 - mask)).clamp(0, 1)
    return comfy.utils.common_upscale(over, width, height, "lanczos", "disabled")[0].movedim(0, -1)
