"""Nodes that cut, join, mix and filter sound. None is silence of no length: it is handed on."""

from __future__ import annotations

from comfy_api.latest import io
from comfy_extras.audio_files import sound

FARTHEST_SECONDS = 2**64 - 1
SHELF_Q = 0.707


class TrimAudioDuration(io.ComfyNode):
    """A part of a sound."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TrimAudioDuration",
            display_name="Trim Audio Duration",
            category="audio",
            description="The part of a sound from a time on.",
            search_aliases=["cut audio", "audio clip", "shorten audio"],
            inputs=[
                io.Audio.Input("audio"),
                io.Float.Input(
                    "start_index", default=0.0, min=-FARTHEST_SECONDS, max=FARTHEST_SECONDS, step=0.01,
                    tooltip="In seconds; negative ones count from the end.",
                ),
                io.Float.Input("duration", default=60.0, min=0.0, step=0.01, tooltip="In seconds."),
            ],
            outputs=[io.Audio.Output()],
        )  # fmt: skip

    @classmethod
    def execute(cls, audio, start_index, duration):
        if audio is None or audio["waveform"].shape[-1] == 0:
            return io.NodeOutput(audio)
        waveform, rate = audio["waveform"], audio["sample_rate"]
        length, offset = waveform.shape[-1], round(start_index * rate)
        start = min(max(offset + length if start_index < 0 else offset, 0), length)
        end = min(start + round(duration * rate), length)
        if start >= end:
            raise ValueError(
                f"The sound is {length / rate:g} s long: there is nothing in the {duration:g} s from "
                f"{start_index:g} s on. Choose an earlier start, or a longer duration."
            )
        return sound(waveform[..., start:end], rate)


class SplitAudioChannels(io.ComfyNode):
    """Left and right."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="SplitAudioChannels",
            display_name="Split Audio Channels",
            category="audio",
            description="The two channels of a stereo sound.",
            search_aliases=["stereo to mono"],
            inputs=[io.Audio.Input("audio")],
            outputs=[io.Audio.Output(display_name="left"), io.Audio.Output(display_name="right")],
        )

    @classmethod
    def execute(cls, audio):
        if audio is None:
            return io.NodeOutput(None, None)
        waveform, rate = audio["waveform"], audio["sample_rate"]
        if waveform.shape[1] != 2:
            raise ValueError(
                f"Split Audio Channels needs stereo; this sound has {waveform.shape[1]} channels."
            )
        return io.NodeOutput(*({"waveform": side, "sample_rate": rate} for side in waveform.split(1, dim=1)))


class JoinAudioChannels(io.ComfyNode):
    """Two sounds as left and right."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="JoinAudioChannels",
            display_name="Join Audio Channels",
            category="audio",
            description="Makes stereo of two mono sounds; the longer one is cut.",
            inputs=[io.Audio.Input("audio_left"), io.Audio.Input("audio_right")],
            outputs=[io.Audio.Output(display_name="audio")],
        )

    @classmethod
    def execute(cls, audio_left, audio_right):
        import torch

        from comfy_extras import audio_signals

        if audio_left is None or audio_right is None:
            return io.NodeOutput(audio_left or audio_right)
        channels = [audio["waveform"].shape[1] for audio in (audio_left, audio_right)]
        if channels != [1, 1]:
            raise ValueError(
                f"Join Audio Channels needs two mono sounds; these have {channels} channels. "
                "Take one channel of each with Split Audio Channels."
            )
        left, right, rate = audio_signals.at_one_rate(audio_left, audio_right)
        length = min(left.shape[-1], right.shape[-1])
        return sound(torch.cat([left[..., :length], right[..., :length]], dim=1), rate)


class AudioConcat(io.ComfyNode):
    """Two sounds, one after the other."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="AudioConcat",
            display_name="Concatenate Audio",
            category="audio",
            description="Plays one sound after another, in stereo.",
            search_aliases=["join audio", "combine audio", "append audio"],
            inputs=[
                io.Audio.Input("audio1"),
                io.Audio.Input("audio2"),
                io.Combo.Input(
                    "direction", options=["after", "before"], default="after",
                    tooltip="Where the second sound comes.",
                ),
            ],
            outputs=[io.Audio.Output()],
        )  # fmt: skip

    @classmethod
    def execute(cls, audio1, audio2, direction):
        import torch

        from comfy_extras import audio_signals

        if audio1 is None or audio2 is None:
            return io.NodeOutput(audio1 or audio2)
        *parts, rate = audio_signals.at_one_rate(audio1, audio2)
        parts = [part.repeat(1, 2, 1) if part.shape[1] == 1 else part for part in parts]
        return sound(torch.cat(parts if direction == "after" else parts[::-1], dim=-1), rate)


MERGES = {
    "add": lambda a, b: a + b,
    "mean": lambda a, b: (a + b) / 2,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
}


