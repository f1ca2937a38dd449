"""Encoders of sound, whose features steer video models."""

from __future__ import annotations

import folder_paths
from comfy_api.latest import ComfyExtension, io
from comfy_extras.absent_families import absent_node

AudioEncoderLoader = absent_node(
    "AudioEncoderLoader",
    "Wav2Vec2 and Whisper audio encoders",
    display_name="Load Audio Encoder",
    category="model/loaders",
    description="Loads an encoder of sound.",
    inputs=lambda: [
        io.Combo.Input("audio_encoder_name", options=folder_paths.get_filename_list("audio_encoders"))
    ],
    outputs=lambda: [io.AudioEncoder.Output()],
)


AudioEncoderEncode = absent_node(
    "AudioEncoderEncode",
    "Wav2Vec2 and Whisper audio encoders",
    category="model/conditioning",
    inputs=lambda: [io.AudioEncoder.Input("audio_encoder"), io.Audio.Input("audio")],
    outputs=lambda: [io.AudioEncoderOutput.Output()],
)


class AudioEncoderExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [AudioEncoderLoader, AudioEncoderEncode]


def comfy_entrypoint():
    return AudioEncoderExtension()
