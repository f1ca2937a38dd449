"""SDPose: poses of people as points, and drawn."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_extras.absent_families import absent_node

SDPoseKeypointExtractor = absent_node(
    "SDPoseKeypointExtractor",
    "SDPose",
    display_name="SDPose Keypoint Extractor",
    category="image/detection",
    description="Points of bodies, hands and faces in pictures.",
    search_aliases=["openpose", "pose detection", "preprocessor", "keypoints", "sdpose"],
    inputs=lambda: [
        io.Model.Input("model"),
        io.Vae.Input("vae"),
        io.Image.Input("image"),
        io.Int.Input("batch_size", default=16, min=1, max=10000, step=1),
        io.BoundingBox.Input(
            "bboxes",
            default={"x": 0, "y": 0, "width": 512, "height": 512},
            socketless=True,
            force_input=True,
            optional=True,
        ),
    ],
    outputs=lambda: [io.Custom("POSE_KEYPOINT").Output(display_name="keypoints")],
)


SDPoseDrawKeypoints = absent_node(
    "SDPoseDrawKeypoints",
    "SDPose",
    display_name="SDPose Draw Keypoints",
    category="image/detection",
    search_aliases=["openpose", "pose detection", "preprocessor", "keypoints", "pose"],
    inputs=lambda: [
        io.Custom("POSE_KEYPOINT").Input("keypoints"),
        io.Boolean.Input("draw_body", default=True),
        io.Boolean.Input("draw_hands", default=True),
        io.Boolean.Input("draw_face", default=True),
        io.Boolean.Input("draw_feet", default=False),
        io.Int.Input("stick_width", default=4, min=1, max=10, step=1),
        io.Int.Input("face_point_size", default=3, min=1, max=10, step=1),
        io.Float.Input("score_threshold", default=0.3, min=0.0, max=1.0, step=0.01),
        io.Boolean.Input("draw_head", default=True),
    ],
    outputs=lambda: [io.Image.Output()],
)


SDPoseFaceBBoxes = absent_node(
    "SDPoseFaceBBoxes",
    "SDPose",
    display_name="SDPose Face Bounding Boxes",
    category="image/detection",
    search_aliases=["face bbox", "face bounding box", "pose", "keypoints"],
    inputs=lambda: [
        io.Custom("POSE_KEYPOINT").Input("keypoints"),
        io.Float.Input("scale", default=1.5, min=1.0, max=10.0, step=0.1),
        io.Boolean.Input("force_square", default=True),
    ],
    outputs=lambda: [io.BoundingBox.Output(display_name="bboxes")],
)


CropByBBoxes = absent_node(
    "CropByBBoxes",
    "SDPose",
    display_name="Crop By Bounding Boxes",
    category="image/transform",
    search_aliases=["crop", "face crop", "bbox crop", "pose", "bounding box"],
    inputs=lambda: [
        io.Image.Input("image"),
        io.BoundingBox.Input(
            "bboxes", default={"x": 0, "y": 0, "width": 512, "height": 512}, socketless=True, force_input=True
        ),
        io.Int.Input("output_width", default=512, min=64, max=4096, step=8),
        io.Int.Input("output_height", default=512, min=64, max=4096, step=8),
        io.Int.Input("padding", default=0, min=0, max=1024, step=1),
        io.Combo.Input("keep_aspect", options=["stretch", "pad"], default="stretch"),
    ],
    outputs=lambda: [io.Image.Output()],
)


class SdposeExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [SDPoseKeypointExtractor, SDPoseDrawKeypoints, SDPoseFaceBBoxes, CropByBBoxes]


def comfy_entrypoint():
    return SdposeExtension()
