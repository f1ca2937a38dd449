"""Wan: people who speak or sing as a sound does."""

from __future__ import annotations

import math

import node_helpers
from comfy_api.latest import io
from comfy_extras.absent_families import absent_node
from comfy_extras.core_inputs import MAX_RESOLUTION
from comfy_extras.video_conditioning import both, encoded, gray, latent_frames, sized, without_content, zeros
from comfy_extras.video_inputs import frame_size, guided, sides_out, video_size

ENCODED_RATE = 50
"""How often a second the encoder describes a sound."""
MOTION_FRAMES = 73
"""How many frames before a video are told to it."""


def at_rate(features, rate, *, of=ENCODED_RATE):
    """Features (B, T, C), described `of` times a second, at another rate."""
    import torch

    count = int(features.shape[1] / of * rate)
    moved = torch.nn.functional.interpolate(
        features.transpose(1, 2), size=count, mode="linear", align_corners=True
    )
    return moved.transpose(1, 2)


def _per_frame(layers, frames_per_video, *, rate=30, fps=16):
    """Features (layers, T, C) -> (1, layers, C, frames): those at the time of each frame, then silence."""
    import torch

    count = layers.shape[1]
    videos = int(count / (frames_per_video * rate / fps)) + 1
    times = torch.arange(videos * frames_per_video, dtype=torch.float64) / fps
    last = math.ceil(videos * frames_per_video / fps * rate) - 1
    indices = (times * rate).round().long().clamp(max=last)
    heard = indices < count
    picked = layers[:, indices.clamp(max=count - 1)] * heard[None, :, None].to(layers)
    return picked.permute(0, 2, 1)[None]


