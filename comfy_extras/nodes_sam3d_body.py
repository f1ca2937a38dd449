"""SAM 3D Body: bodies in three dimensions from pictures."""

from __future__ import annotations

import folder_paths
from comfy_api.latest import ComfyExtension, io
from comfy_extras.absent_families import absent_node
from comfy_extras.core_inputs import MAX_RESOLUTION

SAM3DBody_Loader = absent_node(
    "SAM3DBody_Loader",
    "SAM 3D Body",
    display_name="Load SAM 3D Body Model",
    category="model/loaders",
    inputs=lambda: [io.Combo.Input("model_name", options=folder_paths.get_filename_list("detection"))],
    outputs=lambda: [io.Custom("SAM3D_BODY_MODEL").Output(display_name="sam3d_body_model")],
)


SAM3DBody_Predict = absent_node(
    "SAM3DBody_Predict",
    "SAM 3D Body",
    display_name="SAM 3D Body: Predict",
    category="detection/pose",
    inputs=lambda: [
        io.Custom("SAM3D_BODY_MODEL").Input("sam3d_body_model"),
        io.Image.Input("image"),
        io.Boolean.Input("refine_hands", default=True),
        io.Float.Input("fov", default=0.0, min=0.0, max=179.0, step=0.01),
        io.Int.Input("batch_size", default=64, min=1, max=4096),
        io.Custom("SAM3_TRACK_DATA").Input("track_data", optional=True),
        io.BoundingBox.Input("bboxes", optional=True),
    ],
    outputs=lambda: [io.Custom("MHR_POSE_DATA").Output(display_name="mhr_pose_data")],
)


SAM3DBody_FaceExpression = absent_node(
    "SAM3DBody_FaceExpression",
    "SAM 3D Body",
    display_name="SAM 3D Body: Face Expression",
    category="detection/pose",
    inputs=lambda: [
        io.Custom("SAM3D_BODY_MODEL").Input("sam3d_body_model"),
        io.Custom("MHR_POSE_DATA").Input("mhr_pose_data"),
        io.Image.Input("image"),
        io.Float.Input("strength", default=1.0, min=0.0, max=10.0, step=0.01),
        io.Float.Input("jaw", default=1.0, min=0.0, max=10.0, step=0.01),
        io.Float.Input("brows", default=2.0, min=0.0, max=10.0, step=0.01),
        io.Float.Input("eyes", default=2.0, min=0.0, max=10.0, step=0.01),
        io.Float.Input("deadzone", default=0.02, min=0.0, max=1.0, step=0.001),
        io.Int.Input("smoothing", default=7, min=1, max=999),
    ],
    outputs=lambda: [io.Custom("MHR_POSE_DATA").Output(display_name="mhr_pose_data")],
)


SAM3DBody_Smooth = absent_node(
    "SAM3DBody_Smooth",
    "SAM 3D Body",
    display_name="SAM 3D Body: Smooth",
    category="detection/pose",
    inputs=lambda: [
        io.Custom("MHR_POSE_DATA").Input("mhr_pose_data"),
        io.Float.Input("strength", default=1.0, min=0.0, max=1.0, step=0.01),
        io.Combo.Input("method", options=["gaussian"], default="gaussian"),
        io.Int.Input("window", default=7, min=1, max=999),
        io.Int.Input("camera_window", default=15, min=1, max=999),
    ],
    outputs=lambda: [io.Custom("MHR_POSE_DATA").Output(display_name="mhr_pose_data")],
)


SAM3DBody_Render = absent_node(
    "SAM3DBody_Render",
    "SAM 3D Body",
    display_name="SAM 3D Body: Render",
    category="detection/pose",
    inputs=lambda: [
        io.MultiType.Input("pose_data", [io.Custom("MHR_POSE_DATA"), io.Custom("KIMODO_POSE_DATA")]),
        io.Int.Input("width", default=0, min=0, max=MAX_RESOLUTION),
        io.Int.Input("height", default=0, min=0, max=MAX_RESOLUTION),
        io.Combo.Input("mode", options=["mesh"], default="mesh"),
        io.Combo.Input("style", options=["default"], default="default"),
        io.Float.Input("opacity", default=1.0, min=0.0, max=1.0, step=0.01),
        io.Float.Input("shading", default=0.6, min=0.0, max=1.0, step=0.01),
        io.Combo.Input("part", options=["full_body"], default="full_body"),
        io.Image.Input("background", optional=True),
        io.Load3DCamera.Input("camera_info", optional=True),
    ],
    outputs=lambda: [io.Image.Output(display_name="image")],
)


BuildPoseFile = absent_node(
    "BuildPoseFile",
    "SAM 3D Body",
    display_name="Build Pose File",
    category="3d",
    inputs=lambda: [
        io.MultiType.Input("pose_data", [io.Custom("MHR_POSE_DATA"), io.Custom("KIMODO_POSE_DATA")]),
        io.Combo.Input("format", options=["glb"], default="glb"),
        io.Combo.Input("skeleton", options=["scail"], default="scail"),
        io.Float.Input("bone_radius", default=0.022, min=0.0, max=1.0, step=0.001),
        io.Int.Input("person", default=0, min=0, max=999),
        io.Float.Input("threshold", default=0.3, min=0.0, max=1.0, step=0.01),
        io.Boolean.Input("with_mesh", default=False),
        io.Float.Input("hand_radius", default=0.005, min=0.0, max=1.0, step=0.001),
        io.Float.Input("face_radius", default=0.003, min=0.0, max=1.0, step=0.001),
        io.Combo.Input("part", options=["full"], default="full"),
        io.Int.Input("start_frame", default=0, min=0, max=99999),
        io.Float.Input("fps", default=24.0, min=1.0, max=240.0, step=0.01),
        io.Combo.Input("camera", options=["off"], default="off"),
        io.Int.Input("max_frames", default=-1, min=-1, max=99999),
        io.Custom("SAM3D_BODY_MODEL").Input("sam3d_body_model", optional=True),
    ],
    outputs=lambda: [io.File3DAny.Output(display_name="model_3d")],
)


class Sam3dBodyExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [
            SAM3DBody_Loader,
            SAM3DBody_Predict,
            SAM3DBody_FaceExpression,
            SAM3DBody_Smooth,
            SAM3DBody_Render,
            BuildPoseFile,
        ]


def comfy_entrypoint():
    return Sam3dBodyExtension()
