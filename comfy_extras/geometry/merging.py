"""Several meshes as one, and what there is to say about meshes."""

from __future__ import annotations

import numpy

from comfy_extras.geometry.meshes import PER_VERTEX, TEXTURES, Body

# What vertices of a mesh without a value get, beside meshes that have one.
MISSING = {"uvs": 0.0, "colors": 1.0}


def _joined(bodies, name):
    """The values of all vertices, None if no mesh has them, or if they cannot be made up."""
    arrays = [getattr(body, name) for body in bodies]
    width = max((array.shape[1] for array in arrays if array is not None), default=0)
    if not width or (name not in MISSING and any(array is None for array in arrays)):
        return None
    filled = []
    for body, array in zip(bodies, arrays, strict=True):
        full = numpy.full((len(body.vertices), width), MISSING.get(name, 0.0), numpy.float32)
        if array is not None:
            full[:, : array.shape[1]] = array
            full[:, array.shape[1] :] = 1.0
        filled.append(full)
    return numpy.concatenate(filled)


def merged(bodies):
    """One mesh of all. Of each kind of texture the first that there is is kept."""
    offsets = numpy.cumsum([0, *(len(body.vertices) for body in bodies)])
    faces = [body.faces + offset for body, offset in zip(bodies, offsets[:-1], strict=True)]
    textures = {}
    for body in bodies:
        textures = {**body.textures, **textures}
    return Body(
        numpy.concatenate([body.vertices for body in bodies]),
        numpy.concatenate(faces),
        **{name: _joined(bodies, name) for name in PER_VERTEX},
        textures=textures,
        of_all=bodies[0].of_all,
    )


def described(bodies, mesh):
    """A text of several lines about a batch."""
    vertices = [len(body.vertices) for body in bodies]
    faces = [len(body.faces) for body in bodies]
    lines = [f"Meshes:     {len(bodies)}"] if len(bodies) > 1 else []
    lines += [f"Vertices:   {sum(vertices):,}", f"Faces:      {sum(faces):,}"]
    if len(bodies) > 1:
        pairs = enumerate(zip(vertices, faces, strict=True))
        lines += [f"  [{number}]  {ours:,} vertices, {theirs:,} faces" for number, (ours, theirs) in pairs]
    present = [of for of in PER_VERTEX.values() if getattr(mesh, of) is not None]
    for name in TEXTURES:
        picture = getattr(mesh, name)
        present += [] if picture is None else [f"{name} {picture.shape[-2]}x{picture.shape[-3]}"]
    return "\n".join([*lines, f"Attributes: {', '.join(present) or 'none'}"])
