"""Meshes made better: holes, vertices, normals, fewer or other triangles, and pictures of them.

What has to do with textures stands in `mesh_textures`.
"""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_extras.mesh_textures import (
    ApplyTextureToMesh,
    BakeAmbientOcclusion,
    BakeNormalMapFromMesh,
    BakeTextureFromVoxel,
    MeshTextureToImage,
    PaintMesh,
    RenderUVAtlas,
    UnwrapMesh,
)


def _schema(node_id, title, inputs, description, **more):
    return io.Schema(
        node_id=node_id,
        display_name=title,
        category="3d/mesh",
        description=description,
        inputs=[io.Mesh.Input("mesh"), *inputs],
        outputs=[io.Mesh.Output(display_name="mesh")],
        **more,
    )


def _changed(mesh, change):
    from comfy_extras.geometry import meshes

    return io.NodeOutput(meshes.changed(mesh, change))


class FillHoles(io.ComfyNode):
    """Closes small holes."""

    @classmethod
    def define_schema(cls):
        perimeter = "Holes with a longer border stay open."
        chains = "Also where the border does not come back to its beginning?"
        return _schema(
            "FillHoles",
            "Fill Holes",
            [
                io.Float.Input("max_perimeter", default=0.03, min=0.0, step=0.0001, tooltip=perimeter),
                io.Float.Input("weld_epsilon_rel", default=1e-5, min=0.0, step=1e-6, tooltip=WELD),
                io.Int.Input("max_vertices", default=16, min=3, max=1024, tooltip="Of the border."),
                io.Boolean.Input("fill_chains", default=False, tooltip=chains),
            ],
            "Puts triangles over small holes.",
        )

    @classmethod
    def execute(cls, mesh, max_perimeter, weld_epsilon_rel, max_vertices, fill_chains):
        from comfy_extras.geometry import topology

        limits = (max_perimeter, weld_epsilon_rel, max_vertices, fill_chains)
        return _changed(mesh, lambda body: topology.filled(body, *limits))


WELD = "Vertices that are nearer than this share of the mesh's size become one."


class WeldVertices(io.ComfyNode):
    """Makes near vertices one."""

    @classmethod
    def define_schema(cls):
        absolute = "The same as a length, where that is more."
        return _schema(
            "WeldVertices",
            "Weld Vertices",
            [
                io.Float.Input("epsilon_rel", default=1e-5, min=0.0, step=1e-6, tooltip=WELD),
                io.Float.Input("epsilon_abs", default=0.0, min=0.0, step=1e-6, tooltip=absolute),
            ],
            "Makes one of vertices at the same place. Where a texture has a seam, it is torn.",
        )

    @classmethod
    def execute(cls, mesh, epsilon_rel, epsilon_abs):
        from comfy_extras.geometry import topology

        return _changed(mesh, lambda body: topology.welded(body, epsilon_rel, epsilon_abs))


class DecimateMesh(io.ComfyNode):
    """Fewer triangles."""

    @classmethod
    def define_schema(cls):
        number = io.Float.Input
        weights = "Other values than 0 cannot be computed here."
        quadric = [
            number("line_quadric_weight", default=0.0, min=0.0, max=100.0, step=0.1, tooltip=weights),
            number(
                "feature_edge_quadric_weight", default=0.0, min=0.0, max=1000.0, step=1.0, tooltip=weights
            ),
            number("feature_edge_min_dihedral_deg", default=30.0, min=0.0, max=180.0, step=1.0),
            io.Boolean.Input("clamp_v_to_edge", default=True),
        ]
        options = [io.DynamicCombo.Option("midpoint", []), io.DynamicCombo.Option("qem", quadric)]
        return _schema(
            "DecimateMesh",
            "Decimate Mesh",
            [
                io.Int.Input(
                    "target_face_count", default=200000, min=0, max=50000000, tooltip="0 leaves it as it is."
                ),
                io.DynamicCombo.Input("placement_mode", options=options, display_name="placement_mode"),
            ],
            "Makes a mesh of fewer triangles, as near to the old one as it can. Textures are lost.",
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, mesh, target_face_count, placement_mode):
        from comfy_extras.geometry import topology

        names = ("line_quadric_weight", "feature_edge_quadric_weight")
        asked = [name for name in names if placement_mode.get(name)]
        if asked:
            raise ValueError(
                f"{asked[0]} is {placement_mode[asked[0]]:g}, which cannot be computed here. Set it to 0."
            )
        return _changed(mesh, lambda body: topology.decimated(body, target_face_count))


def _sign_modes():
    on = io.Boolean.Input
    parts = {"drop_inverted_components": "inverted", "drop_enclosed_components": "enclosed"}
    unsigned = [on("qef", default=False, advanced=True, tooltip="Has no effect on a skin around the mesh.")]
    unsigned += [
        on(name, default=False, advanced=True, tooltip=f"Leaves {what} parts out, such as the inner skin.")
        for name, what in parts.items()
    ]
    signed = [
        on("qef", default=True, tooltip="Keeps edges sharp."),
        on("manifold", default=False, tooltip="Cannot be computed here."),
    ]
    return [io.DynamicCombo.Option("udf", unsigned), io.DynamicCombo.Option("sdf", signed)]


