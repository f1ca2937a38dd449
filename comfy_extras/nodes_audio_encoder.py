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


class AudioEncoderEncode(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="AudioEncoderEncode",
            category="model/conditioning",
            description="Sound as the encoder hears it.",
            inputs=[io.AudioEncoder.Input("audio_encoder"), io.Audio.Input("audio")],
            outputs=[io.AudioEncoderOutput.Output()],
        )

    @classmethod
    def execute(cls, audio_encoder, audio):
        return io.NodeOutput(audio_encoder.encode_audio(audio["waveform"], audio["sample_rate"]))


class AudioEncoderExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [AudioEncoderLoader, AudioEncoderEncode]


def comfy_entrypoint():
    return AudioEncoderExtension()
