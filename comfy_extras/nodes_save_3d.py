"""Saving 3D, and what is done with whole meshes."""

from __future__ import annotations

import os
from io import BytesIO

import folder_paths
from comfy_api.latest import ComfyExtension, Types, io, ui
from comfy_api.latest.ui.results import metadata_of
from comfy_extras.nodes_load_3d import (
    MESH_FILES,
    POINT_FILES,
    SPLAT_FILES,
    shown,
    viewer_inputs,
    viewer_outputs,
)

PREFIX = "3d/ComfyUI"


def _prefix_input():
    tooltip = "The start of the file name, with folders if wanted."
    return io.String.Input("filename_prefix", default=PREFIX, tooltip=tooltip)


class SaveGLB(io.ComfyNode):
    """Meshes as GLB files; other 3D files as they are."""

    @classmethod
    def define_schema(cls):
        kinds = [
            io.Mesh, io.File3DGLB, io.File3DGLTF, io.File3DOBJ, io.File3DFBX, io.File3DSTL, io.File3DUSDZ,
            io.File3DPLY, io.File3DSPLAT, io.File3DSPZ, io.File3DKSPLAT, io.File3DSplatAny,
            io.File3DPointCloudAny, io.File3DAny,
        ]  # fmt: skip
        return io.Schema(
            node_id="SaveGLB",
            display_name="Save 3D Model",
            category="3d",
            description="Saves meshes as GLB, one file for each of the batch, and 3D files as they are.",
            search_aliases=["export 3d model", "save mesh"],
            essentials_category="Basics",
            is_output_node=True,
            inputs=[io.MultiType.Input("mesh", kinds), _prefix_input()],
        )

    @classmethod
    def execute(cls, mesh, filename_prefix):
        folder, stem, number, subfolder, _ = folder_paths.get_save_image_path(
            filename_prefix, folder_paths.get_output_directory()
        )
        is_file = isinstance(mesh, Types.File3D)
        suffix = mesh.format or "glb" if is_file else "glb"
        results = []
        for content in [mesh.get_bytes()] if is_file else _glb_files(mesh, metadata_of(cls)):
            name = f"{stem}_{number + len(results):05}_.{suffix}"
            with open(os.path.join(folder, name), "wb") as file:
                file.write(content)
            results.append({"filename": name, "subfolder": subfolder, "type": "output"})
        return io.NodeOutput(ui={"3d": results})


def _glb_files(mesh, metadata):
    """The bytes of each mesh that has something to see. ValueError if none has."""
    from comfy_extras.geometry import gltf, meshes

    bodies = meshes.bodies_of(mesh)
    seen = [body for body in bodies if len(body.faces)] or bodies[:1]
    return [gltf.write_glb(body, metadata) for body in seen]


