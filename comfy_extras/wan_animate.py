"""Wan Animate: people and creatures moved as in another video."""

from __future__ import annotations

import node_helpers
from comfy_api.latest import io
from comfy_extras.absent_families import absent_node
from comfy_extras.core_inputs import MAX_RESOLUTION
from comfy_extras.video_conditioning import (
    both,
    encoded,
    gray,
    latent_frames,
    ones,
    per_latent_frame,
    sized,
    zeros,
)
from comfy_extras.video_inputs import guided, sides_out, video_size
from comfy_extras.wan_latents import filled_up, with_picture


def _from(frames, offset):
    """The frames from there on; None if there are none."""
    return None if frames is None or len(frames) <= offset else frames[offset:]


def _held(frames, length):
    """So many frames; the last one is held."""
    import torch

    frames = frames[:length]
    return torch.cat([frames, frames[-1:].expand(length - len(frames), *frames.shape[1:])])


def _pose_latent(vae, pose_video, width, height, length):
    return encoded(vae, _held(sized(pose_video[:length], width, height, method="area"), length))


def _put_character(mask, character_mask, offset, length, known):
    """Write a mask of the character (T, H, W) into one of the video (1, 1, T, h, w), behind known frames."""
    import comfy.utils

    if character_mask is None or (len(character_mask) <= offset and len(character_mask) != 1):
        return
    one = len(character_mask) == 1
    frames = character_mask.expand(length, -1, -1) if one else character_mask[offset:][:length]
    resized = comfy.utils.common_upscale(
        frames[None, None], mask.shape[-1], mask.shape[-2], "nearest-exact", "center"
    )
    if resized.shape[2] > known:
        mask[:, :, known : resized.shape[2]] = resized[:, :, known:]


