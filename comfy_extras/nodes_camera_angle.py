"""A view of a thing, as a camera and as the words of a prompt."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_extras.absent_families import absent_node

CameraAngle = absent_node(
    "CameraAngle",
    "CameraAngle",
    display_name="Camera Angle",
    category="image",
    inputs=lambda: [
        io.Int.Input("horizontal", default=0, min=0, max=360),
        io.Int.Input("vertical", default=0, min=-30, max=60),
        io.Float.Input("zoom", default=5.0, min=0.0, max=10.0, step=0.1),
        io.Combo.Input("mode", options=["camera"], default="camera"),
        io.Image.Input("image", optional=True),
    ],
    outputs=lambda: [
        io.Load3DCamera.Output(display_name="camera_info"),
        io.String.Output(display_name="prompt"),
    ],
)


class CameraAngleExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [CameraAngle]


def comfy_entrypoint():
    return CameraAngleExtension()
