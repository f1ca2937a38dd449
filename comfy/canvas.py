"""Regions of pictures and latents: fading edges, borders to paint on, pictures made ready for inpainting."""

import math

import torch


def cut_to_multiple(pixels, mask, multiple):
    """Pixels (B, H, W, C) and mask (B, 1, H, W), cropped at all sides to lengths divisible by `multiple`."""
    rows, columns = (side // multiple * multiple for side in pixels.shape[1:3])
    top, left = (side % multiple // 2 for side in pixels.shape[1:3])
    pixels = pixels[:, top : top + rows, left : left + columns]
    return pixels, mask[:, :, top : top + rows, left : left + columns]


def mask_like(mask, pixels):
    """A mask (..., H, W) as (B, 1, H, W) in the size of the pixels, on their device."""
    mask = mask.reshape((-1, 1, mask.shape[-2], mask.shape[-1])).to(pixels.device)
    return torch.nn.functional.interpolate(mask, size=tuple(pixels.shape[1:3]), mode="bilinear")


def gray_under_mask(pixels, mask):
    """The picture with gray where the mask is set, so that nothing of it shows through the encoder."""
    kept = (1.0 - mask.round()).squeeze(1).unsqueeze(-1)
    pixels = pixels.clone()
    pixels[..., :3] = (pixels[..., :3] - 0.5) * kept + 0.5
    return pixels


def grown(mask, by):
    """A mask (B, 1, H, W), rounded, and wider by some pixels."""
    if by == 0:
        return mask.round()
    kernel = torch.ones((1, 1, by, by), dtype=mask.dtype, device=mask.device)
    spread = torch.nn.functional.conv2d(mask.round(), kernel, padding=math.ceil((by - 1) / 2))
    return spread.clamp(0, 1)[:, :, : mask.shape[2], : mask.shape[3]].round()


def pad_for_outpaint(image, left, top, right, bottom, feathering):
    """(image on a gray canvas, mask (H, W): 1 on the border, fading into the picture)."""
    batch, height, width, channels = image.shape
    canvas = torch.full((batch, top + height + bottom, left + width + right, channels), 0.5)
    canvas[:, top : top + height, left : left + width] = image
    mask = torch.ones(canvas.shape[1:3])
    inside = torch.zeros(height, width)
    if 0 < feathering * 2 < min(height, width):
        distance = torch.minimum(
            _edge_distance(height, top, bottom)[:, None], _edge_distance(width, left, right)[None, :]
        )
        distance = distance.clamp(max=min(height, width))
        inside = ((feathering - distance) / feathering).clamp(min=0) ** 2
    mask[top : top + height, left : left + width] = inside
    return canvas, mask


def _edge_distance(length, border_before, border_after):
    """Per row: pixels to the nearest edge that has a border."""
    index = torch.arange(length, dtype=torch.float32)
    far = torch.full((length,), float(length))
    return torch.minimum(index if border_before else far, length - index if border_after else far)


def pasted(base, patch, x, y, feather):
    """Latents `base` with `patch` at (x, y); `feather` units fade where the patch is inside the base."""
    patch = patch[:, :, : base.shape[2] - y, : base.shape[3] - x].to(base.device)
    height, width = patch.shape[2:]
    rows = _fade(height, feather, y != 0, y + height < base.shape[2], patch)
    columns = _fade(width, feather, x != 0, x + width < base.shape[3], patch)
    mask = rows[:, None] * columns[None, :]
    out = base.clone()
    region = out[:, :, y : y + height, x : x + width]
    out[:, :, y : y + height, x : x + width] = patch * mask + region * (1 - mask)
    return out


def _fade(length, feather, at_start, at_end, like):
    weights = torch.ones(length, device=like.device, dtype=like.dtype)
    for t in range(min(feather, length)):
        share = (t + 1) / feather
        if at_start:
            weights[t] *= share
        if at_end:
            weights[length - 1 - t] *= share
    return weights
