"""MoGe: depth and geometry from one picture."""

from __future__ import annotations

import math

import folder_paths
from comfy_api.latest import ComfyExtension, Types, io
from comfy_extras.absent_families import absent_node


def _known(geometry, name):
    """A part of a geometry; ValueError where it has none."""
    if name not in geometry:
        raise ValueError(
            f"The MoGe geometry has no {name}; it has {', '.join(geometry)}. Take another output."
        )
    return geometry[name]


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


class MoGeRender(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MoGeRender",
            display_name="Render MoGe Geometry",
            category="image/geometry estimation",
            search_aliases=["moge", "render", "geometry", "depth", "normal"],
            inputs=[
                io.Custom("MOGE_GEOMETRY").Input("moge_geometry"),
                io.Combo.Input(
                    "output",
                    options=["depth", "depth_colored", "normal_opengl", "normal_directx", "mask"],
                    default="depth",
                ),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, moge_geometry, output):
        import torch

        from comfy.model_management import intermediate_device, intermediate_dtype
        from comfy_extras.geometry import point_maps

        if output.startswith("depth"):
            paint = point_maps.turbo if output == "depth_colored" else point_maps.gray
            maps = _known(moge_geometry, "depth")
            pictures = [paint(point_maps.disparity(depth.float())) for depth in maps]
        elif output == "mask":
            pictures = [point_maps.gray(mask.float()) for mask in _known(moge_geometry, "mask")]
        elif output in ("normal_opengl", "normal_directx"):
            if "normal" in moge_geometry:
                maps = moge_geometry["normal"].float()
            else:
                maps = [point_maps.normals(points.float()) for points in _known(moge_geometry, "points")]
            # Both have z towards the viewer, and OpenGL y upwards.
            signs = torch.tensor([1.0, -1.0 if output == "normal_opengl" else 1.0, -1.0])
            pictures = [(found * signs.to(found) * 0.5 + 0.5).clamp(0, 1) for found in maps]
        else:
            raise ValueError(
                f"MoGeRender: output is {output}. It is depth, depth_colored, normal_..., or mask."
            )
        return io.NodeOutput(torch.stack(pictures).to(intermediate_device(), intermediate_dtype()))


class MoGePointMapToMesh(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MoGePointMapToMesh",
            display_name="Convert MoGe Point Map to Mesh",
            category="image/geometry estimation",
            search_aliases=["moge", "mesh", "geometry", "point map"],
            inputs=[
                io.Custom("MOGE_GEOMETRY").Input("moge_geometry"),
                io.Int.Input("batch_index", default=0, min=0, max=4096),
                io.Int.Input("decimation", default=1, min=1, max=8),
                io.Float.Input("discontinuity_threshold", default=0.04, min=0.0, max=1.0, step=0.01),
                io.Boolean.Input("texture", default=True),
            ],
            outputs=[io.Mesh.Output()],
        )

    @classmethod
    def execute(cls, moge_geometry, batch_index, decimation, discontinuity_threshold, texture):
        from comfy_extras.geometry import point_maps

        points = _known(moge_geometry, "points")
        if batch_index >= len(points):
            raise ValueError(
                f"batch_index is {batch_index}, but the geometry has {len(points)} pictures, from 0."
            )
        depth = moge_geometry["depth"][batch_index] if "depth" in moge_geometry else None
        vertices, faces, uvs = point_maps.surface(
            points[batch_index], step=decimation, threshold=discontinuity_threshold, depth=depth
        )
        if not len(faces):
            raise ValueError(
                "No surface is left of the MoGe geometry. Set discontinuity_threshold to 0, or switch "
                "apply_mask off where the geometry is found."
            )
        if "intrinsics" in moge_geometry:
            vertices, faces = point_maps.facing_viewer(vertices, faces)
        else:  # a panorama, with z up, that is seen from inside
            vertices = vertices[:, [1, 2, 0]].contiguous()
        picture = moge_geometry["image"][batch_index : batch_index + 1] if texture else None
        return io.NodeOutput(Types.MESH(vertices[None], faces[None], uvs=uvs[None], texture=picture))


class MoGeGeometryToFOV(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MoGeGeometryToFOV",
            display_name="Get FoV from MoGe Geometry",
            category="image/geometry estimation",
            search_aliases=["moge", "fov", "geometry", "intrinsics", "field of view"],
            inputs=[
                io.Custom("MOGE_GEOMETRY").Input("moge_geometry"),
                io.Combo.Input("axis", options=["vertical", "horizontal", "diagonal"], default="vertical"),
                io.Combo.Input("unit", options=["degrees", "radians"], default="degrees"),
            ],
            outputs=[io.Float.Output(display_name="fov"), io.Float.Output(display_name="focal_pixels")],
        )

    @classmethod
    def execute(cls, moge_geometry, axis, unit):
        if "intrinsics" not in moge_geometry:
            raise ValueError(
                "The MoGe geometry has no camera, as that of a panorama. Take that of a picture."
            )
        camera = moge_geometry["intrinsics"]
        camera = camera[0] if camera.ndim == 3 else camera
        # Focal lengths are shares of the picture's sides.
        across, down = 0.5 / float(camera[0, 0]), 0.5 / float(camera[1, 1])
        reach = {"horizontal": across, "vertical": down, "diagonal": math.hypot(across, down)}[axis]
        angle = 2 * math.atan(reach)
        seen = next(
            (moge_geometry[name] for name in ("image", "points", "depth") if name in moge_geometry), None
        )
        if seen is None:
            raise ValueError("The MoGe geometry has no image, points or depth that would tell its height.")
        return io.NodeOutput(
            math.degrees(angle) if unit == "degrees" else angle, float(camera[1, 1]) * seen.shape[1]
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
