"""3D files: chosen, and shown in the web page's viewer."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import folder_paths
from comfy_api.latest import ComfyExtension, InputImpl, Types, io, ui

MESH_SUFFIXES = (".gltf", ".glb", ".obj", ".fbx", ".stl")
SPLAT_SUFFIXES = (".spz", ".splat", ".ply", ".ksplat")
MESH_FILES = (
    io.File3DGLB, io.File3DGLTF, io.File3DFBX, io.File3DOBJ, io.File3DSTL, io.File3DUSDZ, io.File3DAny,
)  # fmt: skip
SPLAT_FILES = (io.File3DSplatAny, io.File3DPLY, io.File3DSPLAT, io.File3DSPZ, io.File3DKSPLAT)
POINT_FILES = (io.File3DPointCloudAny, io.File3DPLY)


def _files(suffixes):
    """Names of the 3D files in `3d` of the input folder."""
    root = Path(folder_paths.get_input_directory())
    found = [path for path in (root / "3d").rglob("*") if path.suffix.lower() in suffixes]
    return ["none", *sorted(path.relative_to(root).as_posix() for path in found)]


def _chosen(suffixes):
    return io.Combo.Input("model_file", options=_files(suffixes), upload=io.UploadType.model)


def size_inputs():
    """Width and height of the viewer's picture."""
    return [io.Int.Input(side, default=1024, min=1, max=4096, step=1) for side in ("width", "height")]


def size_outputs():
    """The same, handed on."""
    return [io.Int.Output(display_name=side) for side in ("width", "height")]


def _is_valid(model_file):
    if not model_file or model_file == "none" or folder_paths.exists_annotated_filepath(model_file):
        return True
    return f"Invalid 3D file: {model_file}. It is not there any more; upload it again or choose another."


def _opened(model_file):
    is_chosen = model_file and model_file != "none"
    return Types.File3D(folder_paths.get_annotated_filepath(model_file)) if is_chosen else None


def _picture(name):
    """(picture, mask) of a file that the viewer made."""
    import comfy.picture_files

    return comfy.picture_files.load_picture(folder_paths.get_annotated_filepath(name))


class Load3D(io.ComfyNode):
    """A 3D file, and what the viewer shows of it."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Load3D",
            display_name="Load 3D & Animation",
            category="3d",
            description="Loads a 3D file and gives its picture as it is seen in the viewer.",
            is_experimental=True,
            essentials_category="Basics",
            inputs=[_chosen(MESH_SUFFIXES + SPLAT_SUFFIXES), io.Load3D.Input("image"), *size_inputs()],
            outputs=[
                io.Image.Output(display_name="image"),
                io.Mask.Output(display_name="mask"),
                io.String.Output(display_name="mesh_path"),
                io.Image.Output(display_name="normal"),
                io.Load3DCamera.Output(display_name="camera_info"),
                io.Video.Output(display_name="recording_video"),
                io.File3DAny.Output(display_name="model_3d"),
                io.Load3DModelInfo.Output(display_name="model_3d_info"),
            ],
        )

    @classmethod
    def validate_inputs(cls, model_file, **others):
        return _is_valid(model_file)

    @classmethod
    def execute(cls, model_file, image, **others):
        picture, _ = _picture(image["image"])
        _, mask = _picture(image["mask"])
        normal, _ = _picture(image["normal"])
        recording = image.get("recording") or None
        video = recording and InputImpl.VideoFromFile(folder_paths.get_annotated_filepath(recording))
        file = _opened(model_file)
        path = model_file if file else ""
        info = image.get("model_3d_info", [])
        return io.NodeOutput(picture, mask, path, normal, image["camera_info"], video, file, info)


class Load3DAdvanced(io.ComfyNode):
    """A 3D file and the state of its viewer."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Load3DAdvanced",
            display_name="Load 3D (Advanced)",
            category="3d",
            description="Loads a 3D file, with the camera and the places of its objects.",
            search_aliases=["load mesh", "load gltf", "load glb", "load obj", "load fbx", "load stl"],
            is_experimental=True,
            inputs=[_chosen(MESH_SUFFIXES), io.Load3D.Input("viewport_state"), *size_inputs()],
            outputs=viewer_outputs(io.File3DAny),
        )

    @classmethod
    def validate_inputs(cls, model_file, **others):
        return _is_valid(model_file)

    @classmethod
    def execute(cls, model_file, viewport_state, width, height, **others):
        state = viewport_state if isinstance(viewport_state, dict) else {}
        info, camera = state.get("model_3d_info", []), state.get("camera_info")
        return io.NodeOutput(_opened(model_file), info, camera, width, height)


