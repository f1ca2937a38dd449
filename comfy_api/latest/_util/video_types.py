"""How videos are stored, and what they consist of."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from typing import Any


class VideoCodec(str, Enum):
    """Codecs that videos are saved in."""

    AUTO = "auto"
    H264 = "h264"
    AV1 = "av1"

    @classmethod
    def as_input(cls) -> list[str]:
        """Choices of an input."""
        return [member.value for member in cls]


class VideoContainer(str, Enum):
    """Containers that videos are saved in."""

    AUTO = "auto"
    MP4 = "mp4"
    MKV = "mkv"
    WEBM = "webm"

    @classmethod
    def as_input(cls) -> list[str]:
        """Choices of an input."""
        return [member.value for member in cls]

    @classmethod
    def get_extension(cls, value: str | VideoContainer) -> str:
        """The suffix of files, without the dot."""
        container = cls(value)
        return "mp4" if container is cls.AUTO else container.value


@dataclass
class VideoComponents:
    """A video in parts: images (B, H, W, 3), sound, and alpha (B, H, W, 1)."""

    images: Any
    frame_rate: Fraction
    audio: Any = None
    metadata: dict[str, Any] | None = None
    alpha: Any = None
