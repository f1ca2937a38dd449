"""Kinds of values in three dimensions: files by format, and what the 3D viewer of the web page gives."""

from __future__ import annotations

from typing import Any, TypedDict

from comfy_api.latest._util.geometry_types import File3D
from comfy_api.latest.io.kinds import ComfyTypeIO, comfytype


@comfytype(io_type="FILE_3D")
class File3DAny(ComfyTypeIO):
    """A 3D file of any format."""

    Type = File3D


@comfytype(io_type="FILE_3D_GLB")
class File3DGLB(ComfyTypeIO):
    """A GLB file: binary glTF."""

    Type = File3D


@comfytype(io_type="FILE_3D_GLTF")
class File3DGLTF(ComfyTypeIO):
    """A glTF file with files beside it."""

    Type = File3D


@comfytype(io_type="FILE_3D_FBX")
class File3DFBX(ComfyTypeIO):
    """An FBX file."""

    Type = File3D


@comfytype(io_type="FILE_3D_OBJ")
class File3DOBJ(ComfyTypeIO):
    """An OBJ file."""

    Type = File3D


@comfytype(io_type="FILE_3D_STL")
class File3DSTL(ComfyTypeIO):
    """An STL file."""

    Type = File3D


@comfytype(io_type="FILE_3D_USDZ")
class File3DUSDZ(ComfyTypeIO):
    """A USDZ file."""

    Type = File3D


@comfytype(io_type="FILE_3D_PLY")
class File3DPLY(ComfyTypeIO):
    """A PLY file: points or splats."""

    Type = File3D


@comfytype(io_type="FILE_3D_SPLAT")
class File3DSPLAT(ComfyTypeIO):
    """A SPLAT file."""

    Type = File3D


@comfytype(io_type="FILE_3D_SPZ")
class File3DSPZ(ComfyTypeIO):
    """An SPZ file."""

    Type = File3D


@comfytype(io_type="FILE_3D_KSPLAT")
class File3DKSPLAT(ComfyTypeIO):
    """A KSPLAT file."""

    Type = File3D


@comfytype(io_type="FILE_3D_SPLAT_ANY")
class File3DSplatAny(ComfyTypeIO):
    """A file of splats, of any format."""

    Type = File3D


@comfytype(io_type="FILE_3D_POINT_CLOUD_ANY")
class File3DPointCloudAny(ComfyTypeIO):
    """A file of points, of any format."""

    Type = File3D


class _CameraInfo(TypedDict):
    position: dict[str, float]
    target: dict[str, float]
    zoom: float
    cameraType: str


@comfytype(io_type="LOAD3D_CAMERA")
class Load3DCamera(ComfyTypeIO):
    """A camera. Right-handed, Y up, looking down -Z; lengths in units of the scene, `fov` in degrees."""

    class CameraInfo(_CameraInfo, total=False):
        """`cameraType` is "perspective" or "orthographic"; `frustum` belongs to the latter."""

        quaternion: dict[str, float]
        fov: float
        aspect: float
        near: float
        far: float
        frustum: dict[str, float]

    Type = CameraInfo


@comfytype(io_type="LOAD3D_MODEL_INFO")
class Load3DModelInfo(ComfyTypeIO):
    """Where objects stand in the scene."""

    class Model3DTransform(TypedDict):
        """Right-handed, Y up; `scale` multiplies."""

        position: dict[str, float]
        quaternion: dict[str, float]
        scale: dict[str, float]

    Type = list[Model3DTransform]


class _Model3D(TypedDict):
    image: str
    mask: str
    normal: str
    camera_info: Any


@comfytype(io_type="LOAD_3D")
class Load3D(ComfyTypeIO):
    """What the viewer gives: names of its pictures, and the camera."""

    class Model3DDict(_Model3D, total=False):
        """`recording` is the name of a video."""

        recording: str
        model_3d_info: list[Any]

    Type = Model3DDict


@comfytype(io_type="LOAD_3D_ANIMATION")
class Load3DAnimation(Load3D):
    """The same of an object that moves."""