class Preview3D(io.ComfyNode):
    """Shows a 3D file."""

    @classmethod
    def define_schema(cls):
        name = io.String.Input("model_file", default="", tooltip="A file, or its path in the output folder.")
        return io.Schema(
            node_id="Preview3D",
            display_name="Preview 3D & Animation",
            category="3d",
            description="Shows a 3D file.",
            search_aliases=["view mesh", "3d viewer"],
            is_experimental=True,
            is_output_node=True,
            inputs=[
                io.MultiType.Input(name, list(MESH_FILES)),
                io.Load3DCamera.Input("camera_info", optional=True, advanced=True),
                io.Image.Input("bg_image", optional=True, advanced=True, tooltip="What is behind it."),
            ],
        )

    @classmethod
    def execute(cls, model_file, camera_info=None, bg_image=None):
        name = model_file
        if isinstance(model_file, Types.File3D):
            name = f"preview3d_{uuid.uuid4().hex}.{model_file.format}"
            model_file.save_to(os.path.join(folder_paths.get_output_directory(), name))
        return io.NodeOutput(ui=ui.PreviewUI3D(name, camera_info, bg_image=bg_image))


def viewer_inputs(kinds):
    """A file, the viewer's state and what may stand in its place."""
    return (
        [io.MultiType.Input("model_3d", list(kinds))],
        [
            io.Load3D.Input("viewport_state"),
            *size_inputs(),
            io.Load3DModelInfo.Input("model_3d_info", optional=True, advanced=True),
            io.Load3DCamera.Input("camera_info", optional=True, advanced=True),
        ],
    )


def viewer_outputs(kind):
    """What nodes with a viewer give."""
    return [
        kind.Output(display_name="model_3d"),
        io.Load3DModelInfo.Output(display_name="model_3d_info"),
        io.Load3DCamera.Output(display_name="camera_info"),
        *size_outputs(),
    ]


def shown(file, name, viewport_state, size, model_3d_info=None, camera_info=None):
    """The output of a node that shows `file`, saved as `name`. Links go before the viewer's state."""
    state = viewport_state if isinstance(viewport_state, dict) else {}
    camera = state.get("camera_info") if camera_info is None else camera_info
    info = state.get("model_3d_info", []) if model_3d_info is None else model_3d_info
    return io.NodeOutput(file, info, camera, *size, ui=ui.PreviewUI3DAdvanced(name, camera, info))


class _Preview(io.ComfyNode):
    """Shows a file of the temporary folder."""

    file_prefix = ""

    @classmethod
    def execute(cls, model_3d, viewport_state, width, height, **links):
        name = f"{cls.file_prefix}_{uuid.uuid4().hex}.{model_3d.format}"
        model_3d.save_to(os.path.join(folder_paths.get_temp_directory(), name))
        return shown(model_3d, name, viewport_state, (width, height), **links)


def _preview(node_id, title, kinds, output, aliases):
    file, state = viewer_inputs(kinds)
    return io.Schema(
        node_id=node_id,
        display_name=title,
        category="3d",
        description="Shows it in the viewer; gives the camera and the places of objects as they are seen.",
        search_aliases=aliases,
        is_experimental=True,
        is_output_node=True,
        inputs=[*file, *state],
        outputs=viewer_outputs(output),
    )


class Preview3DAdvanced(_Preview):
    """Shows a mesh file."""

    file_prefix = "preview3d_advanced"

    @classmethod
    def define_schema(cls):
        aliases = ["preview 3d", "3d viewer", "view mesh", "frame 3d", "3d camera output"]
        return _preview("Preview3DAdvanced", "Preview 3D (Advanced)", MESH_FILES, io.File3DAny, aliases)


class PreviewGaussianSplat(_Preview):
    """Shows splats."""

    file_prefix = "preview_splat"

    @classmethod
    def define_schema(cls):
        aliases = [
            "view splat", "view gaussian", "view gaussian splat", "preview gaussian",
            "preview gaussian splat", "view 3dgs", "preview 3dgs", "preview ply", "preview spz",
            "preview splat", "preview ksplat",
        ]  # fmt: skip
        return _preview("PreviewGaussianSplat", "Preview Splat", SPLAT_FILES, io.File3DSplatAny, aliases)


class PreviewPointCloud(_Preview):
    """Shows points."""

    file_prefix = "preview_pointcloud"

    @classmethod
    def define_schema(cls):
        aliases = [
            "view point cloud", "view pointcloud", "preview point cloud", "preview pointcloud", "preview ply",
        ]  # fmt: skip
        return _preview(
            "PreviewPointCloud", "Preview Point Cloud", POINT_FILES, io.File3DPointCloudAny, aliases
        )


class Load3DExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [
            Load3D, Load3DAdvanced, Preview3D, Preview3DAdvanced, PreviewGaussianSplat, PreviewPointCloud,
        ]  # fmt: skip


def comfy_entrypoint():
    return Load3DExtension()
