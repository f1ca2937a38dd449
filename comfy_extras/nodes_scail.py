"""SCAIL: people in videos moved as in another video."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_extras.absent_families import absent_node
from comfy_extras.core_inputs import MAX_RESOLUTION
from comfy_extras.video_inputs import guided, sides_out, video_size

WanSCAILToVideo = absent_node(
    "WanSCAILToVideo",
    "Wan SCAIL",
    category="model/conditioning/wan/scail",
    is_experimental=True,
    inputs=lambda: [
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
    outputs=lambda: [*sides_out(), io.Int.Output(display_name="video_frame_offset")],
)


SCAIL2ColoredMask = absent_node(
    "SCAIL2ColoredMask",
    "Wan SCAIL",
    display_name="Create SCAIL-2 Colored Mask",
    category="model/conditioning/wan/scail",
    is_experimental=True,
    inputs=lambda: [
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
    outputs=lambda: [
        io.Image.Output(display_name="pose_video_mask"),
        io.Image.Output(display_name="reference_image_mask"),
    ],
)


class ScailExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [WanSCAILToVideo, SCAIL2ColoredMask]


def comfy_entrypoint():
    return ScailExtension()
