"""Depth Anything 3: depth, cameras and geometry from pictures."""

from __future__ import annotations

import folder_paths
from comfy_api.latest import ComfyExtension, io
from comfy_extras.absent_families import absent_node

LoadDA3Model = absent_node(
    "LoadDA3Model",
    "Depth Anything 3",
    display_name="Load Depth Anything 3",
    category="model/loaders",
    description="Loads a Depth Anything 3 model.",
    inputs=lambda: [
        io.Combo.Input("model_name", options=folder_paths.get_filename_list("geometry_estimation")),
        io.Combo.Input("weight_dtype", options=["default", "fp16", "bf16", "fp32"], default="default"),
    ],
    outputs=lambda: [io.Custom("DA3_MODEL").Output()],
)


DA3Inference = absent_node(
    "DA3Inference",
    "Depth Anything 3",
    display_name="Run Depth Anything 3",
    category="image/geometry estimation",
    description="Depth, cameras and geometry of pictures.",
    search_aliases=[
        "depth",
        "geometry",
        "da3",
        "depth anything",
        "monocular",
        "pointmap",
        "sky",
        "3d",
        "metric depth",
        "disparity",
    ],
    inputs=lambda: [
        io.Custom("DA3_MODEL").Input("da3_model"),
        io.Image.Input("image"),
        io.Int.Input("resolution", default=504, min=140, max=2520, step=14),
        io.Combo.Input(
            "resize_method",
            options=["upper_bound_resize", "lower_bound_resize"],
            default="upper_bound_resize",
        ),
        io.DynamicCombo.Input(
            "mode",
            [
                io.DynamicCombo.Option("mono", []),
                io.DynamicCombo.Option(
                    "multiview",
                    [
                        io.Combo.Input(
                            "ref_view_strategy",
                            options=["saddle_balanced", "saddle_sim_range", "first", "middle"],
                            default="saddle_balanced",
                        ),
                        io.Combo.Input("pose_method", options=["cam_dec", "ray_pose"], default="cam_dec"),
                    ],
                ),
            ],
        ),
    ],
    outputs=lambda: [io.Custom("DA3_GEOMETRY").Output(display_name="da3_geometry")],
)


DA3Render = absent_node(
    "DA3Render",
    "Depth Anything 3",
    display_name="Render Depth Anything 3",
    category="image/geometry estimation",
    description="Pictures of depth and geometry.",
    inputs=lambda: [
        io.Custom("DA3_GEOMETRY").Input("da3_geometry"),
        io.DynamicCombo.Input(
            "output",
            [
                io.DynamicCombo.Option(
                    "depth",
                    [
                        io.Combo.Input(
                            "normalization", options=["v2_style", "min_max", "raw"], default="v2_style"
                        ),
                        io.Boolean.Input("apply_sky_clip", default=False),
                    ],
                ),
                io.DynamicCombo.Option(
                    "depth_colored",
                    [
                        io.Combo.Input(
                            "normalization", options=["v2_style", "min_max", "raw"], default="v2_style"
                        ),
                        io.Boolean.Input("apply_sky_clip", default=False),
                    ],
                ),
                io.DynamicCombo.Option("sky_mask", [io.Boolean.Input("colored", default=False)]),
                io.DynamicCombo.Option("confidence", [io.Boolean.Input("colored", default=False)]),
            ],
        ),
    ],
    outputs=lambda: [io.Image.Output()],
)


DA3GeometryToMesh = absent_node(
    "DA3GeometryToMesh",
    "Depth Anything 3",
    display_name="Convert DA3 Geometry to Mesh",
    category="image/geometry estimation",
    description="A surface through the points of a geometry.",
    search_aliases=["da3", "depth anything", "mesh", "geometry", "3d", "triangulate"],
    inputs=lambda: [
        io.Custom("DA3_GEOMETRY").Input("da3_geometry"),
        io.Int.Input("batch_index", default=0, min=0, max=4096),
        io.Int.Input("decimation", default=1, min=1, max=8),
        io.Float.Input("discontinuity_threshold", default=0.04, min=0.0, max=1.0, step=0.01),
        io.Float.Input("confidence_threshold", default=0.1, min=0.0, max=1.0, step=0.01),
        io.Boolean.Input("use_sky_mask", default=True),
        io.Boolean.Input("texture", default=True),
    ],
    outputs=lambda: [io.Mesh.Output()],
)


class DepthAnything3Extension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [LoadDA3Model, DA3Inference, DA3Render, DA3GeometryToMesh]


def comfy_entrypoint():
    return DepthAnything3Extension()
