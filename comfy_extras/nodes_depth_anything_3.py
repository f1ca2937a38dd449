"""Depth Anything 3: depth, cameras and geometry from pictures."""

from __future__ import annotations

import folder_paths
from comfy_api.latest import ComfyExtension, Types, io
from comfy_extras.absent_families import absent_node

_SKY = 0.3  # from this probability on a pixel is sky


def _known(geometry, name):
    """A part of a geometry; ValueError where it has none."""
    if name not in geometry:
        models = "mono and metric" if name == "sky" else "small and base"
        raise ValueError(f"The DA3 geometry has no {name}. The {models} models find it; take one of them.")
    return geometry[name]


def _with_far_sky(depth, sky):
    """The depth with its sky as far away as nearly all of the rest, where there is enough of both."""
    import torch

    from comfy_extras.geometry.point_maps import quantiles

    if min(int(sky.sum()), int((~sky).sum())) <= 10:
        return depth
    return torch.where(sky, quantiles(depth[~sky], 0.99).to(depth), depth)


def _shades(depth, sky, normalization):
    """1 for what is near, 0 for what is far; "v2_style" leaves out 1 % at each end, and the sky."""
    from comfy_extras.geometry.point_maps import quantiles

    if normalization == "raw":
        return depth
    if normalization == "min_max":
        return 1 - (depth - depth.min()) / (depth.max() - depth.min()).clamp(min=1e-6)
    land = depth if sky is None or sky.all() else depth[~sky]
    low, high = quantiles(land, 0.01, 0.99)
    shades = 1 - ((depth - low) / (high - low).clamp(min=1e-6)).clamp(0, 1)
    return shades if sky is None else shades * ~sky


def _from_0_to_1(values):
    """One map from its least to its most; 1 where all is even."""
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else values.new_ones(values.shape)


def _points_in_world(geometry, number, depth):
    """(H, W, 3): where each pixel of a depth map (H, W) is; without a camera, one of about 70 degrees."""
    import torch

    height, width = depth.shape
    if "intrinsics" in geometry:
        camera = geometry["intrinsics"][0, number].to(depth.device).float()
    else:
        focal, middle = 0.7 * width, ((width - 1) / 2, (height - 1) / 2)
        camera = depth.new_tensor([[focal, 0, middle[0]], [0, focal, middle[1]], [0, 0, 1]])
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pixels = torch.stack([columns, rows, torch.ones_like(rows)], dim=-1).to(depth)
    points = pixels @ torch.linalg.inv(camera).T * depth.unsqueeze(-1)
    pose = geometry["extrinsics"][0, number].to(depth.device).float() if "extrinsics" in geometry else None
    if pose is None or not torch.isfinite(pose).all():
        return points
    return (points - pose[:3, 3]) @ pose[:3, :3]  # from the camera's axes back, by the transposed rotation


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


