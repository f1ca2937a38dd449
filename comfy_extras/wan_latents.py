"""What the nodes of Wan have in common: latents of frames, and masks of what is to be made."""

from __future__ import annotations

from comfy_extras.video_conditioning import both, encoded, gray, latent_frames, ones, zeros


def empty_latent(width, height, length, batch=1, *, channels=16, scale=8):
    """An empty latent of Wan: four frames are one, the first stands alone."""
    return zeros(batch, channels, latent_frames(length), height // scale, width // scale)


def with_picture(positive, negative, seen):
    """Both sides with an encoded picture, if there is one."""
    return (positive, negative) if seen is None else both(positive, negative, {"clip_vision_output": seen})


def filled_up(frames, length):
    """The frames, and gray ones up to the length; with the channels of the first."""
    channels = frames.shape[-1]
    video = gray(length, *frames.shape[1:3], like=frames)
    if channels != 3:
        video = video[..., :1].expand(*video.shape[:3], channels).clone()
    video[: len(frames)] = frames[:length]
    return video


def begun(positive, negative, vae, frames, length):
    """Both sides with the latent of a video that begins with these frames, and a mask of what is new."""
    known = encoded(vae, filled_up(frames, length))
    mask = ones(1, 1, latent_frames(length), *known.shape[-2:], like=frames)
    mask[:, :, : latent_frames(len(frames))] = 0
    return both(positive, negative, {"concat_latent_image": known, "concat_mask": mask})


def put(latent, part, channels):
    """Write a latent over the beginning of some channels, as far as it fits."""
    part = part[:, :, : latent.shape[2]]
    latent[:, channels, : part.shape[2]] = part


def seen_together(first, last):
    """Both encoded pictures as one."""
    if first is None or last is None:
        return last if first is None else first
    import torch

    import comfy.clip_vision

    seen = comfy.clip_vision.Output()
    states = (first.penultimate_hidden_states, last.penultimate_hidden_states)
    seen.penultimate_hidden_states = torch.cat(states, dim=-2)
    return seen


def pixel_mask(masks, width, height, length):
    """(T, H, W, 1): 1 where the video is to change, also beyond the end of the given masks."""
    import torch

    import comfy.utils

    if masks is None:
        return torch.ones(length, height, width, 1)
    masks = masks.unsqueeze(1) if masks.ndim == 3 else masks
    mask = comfy.utils.common_upscale(masks[:length], width, height, "bilinear", "center").movedim(1, -1)
    return torch.cat([mask, mask.new_ones(length - len(mask), *mask.shape[1:])])


def mask_of_pixels_as_channels(mask, frames):
    """(T, H, W, 1) -> (1, 64, latent T, H / 8, W / 8): the 8x8 pixels of a latent pixel are its channels."""
    import torch

    length, height, width = mask.shape[0], mask.shape[1] // 8, mask.shape[2] // 8
    pixels = mask.view(length, height, 8, width, 8).permute(2, 4, 0, 1, 3)
    pixels = pixels.reshape(1, 64, length, height, width)
    return torch.nn.functional.interpolate(pixels, size=(frames, height, width), mode="nearest-exact")
