"""WanDancer: dance to music."""

from __future__ import annotations

import math

from comfy_api.latest import ComfyExtension, io
from comfy_extras.absent_families import absent_node
from comfy_extras.core_inputs import MAX_RESOLUTION
from comfy_extras.video_inputs import frame_size, guided, sides_out

FPS = 30
SILENT_END = 0.2  # seconds of sound that begin no further segment


def _inner(step, end):
    """How many pictures, `step` frames apart, a segment has before the one at its end."""
    return max(0, math.ceil((end - step) / step))


def _segment(images, length, index, audio):
    """(frames (T, H, W, C), mask (T, H, W) of those that are given, sound) of one part of a dance.

    The pictures are spread evenly over all parts that the sound takes; what lies between them is black.
    """
    import torch

    rate, wave = audio["sample_rate"], audio["waveform"]
    seconds = wave.shape[-1] / rate
    parts = int((seconds - SILENT_END) / (length / FPS)) + 1 if seconds > SILENT_END else 0
    frames = images.new_zeros(length, *images.shape[1:])
    mask = images.new_zeros(length, *images.shape[1:3])
    if parts and len(images):
        step = parts * length / len(images)
        inner = _inner(step, length - 1)
        places = [*(math.ceil(step * number) for number in range(inner)), length - 1]
        given = images[index * inner :][: len(places)]
        places = torch.tensor(places[: len(given)], dtype=torch.long)
        frames[places], mask[places] = given, 1
    begin = index * length / FPS
    end = min(begin + length / FPS, seconds)
    sound = wave[:, :, int(begin * rate) : int(end * rate)]
    return frames, mask, {"waveform": sound, "sample_rate": rate}


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


class WanDancerPadKeyframes(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="WanDancerPadKeyframes",
            category="image/video",
            inputs=[
                io.Image.Input("images"),
                io.Int.Input("segment_length", default=149, min=1, max=10000),
                io.Int.Input("segment_index", default=0, min=0, max=100),
                io.Audio.Input("audio"),
            ],
            outputs=[
                io.Image.Output(display_name="keyframes_sequence"),
                io.Mask.Output(display_name="keyframes_mask"),
                io.Audio.Output(display_name="audio_segment"),
            ],
        )

    @classmethod
    def execute(cls, images, segment_length, segment_index, audio=None):
        return io.NodeOutput(*_segment(images, segment_length, segment_index, audio))


class WanDancerPadKeyframesList(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="WanDancerPadKeyframesList",
            category="image/video",
            inputs=[
                io.Image.Input("images"),
                io.Int.Input("segment_length", default=149, min=1, max=10000),
                io.Int.Input("num_segments", default=1, min=1, max=100),
                io.Audio.Input("audio"),
            ],
            outputs=[
                io.Image.Output(display_name="keyframes_sequence", is_output_list=True),
                io.Mask.Output(display_name="keyframes_mask", is_output_list=True),
                io.Audio.Output(display_name="audio_segment", is_output_list=True),
            ],
        )

    @classmethod
    def execute(cls, images, segment_length, num_segments, audio=None):
        segments = [_segment(images, segment_length, number, audio) for number in range(num_segments)]
        return io.NodeOutput(*(list(values) for values in zip(*segments, strict=True)))


class WandancerExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [WanDancerVideo, WanDancerEncodeAudio, WanDancerPadKeyframes, WanDancerPadKeyframesList]


def comfy_entrypoint():
    return WandancerExtension()
