"""The sound side of LTX-2."""

from __future__ import annotations

import folder_paths
from comfy_api.latest import ComfyExtension, io
from comfy_extras.absent_families import absent_node

LTXVAudioVAELoader = absent_node(
    "LTXVAudioVAELoader",
    "LTX-2 (its audio VAE)",
    display_name="Load LTXV Audio VAE",
    category="model/loaders",
    description="Loads the audio VAE out of a checkpoint.",
    inputs=lambda: [io.Combo.Input("ckpt_name", options=folder_paths.get_filename_list("checkpoints"))],
    outputs=lambda: [io.Vae.Output(display_name="Audio VAE")],
)


LTXVAudioVAEEncode = absent_node(
    "LTXVAudioVAEEncode",
    "LTX-2 audio",
    display_name="LTXV Audio VAE Encode",
    category="model/latent/ltxv",
    inputs=lambda: [io.Audio.Input("audio"), io.Vae.Input("audio_vae", display_name="Audio VAE")],
    outputs=lambda: [io.Latent.Output(display_name="Audio Latent")],
)


LTXVAudioVAEDecode = absent_node(
    "LTXVAudioVAEDecode",
    "LTX-2 audio",
    display_name="LTXV Audio VAE Decode",
    category="model/latent/ltxv",
    inputs=lambda: [io.Latent.Input("samples"), io.Vae.Input("audio_vae", display_name="Audio VAE")],
    outputs=lambda: [io.Audio.Output(display_name="Audio")],
)


LTXVEmptyLatentAudio = absent_node(
    "LTXVEmptyLatentAudio",
    "LTX-2 audio",
    display_name="LTXV Empty Latent Audio",
    category="model/latent/ltxv",
    inputs=lambda: [
        io.Int.Input(
            "frames_number", display_mode=io.NumberDisplay.number, default=97, min=1, max=1000, step=1
        ),
        io.MultiType.Input(
            io.Float.Input(
                "frame_rate",
                display_mode=io.NumberDisplay.number,
                default=25.0,
                min=1.0,
                max=1000.0,
                step=0.01,
            ),
            [io.Int],
        ),
        io.Int.Input("batch_size", display_mode=io.NumberDisplay.number, default=1, min=1, max=4096),
        io.Vae.Input("audio_vae", display_name="Audio VAE"),
    ],
    outputs=lambda: [io.Latent.Output(display_name="Latent")],
)


LTXAVTextEncoderLoader = absent_node(
    "LTXAVTextEncoderLoader",
    "LTX-2 (its text encoder)",
    display_name="Load LTXV Audio Text Encoder",
    category="model/loaders",
    description="Loads a language model and the projections of a checkpoint as text encoder.",
    inputs=lambda: [
        io.Combo.Input("text_encoder", options=folder_paths.get_filename_list("text_encoders")),
        io.Combo.Input("ckpt_name", options=folder_paths.get_filename_list("checkpoints")),
        io.Combo.Input("device", options=["default", "cpu"], advanced=True),
    ],
    outputs=lambda: [io.Clip.Output()],
)


class LtAudioExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [
            LTXVAudioVAELoader,
            LTXVAudioVAEEncode,
            LTXVAudioVAEDecode,
            LTXVEmptyLatentAudio,
            LTXAVTextEncoderLoader,
        ]


def comfy_entrypoint():
    return LtAudioExtension()
