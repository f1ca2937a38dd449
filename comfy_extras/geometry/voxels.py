"""Surfaces of volumes (D, H, W): where their values cross a threshold. They are full where they are above it.

Vertices are (x, y, z) along W, H, D; the longest side goes from -1 to 1. Value i of a side of n stands in the
middle of its cell, (2 i + 1) / n - 1. Faces turn counterclockwise seen from outside.
"""

from __future__ import annotations

import itertools

import numpy

CORNERS = numpy.array(list(itertools.product((0, 1), repeat=3)))
# Pairs of corners that differ in one axis: the twelve edges of a cell.
EDGES = numpy.array([
    (first, second)
    for first, second in itertools.combinations(range(8), 2)
    if abs(CORNERS[first] - CORNERS[second]).sum() == 1
])  # fmt: skip


def _placed(points, shape):
    """(x, y, z) of places in units of cells, from the corner of the volume on, along D, H, W."""
    return (points[:, ::-1] * (2.0 / max(shape)) - 1.0).astype(numpy.float32)


def _two_triangles(quads):
    """(2 n, 3) triangles of (n, 4) corners, in their order."""
    return quads[:, [0, 1, 2, 0, 2, 3]].reshape(-1, 3)


def surface_net(volume, threshold, place=None):
    """(vertices, faces) of a smooth surface: Naive Surface Nets (S. F. Gibson, 1998).

    One vertex in each cell that the surface passes through, in the middle of where it crosses its edges,
    or where `place(cells (N, 3), crossings (N, 12, 3) in 0..1, crosses (N, 12))` puts it within its cell.
    """
    volume = numpy.asarray(volume, numpy.float32)
    highest = volume.max(initial=-numpy.inf)
    if highest <= threshold:
        return numpy.zeros((0, 3), numpy.float32), numpy.zeros((0, 3), numpy.int64)
    padded = numpy.pad(volume, 1, constant_values=min(2 * threshold - highest, threshold - 1e-3))
    is_full = padded > threshold
    ranges = [[slice(at, size - 1 + at) for at, size in zip(one, is_full.shape)] for one in CORNERS]
    count = sum(is_full[tuple(one)].astype("u1") for one in ranges)
    cells = numpy.argwhere((count > 0) & (count < 8))  # (N, 3)
    values = padded[tuple((cells[:, None] + CORNERS).transpose(2, 0, 1))] - threshold  # (N, 8)
    begin, end = values[:, EDGES[:, 0]], values[:, EDGES[:, 1]]
    crosses = (begin > 0) != (end > 0)
    share = numpy.where(crosses, begin / numpy.where(crosses, begin - end, 1.0), 0.0)[..., None]
    crossings = CORNERS[EDGES[:, 0]] * (1 - share) + CORNERS[EDGES[:, 1]] * share
    if place is None:
        inside = (crossings * crosses[..., None]).sum(axis=1) / crosses.sum(axis=1, keepdims=True)
    else:
        inside = place(cells, crossings, crosses)
    number = numpy.full(count.shape, -1, numpy.int64)
    number[tuple(cells.T)] = numpy.arange(len(cells))
    # Cell c lies between the values c - 1 and c, which stand at c - 0.5 and c + 0.5.
    return _placed(cells + inside - 0.5, volume.shape), _net(is_full, number)


def _net(is_full, number):
    """Triangles: two for each edge of the grid that the surface crosses, between the four cells around it."""
    faces = []
    for axis in range(3):
        first, second = (axis + 1) % 3, (axis + 2) % 3
        ahead = numpy.diff(is_full.astype("i1"), axis=axis)
        for step, order in ((-1, (0, 1, 2, 3)), (1, (3, 2, 1, 0))):
            at = numpy.argwhere(ahead == step)
            around = []
            for a, b in ((0, 0), (-1, 0), (-1, -1), (0, -1)):
                place = at.copy()
                place[:, first] += a
                place[:, second] += b
                around.append(number[tuple(place.T)])
            faces.append(_two_triangles(numpy.stack(around, axis=1)[:, order]))
    # The axes run D, H, W and vertices x, y, z: that mirrors, so the turn is reversed.
    return numpy.concatenate(faces)[:, ::-1].copy()


def cubes(volume, threshold):
    """(vertices, faces) of squares that share nothing: the sides of full cells beside empty ones."""
    is_full = numpy.pad(numpy.asarray(volume) > threshold, 1)
    quads = []
    for axis in range(3):
        ahead = numpy.diff(is_full.astype("i1"), axis=axis)
        first, second = numpy.eye(3, dtype=int)[[(axis + 1) % 3, (axis + 2) % 3]]
        for step in (-1, 1):
            corner = numpy.argwhere(ahead == step)[:, None]
            corner = corner - 1 + numpy.eye(3, dtype=int)[axis]  # without the padding, behind the cell
            ring = numpy.array([0 * first, first, first + second, second])
            quads.append(corner + (ring if step == 1 else ring[::-1]))
    corners = numpy.concatenate(quads).reshape(-1, 3)
    faces = _two_triangles(numpy.arange(len(corners)).reshape(-1, 4))
    return _placed(corners, numpy.asarray(volume).shape), faces
