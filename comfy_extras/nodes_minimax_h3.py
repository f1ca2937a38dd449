"""MiniMax H3: video and sound together."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_extras.absent_families import absent_node
from comfy_extras.video_inputs import frame_size

EmptyMiniMaxH3LatentAV = absent_node(
    "EmptyMiniMaxH3LatentAV",
    "MiniMax H3",
    display_name="Empty MiniMax H3 AV Latent",
    category="model/latent/minimax",
    inputs=lambda: [
        *frame_size(1344, 768, low=32, step=32),
        io.Int.Input("length", default=124, min=5, max=3600, step=17),
    ],
    outputs=lambda: [io.Latent.Output()],
)


MiniMaxH3ImageToVideo = absent_node(
    "MiniMaxH3ImageToVideo",
    "MiniMax H3",
    display_name="MiniMax H3 Image to Video",
    category="model/conditioning/minimax",
    inputs=lambda: [
        io.Clip.Input("clip"),
        io.Vae.Input("vae"),
        io.String.Input("prompt", multiline=True, dynamic_prompts=True),
        *frame_size(1344, 768, low=32, step=32),
        io.Int.Input("length", default=124, min=5, max=3600, step=17),
        io.Image.Input("first_frame", optional=True),
        io.Image.Input("last_frame", optional=True),
    ],
    outputs=lambda: [io.Conditioning.Output(display_name="positive"), io.Latent.Output()],
)


MiniMaxH3AddGuide = absent_node(
    "MiniMaxH3AddGuide",
    "MiniMax H3",
    display_name="Add Guide for MiniMax H3",
    category="model/conditioning/minimax",
    inputs=lambda: [
        io.Conditioning.Input("positive"),
        io.Latent.Input("latent"),
        io.Int.Input("frame_idx", default=0, min=-9999, max=9999),
        io.Vae.Input("vae", optional=True),
        io.Vae.Input("audio_vae", optional=True),
        io.Image.Input("image", optional=True),
        io.Audio.Input("audio", optional=True),
    ],
    outputs=lambda: [io.Conditioning.Output(display_name="positive")],
)


MiniMaxH3ReferenceToVideo = absent_node(
    "MiniMaxH3ReferenceToVideo",
    "MiniMax H3",
    display_name="MiniMax H3 Reference to Video",
    category="model/conditioning/minimax",
    inputs=lambda: [
        io.Clip.Input("clip"),
        io.Vae.Input("vae"),
        io.Vae.Input("audio_vae"),
        io.String.Input("prompt", multiline=True, dynamic_prompts=True),
        *frame_size(1344, 768, low=32, step=32),
        io.Int.Input("length", default=124, min=5, max=3600, step=17),
        io.Combo.Input("ref_image_size", options=["match", "max"], default="match"),
        io.Autogrow.Input(
            "ref_images",
            io.Autogrow.TemplatePrefix(io.Image.Input("ref_image"), prefix="ref_image_", min=0, max=9),
            optional=True,
        ),
        io.Autogrow.Input(
            "ref_videos",
            io.Autogrow.TemplatePrefix(io.Image.Input("ref_video"), prefix="ref_video_", min=0, max=3),
            optional=True,
        ),
        io.Autogrow.Input(
            "ref_video_audios",
            io.Autogrow.TemplatePrefix(
                io.Audio.Input("ref_video_audio"), prefix="ref_video_audio_", min=0, max=3
            ),
            optional=True,
        ),
        io.Autogrow.Input(
            "ref_audios",
            io.Autogrow.TemplatePrefix(io.Audio.Input("ref_audio"), prefix="ref_audio_", min=0, max=3),
            optional=True,
        ),
    ],
    outputs=lambda: [io.Conditioning.Output(display_name="positive"), io.Latent.Output()],
)


MiniMaxH3SigmaShift = absent_node(
    "MiniMaxH3SigmaShift",
    "MiniMax H3",
    display_name="ModelSamplingMiniMaxH3",
    category="model/patch/minimax",
    search_aliases=["sigma shift", "minimax shift"],
    inputs=lambda: [
        io.Model.Input("model"),
        io.Float.Input("shift_video", default=12.0, min=0.01, max=100.0, step=0.01),
        io.Float.Input("shift_audio", default=3.0, min=0.01, max=100.0, step=0.01),
    ],
    outputs=lambda: [io.Model.Output()],
)


BlockSparseAttention = absent_node(
    "BlockSparseAttention",
    "MiniMax H3",
    display_name="Block-Sparse Attention",
    category="model/patch",
    inputs=lambda: [
        io.Model.Input("model"),
        io.Combo.Input("method", options=["vsa"], default="vsa"),
        io.Int.Input("skip_first_steps", default=10, min=0, max=10000),
        io.Float.Input("sparsity", default=0.2, min=0.0, max=1.0, step=0.01),
        io.Float.Input("end_percent", default=1.0, min=0.0, max=1.0, step=0.001),
        io.String.Input("blocks", default=""),
        io.Int.Input("min_tokens", default=12288, min=0, max=1048576),
        io.Int.Input("block_size", default=256, min=1, max=4096),
        io.Combo.Input("text_tokens", options=["exact_kv_and_rows"], default="exact_kv_and_rows"),
        io.Boolean.Input("verbose", default=False),
    ],
    outputs=lambda: [io.Model.Output(display_name="model")],
)


MiniMaxH3FunControlNetApply = absent_node(
    "MiniMaxH3FunControlNetApply",
    "MiniMax H3",
    display_name="Apply MiniMax H3 Fun ControlNet",
    category="model/patch",
    inputs=lambda: [
        io.Model.Input("model"),
        io.ModelPatch.Input("model_patch"),
        io.Vae.Input("vae"),
        io.Float.Input("strength", default=1.0, min=-10.0, max=10.0, step=0.01),
        io.Float.Input("start_percent", default=0.0, min=0.0, max=1.0, step=0.001),
        io.Float.Input("end_percent", default=1.0, min=0.0, max=1.0, step=0.001),
        io.Image.Input("control_video", optional=True),
        io.Mask.Input("mask", optional=True),
        io.Image.Input("source_video", optional=True),
    ],
    outputs=lambda: [io.Model.Output()],
)


class MinimaxH3Extension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [
            EmptyMiniMaxH3LatentAV,
            MiniMaxH3ImageToVideo,
            MiniMaxH3AddGuide,
            MiniMaxH3ReferenceToVideo,
            MiniMaxH3SigmaShift,
            BlockSparseAttention,
            MiniMaxH3FunControlNetApply,
        ]


def comfy_entrypoint():
    return MinimaxH3Extension()
