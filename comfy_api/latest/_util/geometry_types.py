"""Bodies: volumes, surfaces, splats, and files that hold them. Batches come first in every shape."""

from __future__ import annotations

import shutil
from io import BytesIO
from pathlib import Path
from typing import IO, Any


class VOXEL:
    """Volumes; each may have a resolution of its own."""

    def __init__(self, data: Any, voxel_colors: Any = None, resolution: Any = None) -> None:
        self.data = data
        self.voxel_colors = voxel_colors
        self.resolution = resolution


class SPLAT:
    """Gaussian splats, N per item, filled up with zeros where `counts` (B,) says that an item has fewer.

    positions, scales (B, N, 3); rotations (B, N, 4) as w, x, y, z; opacities (B, N, 1) in 0..1;
    sh (B, N, (degree + 1) ** 2, 3) with the plain colour first.
    """

    def __init__(
        self, positions: Any, scales: Any, rotations: Any, opacities: Any, sh: Any, counts: Any = None
    ) -> None:
        self.positions = positions
        self.scales = scales
        self.rotations = rotations
        self.opacities = opacities
        self.sh = sh
        self.counts = counts


class MESH:
    """Surfaces of triangles: vertices (B, N, 3), faces (B, M, 3), and what is laid on them.

    `vertex_counts` and `face_counts` (B,) are given together, where items have different numbers of them.
    Textures are (B, H, W, 3): `metallic_roughness` holds roughness in G and metal in B, and with
    `occlusion_in_mr` occlusion in R.
    """

    def __init__(
        self,
        vertices: Any,
        faces: Any,
        uvs: Any = None,
        vertex_colors: Any = None,
        texture: Any = None,
        metallic_roughness: Any = None,
        vertex_counts: Any = None,
        face_counts: Any = None,
        unlit: bool = False,
        normals: Any = None,
        tangents: Any = None,
        normal_map: Any = None,
        occlusion_in_mr: bool = False,
        material: dict[str, Any] | None = None,
        emissive: Any = None,
    ) -> None:
        if (vertex_counts is None) != (face_counts is None):
            raise ValueError("Only one of vertex_counts and face_counts is given. Give both or neither.")
        self.vertices = vertices
        self.faces = faces
        self.uvs = uvs
        self.vertex_colors = vertex_colors
        self.texture = texture
        self.metallic_roughness = metallic_roughness
        self.vertex_counts = vertex_counts
        self.face_counts = face_counts
        self.unlit = unlit
        self.normals = normals
        self.tangents = tangents
        self.normal_map = normal_map
        self.occlusion_in_mr = occlusion_in_mr
        self.material = material
        self.emissive = emissive


class File3D:
    """A 3D file, on disk (a path) or in memory (a stream). `format` is its suffix without the dot."""

    def __init__(self, source: str | IO[bytes], file_format: str = "") -> None:
        self._source = source
        self.format = file_format or (Path(source).suffix if isinstance(source, str) else "")

    @property
    def format(self) -> str:
        """The suffix, in small letters."""
        return self._format

    @format.setter
    def format(self, value: str) -> None:
        self._format = (value or "").lstrip(".").lower()

    @property
    def is_disk_backed(self) -> bool:
        """Is it a file on disk?"""
        return isinstance(self._source, str)

    def get_source(self) -> str | IO[bytes]:
        """The path, or the stream at its start."""
        if not isinstance(self._source, str) and hasattr(self._source, "seek"):
            self._source.seek(0)
        return self._source

    def get_bytes(self) -> bytes:
        """The content."""
        source = self.get_source()
        return Path(source).read_bytes() if isinstance(source, str) else source.read()

    def get_data(self) -> BytesIO:
        """The content as a stream."""
        source = self.get_source()
        return source if isinstance(source, BytesIO) else BytesIO(self.get_bytes())

    def save_to(self, path: str) -> str:
        """Write it to a file, making its folder. Returns the path."""
        target, source = Path(path), self.get_source()
        target.parent.mkdir(parents=True, exist_ok=True)
        if not isinstance(source, str):
            target.write_bytes(source.read())
        elif Path(source).resolve() != target.resolve():
            shutil.copy2(source, target)
        return str(target)

    def __repr__(self) -> str:
        source = repr(self._source) if isinstance(self._source, str) else "a stream"
        return f"File3D({source}, format={self._format!r})"
