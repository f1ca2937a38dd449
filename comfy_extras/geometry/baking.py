"""What a detailed mesh looks like on the texture of a simple one."""

from __future__ import annotations

import numpy

from comfy_extras.geometry import raster, texturing, topology
from comfy_extras.geometry.meshes import bounding_diagonal, unit
from comfy_extras.geometry.surfaces import Surface

SAMPLES_ACROSS = 256  # of the detailed mesh's size: how near nearest points are looked for
SHADOW_PIXELS = (128, 512)  # the least and most of the pictures that are taken from each direction
CANDIDATES = 16


def with_normals(body):
    """The mesh with smooth normals, if it has none."""
    return body if body.normals is not None else topology.smoothed_normals(body, 180.0)


def _texels(body, size):
    """(seen (S, S), places (P, 3), normals (P, 3), vertex values -> (P, C)) of a texture."""
    face, shares = texturing.texels(body, size)
    seen = face >= 0

    def at_texels(values):
        return raster.blended(face, shares, values, body.faces)[seen].astype(float)

    return seen, at_texels(body.vertices), unit(at_texels(body.normals)), at_texels


def normal_map(low, high, size, cage_distance, ignore_backfaces):
    """(S, S, 3): the normals of the nearest points of `high`, as seen from the surface of `low` (tangent
    space, Y up).

    Where `high` is farther away than `cage_distance` times its size, the map is flat.
    """
    low, high = with_normals(low), with_normals(high)
    flat = numpy.array([0.5, 0.5, 1.0], numpy.float32)
    picture = numpy.broadcast_to(flat, (size, size, 3)).copy()
    seen, places, normals, at_texels = _texels(low, size)
    if not seen.any() or not len(high.faces):
        return picture
    diagonal = bounding_diagonal(high)
    surface = Surface(high, diagonal / SAMPLES_ACROSS)
    facing = normals if ignore_backfaces else None
    nearest, distance, face = surface.nearest(places, facing, CANDIDATES if ignore_backfaces else 1)
    found = _at(high, surface, nearest, face)
    tangents = at_texels(texturing.tangents_of(low))
    along = unit(tangents[:, :3] - normals * (tangents[:, :3] * normals).sum(axis=1, keepdims=True))
    across = numpy.cross(normals, along) * numpy.sign(tangents[:, 3:])
    local = numpy.stack([(found * axis).sum(axis=1) for axis in (along, across, normals)], axis=1)
    local[distance > cage_distance * diagonal] = [0, 0, 1]
    picture[seen] = local / 2 + 0.5
    return raster.spread(picture, seen)


def _at(body, surface, places, face):
    """(P, 3): the normals of a mesh at places in its triangles."""
    corners = surface.corners[face]
    a, b, c = corners.transpose(1, 0, 2)
    whole = numpy.cross(b - a, c - a)
    square = numpy.maximum((whole * whole).sum(axis=1), 1e-30)
    shares = numpy.stack([
        (numpy.cross(c - b, places - b) * whole).sum(axis=1) / square,
        (numpy.cross(a - c, places - c) * whole).sum(axis=1) / square,
        (numpy.cross(b - a, places - a) * whole).sum(axis=1) / square,
    ], axis=1)  # fmt: skip
    return unit((body.normals[body.faces[face]] * shares[..., None]).sum(axis=1))


def directions(count):
    """(count, 3): directions that are spread evenly over a sphere, on a Fibonacci spiral."""
    number = numpy.arange(count) + 0.5
    height = 1 - 2 * number / count
    angle = numpy.pi * (1 + 5**0.5) * number
    radius = numpy.sqrt(1 - height * height)
    return numpy.stack([radius * numpy.cos(angle), height, radius * numpy.sin(angle)], axis=1)


def _distance_to_cover(high, places, direction, middle, radius, pixels):
    """How far from each place the first surface of `high` is that light from a direction meets; negative
    behind.
    """
    right = unit(numpy.cross(direction, [0.0, 1.0, 0.0] if abs(direction[1]) < 0.9 else [1.0, 0.0, 0.0]))
    axes = numpy.stack([right, numpy.cross(direction, right), direction])
    scale = pixels / 2 / (radius * 1.01)

    def seen(points):
        local = (points - middle) @ axes.T
        return local[..., :2] * scale + pixels / 2, local[..., 2]

    corners, depth = seen(high.vertices)
    face, shares = raster.rasterise(
        corners[high.faces], pixels, pixels, depth[high.faces], is_perspective=False
    )
    cover = numpy.where(
        face >= 0, raster.blended(face, shares, depth[:, None], high.faces)[..., 0], -numpy.inf
    )
    at, own = seen(places)
    x, y = numpy.clip(at.astype(int), 0, pixels - 1).T
    return cover[y, x] - own


def occlusion(low, high, size, *, samples, max_distance, strength, bias):
    """(S, S, 1): how much light from all around reaches each place of a texture, 1 for all of it.

    Light comes from `samples` directions; what stands in its way nearer than `max_distance` of the mesh's
    size
    takes it. A surface is not in its own way within `bias` of that size.
    """
    low = with_normals(low)
    picture = numpy.ones((size, size, 1), numpy.float32)
    seen, places, normals, _ = _texels(low, size)
    if not seen.any() or not len(high.faces):
        return picture
    diagonal = bounding_diagonal(high)
    middle = (high.vertices.min(axis=0) + high.vertices.max(axis=0)) / 2
    reach = max(float(numpy.linalg.norm(points - middle, axis=1).max()) for points in (high.vertices, places))
    pixels = int(numpy.clip(2 * size, *SHADOW_PIXELS))
    light, all_light = numpy.zeros(len(places)), numpy.zeros(len(places))
    for direction in directions(2 * samples):  # half of them lie behind each surface
        share = numpy.maximum(normals @ direction, 0)
        gap = _distance_to_cover(high, places, direction, middle, reach, pixels)
        # On a pixel a surface is as deep as it is steep: that much of it is no cover.
        own = 2.1 * reach / pixels * numpy.sqrt(1 - share * share) / numpy.maximum(share, 1e-3)
        is_free = (gap <= bias * diagonal + own) | (gap > max_distance * diagonal)
        light += share * is_free
        all_light += share
    open_share = light / numpy.maximum(all_light, 1e-12)
    picture[seen, 0] = numpy.clip(1 - strength * (1 - open_share), 0, 1)
    return raster.spread(picture, seen)
