"""MiniMax Music: songs from a description and lyrics."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_extras.absent_families import absent_node
from comfy_extras.core_inputs import MAX_RESOLUTION
from comfy_extras.video_inputs import batch_size

MiniMaxMusic3TextEncode = absent_node(
    "MiniMaxMusic3TextEncode",
    "MiniMax Music",
    display_name="MiniMax Music3 Text Encode",
    category="model/conditioning/minimax music",
    inputs=lambda: [
        io.Clip.Input("clip"),
        io.String.Input("caption", multiline=True, dynamic_prompts=True),
        io.String.Input("lyrics", multiline=True, dynamic_prompts=True),
        io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=True),
        io.Float.Input("max_duration", default=120.0, min=0.04, max=360.0, step=0.04),
        io.Float.Input("cfg_scale", default=1.5, min=0.0, max=100.0, step=0.1, round=0.01, advanced=True),
        io.Int.Input("top_k", default=50, min=1, max=MAX_RESOLUTION, advanced=True),
    ],
    outputs=lambda: [io.Conditioning.Output(), io.Float.Output(display_name="seconds")],
)


EmptyMiniMaxMusic3LatentAudio = absent_node(
    "EmptyMiniMaxMusic3LatentAudio",
    "MiniMax Music",
    display_name="Empty MiniMax Music3 Latent Audio",
    category="model/latent/minimax music",
    inputs=lambda: [io.Float.Input("seconds", default=120.0, min=0.04, max=360.0, step=0.04), batch_size()],
    outputs=lambda: [io.Latent.Output()],
)


class MinimaxMusicExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [MiniMaxMusic3TextEncode, EmptyMiniMaxMusic3LatentAudio]


def comfy_entrypoint():
    return MinimaxMusicExtension()