class AudioMerge(io.ComfyNode):
    """Two sounds at once."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="AudioMerge",
            display_name="Merge Audio",
            category="audio",
            description="Mixes two sounds, as long as the first; made quieter as a whole if too loud.",
            search_aliases=["mix audio", "overlay audio", "layer audio"],
            inputs=[
                io.Audio.Input("audio1"),
                io.Audio.Input("audio2"),
                io.Combo.Input("merge_method", options=list(MERGES)),
            ],
            outputs=[io.Audio.Output()],
        )

    @classmethod
    def execute(cls, audio1, audio2, merge_method):
        import torch

        from comfy_extras import audio_signals

        if audio1 is None or audio2 is None:
            return io.NodeOutput(audio1 or audio2)
        first, second, rate = audio_signals.at_one_rate(audio1, audio2)
        missing = first.shape[-1] - second.shape[-1]
        if not first.numel() or not second.numel():
            return sound(first, rate)
        mixed = MERGES[merge_method](first, torch.nn.functional.pad(second, (0, missing)))
        return sound(mixed / mixed.abs().max().clamp(min=1.0), rate)


class AudioAdjustVolume(io.ComfyNode):
    """Louder or quieter."""

    @classmethod
    def define_schema(cls):
        volume = "In decibels: 6 is about twice as much, -6 half."
        return io.Schema(
            node_id="AudioAdjustVolume",
            display_name="Adjust Audio Volume",
            category="audio",
            description="Makes sound louder or quieter.",
            search_aliases=["audio gain", "loudness", "audio level"],
            inputs=[
                io.Audio.Input("audio"),
                io.Int.Input("volume", default=1, min=-100, max=100, tooltip=volume),
            ],
            outputs=[io.Audio.Output()],
        )

    @classmethod
    def execute(cls, audio, volume):
        if audio is None or volume == 0:
            return io.NodeOutput(audio)
        return sound(audio["waveform"] * 10 ** (volume / 20), audio["sample_rate"])


class EmptyAudio(io.ComfyNode):
    """Silence."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="EmptyAudio",
            display_name="Empty Audio",
            category="audio",
            description="Silence of a length.",
            search_aliases=["blank audio"],
            inputs=[
                io.Float.Input(
                    "duration", default=60.0, min=0.0, max=FARTHEST_SECONDS, step=0.01, tooltip="In seconds."
                ),
                io.Int.Input("sample_rate", default=44100, min=1, max=192000, advanced=True),
                io.Int.Input("channels", default=2, min=1, max=2, advanced=True),
            ],
            outputs=[io.Audio.Output()],
        )

    @classmethod
    def execute(cls, duration, sample_rate, channels):
        import torch

        return sound(torch.zeros(1, channels, round(duration * sample_rate)), sample_rate)


def _gain(name):
    return io.Float.Input(name, default=0.0, min=-24.0, max=24.0, step=0.1, tooltip="In decibels.")


class AudioEqualizer3Band(io.ComfyNode):
    """More or less of low, middle and high tones."""

    @classmethod
    def define_schema(cls):
        width = "How narrow the band is; the larger, the narrower."
        return io.Schema(
            node_id="AudioEqualizer3Band",
            display_name="Audio Equalizer (3-Band)",
            category="audio",
            description="Makes low, middle and high tones louder or quieter.",
            search_aliases=["eq", "bass boost", "treble boost", "equalizer"],
            is_experimental=True,
            inputs=[
                io.Audio.Input("audio"),
                _gain("low_gain_dB"),
                io.Int.Input("low_freq", default=100, min=20, max=500, tooltip="In hertz."),
                _gain("mid_gain_dB"),
                io.Int.Input("mid_freq", default=1000, min=200, max=4000, tooltip="In hertz."),
                io.Float.Input("mid_q", default=0.707, min=0.1, max=10.0, step=0.1, tooltip=width),
                _gain("high_gain_dB"),
                io.Int.Input("high_freq", default=5000, min=1000, max=15000, tooltip="In hertz."),
            ],
            outputs=[io.Audio.Output()],
        )

    @classmethod
    def execute(
        cls, audio, low_gain_dB, low_freq, mid_gain_dB, mid_freq, mid_q, high_gain_dB, high_freq  # noqa: N803
    ):  # fmt: skip
        from comfy_extras import audio_signals as signals

        if audio is None or audio["waveform"].shape[-1] == 0:
            return io.NodeOutput(audio)
        waveform, rate = audio["waveform"], audio["sample_rate"]
        for gain, build, frequency, q in (
            (low_gain_dB, signals.low_shelf, low_freq, SHELF_Q),
            (mid_gain_dB, signals.peak, mid_freq, mid_q),
            (high_gain_dB, signals.high_shelf, high_freq, SHELF_Q),
        ):
            if gain:
                waveform = signals.filtered(waveform, *build(gain, frequency, q, rate))
        return sound(waveform, rate)
