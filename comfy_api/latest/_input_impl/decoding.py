"""Reading videos with PyAV, which is imported when one is read."""

from __future__ import annotations

import io
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from comfy_api.latest._util.video_types import VideoComponents

# How FFmpeg numbers the transfer curves of HLG, PQ and the usual video.
TRANSFERS = {18: "HDR", 16: "HDR PQ", 1: "sRGB", 13: "sRGB"}


def read(source: str | io.BytesIO, what: Callable[[Any], Any]) -> Any:
    """What a function finds in an opened video."""
    import av

    with av.open(source, mode="r") as container:
        return what(container)


def video_stream(container: Any) -> Any:
    """The first video stream. ValueError if there is none."""
    if not container.streams.video:
        raise ValueError(f"'{container.name}' has no video in it. Choose a file with pictures that move.")
    return container.streams.video[0]


def dimensions(container: Any) -> tuple[int, int]:
    """(width, height)."""
    stream = video_stream(container)
    return stream.width, stream.height


def bit_depth(container: Any) -> int:
    """Bits of a colour."""
    return max((part.bits for part in video_stream(container).format.components), default=8)


def color_space(container: Any) -> str | None:
    """Name of the transfer curve, None if the file does not say a known one."""
    return TRANSFERS.get(int(video_stream(container).codec_context.color_trc))


def frame_rate(container: Any) -> Fraction:
    """Pictures per second, 1 if the file does not say."""
    return Fraction(video_stream(container).average_rate or 1)


def seconds(container: Any) -> float:
    """Length of the whole video."""
    import av

    stream = video_stream(container)
    if container.duration is not None:
        return float(container.duration / av.time_base)
    frames = stream.frames or sum(1 for _ in container.decode(stream))
    return float(frames / frame_rate(container))


def _frames(container: Any, start: float, duration: float) -> Any:
    """The pictures of a part, decoded from the key frame before it."""
    stream = video_stream(container)
    stream.thread_type = "AUTO"
    if start > 0:
        container.seek(int(start / stream.time_base), stream=stream)
    half_a_tick = float(stream.time_base) / 2
    for frame in container.decode(stream):
        if frame.time is None or frame.time < start - half_a_tick:
            continue
        if duration and frame.time >= start + duration - half_a_tick:
            return
        yield frame


def count_frames(container: Any, start: float, duration: float) -> int:
    """Number of pictures of a part."""
    stream = video_stream(container)
    if not start and not duration and stream.frames:
        return int(stream.frames)
    return sum(1 for _ in _frames(container, start, duration))


def _pictures(container: Any, start: float, duration: float) -> tuple[Any, Any]:
    """(images (B, H, W, 3), alpha (B, H, W, 1) or None)."""
    import numpy
    import torch

    images, alphas = [], []
    for frame in _frames(container, start, duration):
        has_alpha = frame.format.name == "pal8" or any(part.is_alpha for part in frame.format.components)
        # 16 bits keep what videos of 10 and 12 bits hold.
        pixels = frame.to_ndarray(format="rgba64le" if has_alpha else "rgb48le")
        pixels = numpy.rot90(pixels, k=round(frame.rotation / 90), axes=(0, 1))
        values = torch.from_numpy(pixels.astype(numpy.float32) / 65535.0)
        images.append(values[..., :3])
        if has_alpha:
            alphas.append(values[..., 3:])
    if not images:
        return torch.zeros(0, 0, 0, 3), None
    return torch.stack(images), torch.stack(alphas) if alphas else None


def _sound(container: Any, start: float, duration: float) -> dict[str, Any] | None:
    """The sound of a part: of the last stream that can be decoded, None if there is none."""
    import av
    import numpy
    import torch

    streams = [stream for stream in container.streams.audio if stream.codec_context is not None]
    if not streams:
        return None
    stream = streams[-1]
    rate = int(stream.sample_rate or 1)
    resampler = av.AudioResampler(format="fltp")
    if start > 0:
        container.seek(int(start / stream.time_base), stream=stream)
    pieces, first = [], None
    for frame in container.decode(stream):
        if duration and frame.time is not None and frame.time > start + duration:
            break
        first = frame.time if first is None else first
        pieces.extend(piece.to_ndarray() for piece in resampler.resample(frame))
    if not pieces:
        return None
    samples = numpy.concatenate(pieces, axis=1)[:, max(0, round((start - (first or 0.0)) * rate)) :]
    if duration:
        samples = samples[:, : int(duration * rate)]
    return {"waveform": torch.from_numpy(samples.copy()).unsqueeze(0), "sample_rate": rate}


def components(container: Any, start: float, duration: float) -> VideoComponents:
    """A part of the video; `duration` 0 means all the rest."""
    images, alpha = _pictures(container, start, duration)
    container.seek(0)
    return VideoComponents(
        images=images,
        alpha=alpha,
        audio=_sound(container, start, duration),
        frame_rate=frame_rate(container),
        metadata=dict(container.metadata),
    )