class RemeshMesh(io.ComfyNode):
    """Even triangles."""

    @classmethod
    def define_schema(cls):
        number = io.Float.Input
        how = "udf: a skin around any mesh; sdf: the surface of a closed one."
        project = "How far vertices are moved back to the old surface."
        small = "Parts with less than this share of the largest part's faces are dropped."
        cluster = "Meshes with more vertices are welded at the size of a cell before; 0 for never."
        return _schema(
            "RemeshMesh",
            "Remesh Mesh (Narrow-Band DC)",
            [
                io.Int.Input("resolution", default=512, min=32, max=2048, tooltip="Cells on a side."),
                io.DynamicCombo.Input(
                    "sign_mode", options=_sign_modes(), display_name="sign_mode", tooltip=how
                ),
                number("band", default=1.0, min=0.5, max=4.0, step=0.1, advanced=True, tooltip="In cells."),
                number(
                    "project_back", default=0.0, min=0.0, max=1.0, step=0.05, advanced=True, tooltip=project
                ),
                io.Boolean.Input(
                    "fix_poles", default=False, advanced=True, tooltip="Cannot be computed here."
                ),
                io.Int.Input("smooth_iters", default=0, min=0, max=20),
                number(
                    "drop_small_components", default=0.01, min=0.0, max=0.5, step=0.005, advanced=True,
                    tooltip=small,
                ),
                io.Int.Input(
                    "precluster_max_verts", default=20000000, min=0, max=100000000, advanced=True,
                    tooltip=cluster,
                ),
            ],
            "Lays a new mesh of even triangles around a mesh. What lies on it is lost.",
            hidden=[io.Hidden.unique_id],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, mesh, resolution, sign_mode, band, project_back, fix_poles, smooth_iters, drop_small_components,
        precluster_max_verts,
    ):  # fmt: skip
        from comfy_extras.geometry import meshes, remeshing, topology

        if fix_poles or sign_mode.get("manifold"):
            name = "fix_poles" if fix_poles else "manifold"
            raise ValueError(f"{name} is on, which cannot be computed here. Switch it off.")

        def change(body):
            if precluster_max_verts and len(body.vertices) > precluster_max_verts:
                body = topology.welded(body, absolute=meshes.bounding_diagonal(body) / resolution)
            return remeshing.remeshed(
                body, resolution, is_signed=sign_mode["sign_mode"] == "sdf", qef=bool(sign_mode.get("qef")),
                band=band, project_back=project_back, smooth=smooth_iters, small=drop_small_components,
                inverted=bool(sign_mode.get("drop_inverted_components")),
                enclosed=bool(sign_mode.get("drop_enclosed_components")),
            )  # fmt: skip

        return _changed(mesh, change)


def rgb_of(text):
    """(r, g, b) of 0..1 of "#rrggbb"."""
    digits = text.lstrip("#")
    try:
        values = bytes.fromhex(digits)
    except ValueError:
        values = b""
    if len(values) != 3:
        raise ValueError(f"{text!r} is no colour. Write one as #rrggbb, such as #ff8800.")
    return tuple(value / 255 for value in values)


class RenderMesh(io.ComfyNode):
    """A picture of a mesh."""

    @classmethod
    def define_schema(cls):
        modes = ["auto", "texture", "vertex colors", "solid", "normal", "depth"]
        camera = "From where it is seen; without it, from the upper right."
        side = {"default": 1024, "min": 64, "max": 4096, "step": 8}
        return io.Schema(
            node_id="RenderMesh",
            display_name="Render Mesh",
            category="3d/mesh",
            description="A picture of a mesh with light from the camera.",
            search_aliases=["mesh to image", "render mesh", "preview textured mesh"],
            inputs=[
                io.Mesh.Input("mesh"),
                io.Combo.Input("mode", options=modes, tooltip="auto: texture, else colours, else gray."),
                io.Int.Input("width", **side),
                io.Int.Input("height", **side),
                io.Color.Input("background", default="#000000"),
                io.Load3DModelInfo.Input("model_3d_info", optional=True),
                io.Load3DCamera.Input("camera_info", optional=True, tooltip=camera),
            ],
            outputs=[io.Image.Output(display_name="image"), io.Mask.Output(display_name="mask")],
        )

    @classmethod
    def execute(cls, mesh, mode, width, height, background, model_3d_info=None, camera_info=None):
        import numpy
        import torch

        from comfy_extras.geometry import cameras, meshes, rendering

        found = []
        for number, body in enumerate(meshes.bodies_of(mesh)):
            if model_3d_info:
                body = rendering.placed(body, model_3d_info[min(number, len(model_3d_info) - 1)])
            if not len(body.vertices):
                raise ValueError("The mesh is empty: there is nothing to render. Link one that has faces.")
            camera = camera_info or cameras.framing(body.vertices, width, height)
            found.append(rendering.rendered(body, camera, width, height, mode, rgb_of(background)))
        image, mask = (torch.from_numpy(numpy.stack(values)) for values in zip(*found, strict=True))
        return io.NodeOutput(image, mask)


class MeshSmoothNormals(io.ComfyNode):
    """Normals for light."""

    @classmethod
    def define_schema(cls):
        tooltip = "Faces that meet at more degrees keep an edge between them; 180 for none."
        return _schema(
            "MeshSmoothNormals",
            "Smooth Mesh Normals",
            [io.Float.Input("crease_angle", default=180.0, min=0.0, max=180.0, step=1.0, tooltip=tooltip)],
            "Makes light fall on a mesh as if it were round.",
        )

    @classmethod
    def execute(cls, mesh, crease_angle):
        from comfy_extras.geometry import topology

        return _changed(mesh, lambda body: topology.smoothed_normals(body, crease_angle))


class PostProcessMeshExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [
            FillHoles, WeldVertices, DecimateMesh, RemeshMesh, UnwrapMesh, RenderUVAtlas, PaintMesh,
            BakeTextureFromVoxel, MeshTextureToImage, ApplyTextureToMesh, BakeNormalMapFromMesh,
            BakeAmbientOcclusion, RenderMesh, MeshSmoothNormals,
        ]  # fmt: skip


def comfy_entrypoint():
    return PostProcessMeshExtension()
