"""The path of a camera as rays through each pixel (Plücker coordinates), for Wan."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_extras.absent_families import absent_node
from comfy_extras.core_inputs import MAX_RESOLUTION
from comfy_extras.video_inputs import frame_size

WanCameraEmbedding = absent_node(
    "WanCameraEmbedding",
    "Wan 2.1",
    category="model/conditioning/wan/camera",
    inputs=lambda: [
        io.Combo.Input(
            "camera_pose",
            options=[
                "Static",
                "Pan Up",
                "Pan Down",
                "Pan Left",
                "Pan Right",
                "Zoom In",
                "Zoom Out",
                "Anti Clockwise (ACW)",
                "ClockWise (CW)",
            ],
            default="Static",
        ),
        *frame_size(832, 480),
        io.Int.Input("length", default=81, min=1, max=MAX_RESOLUTION, step=4),
        io.Float.Input("speed", default=1.0, min=0, max=10.0, step=0.1, optional=True),
        io.Float.Input("fx", default=0.5, min=0, max=1, step=1e-09, advanced=True, optional=True),
        io.Float.Input("fy", default=0.5, min=0, max=1, step=1e-09, advanced=True, optional=True),
        io.Float.Input("cx", default=0.5, min=0, max=1, step=0.01, advanced=True, optional=True),
        io.Float.Input("cy", default=0.5, min=0, max=1, step=0.01, advanced=True, optional=True),
    ],
    outputs=lambda: [
        io.WanCameraEmbedding.Output(display_name="camera_embedding"),
        io.Int.Output(display_name="width"),
        io.Int.Output(display_name="height"),
        io.Int.Output(display_name="length"),
    ],
)


class CameraTrajectoryExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [WanCameraEmbedding]


def comfy_entrypoint():
    return CameraTrajectoryExtension()
