"""The sound side of LTX-2."""

from __future__ import annotations

import folder_paths
from comfy_api.latest import ComfyExtension, io
from comfy_extras.absent_families import absent_node
from comfy_extras.video_conditioning import zeros

LTXVAudioVAELoader = absent_node(
    "LTXVAudioVAELoader",
    "LTX-2 (its audio VAE)",
    display_name="Load LTXV Audio VAE",
    category="model/loaders",
    description="Loads the audio VAE out of a checkpoint.",
    inputs=lambda: [io.Combo.Input("ckpt_name", options=folder_paths.get_filename_list("checkpoints"))],
    outputs=lambda: [io.Vae.Output(display_name="Audio VAE")],
)


class LTXVAudioVAEEncode(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LTXVAudioVAEEncode",
            display_name="LTXV Audio VAE Encode",
            category="model/latent/ltxv",
            description="Turns sound into a latent.",
            inputs=[io.Audio.Input("audio"), io.Vae.Input("audio_vae", display_name="Audio VAE")],
            outputs=[io.Latent.Output(display_name="Audio Latent")],
        )

    @classmethod
    def execute(cls, audio, audio_vae):
        from comfy_extras.nodes_audio import VAEEncodeAudio

        return VAEEncodeAudio.execute(audio, audio_vae)


class LTXVAudioVAEDecode(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LTXVAudioVAEDecode",
            display_name="LTXV Audio VAE Decode",
            category="model/latent/ltxv",
            description="Turns a latent, or the sound part of one, into sound.",
            inputs=[io.Latent.Input("samples"), io.Vae.Input("audio_vae", display_name="Audio VAE")],
            outputs=[io.Audio.Output(display_name="Audio")],
        )

    @classmethod
    def execute(cls, samples, audio_vae):
        latent = samples["samples"]
        if latent.is_nested:
            latent = latent.unbind()[-1]
        waveform = audio_vae.decode(latent).movedim(-1, 1).to(latent.device)
        rate = int(audio_vae.first_stage_model.output_sample_rate)
        return io.NodeOutput({"waveform": waveform, "sample_rate": rate})


class LTXVEmptyLatentAudio(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LTXVEmptyLatentAudio",
            display_name="LTXV Empty Latent Audio",
            category="model/latent/ltxv",
            description="Silence for a video of so many frames.",
            inputs=[
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
            outputs=[io.Latent.Output(display_name="Latent")],
        )

    @classmethod
    def execute(cls, frames_number, frame_rate, batch_size, audio_vae):
        network = audio_vae.first_stage_model
        count = network.num_of_latents_from_frames(frames_number, frame_rate)
        samples = zeros(batch_size, audio_vae.latent_channels, count, network.latent_frequency_bins)
        return io.NodeOutput({"samples": samples, "type": "audio"})


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
