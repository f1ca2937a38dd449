"""A surface around Gaussian splats: where they are dense."""

from __future__ import annotations

import numpy

from comfy_extras.geometry import meshes, remeshing, topology, voxels
from comfy_extras.geometry.splats import TO_WORLD

SPLATS_AT_ONCE = 1 << 21  # pairs of a splat and a place of the grid
MARGIN_CELLS = 3
LEAST_SHARE = 1e-4  # of a splat in a place: less is not counted


def density(cloud, resolution, kernel, sharpen):
    """(volume (D, H, W), three of colours, origin (3,), size of a cell): the sum of all splats on a
    grid, each as
    far as `kernel` cells.
    """
    low, high = cloud.positions.min(axis=0), cloud.positions.max(axis=0)
    cell = float((high - low).max()) / max(resolution - 2 * MARGIN_CELLS, 1) or 1.0
    origin = (low + high) / 2 - cell * (resolution - 1) / 2
    offsets = numpy.stack(numpy.meshgrid(*[numpy.arange(-kernel, kernel + 1)] * 3), axis=-1).reshape(-1, 3)
    # A splat thinner than a cell would be missed by the grid.
    shapes = cloud.covariances() + numpy.eye(3) * (cell / 2) ** 2
    inverse = numpy.linalg.inv(shapes)
    volume, weights, *colors = numpy.zeros((5, resolution**3), numpy.float32)
    step = max(SPLATS_AT_ONCE // len(offsets), 1)
    for begin in range(0, len(cloud), step):
        part = slice(begin, begin + step)
        middle = numpy.rint((cloud.positions[part] - origin) / cell).astype(int)
        index = middle[:, None] + offsets
        away = origin + index * cell - cloud.positions[part][:, None]
        share = numpy.exp(-0.5 * ((away @ inverse[part]) * away).sum(axis=2))
        share *= cloud.opacities[part][:, None] * ((index >= 0) & (index < resolution)).all(axis=2)
        number, place = numpy.nonzero(share > LEAST_SHARE)
        index, share = index[number, place], share[number, place].astype(numpy.float32)
        flat = (index[:, 2] * resolution + index[:, 1]) * resolution + index[:, 0]
        numpy.add.at(volume, flat, share)
        powered = share**sharpen
        numpy.add.at(weights, flat, powered)
        for channel, values in zip(colors, cloud.colors[part].T.astype(numpy.float32), strict=True):
            numpy.add.at(channel, flat, powered * values[number])
    weights = numpy.maximum(weights, 1e-12)
    side = (resolution,) * 3
    return volume.reshape(side), [(channel / weights).reshape(side) for channel in colors], origin, cell


def meshed(cloud, *, resolution, kernel, smooth, level, min_component, min_opacity, sharpen):
    """The surface where splats are `level` times as dense as at their middles, which are met half way on the
    average.

    Parts of fewer vertices than `min_component` are dropped; colours are linear light.
    The mesh stands in the viewer's world.
    """
    cloud = cloud.kept(cloud.opacities >= min_opacity)
    if not len(cloud):
        raise ValueError(f"No splat has an opacity of {min_opacity:g} or more. Choose a lower min_opacity.")
    volume, colors, origin, cell = density(cloud, resolution, kernel, sharpen)
    index = numpy.clip(numpy.rint((cloud.positions - origin) / cell).astype(int), 0, resolution - 1)
    threshold = level * float(numpy.median(volume[index[:, 2], index[:, 1], index[:, 0]]))
    vertices, faces = voxels.surface_net(volume, max(threshold, 1e-6))
    vertices, faces = _large_parts(vertices, faces, min_component)
    if not len(faces):
        raise ValueError("No part of the surface is large enough. Choose a lower level or min_component.")
    vertices = remeshing.smoothed(vertices.astype(float), faces, smooth)
    inside = (vertices + 1) * resolution / 2 - 0.5
    at = numpy.clip(numpy.rint(inside).astype(int), 0, resolution - 1)
    found = numpy.stack([channel[at[:, 2], at[:, 1], at[:, 0]] for channel in colors], axis=1)
    places = ((origin + inside * cell) * TO_WORLD).astype(numpy.float32)
    return meshes.Body(places, faces, colors=_linear(found))


def _linear(colors):
    """The light of colours of sRGB (IEC 61966-2-1)."""
    curved = ((colors + 0.055) / 1.055) ** 2.4
    return numpy.where(colors <= 0.04045, colors / 12.92, curved).astype(numpy.float32)


def _large_parts(vertices, faces, least):
    if not len(faces):
        return vertices, faces
    part = topology.components(faces, len(vertices))
    sizes = [len(numpy.unique(faces[part == number])) for number in range(part.max() + 1)]
    faces = faces[numpy.array(sizes)[part] >= least]
    kept, number = numpy.unique(faces, return_inverse=True)
    return vertices[kept], number.reshape(-1, 3)
