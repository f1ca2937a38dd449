"""WanDancer: dance to music."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_extras.absent_families import absent_node
from comfy_extras.core_inputs import MAX_RESOLUTION
from comfy_extras.video_inputs import frame_size, guided, sides_out

WanDancerVideo = absent_node(
    "WanDancerVideo",
    "WanDancer",
    category="model/conditioning/wan/dancer",
    inputs=lambda: [
        *guided(),
        *frame_size(480, 832),
        io.Int.Input("length", default=149, min=1, max=MAX_RESOLUTION, step=4),
        io.ClipVisionOutput.Input("clip_vision_output", optional=True),
        io.ClipVisionOutput.Input("clip_vision_output_ref", optional=True),
        io.Image.Input("start_image", optional=True),
        io.Mask.Input("mask", optional=True),
        io.AudioEncoderOutput.Input("audio_encoder_output", optional=True),
    ],
    outputs=lambda: sides_out(),
)


WanDancerEncodeAudio = absent_node(
    "WanDancerEncodeAudio",
    "WanDancer",
    category="model/conditioning/wan/dancer",
    inputs=lambda: [
        io.Audio.Input("audio"),
        io.Int.Input("video_frames", default=149, min=1, max=MAX_RESOLUTION, step=4),
        io.Float.Input("audio_inject_scale", default=1.0, min=0.0, max=10.0, step=0.01),
    ],
    outputs=lambda: [
        io.AudioEncoderOutput.Output(display_name="audio_encoder_output"),
        io.String.Output(display_name="fps_string"),
    ],
)


WanDancerPadKeyframes = absent_node(
    "WanDancerPadKeyframes",
    "WanDancer",
    category="image/video",
    inputs=lambda: [
        io.Image.Input("images"),
        io.Int.Input("segment_length", default=149, min=1, max=10000),
        io.Int.Input("segment_index", default=0, min=0, max=100),
        io.Audio.Input("audio"),
    ],
    outputs=lambda: [
        io.Image.Output(display_name="keyframes_sequence"),
        io.Mask.Output(display_name="keyframes_mask"),
        io.Audio.Output(display_name="audio_segment"),
    ],
)


WanDancerPadKeyframesList = absent_node(
    "WanDancerPadKeyframesList",
    "WanDancer",
    category="image/video",
    inputs=lambda: [
        io.Image.Input("images"),
        io.Int.Input("segment_length", default=149, min=1, max=10000),
        io.Int.Input("num_segments", default=1, min=1, max=100),
        io.Audio.Input("audio"),
    ],
    outputs=lambda: [
        io.Image.Output(display_name="keyframes_sequence", is_output_list=True),
        io.Mask.Output(display_name="keyframes_mask", is_output_list=True),
        io.Audio.Output(display_name="audio_segment", is_output_list=True),
    ],
)


class WandancerExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [WanDancerVideo, WanDancerEncodeAudio, WanDancerPadKeyframes, WanDancerPadKeyframesList]


def comfy_entrypoint():
    return WandancerExtension()
