"""Sound: latents of it, and the list of all nodes of sound.

Sound is {"waveform": (B, channels, samples) of -1..1, "sample_rate": samples per second}. A video without
sound gives None, which nodes that change sound hand on and nodes that need it refuse.
"""

from __future__ import annotations

import node_helpers
from comfy_api.latest import ComfyExtension, io
from comfy_extras.audio_editing import (
    AudioAdjustVolume,
    AudioConcat,
    AudioEqualizer3Band,
    AudioMerge,
    EmptyAudio,
    JoinAudioChannels,
    SplitAudioChannels,
    TrimAudioDuration,
)
from comfy_extras.audio_files import (
    LoadAudio,
    PreviewAudio,
    RecordAudio,
    SaveAudio,
    SaveAudioAdvanced,
    SaveAudioMP3,
    SaveAudioOpus,
    needed,
    sound,
)

PEAK_OF_DECODED = 5.0  # standard deviations that fit into -1..1


class EmptyLatentAudio(io.ComfyNode):
    """Silence to begin from, for Stable Audio."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="EmptyLatentAudio",
            display_name="Empty Latent Audio",
            category="model/latent",
            description="An empty latent of so many seconds of sound.",
            essentials_category="Audio",
            inputs=[
                io.Float.Input("seconds", default=47.6, min=1.0, max=1000.0, step=0.1),
                io.Int.Input("batch_size", default=1, min=1, max=4096, tooltip="How many sounds."),
            ],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, seconds, batch_size):
        import torch

        import comfy.model_management

        length = round(seconds * 44100 / 2048 / 2) * 2
        samples = torch.zeros(batch_size, 64, length, device=comfy.model_management.intermediate_device())
        return io.NodeOutput({"samples": samples, "type": "audio", "downscale_ratio_temporal": 2048})


class ConditioningStableAudio(io.ComfyNode):
    """Tells Stable Audio which part of how long a sound is wanted."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ConditioningStableAudio",
            category="model/conditioning/stable audio",
            description="Tells the model where in a sound of which length the wanted part begins.",
            inputs=[
                io.Conditioning.Input("positive"),
                io.Conditioning.Input("negative"),
                io.Float.Input("seconds_start", default=0.0, min=0.0, max=1000.0, step=0.1),
                io.Float.Input("seconds_total", default=47.0, min=0.0, max=1000.0, step=0.1),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive"),
                io.Conditioning.Output(display_name="negative"),
            ],
        )

    @classmethod
    def execute(cls, positive, negative, seconds_start, seconds_total):
        values = {"seconds_start": seconds_start, "seconds_total": seconds_total}
        sides = [node_helpers.conditioning_set_values(side, values) for side in (positive, negative)]
        return io.NodeOutput(*sides)


class VAEEncodeAudio(io.ComfyNode):
    """Sound as a latent."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="VAEEncodeAudio",
            display_name="VAE Encode Audio",
            category="model/latent",
            description="Encodes sound, at the rate that the VAE expects.",
            search_aliases=["audio to latent"],
            inputs=[io.Audio.Input("audio"), io.Vae.Input("vae")],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, audio, vae):
        from comfy_extras import audio_signals

        audio = needed(audio, "VAE Encode Audio")
        rate = getattr(vae, "audio_sample_rate", 44100)
        waveform = audio_signals.resampled(audio["waveform"], audio["sample_rate"], rate)
        return io.NodeOutput({"samples": vae.encode(waveform.movedim(1, -1))})


def _decoded(vae, latent, **tiles):
    """Sound of a latent; one that is too loud is made quieter as a whole."""
    samples = latent["samples"]
    samples = samples.unbind()[-1] if samples.is_nested else samples
    waveform = (vae.decode_tiled(samples, **tiles) if tiles else vae.decode(samples)).movedim(-1, 1)
    loudness = waveform.std(dim=(1, 2), keepdim=True) * PEAK_OF_DECODED
    rate = getattr(vae, "audio_sample_rate_output", getattr(vae, "audio_sample_rate", 44100))
    return sound(waveform / loudness.clamp(min=1.0), latent.get("sample_rate", rate))


class VAEDecodeAudio(io.ComfyNode):
    """A latent as sound."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="VAEDecodeAudio",
            display_name="VAE Decode Audio",
            category="model/latent",
            description="Decodes a latent of sound.",
            search_aliases=["latent to audio"],
            inputs=[io.Latent.Input("samples"), io.Vae.Input("vae")],
            outputs=[io.Audio.Output()],
        )

    @classmethod
    def execute(cls, samples, vae):
        return _decoded(vae, samples)


class VAEDecodeAudioTiled(io.ComfyNode):
    """A long latent as sound, piece by piece."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="VAEDecodeAudioTiled",
            display_name="VAE Decode Audio (Tiled)",
            category="model/latent",
            description="Decodes a latent of sound in pieces, which needs less memory.",
            search_aliases=["latent to audio"],
            inputs=[
                io.Latent.Input("samples"),
                io.Vae.Input("vae"),
                io.Int.Input("tile_size", default=512, min=32, max=8192, step=8),
                io.Int.Input("overlap", default=64, min=0, max=1024, step=8),
            ],
            outputs=[io.Audio.Output()],
        )

    @classmethod
    def execute(cls, samples, vae, tile_size, overlap):
        return _decoded(vae, samples, tile_x=tile_size, tile_y=tile_size, overlap=overlap)


class AudioExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [
            EmptyLatentAudio, VAEEncodeAudio, VAEDecodeAudio, VAEDecodeAudioTiled, SaveAudio, SaveAudioMP3,
            SaveAudioOpus, SaveAudioAdvanced, LoadAudio, PreviewAudio, ConditioningStableAudio, RecordAudio,
            TrimAudioDuration, SplitAudioChannels, JoinAudioChannels, AudioConcat, AudioMerge,
            AudioAdjustVolume, EmptyAudio, AudioEqualizer3Band,
        ]  # fmt: skip


def comfy_entrypoint():
    return AudioExtension()
