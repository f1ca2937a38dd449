"""The path of a camera as rays through each pixel (Plücker coordinates), for Wan."""

from __future__ import annotations

import math

from comfy_api.latest import ComfyExtension, io
from comfy_extras.core_inputs import MAX_RESOLUTION
from comfy_extras.video_inputs import frame_size

# How the camera turns (parts of 60 degrees) and moves (parts of 1.5) along its path, each per axis.
MOTIONS = {
    "Static": ((0, 0, 0), (0, 0, 0)),
    "Pan Up": ((0, 0, 0), (0, -1, 0)),
    "Pan Down": ((0, 0, 0), (0, 1, 0)),
    "Pan Left": ((0, 0, 0), (-1, 0, 0)),
    "Pan Right": ((0, 0, 0), (1, 0, 0)),
    "Zoom In": ((0, 0, 0), (0, 0, 2)),
    "Zoom Out": ((0, 0, 0), (0, 0, -2)),
    "Anti Clockwise (ACW)": ((0, 0, -1), (0, 0, 0)),
    "ClockWise (CW)": ((0, 0, 1), (0, 0, 0)),
}
LARGEST_TURN = math.pi / 3
LARGEST_STEP = 1.5
# Focal lengths are given for pictures of this shape.
SHAPE = 1280 / 720


def _poses(motion, length, speed):
    """Camera to world, (T, 4, 4): as far along the path as in time. Turns are about z only."""
    import torch

    turn, move = (torch.tensor(part, dtype=torch.float64) for part in MOTIONS[motion])
    time = torch.arange(length, dtype=torch.float64) / length * speed
    angle = time * LARGEST_TURN * turn[2]
    poses = torch.eye(4, dtype=torch.float64).repeat(length, 1, 1)
    poses[:, 0, 0] = poses[:, 1, 1] = angle.cos()
    poses[:, 1, 0] = angle.sin()
    poses[:, 0, 1] = -angle.sin()
    poses[:, :3, 3] = time[:, None] * LARGEST_STEP * move
    return poses


def _rays(poses, width, height, fx, fy, cx, cy):
    """Pluecker coordinates (T, H, W, 6) of the ray through the middle of each pixel: moment, direction."""
    import torch

    if width / height < SHAPE:  # the sides of the frame are cut off
        fx = fx * height * SHAPE / width
    else:
        fy = fy * width / SHAPE / height
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    seen = torch.stack(
        [(x - cx * width) / (fx * width), (y - cy * height) / (fy * height), torch.ones_like(x)], -1
    )
    seen = seen / seen.norm(dim=-1, keepdim=True)
    poses = poses.float()
    directions = torch.einsum("tij,hwj->thwi", poses[:, :3, :3], seen)
    origins = poses[:, None, None, :3, 3].expand_as(directions)
    return torch.cat([torch.linalg.cross(origins, directions), directions], dim=-1)


class WanCameraEmbedding(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="WanCameraEmbedding",
            category="model/conditioning/wan/camera",
            description="The path of a camera, for Wan models that follow one.",
            inputs=[
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
            outputs=[
                io.WanCameraEmbedding.Output(display_name="camera_embedding"),
                io.Int.Output(display_name="width"),
                io.Int.Output(display_name="height"),
                io.Int.Output(display_name="length"),
            ],
        )

    @classmethod
    def execute(cls, camera_pose, width, height, length, speed=1.0, fx=0.5, fy=0.5, cx=0.5, cy=0.5):
        import torch

        import comfy.model_management

        rays = _rays(_poses(camera_pose, length, speed), width, height, fx, fy, cx, cy)
        frames = torch.cat([rays[:1].repeat(4, 1, 1, 1), rays[1:]])  # the first latent frame is one frame
        latents = frames.view(-1, 4, height, width, 6).permute(4, 1, 0, 2, 3)  # (6, 4, T, H, W)
        embedding = latents.reshape(1, 24, -1, height, width).to(comfy.model_management.intermediate_device())
        return io.NodeOutput(embedding, width, height, length)


class CameraTrajectoryExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [WanCameraEmbedding]


def comfy_entrypoint():
    return CameraTrajectoryExtension()
