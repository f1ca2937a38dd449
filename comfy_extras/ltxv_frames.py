"""Pictures as frames of a compressed video, and sound in the length of a video: for LTX-Video."""

from __future__ import annotations

from typing import Any


def compressed(image: Any, crf: int) -> Any:
    """A picture (H, W, C) after H.264 with this quality (0 is without loss, 51 the worst); even sides."""
    import io

    import av
    import torch

    pixels = (image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2] * 255.0).byte().cpu().numpy()
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as video:
        stream = video.add_stream("libx264", rate=1, options={"crf": str(crf), "preset": "veryfast"})
        stream.height, stream.width = pixels.shape[:2]
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")
        video.mux(stream.encode(frame))
        video.mux(stream.encode())
    file.seek(0)
    with av.open(file) as video:
        decoded = next(video.decode(video=0)).to_ndarray(format="rgb24")
    return torch.tensor(decoded, dtype=image.dtype, device=image.device) / 255.0


def fitted_audio(reference: Any, audio: Any, mask: Any) -> tuple[Any, Any]:
    """A sound latent and its mask in the length of `reference`; what is missing is zero, and to be made."""
    import torch

    import comfy.utils

    axes = [axis for axis in range(reference.ndim) if reference.shape[axis] != audio.shape[axis]]
    if not axes:
        return audio, mask
    if len(axes) > 1 or axes[0] < 2:
        raise ValueError(
            f"An audio latent of the shape {tuple(audio.shape)} cannot replace one of "
            f"{tuple(reference.shape)}: only the length may differ. Make it with the same audio VAE."
        )
    (axis,) = axes
    length = reference.shape[axis]
    if mask is not None:
        mask = comfy.utils.reshape_mask(mask, audio.shape)
    if audio.shape[axis] >= length:
        return audio.narrow(axis, 0, length), None if mask is None else mask.narrow(axis, 0, length)
    shape = [*audio.shape]
    shape[axis] = length - audio.shape[axis]
    rest = audio.new_zeros(shape)
    mask = None if mask is None else torch.cat([mask, torch.ones_like(rest)], dim=axis)
    return torch.cat([audio, rest], dim=axis), mask
