"""Wan: the many ways in which its video models are told what to show."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_extras.absent_families import absent_node
from comfy_extras.core_inputs import MAX_RESOLUTION
from comfy_extras.video_inputs import frame_size, guided, sides_out, video_size

WanTrackToVideo = absent_node(
    "WanTrackToVideo",
    "Wan",
    category="model/conditioning/wan/move",
    search_aliases=["motion tracking", "trajectory video", "point tracking", "keypoint animation"],
    inputs=lambda: [
        *guided(),
        io.String.Input("tracks", default="[]", multiline=True),
        *video_size(832, 480, 81),
        io.Float.Input("temperature", default=220.0, min=1.0, max=1000.0, step=0.1, advanced=True),
        io.Int.Input("topk", default=2, min=1, max=10, advanced=True),
        io.Image.Input("start_image"),
        io.ClipVisionOutput.Input("clip_vision_output", optional=True),
    ],
    outputs=lambda: sides_out(),
)


WanImageToVideo = absent_node(
    "WanImageToVideo",
    "Wan",
    category="model/conditioning/wan",
    inputs=lambda: [
        *guided(),
        *video_size(832, 480, 81),
        io.ClipVisionOutput.Input("clip_vision_output", optional=True),
        io.Image.Input("start_image", optional=True),
    ],
    outputs=lambda: sides_out(),
)


WanFunControlToVideo = absent_node(
    "WanFunControlToVideo",
    "Wan",
    category="model/conditioning/wan/fun control",
    inputs=lambda: [
        *guided(),
        *video_size(832, 480, 81),
        io.ClipVisionOutput.Input("clip_vision_output", optional=True),
        io.Image.Input("start_image", optional=True),
        io.Image.Input("control_video", optional=True),
    ],
    outputs=lambda: sides_out(),
)


Wan22FunControlToVideo = absent_node(
    "Wan22FunControlToVideo",
    "Wan",
    category="model/conditioning/wan/fun control",
    inputs=lambda: [
        *guided(),
        *video_size(832, 480, 81),
        io.Image.Input("ref_image", optional=True),
        io.Image.Input("control_video", optional=True),
    ],
    outputs=lambda: sides_out(),
)


WanFunInpaintToVideo = absent_node(
    "WanFunInpaintToVideo",
    "Wan",
    category="model/conditioning/wan/fun inpaint",
    inputs=lambda: [
        *guided(),
        *video_size(832, 480, 81),
        io.ClipVisionOutput.Input("clip_vision_output", optional=True),
        io.Image.Input("start_image", optional=True),
        io.Image.Input("end_image", optional=True),
    ],
    outputs=lambda: sides_out(),
)


WanFirstLastFrameToVideo = absent_node(
    "WanFirstLastFrameToVideo",
    "Wan",
    category="model/conditioning/wan",
    inputs=lambda: [
        *guided(),
        *video_size(832, 480, 81),
        io.ClipVisionOutput.Input("clip_vision_start_image", optional=True),
        io.ClipVisionOutput.Input("clip_vision_end_image", optional=True),
        io.Image.Input("start_image", optional=True),
        io.Image.Input("end_image", optional=True),
    ],
    outputs=lambda: sides_out(),
)


WanVaceToVideo = absent_node(
    "WanVaceToVideo",
    "Wan",
    category="model/conditioning/wan/vace",
    search_aliases=["video conditioning", "video control"],
    inputs=lambda: [
        *guided(),
        *video_size(832, 480, 81),
        io.Float.Input("strength", default=1.0, min=0.0, max=1000.0, step=0.01),
        io.Image.Input("control_video", optional=True),
        io.Mask.Input("control_masks", optional=True),
        io.Image.Input("reference_image", optional=True),
    ],
    outputs=lambda: [*sides_out(), io.Int.Output(display_name="trim_latent")],
)


TrimVideoLatent = absent_node(
    "TrimVideoLatent",
    "Wan",
    display_name="Trim Video Latent",
    category="model/latent",
    inputs=lambda: [io.Latent.Input("samples"), io.Int.Input("trim_amount", default=0, min=0, max=99999)],
    outputs=lambda: [io.Latent.Output()],
)


WanCameraImageToVideo = absent_node(
    "WanCameraImageToVideo",
    "Wan",
    category="model/conditioning/wan/camera",
    inputs=lambda: [
        *guided(),
        *video_size(832, 480, 81),
        io.ClipVisionOutput.Input("clip_vision_output", optional=True),
        io.Image.Input("start_image", optional=True),
        io.WanCameraEmbedding.Input("camera_conditions", optional=True),
    ],
    outputs=lambda: sides_out(),
)


WanPhantomSubjectToVideo = absent_node(
    "WanPhantomSubjectToVideo",
    "Wan",
    category="model/conditioning/wan/phantom subject",
    inputs=lambda: [*guided(), *video_size(832, 480, 81), io.Image.Input("images", optional=True)],
    outputs=lambda: [
        io.Conditioning.Output(display_name="positive"),
        io.Conditioning.Output(display_name="negative_text"),
        io.Conditioning.Output(display_name="negative_img_text"),
        io.Latent.Output(display_name="latent"),
    ],
)


WanSoundImageToVideo = absent_node(
    "WanSoundImageToVideo",
    "Wan",
    category="model/conditioning/wan/sound",
    inputs=lambda: [
        *guided(),
        *video_size(832, 480, 77),
        io.AudioEncoderOutput.Input("audio_encoder_output", optional=True),
        io.Image.Input("ref_image", optional=True),
        io.Image.Input("control_video", optional=True),
        io.Image.Input("ref_motion", optional=True),
    ],
    outputs=lambda: sides_out(),
)


WanSoundImageToVideoExtend = absent_node(
    "WanSoundImageToVideoExtend",
    "Wan",
    category="model/conditioning/wan/sound",
    inputs=lambda: [
        *guided(),
        io.Int.Input("length", default=77, min=1, max=MAX_RESOLUTION, step=4),
        io.Latent.Input("video_latent"),
        io.AudioEncoderOutput.Input("audio_encoder_output", optional=True),
        io.Image.Input("ref_image", optional=True),
        io.Image.Input("control_video", optional=True),
    ],
    outputs=lambda: sides_out(),
)


WanHuMoImageToVideo = absent_node(
    "WanHuMoImageToVideo",
    "Wan",
    category="model/conditioning/wan/humo",
    is_experimental=True,
    inputs=lambda: [
        *guided(),
        *video_size(832, 480, 97),
        io.AudioEncoderOutput.Input("audio_encoder_output", optional=True),
        io.Image.Input("ref_image", optional=True),
    ],
    outputs=lambda: sides_out(),
)


WanAnimateToVideo = absent_node(
    "WanAnimateToVideo",
    "Wan",
    category="model/conditioning/wan/animate",
    is_experimental=True,
    inputs=lambda: [
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
    outputs=lambda: [
        *sides_out(),
        io.Int.Output(display_name="trim_latent"),
        io.Int.Output(display_name="trim_image"),
        io.Int.Output(display_name="video_frame_offset"),
    ],
)


WanAnimate2ToVideo = absent_node(
    "WanAnimate2ToVideo",
    "Wan",
    category="model/conditioning/wan/animate",
    is_experimental=True,
    inputs=lambda: [
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
    outputs=lambda: [
        *sides_out(),
        io.Int.Output(display_name="trim_latent"),
        io.Int.Output(display_name="trim_image"),
        io.Int.Output(display_name="video_frame_offset"),
    ],
)


WanAnimate2Cache = absent_node(
    "WanAnimate2Cache",
    "Wan",
    category="model/conditioning/wan/animate",
    is_experimental=True,
    inputs=lambda: [
        io.Model.Input("model"),
        io.Combo.Input("device", options=["cpu", "gpu"], default="cpu"),
        io.Combo.Input("dtype", options=["default", "int8", "int4"], default="default"),
    ],
    outputs=lambda: [io.Model.Output()],
)


Wan22ImageToVideoLatent = absent_node(
    "Wan22ImageToVideoLatent",
    "Wan",
    category="model/conditioning/wan",
    inputs=lambda: [
        io.Vae.Input("vae"),
        *video_size(1280, 704, 49, low=32, step=32),
        io.Image.Input("start_image", optional=True),
    ],
    outputs=lambda: [io.Latent.Output()],
)


WanInfiniteTalkToVideo = absent_node(
    "WanInfiniteTalkToVideo",
    "Wan",
    category="model/conditioning/wan/infinite talk",
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


class WanExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [
            WanTrackToVideo,
            WanImageToVideo,
            WanFunControlToVideo,
            Wan22FunControlToVideo,
            WanFunInpaintToVideo,
            WanFirstLastFrameToVideo,
            WanVaceToVideo,
            TrimVideoLatent,
            WanCameraImageToVideo,
            WanPhantomSubjectToVideo,
            WanSoundImageToVideo,
            WanSoundImageToVideoExtend,
            WanHuMoImageToVideo,
            WanAnimateToVideo,
            WanAnimate2ToVideo,
            WanAnimate2Cache,
            Wan22ImageToVideoLatent,
            WanInfiniteTalkToVideo,
        ]


def comfy_entrypoint():
    return WanExtension()
