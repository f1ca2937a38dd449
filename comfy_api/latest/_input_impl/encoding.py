"""Writing videos with PyAV, which is imported when one is written."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from fractions import Fraction
from typing import IO, Any

from comfy_api.latest._util.video_types import VideoCodec, VideoComponents, VideoContainer

ENCODERS = {VideoCodec.H264: "libx264", VideoCodec.AV1: "libsvtav1"}
FORMATS = {VideoContainer.MP4: "mp4", VideoContainer.MKV: "matroska", VideoContainer.WEBM: "webm"}
WEBM_CODECS = {"vp8", "vp9", "av1", "opus", "vorbis"}
OPUS_RATE = 48000
LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}

# Colour spaces as FFmpeg numbers them: (primaries, transfer, matrix).
COLOR_SPACES = {"sRGB": (1, 1, 1), "HDR": (9, 18, 9), "HDR PQ": (9, 16, 9)}


def _container_of(path: str | IO[bytes]) -> VideoContainer:
    suffix = os.path.splitext(path)[1].lstrip(".").lower() if isinstance(path, (str, os.PathLike)) else ""
    return next((kind for kind in FORMATS if kind.value == suffix), VideoContainer.MP4)


@dataclass
class Target:
    """A file or stream, and how a video is to be encoded in it. None: as it comes."""

    path: str | IO[bytes]
    container: VideoContainer
    codec: VideoCodec
    asks_container: bool
    asks_codec: bool
    bit_depth: int | None
    crf: float | None
    color_space: str | None

    @classmethod
    def of(
        cls,
        path: str | IO[bytes],
        format: VideoContainer | str,
        codec: VideoCodec | str,
        bit_depth: int | None,
        crf: float | None,
        color_space: str | None,
    ) -> Target:
        """From what `save_to` takes. ValueError for what does not go together."""
        container, wanted = VideoContainer(format), VideoCodec(codec)
        if color_space is not None and color_space not in COLOR_SPACES:
            known = ", ".join(COLOR_SPACES)
            raise ValueError(f"Colour space {color_space!r} is not known. There are: {known}.")
        kind = _container_of(path) if container is VideoContainer.AUTO else container
        if wanted is VideoCodec.H264 and kind is VideoContainer.WEBM:
            raise ValueError("A webm file cannot hold h264. Choose the codec av1, or the format mp4 or mkv.")
        default = VideoCodec.AV1 if kind is VideoContainer.WEBM else VideoCodec.H264
        return cls(
            path, kind, default if wanted is VideoCodec.AUTO else wanted,
            container is not VideoContainer.AUTO, wanted is not VideoCodec.AUTO, bit_depth, crf, color_space,
        )  # fmt: skip

    def _open(self, metadata: dict[str, Any] | None, format: str, kept: dict[str, str] | None = None) -> Any:
        import av

        # Without the flag the container drops keys it does not know, and with it the workflow.
        options = {"movflags": "use_metadata_tags"} if format == "mp4" else {}
        output = av.open(self.path, mode="w", format=format, options=options)
        output.metadata.update(kept or {})
        output.metadata.update({key: json.dumps(value) for key, value in (metadata or {}).items()})
        return output

    def can_copy(self, container: Any) -> bool:
        """Is the video encoded as wished already?"""
        from comfy_api.latest._input_impl import decoding

        if self.crf is not None or self.color_space is not None:
            return False
        streams = [stream for stream in container.streams if stream.codec_context is not None]
        codecs = {stream.codec.canonical_name for stream in streams}
        names = container.format.name.split(",")
        if self.container is VideoContainer.WEBM and not codecs <= WEBM_CODECS:
            return False
        if self.asks_container and FORMATS[self.container] not in names:
            return False
        if self.asks_codec and self.codec.value != decoding.video_stream(container).codec.canonical_name:
            return False
        return self.bit_depth in (None, decoding.bit_depth(container))

    def copy(self, container: Any, metadata: dict[str, Any] | None) -> None:
        """Write the streams of a video as they are."""
        name = FORMATS[self.container]
        with self._open(metadata, name, dict(container.metadata)) as output:
            streams = {
                stream: output.add_stream_from_template(template=stream, opaque=True)
                for stream in container.streams
                if stream.type in ("video", "audio", "subtitle") and stream.codec_context is not None
            }
            for packet in container.demux(list(streams)):
                if packet.dts is not None:
                    packet.stream = streams[packet.stream]
                    output.mux(packet)

    def encode(self, video: VideoComponents, metadata: dict[str, Any] | None) -> None:
        """Encode pictures and sound. A file that cannot be finished is removed."""
        try:
            with self._open(metadata, FORMATS[self.container], video.metadata) as output:
                rate = Fraction(round(video.frame_rate * 1000), 1000)
                picture_stream = self._picture_stream(output, video.images, rate)
                sound = None if not video.audio else _Sound(output, self.container, video, rate)
                self._encode_pictures(output, picture_stream, video.images)
                if sound is not None:
                    sound.encode(output)
        except BaseException:
            if isinstance(self.path, (str, os.PathLike)) and os.path.exists(self.path):
                os.remove(self.path)
            raise

    def _colors(self) -> tuple[int, int, int]:
        return COLOR_SPACES[self.color_space or "sRGB"]

    @property
    def _has_ten_bits(self) -> bool:
        return (self.bit_depth or 8) > 8 or self.color_space in ("HDR", "HDR PQ")

    def _picture_stream(self, output: Any, images: Any, rate: Fraction) -> Any:
        stream = output.add_stream(ENCODERS[self.codec], rate=rate)
        height, width = images.shape[1:3]
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuv420p10le" if self._has_ten_bits else "yuv420p"
        if self.crf is not None:
            stream.options = {"crf": f"{self.crf:g}"}
        context = stream.codec_context
        context.color_primaries, context.color_trc, context.colorspace = self._colors()
        return stream

    def _encode_pictures(self, output: Any, stream: Any, images: Any) -> None:
        import av
        import numpy

        kind, top = (numpy.uint16, 65535) if self._has_ten_bits else (numpy.uint8, 255)
        for image in images:
            values = (image[..., :3].float().cpu() * top).clamp(0, top).numpy().astype(kind)
            frame = av.VideoFrame.from_ndarray(values, format="rgb48le" if self._has_ten_bits else "rgb24")
            frame = frame.reformat(format=stream.pix_fmt, dst_colorspace=self._colors()[2])
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))


class _Sound:
    """The sound of a video, cut to the length of its pictures, and its stream."""

    def __init__(
        self, output: Any, container: VideoContainer, video: VideoComponents, frame_rate: Fraction
    ) -> None:
        self.rate = int(video.audio["sample_rate"])
        samples = math.ceil(self.rate / frame_rate * video.images.shape[0])
        self.waveform = video.audio["waveform"][0, :, :samples]
        channels = self.waveform.shape[0]
        if channels not in LAYOUTS:
            raise ValueError(f"Sound with {channels} channels cannot be saved. Mix it to 1, 2 or 6.")
        self.layout = LAYOUTS[channels]
        is_webm = container is VideoContainer.WEBM
        self.stream = output.add_stream(
            "libopus" if is_webm else "aac", rate=OPUS_RATE if is_webm else self.rate, layout=self.layout
        )

    def encode(self, output: Any) -> None:
        """Write all of it."""
        import av

        samples = self.waveform.float().cpu().contiguous().numpy()
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=self.layout)
        frame.sample_rate, frame.pts = self.rate, 0
        context = self.stream.codec_context
        resampler = av.AudioResampler(format=context.format, layout=self.layout, rate=context.sample_rate)
        for piece in (*resampler.resample(frame), *resampler.resample(None), None):
            output.mux(self.stream.encode(piece))
