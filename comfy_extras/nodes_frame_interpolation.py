"""Frames between frames."""

from __future__ import annotations

import folder_paths
from comfy_api.latest import ComfyExtension, io
from comfy_extras.absent_families import absent_node

FrameInterpolationModelLoader = absent_node(
    "FrameInterpolationModelLoader",
    "RIFE and FILM",
    display_name="Load Frame Interpolation Model",
    category="model/loaders",
    description="Loads a network that makes frames between frames.",
    inputs=lambda: [
        io.Combo.Input("model_name", options=folder_paths.get_filename_list("frame_interpolation"))
    ],
    outputs=lambda: [io.Custom("INTERP_MODEL").Output()],
)


FrameInterpolate = absent_node(
    "FrameInterpolate",
    "RIFE and FILM",
    display_name="Run Frame Interpolation Model",
    category="video",
    description="More frames, between those of a video.",
    search_aliases=["rife", "film", "frame interpolation", "slow motion", "interpolate frames", "vfi"],
    inputs=lambda: [
        io.Custom("INTERP_MODEL").Input("interp_model"),
        io.Image.Input("images"),
        io.Int.Input("multiplier", default=2, min=2, max=16),
    ],
    outputs=lambda: [io.Image.Output()],
)


class FrameInterpolationExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [FrameInterpolationModelLoader, FrameInterpolate]


def comfy_entrypoint():
    return FrameInterpolationExtension()