def sound_to_video(
    positive,
    negative,
    vae,
    width,
    height,
    length,
    batch_size,
    *,
    offset=0,
    sound=None,
    ref_image=None,
    control_video=None,
    ref_motion=None,
    ref_motion_latent=None,
):
    """(positive, negative, latent, offset of the next part in frames) for Wan 2.2 S2V."""
    samples = zeros(batch_size, 16, latent_frames(length), height // 8, width // 8)
    if sound is not None:
        import torch

        features = at_rate(torch.cat(sound["encoded_audio_all_layers"]), 30)
        frames = samples.shape[2] * 4
        part = _per_frame(features, frames)[..., offset : offset + frames]
        if part.shape[3] > 0:
            positive = node_helpers.conditioning_set_values(positive, {"audio_embed": part})
            negative = node_helpers.conditioning_set_values(negative, {"audio_embed": part * 0.0})
            offset += frames
    if ref_image is not None:
        reference = {"reference_latents": [encoded(vae, sized(ref_image[:1], width, height))]}
        positive, negative = both(positive, negative, reference, append=True)
    if ref_motion is not None:
        motion = sized(ref_motion[-MOTION_FRAMES:], width, height)
        before = gray(MOTION_FRAMES, height, width)
        before[-len(motion) :] = motion[..., :3]
        ref_motion_latent = encoded(vae, before)
    if ref_motion_latent is not None:
        positive, negative = both(positive, negative, {"reference_motion": ref_motion_latent[:, :, -19:]})
    control = without_content(samples)
    if control_video is not None:
        known = encoded(vae, sized(control_video[:length], width, height))
        control[:, :, : known.shape[2]] = known
    positive, negative = both(positive, negative, {"control_video": control})
    return positive, negative, {"samples": samples}, offset


def _windows(features, length):
    """Features (T, 5, C) at 25 per second -> (latent frames, 8, 5, C): those around each latent frame."""
    import torch

    def window(first, last):
        return torch.stack([
            features[index] if 0 <= index < len(features) else torch.zeros_like(features[0])
            for index in range(first, last)
        ])  # fmt: skip

    begin = torch.cat([features.new_zeros(3, *features.shape[1:]), window(-2, 3)])
    rest = [window(4 * index - 5, 4 * index + 3) for index in range(1, latent_frames(length))]
    return torch.stack([begin, *rest])


def _five_layers(sound):
    """(T, 5, C) at 25 per second: means of the encoder's layers by eights, and its last one."""
    import torch

    layers = torch.stack(sound["encoded_audio_all_layers"], dim=2)
    layers = layers[:, : sound["audio_samples"] // 640 * 2]
    parts = [layers[:, :, first : first + 8].mean(dim=2) for first in (0, 8, 16, 24)] + [layers[:, :, 32]]
    return torch.stack([at_rate(part, 25) for part in parts], dim=2)[0]


class WanSoundImageToVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="WanSoundImageToVideo",
            category="model/conditioning/wan/sound",
            description="Lets a person in a picture speak or sing, for Wan 2.2 S2V.",
            inputs=[
                *guided(),
                *video_size(832, 480, 77),
                io.AudioEncoderOutput.Input("audio_encoder_output", optional=True),
                io.Image.Input("ref_image", optional=True),
                io.Image.Input("control_video", optional=True),
                io.Image.Input("ref_motion", optional=True),
            ],
            outputs=sides_out(),
        )

    @classmethod
    def execute(
        cls,
        positive,
        negative,
        vae,
        width,
        height,
        length,
        batch_size,
        ref_image=None,
        audio_encoder_output=None,
        control_video=None,
        ref_motion=None,
    ):
        given = {"ref_image": ref_image, "control_video": control_video, "ref_motion": ref_motion}
        size = (width, height, length, batch_size)
        made = sound_to_video(positive, negative, vae, *size, sound=audio_encoder_output, **given)
        return io.NodeOutput(*made[:3])


class WanSoundImageToVideoExtend(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="WanSoundImageToVideoExtend",
            category="model/conditioning/wan/sound",
            description="The next part of such a video.",
            inputs=[
                *guided(),
                io.Int.Input("length", default=77, min=1, max=MAX_RESOLUTION, step=4),
                io.Latent.Input("video_latent"),
                io.AudioEncoderOutput.Input("audio_encoder_output", optional=True),
                io.Image.Input("ref_image", optional=True),
                io.Image.Input("control_video", optional=True),
            ],
            outputs=sides_out(),
        )

    @classmethod
    def execute(
        cls,
        positive,
        negative,
        vae,
        length,
        video_latent,
        ref_image=None,
        audio_encoder_output=None,
        control_video=None,
    ):
        before = video_latent["samples"]
        size = (before.shape[-1] * 8, before.shape[-2] * 8, length, before.shape[0])
        made = sound_to_video(
            positive,
            negative,
            vae,
            *size,
            offset=before.shape[-3] * 4,
            sound=audio_encoder_output,
            ref_image=ref_image,
            control_video=control_video,
            ref_motion_latent=before,
        )
        return io.NodeOutput(*made[:3])


class WanHuMoImageToVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="WanHuMoImageToVideo",
            category="model/conditioning/wan/humo",
            description="Shows a person of a picture who moves to a sound, for HuMo.",
            inputs=[
                *guided(),
                *video_size(832, 480, 97),
                io.AudioEncoderOutput.Input("audio_encoder_output", optional=True),
                io.Image.Input("ref_image", optional=True),
            ],
            outputs=sides_out(),
            is_experimental=True,
        )

    @classmethod
    def execute(
        cls,
        positive,
        negative,
        vae,
        width,
        height,
        length,
        batch_size,
        ref_image=None,
        audio_encoder_output=None,
    ):
        import torch

        samples = zeros(batch_size, 16, latent_frames(length), height // 8, width // 8)
        reference = zeros(batch_size, 16, 1, height // 8, width // 8)
        if ref_image is not None:
            reference = encoded(vae, sized(ref_image[:1], width, height))
        sound = zeros(batch_size, samples.shape[2] + 1, 8, 5, 1280)
        if audio_encoder_output is not None:
            sound = _windows(_five_layers(audio_encoder_output), length)[None]
        for_positive = {"audio_embed": sound, "reference_latents": [reference]}
        for_negative = {
            "audio_embed": torch.zeros_like(sound),
            "reference_latents": [torch.zeros_like(reference)],
        }
        made = []
        for side, values in ((positive, for_positive), (negative, for_negative)):
            side = node_helpers.conditioning_set_values(side, {"audio_embed": values.pop("audio_embed")})
            made.append(node_helpers.conditioning_set_values(side, values, append=True))
        return io.NodeOutput(*made, {"samples": samples})


WanInfiniteTalkToVideo = absent_node(
    "WanInfiniteTalkToVideo",
    "Wan InfiniteTalk",
    category="model/conditioning/wan/infinite talk",
    description="Lets one or two people speak, for InfiniteTalk.",
    inputs=lambda: [
        io.DynamicCombo.Input(
            "mode",
            [
                io.DynamicCombo.Option("single_speaker", []),
                io.DynamicCombo.Option(
                    "two_speakers",
                    [
                        io.AudioEncoderOutput.Input("audio_encoder_output_2", optional=True),
                        io.Mask.Input("mask_1", optional=True),
                        io.Mask.Input("mask_2", optional=True),
                    ],
                ),
            ],
        ),
        io.Model.Input("model"),
        io.ModelPatch.Input("model_patch"),
        *guided(),
        *frame_size(832, 480),
        io.Int.Input("length", default=81, min=1, max=MAX_RESOLUTION, step=4),
        io.AudioEncoderOutput.Input("audio_encoder_output_1"),
        io.Int.Input("motion_frame_count", default=9, min=1, max=33, step=1, advanced=True),
        io.Float.Input("audio_scale", default=1.0, min=-10.0, max=10.0, step=0.01),
        io.ClipVisionOutput.Input("clip_vision_output", optional=True),
        io.Image.Input("start_image", optional=True),
        io.Image.Input("previous_frames", optional=True),
    ],
    outputs=lambda: [
        io.Model.Output(display_name="model"),
        io.Conditioning.Output(display_name="positive"),
        io.Conditioning.Output(display_name="negative"),
        io.Latent.Output(display_name="latent"),
        io.Int.Output(display_name="trim_image"),
    ],
)
