"""MoGe: depth and geometry from one picture."""

from __future__ import annotations

import folder_paths
from comfy_api.latest import ComfyExtension, io
from comfy_extras.absent_families import absent_node

LoadMoGeModel = absent_node(
    "LoadMoGeModel",
    "MoGe",
    display_name="Load MoGe Model",
    category="model/loaders",
    description="Loads a MoGe model.",
    inputs=lambda: [
        io.Combo.Input("model_name", options=folder_paths.get_filename_list("geometry_estimation"))
    ],
    outputs=lambda: [io.Custom("MOGE_MODEL").Output()],
)


MoGeInference = absent_node(
    "MoGeInference",
    "MoGe",
    display_name="Run MoGe Inference",
    category="image/geometry estimation",
    description="Depth and geometry of pictures.",
    search_aliases=["moge", "depth", "geometry", "depth estimation", "geometry estimation"],
    inputs=lambda: [
        io.Custom("MOGE_MODEL").Input("moge_model"),
        io.Image.Input("image"),
        io.Int.Input("resolution_level", default=9, min=0, max=9),
        io.Float.Input("fov_x_degrees", default=0.0, min=0.0, max=170.0, step=0.1, advanced=True),
        io.Int.Input("batch_size", default=4, min=1, max=64),
        io.Boolean.Input("force_projection", default=True, advanced=True),
        io.Boolean.Input("apply_mask", default=True, advanced=True),
    ],
    outputs=lambda: [io.Custom("MOGE_GEOMETRY").Output(display_name="moge_geometry")],
)


MoGePanoramaInference = absent_node(
    "MoGePanoramaInference",
    "MoGe",
    display_name="Run MoGe Panorama Inference",
    category="image/geometry estimation",
    description="Depth and geometry of a panorama.",
    search_aliases=["moge", "panorama", "depth", "geometry", "depth estimation", "geometry estimation"],
    inputs=lambda: [
        io.Custom("MOGE_MODEL").Input("moge_model"),
        io.Image.Input("image"),
        io.Int.Input("resolution_level", default=9, min=0, max=9),
        io.Int.Input("split_resolution", default=512, min=256, max=1024),
        io.Int.Input("merge_resolution", default=1920, min=256, max=8192),
        io.Int.Input("batch_size", default=4, min=1, max=12),
    ],
    outputs=lambda: [io.Custom("MOGE_GEOMETRY").Output(display_name="moge_geometry")],
)


MoGeRender = absent_node(
    "MoGeRender",
    "MoGe",
    display_name="Render MoGe Geometry",
    category="image/geometry estimation",
    search_aliases=["moge", "render", "geometry", "depth", "normal"],
    inputs=lambda: [
        io.Custom("MOGE_GEOMETRY").Input("moge_geometry"),
        io.Combo.Input(
            "output",
            options=["depth", "depth_colored", "normal_opengl", "normal_directx", "mask"],
            default="depth",
        ),
    ],
    outputs=lambda: [io.Image.Output()],
)


MoGePointMapToMesh = absent_node(
    "MoGePointMapToMesh",
    "MoGe",
    display_name="Convert MoGe Point Map to Mesh",
    category="image/geometry estimation",
    search_aliases=["moge", "mesh", "geometry", "point map"],
    inputs=lambda: [
        io.Custom("MOGE_GEOMETRY").Input("moge_geometry"),
        io.Int.Input("batch_index", default=0, min=0, max=4096),
        io.Int.Input("decimation", default=1, min=1, max=8),
        io.Float.Input("discontinuity_threshold", default=0.04, min=0.0, max=1.0, step=0.01),
        io.Boolean.Input("texture", default=True),
    ],
    outputs=lambda: [io.Mesh.Output()],
)


MoGeGeometryToFOV = absent_node(
    "MoGeGeometryToFOV",
    "MoGe",
    display_name="Get FoV from MoGe Geometry",
    category="image/geometry estimation",
    search_aliases=["moge", "fov", "geometry", "intrinsics", "field of view"],
    inputs=lambda: [
        io.Custom("MOGE_GEOMETRY").Input("moge_geometry"),
        io.Combo.Input("axis", options=["vertical", "horizontal", "diagonal"], default="vertical"),
        io.Combo.Input("unit", options=["degrees", "radians"], default="degrees"),
    ],
    outputs=lambda: [io.Float.Output(display_name="fov"), io.Float.Output(display_name="focal_pixels")],
)


class MogeExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [
            LoadMoGeModel,
            MoGeInference,
            MoGePanoramaInference,
            MoGeRender,
            MoGePointMapToMesh,
            MoGeGeometryToFOV,
        ]


def comfy_entrypoint():
    return MogeExtension()