def _with_reference(positive, negative, vae, reference_image, continue_motion, width, height, length, most):
    """Both sides with the character's picture and the frames before; how many latent frames and frames."""
    import torch

    picture = torch.zeros(1, height, width, 3) if reference_image is None else reference_image[:1]
    reference = encoded(vae, sized(picture, width, height, method="area"))
    video, known_latents = gray(length, height, width), 0
    if continue_motion is not None:
        motion = sized(continue_motion[-most:][-length:], width, height, method="area")
        video, known_latents = filled_up(motion, length), latent_frames(len(motion))
    whole = torch.cat((reference, encoded(vae, video)), dim=2)
    trimmed = reference.shape[2]
    mask = ones(1, 1, latent_frames(length) + trimmed, height // 8, width // 8, like=whole)
    mask[:, :, : trimmed + known_latents] = 0
    values = {"concat_latent_image": whole, "concat_mask": mask}
    return *both(positive, negative, values), trimmed, max(0, known_latents * 4 - 3)


def _between(side, values, start, end):
    """A side with the values from `start` to `end` of sampling, and without them before and after."""

    def part(content, begin, finish):
        times = {"start_percent": begin, "end_percent": finish}
        return node_helpers.conditioning_set_values(side, {**content, **times})

    if start <= 0.0 and end >= 1.0:
        return node_helpers.conditioning_set_values(side, values)
    before = part({}, 0.0, start) if start > 0.0 else []
    after = part({}, end, 1.0) if end < 1.0 else []
    return part(values, start, end) + before + after


class WanAnimateToVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="WanAnimateToVideo",
            category="model/conditioning/wan/animate",
            description="Moves the person of a picture as in a video, or puts them into it.",
            inputs=[
                *guided(),
                *video_size(832, 480, 77),
                io.Int.Input("continue_motion_max_frames", default=5, min=1, max=MAX_RESOLUTION, step=4),
                io.Int.Input("video_frame_offset", default=0, min=0, max=MAX_RESOLUTION, step=1),
                io.ClipVisionOutput.Input("clip_vision_output", optional=True),
                io.Image.Input("reference_image", optional=True),
                io.Image.Input("face_video", optional=True),
                io.Image.Input("pose_video", optional=True),
                io.Image.Input("background_video", optional=True),
                io.Mask.Input("character_mask", optional=True),
                io.Image.Input("continue_motion", optional=True),
            ],
            outputs=[
                *sides_out(),
                io.Int.Output(display_name="trim_latent"),
                io.Int.Output(display_name="trim_image"),
                io.Int.Output(display_name="video_frame_offset"),
            ],
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
        continue_motion_max_frames,
        video_frame_offset,
        reference_image=None,
        clip_vision_output=None,
        face_video=None,
        pose_video=None,
        continue_motion=None,
        background_video=None,
        character_mask=None,
    ):
        import torch

        if reference_image is None:
            reference_image = torch.zeros(1, height, width, 3)
        reference = encoded(vae, sized(reference_image[:length], width, height, method="area"))
        offset, known_latents = video_frame_offset, 0
        video = gray(length, height, width)
        if continue_motion is not None:
            motion = continue_motion[-continue_motion_max_frames:]
            offset = max(0, offset - len(motion))
            motion = sized(motion[-length:], width, height, method="area")
            video = filled_up(motion, length)
            known_latents = latent_frames(len(motion))
        known = max(0, known_latents * 4 - 3)
        positive, negative = with_picture(positive, negative, clip_vision_output)
        pose = _from(pose_video, offset)
        if pose is not None:
            latent = _pose_latent(vae, pose, width, height, length)
            positive, negative = both(positive, negative, {"pose_video_latent": latent})
        face = _from(face_video, offset)
        if face is not None:
            pixels = sized(face[:length], 512, 512, method="area").permute(3, 0, 1, 2)[None] * 2 - 1
            positive = node_helpers.conditioning_set_values(positive, {"face_video_pixels": pixels})
            none = {"face_video_pixels": torch.full_like(pixels, -1.0)}
            negative = node_helpers.conditioning_set_values(negative, none)
        background = _from(background_video, offset)
        if background is not None:
            background = sized(background[:length], width, height, method="area")
            video[known : len(background)] = background[known:]
        mask = ones(1, 1, latent_frames(length) * 4, *reference.shape[-2:], like=reference)
        mask[:, :, : known_latents * 4] = 0
        _put_character(mask, character_mask, offset, length, known)
        whole = torch.cat((reference, encoded(vae, video)), dim=2)
        known_mask = reference.new_zeros(1, 4, *reference.shape[2:])
        mask = torch.cat((known_mask, per_latent_frame(mask)), dim=2)
        positive, negative = both(positive, negative, {"concat_latent_image": whole, "concat_mask": mask})
        trimmed = reference.shape[2]
        samples = zeros(batch_size, 16, latent_frames(length) + trimmed, height // 8, width // 8)
        return io.NodeOutput(positive, negative, {"samples": samples}, trimmed, known, offset + length)


class WanAnimate2ToVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="WanAnimate2ToVideo",
            category="model/conditioning/wan/animate",
            description="Moves a character of a picture as in a video: face, body and hands.",
            inputs=[
                *guided(),
                *video_size(832, 480, 81),
                io.Int.Input("video_frame_offset", default=0, min=0, max=MAX_RESOLUTION, step=1),
                io.Float.Input("pose_strength", default=1.0, min=0.0, max=10.0, step=0.01),
                io.Float.Input("pose_start_percent", default=0.0, min=0.0, max=1.0, step=0.01),
                io.Float.Input("pose_end_percent", default=1.0, min=0.0, max=1.0, step=0.01),
                io.Float.Input("reference_image_strength", default=1.0, min=0.0, max=10.0, step=0.01),
                io.Image.Input("reference_image", optional=True),
                io.Image.Input("pose_video", optional=True),
                io.ClipVisionOutput.Input("clip_vision_output", optional=True),
                io.Conditioning.Input("positive_pose", optional=True),
                io.ClipVisionOutput.Input("clip_vision_output_pose", optional=True),
                io.Image.Input("continue_motion", optional=True),
            ],
            outputs=[
                *sides_out(),
                io.Int.Output(display_name="trim_latent"),
                io.Int.Output(display_name="trim_image"),
                io.Int.Output(display_name="video_frame_offset"),
            ],
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
        video_frame_offset,
        reference_image=None,
        pose_video=None,
        clip_vision_output=None,
        positive_pose=None,
        clip_vision_output_pose=None,
        continue_motion=None,
        pose_strength=1.0,
        pose_start_percent=0.0,
        pose_end_percent=1.0,
        reference_image_strength=1.0,
    ):
        if pose_start_percent > pose_end_percent:
            raise ValueError(
                f"WanAnimate2ToVideo: pose_start_percent ({pose_start_percent}) lies behind pose_end_percent "
                f"({pose_end_percent}). Give a start that is not later than the end."
            )
        offset = video_frame_offset - (0 if continue_motion is None else cls.KNOWN_FRAMES)
        offset = max(0, offset)
        positive, negative, trimmed, known = _with_reference(
            positive, negative, vae, reference_image, continue_motion, width, height, length, cls.KNOWN_FRAMES
        )
        positive, negative = with_picture(positive, negative, clip_vision_output)
        if reference_image_strength != 1.0:
            positive, negative = both(positive, negative, {"reference_strength": reference_image_strength})
        pose = {}
        if pose_video is not None:
            if len(pose_video) <= offset:
                raise ValueError(
                    f"WanAnimate2ToVideo: pose_video has {len(pose_video)} frames, but this part begins at "
                    f"{offset}. Give a longer video, or a smaller video_frame_offset."
                )
            pose["pose_video_latent"] = _pose_latent(vae, pose_video[offset:], width, height, length)
        seen = clip_vision_output if clip_vision_output_pose is None else clip_vision_output_pose
        if seen is not None:
            pose["clip_vision_output_pose"] = seen
        prompt = positive if positive_pose is None else positive_pose
        if prompt:
            pose["cross_attn_pose"] = prompt[0][0]
        if pose_strength != 1.0:
            pose["pose_strength"] = pose_strength
        positive, negative = (
            _between(side, pose, pose_start_percent, pose_end_percent) for side in (positive, negative)
        )
        samples = zeros(batch_size, 16, latent_frames(length) + trimmed, height // 8, width // 8)
        return io.NodeOutput(positive, negative, {"samples": samples}, trimmed, known, offset + length)

    KNOWN_FRAMES = 1  # of the part before


WanAnimate2Cache = absent_node(
    "WanAnimate2Cache",
    "Wan Animate 2",
    category="model/conditioning/wan/animate",
    description=(
        "Keeps what the model computes of the pose video, so that it does so once and not in every step."
    ),
    is_experimental=True,
    inputs=lambda: [
        io.Model.Input("model"),
        io.Combo.Input("device", options=["cpu", "gpu"], default="cpu"),
        io.Combo.Input("dtype", options=["default", "int8", "int4"], default="default"),
    ],
    outputs=lambda: [io.Model.Output()],
)
