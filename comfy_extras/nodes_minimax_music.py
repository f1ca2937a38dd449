"""MiniMax Music: songs from a description and lyrics."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_extras.core_inputs import MAX_RESOLUTION
from comfy_extras.video_conditioning import zeros
from comfy_extras.video_inputs import batch_size

FRAMES_PER_SECOND = 25
MOST_FRAMES = 9000


def _frames(seconds):
    return min(MOST_FRAMES, max(1, round(seconds * FRAMES_PER_SECOND)))


class MiniMaxMusic3TextEncode(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MiniMaxMusic3TextEncode",
            display_name="MiniMax Music3 Text Encode",
            category="model/conditioning/minimax music",
            description=(
                "Encodes a description and lyrics as a song; how long it becomes is for the model to say."
            ),
            inputs=[
                io.Clip.Input("clip"),
                io.String.Input("caption", multiline=True, dynamic_prompts=True),
                io.String.Input("lyrics", multiline=True, dynamic_prompts=True),
                io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=True),
                io.Float.Input("max_duration", default=120.0, min=0.04, max=360.0, step=0.04),
                io.Float.Input(
                    "cfg_scale", default=1.5, min=0.0, max=100.0, step=0.1, round=0.01, advanced=True
                ),
                io.Int.Input("top_k", default=50, min=1, max=MAX_RESOLUTION, advanced=True),
            ],
            outputs=[io.Conditioning.Output(), io.Float.Output(display_name="seconds")],
        )

    @classmethod
    def execute(cls, clip, caption, lyrics, seed, max_duration, cfg_scale, top_k):
        how = {
            "lyrics": lyrics,
            "seed": seed,
            "max_audio_frames": _frames(max_duration),
            "cfg_scale": cfg_scale,
        }
        conditioning = clip.encode_from_tokens_scheduled(clip.tokenize(caption, **how, top_k=top_k))
        for embedding, values in conditioning:
            values["conditioning_scale"] = embedding.new_ones(len(embedding), 1, 1)
        return io.NodeOutput(conditioning, conditioning[0][0].shape[1] / FRAMES_PER_SECOND)


class EmptyMiniMaxMusic3LatentAudio(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="EmptyMiniMaxMusic3LatentAudio",
            display_name="Empty MiniMax Music3 Latent Audio",
            category="model/latent/minimax music",
            description="Silence for MiniMax Music 3, of a length in seconds.",
            inputs=[io.Float.Input("seconds", default=120.0, min=0.04, max=360.0, step=0.04), batch_size()],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, seconds, batch_size):
        length = max(1, int(_frames(seconds) * 44100 / 24000 * 960 / 512))
        samples = zeros(batch_size, 128, length)
        return io.NodeOutput({"samples": samples, "type": "audio", "downscale_ratio_temporal": 512})


class MinimaxMusicExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [MiniMaxMusic3TextEncode, EmptyMiniMaxMusic3LatentAudio]


def comfy_entrypoint():
    return MinimaxMusicExtension()
