"""Videos in files and in memory."""

from __future__ import annotations

import io
from fractions import Fraction
from typing import IO, Any

from comfy_api.latest._input.video_types import VideoInput
from comfy_api.latest._input_impl import decoding, encoding
from comfy_api.latest._util.video_types import VideoCodec, VideoComponents, VideoContainer


class VideoFromFile(VideoInput):
    """A video in a file or stream, or a part of it. A negative `start_time` counts from the end."""

    def __init__(self, file: str | io.BytesIO, *, start_time: float = 0, duration: float = 0) -> None:
        self._file = file
        self._start_time = start_time
        self._duration = duration

    def get_stream_source(self) -> str | io.BytesIO:
        if isinstance(self._file, io.BytesIO):
            self._file.seek(0)
        return self._file

    def _read(self, what: Any) -> Any:
        return decoding.read(self.get_stream_source(), what)

    def get_active_trim_window(self) -> tuple[float, float]:
        start = self._start_time
        if start < 0:
            start = max(self._read(decoding.seconds) + start, 0.0)
        return float(start), float(self._duration)

    def get_dimensions(self) -> tuple[int, int]:
        return self._read(decoding.dimensions)  # type: ignore[no-any-return]

    def get_bit_depth(self) -> int:
        return self._read(decoding.bit_depth)  # type: ignore[no-any-return]

    def get_color_space(self) -> str:
        return self._read(decoding.color_space) or "sRGB"

    def get_frame_rate(self) -> Fraction:
        return self._read(decoding.frame_rate)  # type: ignore[no-any-return]

    def get_container_format(self) -> str:
        return self._read(lambda container: container.format.name)  # type: ignore[no-any-return]

    def get_duration(self) -> float:
        start, wanted = self.get_active_trim_window()
        rest = max(self._read(decoding.seconds) - start, 0.0)
        return min(wanted, rest) if wanted else rest

    def get_frame_count(self) -> int:
        start, wanted = self.get_active_trim_window()
        return self._read(lambda container: decoding.count_frames(container, start, wanted))  # type: ignore[no-any-return]

    def get_components(self) -> VideoComponents:
        start, wanted = self.get_active_trim_window()
        return self._read(lambda container: decoding.components(container, start, wanted))  # type: ignore[no-any-return]

    def save_to(
        self,
        path: str | IO[bytes],
        format: VideoContainer = VideoContainer.AUTO,
        codec: VideoCodec = VideoCodec.AUTO,
        metadata: dict[str, Any] | None = None,
        bit_depth: int | None = None,
        crf: float | None = None,
        color_space: str | None = None,
    ) -> None:
        """Copies what is encoded as wished already, and encodes it again otherwise."""
        target = encoding.Target.of(path, format, codec, bit_depth, crf, color_space)
        is_whole = not self._start_time and not self._duration
        if is_whole and self._read(target.can_copy):
            self._read(lambda container: target.copy(container, metadata))
            return
        if bit_depth is None:
            target.bit_depth = self.get_bit_depth()
        target.encode(self.get_components(), metadata)

    def as_trimmed(
        self,
        start_time: float | None = None,
        duration: float | None = None,
        strict_duration: bool = True,
    ) -> VideoInput | None:
        start, wanted = (start_time or 0.0) + self._start_time, duration or 0.0
        trimmed = VideoFromFile(self.get_stream_source(), start_time=start, duration=wanted)
        return None if strict_duration and trimmed.get_duration() < wanted else trimmed


class VideoFromComponents(VideoInput):
    """A video as pictures and sound. `bit_depth` is the one it is encoded with."""

    def __init__(self, components: VideoComponents, bit_depth: int = 8) -> None:
        self._components = components
        self._bit_depth = bit_depth

    def get_components(self) -> VideoComponents:
        parts = self._components
        return VideoComponents(images=parts.images, audio=parts.audio, frame_rate=parts.frame_rate)

    def get_bit_depth(self) -> int:
        return self._bit_depth

    def get_color_space(self) -> str:
        return "sRGB"

    def save_to(
        self,
        path: str | IO[bytes],
        format: VideoContainer = VideoContainer.AUTO,
        codec: VideoCodec = VideoCodec.AUTO,
        metadata: dict[str, Any] | None = None,
        bit_depth: int | None = None,
        crf: float | None = None,
        color_space: str | None = None,
    ) -> None:
        depth = self._bit_depth if bit_depth is None else bit_depth
        target = encoding.Target.of(path, format, codec, depth, crf, color_space)
        target.encode(self.get_components(), metadata)

    def as_trimmed(
        self,
        start_time: float | None = None,
        duration: float | None = None,
        strict_duration: bool = True,
    ) -> VideoInput | None:
        start, wanted = start_time or 0.0, duration or 0.0
        if strict_duration and self.get_duration() < start + wanted:
            return None
        return VideoFromFile(self.get_stream_source(), start_time=start, duration=wanted)
