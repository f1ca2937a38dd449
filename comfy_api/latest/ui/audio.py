"""Saving sound: {"waveform": (B, C, T), "sample_rate"} as FLAC, MP3 or Opus, with the workflow in it."""

from __future__ import annotations

import os
from typing import Any

import folder_paths
from comfy_api.latest.io.options import FolderType
from comfy_api.latest.ui.results import SavedAudios, SavedResult, directory_of, metadata_of

ENCODERS = {"flac": "flac", "mp3": "libmp3lame", "opus": "libopus"}
OPUS_RATES = (8000, 12000, 16000, 24000, 48000)
BIT_RATES = {"64k": 64000, "96k": 96000, "128k": 128000, "192k": 192000, "320k": 320000}


def encoded_rate(format: str, sample_rate: int) -> int:
    """The sample rate a format can hold that is nearest above, 48000 at most for Opus."""
    if format != "opus":
        return sample_rate
    return next((rate for rate in OPUS_RATES if rate >= sample_rate), OPUS_RATES[-1])


def write_audio(
    path: str, waveform: Any, sample_rate: int, *, format: str, quality: str, metadata: dict[str, str]
) -> None:
    """Encode one waveform (C, T) to a file. The file is complete or not there."""
    import av

    layout = {1: "mono", 2: "stereo"}.get(waveform.shape[0])
    if layout is None:
        raise ValueError(f"Sound with {waveform.shape[0]} channels cannot be saved. Mix it to one or two.")
    rate = encoded_rate(format, sample_rate)
    frame = av.AudioFrame.from_ndarray(
        waveform.T.contiguous().reshape(1, -1).float().numpy(), format="flt", layout=layout
    )
    frame.sample_rate = sample_rate
    partial = f"{path}.partial"
    try:
        with av.open(partial, mode="w", format=format) as container:
            container.metadata.update(metadata)
            stream = container.add_stream(ENCODERS[format], rate=rate, layout=layout)
            if quality in BIT_RATES and format != "flac":
                stream.bit_rate = BIT_RATES[quality]
            elif quality == "V0" and format == "mp3":
                stream.codec_context.qscale = True
            resampler = av.AudioResampler(format=stream.codec_context.format, layout=layout, rate=rate)
            for piece in (*resampler.resample(frame), *resampler.resample(None), None):
                container.mux(stream.encode(piece))
        os.replace(partial, path)
    finally:
        if os.path.exists(partial):
            os.remove(partial)


class AudioSaveHelper:
    """Saves sound. `cls` is what `execute` gets: the files carry its hidden values. It may be None."""

    _OPUS_RATES = list(OPUS_RATES)
    _FORMATS = set(ENCODERS)

    @staticmethod
    def save_audio(
        audio: dict[str, Any],
        filename_prefix: str,
        folder_type: FolderType,
        cls: Any = None,
        format: str = "flac",
        quality: str = "128k",
    ) -> list[SavedResult]:
        """Save each waveform of the batch as a file."""
        if format not in ENCODERS:
            raise ValueError(f"Sound cannot be saved as {format!r}. There are: {', '.join(ENCODERS)}.")
        folder, stem, number, subfolder, _ = folder_paths.get_save_image_path(
            filename_prefix, directory_of(folder_type)
        )
        results = []
        for index, waveform in enumerate(audio["waveform"].cpu()):
            name = f"{stem.replace('%batch_num%', str(index))}_{number + index:05}_.{format}"
            write_audio(
                os.path.join(folder, name), waveform, audio["sample_rate"],
                format=format, quality=quality, metadata=metadata_of(cls),
            )  # fmt: skip
            results.append(SavedResult(name, subfolder, folder_type))
        return results

    @staticmethod
    def get_save_audio_ui(
        audio: dict[str, Any],
        filename_prefix: str,
        cls: Any = None,
        format: str = "flac",
        quality: str = "128k",
    ) -> SavedAudios:
        """Save it in the output folder, and show it."""
        return SavedAudios(
            AudioSaveHelper.save_audio(audio, filename_prefix, FolderType.output, cls, format, quality)
        )
