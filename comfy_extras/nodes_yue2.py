"""YuE 2: songs from a style, lyrics and a score."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_extras.absent_families import absent_node
from comfy_extras.video_inputs import batch_size

YuE2GenerateABC = absent_node(
    "YuE2GenerateABC",
    "YuE 2",
    display_name="YuE 2: Generate Score",
    category="audio",
    inputs=lambda: [
        io.Clip.Input("clip"),
        io.String.Input("style", default="", multiline=True),
        io.String.Input("lyrics", default="", multiline=True),
        io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=True),
        io.Combo.Input("mode", options=["full", "melody"], default="full"),
        io.Int.Input("max_tokens", default=8192, min=1, max=65536),
        io.Float.Input("temperature", default=0.7, min=0.0, max=2.0, step=0.01),
        io.Float.Input("top_p", default=0.9, min=0.0, max=1.0, step=0.01),
        io.Int.Input("top_k", default=30, min=0, max=1000),
        io.Float.Input("repetition_penalty", default=1.005, min=0.5, max=5.0, step=0.001),
        io.Int.Input("penalty_window", default=100, min=0, max=65536),
    ],
    outputs=lambda: [io.String.Output(display_name="abc")],
)


YuE2GenerateMusic = absent_node(
    "YuE2GenerateMusic",
    "YuE 2",
    display_name="YuE 2: Generate Music",
    category="audio",
    inputs=lambda: [
        io.Clip.Input("clip"),
        io.String.Input("style", default="", multiline=True),
        io.String.Input("lyrics", default="", multiline=True),
        io.String.Input("abc", default="", multiline=True),
        io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=True),
        io.Combo.Input("mode", options=["full", "melody"], default="full"),
        io.Float.Input("max_duration", default=360.0, min=1.0, max=3600.0, step=0.1),
        io.Float.Input("temperature", default=1.0, min=0.0, max=2.0, step=0.01),
        io.Float.Input("top_p", default=0.95, min=0.0, max=1.0, step=0.01),
        io.Int.Input("top_k", default=100, min=0, max=1000),
        io.Float.Input("repetition_penalty", default=1.2, min=0.5, max=5.0, step=0.001),
    ],
    outputs=lambda: [io.Conditioning.Output(), io.Float.Output(display_name="seconds")],
)


EmptyYuE2LatentAudio = absent_node(
    "EmptyYuE2LatentAudio",
    "YuE 2",
    display_name="Empty YuE 2 Latent Audio",
    category="model/latent/audio",
    inputs=lambda: [io.Float.Input("seconds", default=120.0, min=0.1, max=3600.0, step=0.1), batch_size()],
    outputs=lambda: [io.Latent.Output()],
)


SheetSage2AudioToABC = absent_node(
    "SheetSage2AudioToABC",
    "YuE 2",
    display_name="Sheet Sage 2: Audio to Score",
    category="audio",
    inputs=lambda: [
        io.AudioEncoder.Input("audio_encoder"),
        io.Audio.Input("audio"),
        io.Combo.Input("mode", options=["melody", "full"], default="melody"),
    ],
    outputs=lambda: [io.String.Output(display_name="abc")],
)


class Yue2Extension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [YuE2GenerateABC, YuE2GenerateMusic, EmptyYuE2LatentAudio, SheetSage2AudioToABC]


def comfy_entrypoint():
    return Yue2Extension()