class MeshToFile3D(io.ComfyNode):
    """A mesh as a GLB file in memory."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MeshToFile3D",
            display_name="Create 3D File (from Mesh)",
            category="3d",
            description="Makes a GLB file of a mesh, the first one of a batch.",
            search_aliases=["mesh to glb", "mesh to file", "export mesh"],
            inputs=[io.Mesh.Input("mesh")],
            outputs=[io.File3DGLB.Output(display_name="model_3d")],
        )

    @classmethod
    def execute(cls, mesh):
        from comfy_extras.geometry import gltf, meshes

        content = gltf.write_glb(meshes.bodies_of(mesh)[0])
        return io.NodeOutput(Types.File3D(BytesIO(content), file_format="glb"))


def _number(name, default, most, step):
    return io.Float.Input(name, default=default, min=-most, max=most, step=step)


def _rotation(mode):
    """(3, 3): the matrix of a rotation: about x, then y, then z, or that of a quaternion."""
    from scipy.spatial.transform import Rotation

    if mode["mode"] == "euler_xyz":
        angles = [mode[f"angle_{axis}"] for axis in "xyz"]
        return Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    values = [mode[name] for name in ("qx", "qy", "qz", "qw")]
    if sum(value * value for value in values) < 1e-16:
        raise ValueError("The quaternion is zero, and names no rotation. Set qw to 1 for none.")
    return Rotation.from_quat(values).as_matrix()


class RotateMesh(io.ComfyNode):
    """Turns a mesh."""

    @classmethod
    def define_schema(cls):
        angles = [_number(f"angle_{axis}", 0.0, 360.0, 0.1) for axis in "xyz"]
        values = [_number(f"q{axis}", float(axis == "w"), 1.0, 0.001) for axis in "wxyz"]
        options = [io.DynamicCombo.Option("euler_xyz", angles), io.DynamicCombo.Option("quaternion", values)]
        return io.Schema(
            node_id="RotateMesh",
            display_name="Rotate Mesh",
            category="3d/mesh",
            description="Turns a mesh about the origin: by angles about x, y and z in turn, or a quaternion.",
            inputs=[io.Mesh.Input("mesh"), io.DynamicCombo.Input("mode", options=options)],
            outputs=[io.Mesh.Output(display_name="mesh")],
        )

    @classmethod
    def execute(cls, mesh, mode):
        import copy

        import torch

        matrix = torch.from_numpy(_rotation(mode)).T
        turned = copy.copy(mesh)
        turned.vertices = mesh.vertices @ matrix.to(mesh.vertices)
        if mesh.normals is not None:
            turned.normals = mesh.normals @ matrix.to(mesh.normals)
        if mesh.tangents is not None:
            directions = mesh.tangents[..., :3] @ matrix.to(mesh.tangents)
            turned.tangents = torch.cat([directions, mesh.tangents[..., 3:]], dim=-1)
        return io.NodeOutput(turned)


class MergeMeshes(io.ComfyNode):
    """Several meshes as one."""

    @classmethod
    def define_schema(cls):
        many = io.Autogrow.TemplatePrefix(io.Mesh.Input("mesh"), prefix="mesh", min=2, max=50)
        return io.Schema(
            node_id="MergeMeshes",
            display_name="Merge Meshes",
            category="3d/mesh",
            description="Puts meshes into one, with the first texture that there is.",
            inputs=[io.Autogrow.Input("meshes", many)],
            outputs=[io.Mesh.Output(display_name="mesh")],
        )

    @classmethod
    def execute(cls, meshes):
        from comfy_extras.geometry import merging
        from comfy_extras.geometry import meshes as batches

        bodies = [batches.bodies_of(mesh)[0] for mesh in meshes.values()]
        return io.NodeOutput(batches.batch_of([merging.merged(bodies)]))


class GetMeshInfo(io.ComfyNode):
    """How large a mesh is, and what it has."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="GetMeshInfo",
            display_name="Get Mesh Info",
            category="3d/mesh",
            description="Tells the number of vertices and faces, and what is laid on them.",
            inputs=[io.Mesh.Input("mesh")],
            outputs=[io.Mesh.Output(display_name="mesh"), io.String.Output(display_name="info")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, mesh):
        from comfy_extras.geometry import merging, meshes

        text = merging.described(meshes.bodies_of(mesh), mesh)
        return io.NodeOutput(mesh, text, ui=ui.PreviewText(text))


class _Save(io.ComfyNode):
    """Saves a 3D file and shows it."""

    @classmethod
    def execute(cls, model_3d, viewport_state, width, height, filename_prefix, **links):
        folder, stem, number, subfolder, _ = folder_paths.get_save_image_path(
            filename_prefix, folder_paths.get_output_directory()
        )
        name = f"{stem}_{number:05}.{model_3d.format or 'glb'}"
        model_3d.save_to(os.path.join(folder, name))
        told = f"{subfolder}/{name}" if subfolder else name
        return shown(model_3d, told, viewport_state, (width, height), **links)


def _saver(node_id, title, kinds, output, aliases):
    file, state = viewer_inputs(kinds)
    return io.Schema(
        node_id=node_id,
        display_name=title,
        category="3d",
        description="Saves a 3D file in the output folder, and shows it.",
        search_aliases=aliases,
        is_experimental=True,
        is_output_node=True,
        inputs=[*file, _prefix_input(), *state],
        outputs=viewer_outputs(output),
    )


class Save3DAdvanced(_Save):
    """Saves a mesh file."""

    @classmethod
    def define_schema(cls):
        aliases = ["save 3d", "export 3d model", "save mesh advanced"]
        return _saver("Save3DAdvanced", "Save 3D (Advanced)", MESH_FILES, io.File3DAny, aliases)


class SaveGaussianSplat(_Save):
    """Saves splats."""

    @classmethod
    def define_schema(cls):
        aliases = ["save splat", "save gaussian splat", "export gaussian", "export splat"]
        return _saver("SaveGaussianSplat", "Save Splat", SPLAT_FILES, io.File3DSplatAny, aliases)


class SavePointCloud(_Save):
    """Saves points."""

    @classmethod
    def define_schema(cls):
        aliases = ["save point cloud", "save pointcloud", "export point cloud"]
        return _saver("SavePointCloud", "Save Point Cloud", POINT_FILES, io.File3DPointCloudAny, aliases)


class Save3DExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [
            SaveGLB, MeshToFile3D, RotateMesh, MergeMeshes, GetMeshInfo, Save3DAdvanced, SaveGaussianSplat,
            SavePointCloud,
        ]  # fmt: skip


def comfy_entrypoint():
    return Save3DExtension()
