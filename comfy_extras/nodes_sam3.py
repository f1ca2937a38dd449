"""SAM 3: what a text or a point names, found and followed."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_extras.absent_families import absent_node

SAM3_Detect = absent_node(
    "SAM3_Detect",
    "SAM 3",
    display_name="SAM3 Detect",
    category="image/detection",
    description="Masks and boxes of what a text, points or boxes name.",
    search_aliases=["sam3", "segment anything", "open vocabulary", "text detection", "segment"],
    inputs=lambda: [
        io.Model.Input("model", display_name="model"),
        io.Image.Input("image", display_name="image"),
        io.Float.Input("threshold", display_name="threshold", default=0.5, min=0.0, max=1.0, step=0.01),
        io.Int.Input("refine_iterations", display_name="refine_iterations", default=2, min=0, max=5),
        io.Boolean.Input("individual_masks", display_name="individual_masks", default=False),
        io.Conditioning.Input("conditioning", display_name="conditioning", optional=True),
        io.BoundingBox.Input(
            "bboxes",
            display_name="bboxes",
            default={"x": 0, "y": 0, "width": 512, "height": 512},
            socketless=True,
            force_input=True,
            optional=True,
        ),
        io.String.Input("positive_coords", display_name="positive_coords", force_input=True, optional=True),
        io.String.Input("negative_coords", display_name="negative_coords", force_input=True, optional=True),
    ],
    outputs=lambda: [io.Mask.Output(display_name="masks"), io.BoundingBox.Output(display_name="bboxes")],
)


SAM3_VideoTrack = absent_node(
    "SAM3_VideoTrack",
    "SAM 3",
    display_name="Run SAM3 Video Track",
    category="image/detection",
    description="Follows things through a video.",
    search_aliases=["sam3", "video", "track", "propagate"],
    inputs=lambda: [
        io.Image.Input("images", display_name="images"),
        io.Model.Input("model", display_name="model"),
        io.Float.Input(
            "detection_threshold",
            display_name="detection_threshold",
            default=0.5,
            min=0.0,
            max=1.0,
            step=0.01,
        ),
        io.Int.Input("max_objects", display_name="max_objects", default=4, min=0, max=64),
        io.Int.Input("detect_interval", display_name="detect_interval", default=1, min=1),
        io.Mask.Input("initial_mask", display_name="initial_mask", optional=True),
        io.Conditioning.Input("conditioning", display_name="conditioning", optional=True),
    ],
    outputs=lambda: [io.Custom("SAM3_TRACK_DATA").Output(display_name="track_data")],
)


SAM3_TrackPreview = absent_node(
    "SAM3_TrackPreview",
    "SAM 3",
    display_name="SAM3 Track Preview",
    category="image/detection",
    is_output_node=True,
    inputs=lambda: [
        io.Custom("SAM3_TRACK_DATA").Input("track_data", display_name="track_data"),
        io.Float.Input("opacity", display_name="opacity", default=0.5, min=0.0, max=1.0, step=0.05),
        io.Float.Input("fps", display_name="fps", default=24.0, min=1.0, max=120.0, step=1.0),
        io.Image.Input("images", display_name="images", optional=True),
    ],
    outputs=list,
)


SAM3_TrackToMask = absent_node(
    "SAM3_TrackToMask",
    "SAM 3",
    display_name="SAM3 Track to Mask",
    category="image/detection",
    inputs=lambda: [
        io.Custom("SAM3_TRACK_DATA").Input("track_data", display_name="track_data"),
        io.String.Input("object_indices", display_name="object_indices", default=""),
    ],
    outputs=lambda: [io.Mask.Output(display_name="masks")],
)


class Sam3Extension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [SAM3_Detect, SAM3_VideoTrack, SAM3_TrackPreview, SAM3_TrackToMask]


def comfy_entrypoint():
    return Sam3Extension()