class DA3Render(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="DA3Render",
            display_name="Render Depth Anything 3",
            category="image/geometry estimation",
            description="Pictures of depth and geometry.",
            inputs=[
                io.Custom("DA3_GEOMETRY").Input("da3_geometry"),
                io.DynamicCombo.Input(
                    "output",
                    [
                        io.DynamicCombo.Option(
                            "depth",
                            [
                                io.Combo.Input(
                                    "normalization",
                                    options=["v2_style", "min_max", "raw"],
                                    default="v2_style",
                                ),
                                io.Boolean.Input("apply_sky_clip", default=False),
                            ],
                        ),
                        io.DynamicCombo.Option(
                            "depth_colored",
                            [
                                io.Combo.Input(
                                    "normalization",
                                    options=["v2_style", "min_max", "raw"],
                                    default="v2_style",
                                ),
                                io.Boolean.Input("apply_sky_clip", default=False),
                            ],
                        ),
                        io.DynamicCombo.Option("sky_mask", [io.Boolean.Input("colored", default=False)]),
                        io.DynamicCombo.Option("confidence", [io.Boolean.Input("colored", default=False)]),
                    ],
                ),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, da3_geometry, output):
        import torch

        from comfy_extras.geometry import point_maps

        kind = output["output"]
        if kind in ("depth", "depth_colored"):
            skies = da3_geometry.get("sky")
            if output["apply_sky_clip"]:
                skies = _known(da3_geometry, "sky")
            values = []
            for number, depth in enumerate(da3_geometry["depth"]):
                sky = None if skies is None else skies[number] >= _SKY
                if output["apply_sky_clip"]:
                    depth = _with_far_sky(depth, sky)
                values.append(_shades(depth, sky, output["normalization"]))
            values, is_colored = torch.stack(values), kind == "depth_colored"
        elif kind == "sky_mask":
            values, is_colored = _known(da3_geometry, "sky"), output["colored"]
        elif kind == "confidence":
            values = torch.stack([_from_0_to_1(one) for one in _known(da3_geometry, "confidence")])
            is_colored = output["colored"]
        else:
            raise ValueError(
                f"DA3Render: output is {kind}. It is depth, depth_colored, sky_mask or confidence."
            )
        return io.NodeOutput((point_maps.turbo(values) if is_colored else point_maps.gray(values)).float())


class DA3GeometryToMesh(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="DA3GeometryToMesh",
            display_name="Convert DA3 Geometry to Mesh",
            category="image/geometry estimation",
            description="A surface through the points of a geometry.",
            search_aliases=["da3", "depth anything", "mesh", "geometry", "3d", "triangulate"],
            inputs=[
                io.Custom("DA3_GEOMETRY").Input("da3_geometry"),
                io.Int.Input("batch_index", default=0, min=0, max=4096),
                io.Int.Input("decimation", default=1, min=1, max=8),
                io.Float.Input("discontinuity_threshold", default=0.04, min=0.0, max=1.0, step=0.01),
                io.Float.Input("confidence_threshold", default=0.1, min=0.0, max=1.0, step=0.01),
                io.Boolean.Input("use_sky_mask", default=True),
                io.Boolean.Input("texture", default=True),
            ],
            outputs=[io.Mesh.Output()],
        )

    @classmethod
    def execute(
        cls,
        da3_geometry,
        batch_index,
        decimation,
        discontinuity_threshold,
        confidence_threshold,
        use_sky_mask,
        texture,
    ):
        import torch

        from comfy_extras.geometry import point_maps

        depths = da3_geometry["depth"]
        if batch_index >= len(depths):
            raise ValueError(
                f"batch_index is {batch_index}, but the geometry has {len(depths)} pictures, from 0."
            )
        depth = depths[batch_index]
        is_used = torch.isfinite(depth) & (depth > 0)
        depth = torch.where(torch.isfinite(depth), depth, torch.zeros_like(depth))
        if use_sky_mask and "sky" in da3_geometry:
            is_used = is_used & (da3_geometry["sky"][batch_index] < 0.5)
        if confidence_threshold > 0 and "confidence" in da3_geometry:
            is_used = is_used & (
                _from_0_to_1(da3_geometry["confidence"][batch_index]) >= confidence_threshold
            )
        points = _points_in_world(da3_geometry, batch_index, depth)
        points = torch.where(is_used.unsqueeze(-1), points, torch.full_like(points, torch.inf))
        vertices, faces, uvs = point_maps.surface(
            points, step=decimation, threshold=discontinuity_threshold, depth=depth
        )
        if not len(faces):
            raise ValueError(
                "No surface is left of the DA3 geometry. Set discontinuity_threshold higher or to 0, "
                "confidence_threshold lower, or switch use_sky_mask off."
            )
        vertices, faces = point_maps.facing_viewer(vertices, faces)
        picture = da3_geometry["image"][batch_index : batch_index + 1] if texture else None
        return io.NodeOutput(Types.MESH(vertices[None], faces[None], uvs=uvs[None], texture=picture))


class DepthAnything3Extension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [LoadDA3Model, DA3Inference, DA3Render, DA3GeometryToMesh]


def comfy_entrypoint():
    return DepthAnything3Extension()
