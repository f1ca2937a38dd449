"""A new, even mesh around an old one: distances on a grid near the surface, and Dual Contouring (Ju et al.,
2002).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy

from comfy_extras.geometry import topology, voxels
from comfy_extras.geometry.surfaces import Surface

MARGIN_CELLS = 4
PLANE_REGULARIZATION = 0.05  # how much a vertex is held in the middle of the crossings


@dataclass
class Grid:
    """Places are `origin + index * cell`, with as many on each side."""

    origin: numpy.ndarray
    cell: float
    size: int

    @classmethod
    def around(cls, body, resolution):
        """A cube around a mesh."""
        low, high = body.vertices.min(axis=0), body.vertices.max(axis=0)
        cell = float((high - low).max()) / max(resolution - 2 * MARGIN_CELLS, 1) or 1.0
        return cls((low + high) / 2 - cell * (resolution - 1) / 2, cell, resolution)

    def places(self, indices):
        """(P, 3) x, y, z of indices (P, 3) along D, H, W."""
        return self.origin + indices[:, ::-1] * self.cell

    def from_unit(self, vertices):
        """Places of what `voxels` gives, where value i stands at (2 i + 1) / n - 1."""
        return self.origin + ((vertices + 1) * self.size / 2 - 0.5) * self.cell


def _band(grid, surface, width):
    """Indices (P, 3) of the places of a grid that are not farther from the surface than `width` cells, at
    least.
    """
    from scipy.ndimage import binary_dilation

    near = numpy.zeros((grid.size,) * 3, bool)
    index = numpy.rint((surface.samples - grid.origin) / grid.cell).astype(int)[:, ::-1]
    near[tuple(numpy.clip(index, 0, grid.size - 1).T)] = True
    return numpy.argwhere(
        binary_dilation(near, numpy.ones((3, 3, 3), bool), iterations=int(numpy.ceil(width)) + 1)
    )


def distances(grid, surface, width, is_signed):
    """(D, H, W): how far outside of a mesh each place of a grid is, in cells; exact near the surface. With a
    sign,
    what cannot be reached from the border is inside.
    """
    from scipy.ndimage import label

    indices = _band(grid, surface, width)
    points = grid.places(indices)
    nearest, distance, face = surface.nearest(points)
    far = width + 2.0
    field = numpy.full((grid.size,) * 3, far, numpy.float32)
    if is_signed:
        # A border of empty places joins all that is outside.
        parts = label(numpy.pad(~_mask(field.shape, indices), 1, constant_values=True))[0][1:-1, 1:-1, 1:-1]
        field[parts > 1] = -far
        distance = distance * numpy.where(((points - nearest) * surface.normals[face]).sum(axis=1) < 0, -1, 1)
    field[tuple(indices.T)] = numpy.clip(distance / grid.cell, -far, far)
    return field


def _mask(shape, indices):
    mask = numpy.zeros(shape, bool)
    mask[tuple(indices.T)] = True
    return mask


def plane_placing(grid, surface):
    """A function that puts the vertex of a cell where the planes of the surface near its crossings meet."""

    def place(cells, crossings, crosses):
        number, edge = numpy.nonzero(crosses)
        # A cell's corner stands half a cell before it, and the grid is padded by one: see voxels.surface_net.
        inside = crossings[number, edge]
        _, _, face = surface.nearest(grid.places(cells[number] + inside - 1.0))
        normals = surface.normals[face][:, ::-1]
        weights = crosses.sum(axis=1, keepdims=True)
        middle = (crossings * crosses[..., None]).sum(axis=1) / weights
        matrix = numpy.zeros((len(cells), 3, 3)) + numpy.eye(3) * PLANE_REGULARIZATION
        right = numpy.zeros((len(cells), 3))
        # The crossings come cell by cell, and each cell has some.
        first = numpy.flatnonzero(numpy.diff(number, prepend=-1))
        matrix += numpy.add.reduceat(normals[:, :, None] * normals[:, None], first)
        along = (normals * (inside - middle[number])).sum(axis=1, keepdims=True)
        right += numpy.add.reduceat(normals * along, first)
        return numpy.clip(middle + numpy.linalg.solve(matrix, right[..., None])[..., 0], 0, 1)

    return place


def smoothed(vertices, faces, times):
    """Vertices moved to the mean of their neighbours and back a little more, so that nothing shrinks
    (Taubin, 1995).
    """
    if not len(faces):
        return vertices
    begin = numpy.concatenate([faces[:, [0, 1, 2]].reshape(-1), faces[:, [1, 2, 0]].reshape(-1)])
    end = numpy.concatenate([faces[:, [1, 2, 0]].reshape(-1), faces[:, [0, 1, 2]].reshape(-1)])
    count = numpy.maximum(numpy.bincount(begin, minlength=len(vertices)), 1)[:, None]
    for factor in (0.5, -0.53) * times:
        sums = numpy.stack(
            [numpy.bincount(begin, vertices[end, axis], len(vertices)) for axis in range(3)], axis=1
        )
        vertices = vertices + factor * (sums / count - vertices)
    return vertices


def signed_volume(corners):
    """Six times the volume inside of triangles (M, 3, 3); negative if they look inwards."""
    a, b, c = corners.transpose(1, 0, 2)
    return float((a * numpy.cross(b, c)).sum())


def without_inner_parts(vertices, faces, *, inverted, enclosed):
    """Without connected parts that look inwards, or that lie within the box around another one."""
    if not len(faces) or not (inverted or enclosed):
        return vertices, faces
    part = topology.components(faces, len(vertices))
    boxes = {}
    dropped = set()
    for number in numpy.unique(part):
        corners = vertices[faces[part == number]]
        boxes[number] = corners.min(axis=(0, 1)), corners.max(axis=(0, 1))
        if inverted and signed_volume(corners) < 0:
            dropped.add(number)
    for number, (low, high) in boxes.items() if enclosed else ():
        others = [box for other, box in boxes.items() if other != number]
        if any((box_low < low).all() and (box_high > high).all() for box_low, box_high in others):
            dropped.add(number)
    faces = faces[~numpy.isin(part, list(dropped))]
    kept, number = numpy.unique(faces, return_inverse=True)
    return vertices[kept], number.reshape(-1, 3)


def remeshed(body, resolution, *, is_signed, qef, band, project_back, smooth, small, inverted, enclosed):
    """The new mesh. Signed, it is the surface itself; unsigned, a skin around it, `band` cells away."""
    if not len(body.faces):
        raise ValueError("The mesh has no faces to remesh. Link one that has.")
    grid = Grid.around(body, resolution)
    surface = Surface(body, grid.cell / 2)
    field = distances(grid, surface, band + 1, is_signed)
    place = plane_placing(grid, surface) if qef and is_signed else None
    vertices, faces = voxels.surface_net(-field, 0.0 if is_signed else -float(band), place)
    vertices = grid.from_unit(vertices.astype(numpy.float64))
    vertices, faces = topology.without_small_parts(vertices, faces, small)
    vertices, faces = without_inner_parts(vertices, faces, inverted=inverted, enclosed=enclosed)
    vertices = smoothed(vertices, faces, smooth)
    if project_back and len(vertices):
        vertices = vertices + project_back * (surface.nearest(vertices)[0] - vertices)
    return body.shape_only(vertices, faces)
