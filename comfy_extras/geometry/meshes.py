"""One mesh at a time out of a batch, and a batch of many.

A batch (`MESH`) holds tensors that are filled up to the largest of its meshes; a `Body` is one as arrays.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy

from comfy_api.latest import Types

PER_VERTEX = {"uvs": "uvs", "colors": "vertex_colors", "normals": "normals", "tangents": "tangents"}
TEXTURES = ("texture", "metallic_roughness", "normal_map", "emissive")
OF_ALL = ("unlit", "occlusion_in_mr", "material")


@dataclass
class Body:
    """vertices (N, 3), faces (M, 3) of their numbers; per vertex: uvs (N, 2) with the origin at the top left,
    colors (N, 3 or 4), normals (N, 3), tangents (N, 4).
    """

    vertices: Any
    faces: Any
    uvs: Any = None
    colors: Any = None
    normals: Any = None
    tangents: Any = None
    textures: dict[str, Any] = field(default_factory=dict)
    """Pictures (H, W, 3) of 0..1 by their names in a batch."""
    of_all: dict[str, Any] = field(default_factory=dict)
    """What is said of the whole batch."""

    def corners(self):
        """(M, 3, 3): the corners of each triangle."""
        return self.vertices[self.faces]

    def with_vertices(self, kept, faces):
        """The vertices with these numbers only, in that order; `faces` (M, 3) name their new places."""
        values = {name: None if (old := getattr(self, name)) is None else old[kept] for name in PER_VERTEX}
        return replace(self, vertices=self.vertices[kept], faces=faces, **values)

    def shape_only(self, vertices, faces):
        """A new shape, of which nothing else is known."""
        return Body(
            numpy.asarray(vertices, numpy.float32), numpy.asarray(faces, numpy.int64), of_all=self.of_all
        )


def _array(tensor, index, count=None):
    if tensor is None:
        return None
    item = tensor[index]
    return (item if count is None else item[:count]).detach().cpu().float().numpy()


def bodies_of(mesh):
    """The meshes of a batch. ValueError for a face that names a vertex which is not there."""
    bodies = []
    for index in range(len(mesh.vertices)):
        is_filled = mesh.vertex_counts is not None
        count = int(mesh.vertex_counts[index]) if is_filled else None
        faces = mesh.faces[index][: int(mesh.face_counts[index])] if is_filled else mesh.faces[index]
        body = Body(
            _array(mesh.vertices, index, count),
            faces.detach().cpu().long().numpy(),
            **{name: _array(getattr(mesh, of), index, count) for name, of in PER_VERTEX.items()},
            textures={
                name: _array(getattr(mesh, name), min(index, len(getattr(mesh, name)) - 1))
                for name in TEXTURES
                if getattr(mesh, name) is not None
            },
            of_all={name: getattr(mesh, name) for name in OF_ALL},
        )
        _check(body, index)
        bodies.append(body)
    return bodies


def _check(body, index):
    if len(body.faces) and not 0 <= body.faces.min() <= body.faces.max() < len(body.vertices):
        raise ValueError(
            f"Mesh {index} of the batch has {len(body.vertices)} vertices, and faces that name others "
            f"({body.faces.min()}..{body.faces.max()}). Mend it where it was made."
        )


def _filled(arrays, dtype):
    """(tensor with all arrays, filled up with zeros), None if one of them is missing."""
    import torch

    if any(array is None for array in arrays):
        return None
    widths = {array.shape[1] for array in arrays}
    longest = max(len(array) for array in arrays)
    filled = torch.zeros(len(arrays), longest, max(widths), dtype=dtype)
    for row, array in zip(filled, arrays, strict=True):
        row[: len(array), : array.shape[1]] = torch.from_numpy(numpy.ascontiguousarray(array)).to(dtype)
    return filled


def batch_of(bodies):
    """The batch (`MESH`) of these meshes."""
    import torch

    vertices = [body.vertices for body in bodies]
    faces = [body.faces for body in bodies]
    is_even = len({len(one) for one in vertices}) == 1 and len({len(one) for one in faces}) == 1
    counts = {} if is_even else {
        "vertex_counts": torch.tensor([len(one) for one in vertices]),
        "face_counts": torch.tensor([len(one) for one in faces]),
    }  # fmt: skip
    values = {
        of: _filled([getattr(body, name) for body in bodies], torch.float32)
        for name, of in PER_VERTEX.items()
    }
    pictures = {}
    for name in TEXTURES:
        found = [body.textures.get(name) for body in bodies]
        shapes = {None if one is None else one.shape for one in found}
        if len(shapes) == 1 and None not in shapes:
            pictures[name] = torch.from_numpy(numpy.stack(found).astype(numpy.float32))
    return Types.MESH(
        _filled(vertices, torch.float32), _filled(faces, torch.int64), **values, **pictures, **counts,
        **bodies[0].of_all,
    )  # fmt: skip


def changed(mesh, change):
    """The batch with `change` (a function from Body to Body) applied to each mesh."""
    return batch_of([change(body) for body in bodies_of(mesh)])


def bounding_diagonal(body):
    """Length of the diagonal of the box around a mesh; 0 for none."""
    if not len(body.vertices):
        return 0.0
    return float(numpy.linalg.norm(body.vertices.max(axis=0) - body.vertices.min(axis=0)))


def face_normals(body):
    """(M, 3): normals of the faces, as long as twice their areas."""
    a, b, c = body.corners().transpose(1, 0, 2)
    return numpy.cross(b - a, c - a)


def unit(vectors):
    """Vectors of length 1; those of no length stay."""
    lengths = numpy.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / numpy.where(lengths > 1e-20, lengths, 1.0)
