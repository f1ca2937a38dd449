"""SCAIL: people in videos moved as in another video."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_extras.core_inputs import MAX_RESOLUTION
from comfy_extras.scail_masks import mask_channels
from comfy_extras.video_conditioning import both, during, encoded, sized
from comfy_extras.video_inputs import guided, sides_out, video_size
from comfy_extras.wan_latents import empty_latent


def _references(vae, pictures, masks, size):
    """A latent for each picture; with masks, all but the people in them is black."""
    pictures = sized(pictures, *size, method="bicubic")
    if masks is not None:
        masks = sized(masks, *size, method="nearest-exact")[..., :3].amax(dim=-1, keepdim=True) > 0.1
        pictures = pictures * masks[[min(number, len(masks) - 1) for number in range(len(pictures))]]
    return [encoded(vae, pictures[number : number + 1]) for number in range(len(pictures))]


def _reference_masks(masks, count, latent, size):
    """Channels of the masks of further pictures, then those of the first, then none for the video."""
    import torch

    masks = sized(masks, *size, method="nearest-exact")
    parts = [mask_channels(masks[min(number, len(masks) - 1)][None]) for number in [*range(1, count), 0]]
    empty = parts[0].new_zeros(1, latent.shape[2], *parts[0].shape[2:])
    return torch.cat([*parts, empty], dim=1)


def _same_length(poses, masks, offset, length):
    """Both from the offset on, cut to 4 n + 1 frames that both have; None for what ends before it."""
    videos = [None if video is None or len(video) <= offset else video[offset:] for video in (poses, masks)]
    frames = min([length, *(len(video) for video in videos if video is not None)])
    frames = (frames - 1) // 4 * 4 + 1
    return (None if video is None else video[:frames] for video in videos)


class WanSCAILToVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="WanSCAILToVideo",
            category="model/conditioning/wan/scail",
            is_experimental=True,
            inputs=[
                *guided(),
                *video_size(512, 896, 81, low=32, step=32),
                io.Float.Input("pose_strength", default=1.0, min=0.0, max=10.0, step=0.01),
                io.Float.Input("pose_start", default=0.0, min=0.0, max=1.0, step=0.01),
                io.Float.Input("pose_end", default=1.0, min=0.0, max=1.0, step=0.01),
                io.Int.Input("video_frame_offset", default=0, min=0, max=MAX_RESOLUTION, step=1),
                io.Int.Input("previous_frame_count", default=5, min=1, max=MAX_RESOLUTION, step=4),
                io.Image.Input("pose_video", optional=True),
                io.Image.Input("pose_video_mask", optional=True),
                io.Boolean.Input("replacement_mode", default=False, optional=True),
                io.Image.Input("reference_image", optional=True),
                io.Image.Input("reference_image_mask", optional=True),
                io.ClipVisionOutput.Input("clip_vision_output", optional=True),
                io.Image.Input("previous_frames", optional=True),
            ],
            outputs=[*sides_out(), io.Int.Output(display_name="video_frame_offset")],
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
        pose_strength,
        pose_start,
        pose_end,
        video_frame_offset,
        previous_frame_count,
        replacement_mode=False,
        reference_image=None,
        clip_vision_output=None,
        pose_video=None,
        pose_video_mask=None,
        reference_image_mask=None,
        previous_frames=None,
    ):
        latent = empty_latent(width, height, length, batch_size)
        before = None
        if previous_frames is not None and len(previous_frames):
            before = previous_frames[-previous_frame_count:]
            video_frame_offset = max(0, video_frame_offset - len(before))
        values = {"ref_mask_flag": not replacement_mode}
        if clip_vision_output is not None:
            values["clip_vision_output"] = clip_vision_output
        sides = both(positive, negative, values)
        if reference_image is not None:
            masks = reference_image_mask
            references = _references(
                vae, reference_image, masks if replacement_mode else None, (width, height)
            )
            sides = both(*sides, {"reference_latents": references}, append=True)
            if masks is not None:
                sides = both(
                    *sides,
                    {"ref_mask_28ch": _reference_masks(masks, len(reference_image), latent, (width, height))},
                )
        poses, masks = _same_length(pose_video, pose_video_mask, video_frame_offset, length)
        half = (width // 2, height // 2)
        if poses is not None:
            found = {"pose_video_latent": encoded(vae, sized(poses, *half, method="area")) * pose_strength}
            sides = tuple(during(side, found, pose_start, pose_end) for side in sides)
        if masks is not None:
            sides = both(*sides, {"driving_mask_28ch": mask_channels(sized(masks, *half, method="area"))})
        out = {"samples": latent}
        if before is not None:
            begin = encoded(vae, sized(before, width, height, method="bicubic"))[:, :, : latent.shape[2]]
            latent[:, :, : begin.shape[2]] = begin.to(latent)
            out["noise_mask"] = latent.new_ones(1, 1, *latent.shape[2:])
            out["noise_mask"][:, :, : begin.shape[2]] = 0
        return io.NodeOutput(*sides, out, video_frame_offset + length)


class SCAIL2ColoredMask(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="SCAIL2ColoredMask",
            display_name="Create SCAIL-2 Colored Mask",
            category="model/conditioning/wan/scail",
            is_experimental=True,
            inputs=[
                io.Custom("SAM3_TRACK_DATA").Input("driving_track_data"),
                io.String.Input("object_indices", default=""),
                io.Combo.Input("sort_by", options=["none", "left_to_right", "area"], default="left_to_right"),
                io.Boolean.Input("replacement_mode", default=False),
                io.MultiType.Input(
                    "ref_track_data",
                    [io.Custom("SAM3_TRACK_DATA"), io.Mask],
                    display_name="reference_masks",
                    optional=True,
                ),
            ],
            outputs=[
                io.Image.Output(display_name="pose_video_mask"),
                io.Image.Output(display_name="reference_image_mask"),
            ],
        )

    @classmethod
    def execute(cls, driving_track_data, object_indices, sort_by, replacement_mode, ref_track_data=None):
        import torch

        from comfy_extras import scail_masks

        driving = scail_masks.selected(driving_track_data, sort_by, object_indices)
        moving = scail_masks.colored(driving, background=float(replacement_mode))
        background = 1.0 - replacement_mode
        if ref_track_data is None:
            still = moving.new_full((1, *moving.shape[1:]), background)
        elif isinstance(ref_track_data, torch.Tensor):
            still = scail_masks.colored_mask(ref_track_data, background)
        else:
            still = scail_masks.colored(
                scail_masks.selected(ref_track_data, sort_by, object_indices), background
            )
        return io.NodeOutput(moving, still)


class ScailExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [WanSCAILToVideo, SCAIL2ColoredMask]


def comfy_entrypoint():
    return ScailExtension()
