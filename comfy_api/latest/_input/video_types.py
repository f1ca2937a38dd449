"""What a video can do, wherever it is stored."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from fractions import Fraction
from typing import IO, Any

from comfy_api.latest._util.video_types import VideoCodec, VideoComponents, VideoContainer


class VideoInput(ABC):
    """A video. What only needs single facts of it should not decode it: classes override those methods."""

    @abstractmethod
    def get_components(self) -> VideoComponents:
        """Its pictures, sound and frame rate."""

    @abstractmethod
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
        """Write it to a file or stream. `bit_depth` None keeps its own; `crf` is the encoder's quality."""

    @abstractmethod
    def as_trimmed(
        self,
        start_time: float | None = None,
        duration: float | None = None,
        strict_duration: bool = False,
    ) -> VideoInput | None:
        """The part from `start_time` on, `duration` seconds of it; None if it is shorter and
        `strict_duration`.
        """

    def get_stream_source(self) -> str | io.BytesIO:
        """A path or stream that PyAV can open."""
        stream = io.BytesIO()
        self.save_to(stream)
        stream.seek(0)
        return stream

    def get_active_trim_window(self) -> tuple[float, float]:
        """(start, duration) in seconds of the part that is used; duration 0 means all the rest."""
        return 0.0, 0.0

    def get_color_space(self) -> str:
        """"sRGB", "HDR", "HDR PQ", or "auto" if it is not said."""
        return "auto"

    def get_dimensions(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        height, width = self.get_components().images.shape[1:3]
        return width, height

    def get_bit_depth(self) -> int:
        """Bits of a colour."""
        return 8

    def get_duration(self) -> float:
        """Length in seconds."""
        components = self.get_components()
        return float(components.images.shape[0] / components.frame_rate)

    def get_frame_count(self) -> int:
        """Number of pictures."""
        return int(self.get_components().images.shape[0])

    def get_frame_rate(self) -> Fraction:
        """Pictures per second."""
        return self.get_components().frame_rate

    def get_container_format(self) -> str:
        """The container, as FFmpeg names it."""
        import av

        with av.open(self.get_stream_source(), mode="r") as container:
            return str(container.format.name)
