"""Wan: videos from pictures, control videos and masks."""

from __future__ import annotations

import node_helpers
from comfy_api.latest import io
from comfy_extras.video_conditioning import (
    both,
    encoded,
    gray,
    latent_frames,
    ones,
    per_latent_frame,
    sized,
    without_content,
    zeros,
)
from comfy_extras.video_inputs import guided, sides_out, video_size
from comfy_extras.wan_latents import (
    begun,
    empty_latent,
    filled_up,
    mask_of_pixels_as_channels,
    pixel_mask,
    put,
    seen_together,
    with_picture,
)


class WanImageToVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="WanImageToVideo",
            category="model/conditioning/wan",
            description="Lets a video begin with given frames.",
            inputs=[
                *guided(),
                *video_size(832, 480, 81),
                io.ClipVisionOutput.Input("clip_vision_output", optional=True),
                io.Image.Input("start_image", optional=True),
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
        start_image=None,
        clip_vision_output=None,
    ):
        samples = empty_latent(width, height, length, batch_size)
        if start_image is not None:
            frames = sized(start_image[:length], width, height)
            positive, negative = begun(positive, negative, vae, frames, length)
        positive, negative = with_picture(positive, negative, clip_vision_output)
        return io.NodeOutput(positive, negative, {"samples": samples})


class WanFunControlToVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="WanFunControlToVideo",
            category="model/conditioning/wan/fun control",
            description="Lets a video control another one (depth, poses, edges), for Wan 2.1 Fun Control.",
            inputs=[
                *guided(),
                *video_size(832, 480, 81),
                io.ClipVisionOutput.Input("clip_vision_output", optional=True),
                io.Image.Input("start_image", optional=True),
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
        width,
        height,
        length,
        batch_size,
        start_image=None,
        clip_vision_output=None,
        control_video=None,
    ):
        samples = empty_latent(width, height, length, batch_size)
        given = without_content(samples).repeat(1, 2, 1, 1, 1)  # the control, the first frames
        for frames, channels in ((start_image, slice(16, None)), (control_video, slice(0, 16))):
            if frames is not None:
                put(given, encoded(vae, sized(frames[:length], width, height)), channels)
        positive, negative = both(positive, negative, {"concat_latent_image": given})
        positive, negative = with_picture(positive, negative, clip_vision_output)
        return io.NodeOutput(positive, negative, {"samples": samples})


class Wan22FunControlToVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Wan22FunControlToVideo",
            category="model/conditioning/wan/fun control",
            description=(
                "Lets a video control another one, with a picture of what is shown, for Wan 2.2 Fun Control."
            ),
            inputs=[
                *guided(),
                *video_size(832, 480, 81),
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
        width,
        height,
        length,
        batch_size,
        ref_image=None,
        start_image=None,
        control_video=None,
    ):
        channels = vae.latent_channels
        scale = vae.spacial_compression_encode()
        samples = empty_latent(width, height, length, batch_size, channels=channels, scale=scale)
        given = without_content(samples).repeat(1, 2, 1, 1, 1)
        mask = ones(1, 1, samples.shape[2] * 4, *samples.shape[-2:])
        if start_image is not None:
            frames = sized(start_image[:length], width, height)
            put(given, encoded(vae, frames), slice(channels, None))
            mask[:, :, : len(frames) + 3] = 0
        if control_video is not None:
            put(given, encoded(vae, sized(control_video[:length], width, height)), slice(0, channels))
        values = {
            "concat_latent_image": given,
            "concat_mask": per_latent_frame(mask),
            "concat_mask_index": channels,
        }
        positive, negative = both(positive, negative, values)
        if ref_image is not None:
            reference = {"reference_latents": [encoded(vae, sized(ref_image[:1], width, height))]}
            positive, negative = both(positive, negative, reference, append=True)
        return io.NodeOutput(positive, negative, {"samples": samples})


class WanFirstLastFrameToVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="WanFirstLastFrameToVideo",
            category="model/conditioning/wan",
            description="Lets a video begin and end with given frames.",
            inputs=[
                *guided(),
                *video_size(832, 480, 81),
                io.ClipVisionOutput.Input("clip_vision_start_image", optional=True),
                io.ClipVisionOutput.Input("clip_vision_end_image", optional=True),
                io.Image.Input("start_image", optional=True),
                io.Image.Input("end_image", optional=True),
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
        start_image=None,
        end_image=None,
        clip_vision_start_image=None,
        clip_vision_end_image=None,
    ):
        scale = vae.spacial_compression_encode()
        samples = empty_latent(width, height, length, batch_size, channels=vae.latent_channels, scale=scale)
        video = gray(length, height, width)
        mask = ones(1, 1, samples.shape[2] * 4, *samples.shape[-2:])
        if start_image is not None:
            frames = sized(start_image[:length], width, height)
            video[: len(frames)] = frames
            mask[:, :, : len(frames) + 3] = 0
        if end_image is not None:
            frames = sized(end_image[-length:], width, height)
            video[-len(frames) :] = frames
            mask[:, :, -len(frames) :] = 0
        values = {"concat_latent_image": encoded(vae, video), "concat_mask": per_latent_frame(mask)}
        positive, negative = both(positive, negative, values)
        seen = seen_together(clip_vision_start_image, clip_vision_end_image)
        positive, negative = with_picture(positive, negative, seen)
        return io.NodeOutput(positive, negative, {"samples": samples})


class WanFunInpaintToVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="WanFunInpaintToVideo",
            category="model/conditioning/wan/fun inpaint",
            description="Lets a video begin and end with given frames, for Wan Fun Inpaint.",
            inputs=[
                *guided(),
                *video_size(832, 480, 81),
                io.ClipVisionOutput.Input("clip_vision_output", optional=True),
                io.Image.Input("start_image", optional=True),
                io.Image.Input("end_image", optional=True),
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
        start_image=None,
        end_image=None,
        clip_vision_output=None,
    ):
        return WanFirstLastFrameToVideo.execute(
            positive,
            negative,
            vae,
            width,
            height,
            length,
            batch_size,
            start_image,
            end_image,
            clip_vision_output,
        )


class WanVaceToVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="WanVaceToVideo",
            category="model/conditioning/wan/vace",
            description=(
                "Lets a video, masks of what is to change, and a picture control a video, for VACE."
            ),
            inputs=[
                *guided(),
                *video_size(832, 480, 81),
                io.Float.Input("strength", default=1.0, min=0.0, max=1000.0, step=0.01),
                io.Image.Input("control_video", optional=True),
                io.Mask.Input("control_masks", optional=True),
                io.Image.Input("reference_image", optional=True),
            ],
            outputs=[*sides_out(), io.Int.Output(display_name="trim_latent")],
            search_aliases=["video conditioning", "video control"],
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
        strength,
        control_video=None,
        control_masks=None,
        reference_image=None,
    ):
        import torch

        video = gray(length, height, width)
        if control_video is not None:
            frames = sized(control_video[:length], width, height)
            video = filled_up(frames, length)
        mask = pixel_mask(control_masks, width, height, length)
        kept, changed = (encoded(vae, (video - 0.5) * part + 0.5) for part in (1 - mask, mask))
        control = torch.cat((kept, changed), dim=1)
        mask = mask_of_pixels_as_channels(mask, latent_frames(length))
        trimmed = 0
        if reference_image is not None:
            reference = encoded(vae, sized(reference_image[:1], width, height))
            trimmed = reference.shape[2]
            reference = torch.cat((reference, without_content(reference)), dim=1)
            control = torch.cat((reference, control), dim=2)
            mask = torch.cat((torch.zeros_like(mask[:, :, :trimmed]), mask), dim=2)
        values = {"vace_frames": [control], "vace_mask": [mask], "vace_strength": [strength]}
        positive, negative = both(positive, negative, values, append=True)
        samples = zeros(batch_size, 16, latent_frames(length) + trimmed, height // 8, width // 8)
        return io.NodeOutput(positive, negative, {"samples": samples}, trimmed)


class TrimVideoLatent(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="TrimVideoLatent",
            display_name="Trim Video Latent",
            category="model/latent",
            description="Leaves out latent frames at the beginning.",
            inputs=[io.Latent.Input("samples"), io.Int.Input("trim_amount", default=0, min=0, max=99999)],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, samples, trim_amount):
        return io.NodeOutput({**samples, "samples": samples["samples"][:, :, trim_amount:]})


class WanCameraImageToVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="WanCameraImageToVideo",
            category="model/conditioning/wan/camera",
            description="Lets a video begin with given frames and follow the path of a camera.",
            inputs=[
                *guided(),
                *video_size(832, 480, 81),
                io.ClipVisionOutput.Input("clip_vision_output", optional=True),
                io.Image.Input("start_image", optional=True),
                io.WanCameraEmbedding.Input("camera_conditions", optional=True),
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
        start_image=None,
        clip_vision_output=None,
        camera_conditions=None,
    ):
        samples = empty_latent(width, height, length, batch_size)
        if start_image is not None:
            frames = sized(start_image[:length], width, height)
            given = without_content(samples)
            put(given, encoded(vae, frames), slice(None))
            mask = ones(1, 1, samples.shape[2] * 4, *samples.shape[-2:])
            mask[:, :, : len(frames) + 3] = 0
            values = {"concat_latent_image": given, "concat_mask": per_latent_frame(mask)}
            positive, negative = both(positive, negative, values)
        if camera_conditions is not None:
            positive, negative = both(positive, negative, {"camera_conditions": camera_conditions})
        positive, negative = with_picture(positive, negative, clip_vision_output)
        return io.NodeOutput(positive, negative, {"samples": samples})


class WanPhantomSubjectToVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="WanPhantomSubjectToVideo",
            category="model/conditioning/wan/phantom subject",
            description="Shows who and what is in given pictures, for Phantom.",
            inputs=[*guided(), *video_size(832, 480, 81), io.Image.Input("images", optional=True)],
            outputs=[
                io.Conditioning.Output(display_name="positive"),
                io.Conditioning.Output(display_name="negative_text"),
                io.Conditioning.Output(display_name="negative_img_text"),
                io.Latent.Output(display_name="latent"),
            ],
        )

    @classmethod
    def execute(cls, positive, negative, vae, width, height, length, batch_size, images=None):
        import torch

        samples = empty_latent(width, height, length, batch_size)
        without = negative
        if images is not None:
            pictures = sized(images[:length], width, height)
            latent = torch.cat([encoded(vae, picture) for picture in pictures.split(1)], dim=2)
            positive, without = both(positive, negative, {"time_dim_concat": latent})
            nothing = {"time_dim_concat": without_content(latent)}
            negative = node_helpers.conditioning_set_values(negative, nothing)
        return io.NodeOutput(positive, without, negative, {"samples": samples})


class Wan22ImageToVideoLatent(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Wan22ImageToVideoLatent",
            category="model/conditioning/wan",
            description="A latent for Wan 2.2 5B, which may begin with given frames.",
            inputs=[
                io.Vae.Input("vae"),
                *video_size(1280, 704, 49, low=32, step=32),
                io.Image.Input("start_image", optional=True),
            ],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, vae, width, height, length, batch_size, start_image=None):
        samples = empty_latent(width, height, length, channels=48, scale=16)
        if start_image is None:
            return io.NodeOutput({"samples": samples})
        begin = vae.encode(sized(start_image[:length], width, height))
        mask = ones(1, 1, *samples.shape[2:])
        mask[:, :, : begin.shape[2]] = 0
        samples = without_content(samples)
        samples[:, :, : begin.shape[2]] = begin
        made = {
            "samples": samples.repeat(batch_size, 1, 1, 1, 1),
            "noise_mask": mask.repeat(batch_size, 1, 1, 1, 1),
        }
        return io.NodeOutput(made)
