"""Pictures on meshes: texture coordinates, and pictures made for them. The origin is at the top left."""

from __future__ import annotations

from dataclasses import replace

import numpy

from comfy_extras.geometry import raster
from comfy_extras.geometry.meshes import unit

VOXEL_GAMMA = 2.2


def unwrapped(body, resolution, padding):
    """The mesh cut along seams and laid flat into 0..1, by xatlas."""
    import xatlas

    atlas = xatlas.Atlas()
    atlas.add_mesh(
        numpy.ascontiguousarray(body.vertices, numpy.float32),
        numpy.ascontiguousarray(body.faces, numpy.uint32),
    )
    how = xatlas.PackOptions()
    how.padding, how.resolution = int(padding), int(resolution)
    atlas.generate(pack_options=how)
    kept, faces, uvs = atlas[0]
    return replace(
        body.with_vertices(kept.astype(numpy.int64), faces.astype(numpy.int64)), uvs=uvs, textures={}
    )


def require_uvs(body, node):
    """ValueError if a mesh has no texture coordinates."""
    if body.uvs is None:
        raise ValueError(f"{node} needs a mesh with texture coordinates. Put Unwrap Mesh UVs before it.")
    return body


def within_unit(uvs):
    """Coordinates that leave 0..1, shrunk and moved into it."""
    low, high = uvs.min(axis=0), uvs.max(axis=0)
    if low.min() >= -1e-4 and high.max() <= 1 + 1e-4:
        return uvs
    return ((uvs - low) / max(float((high - low).max()), 1e-12)).astype(numpy.float32)


def texels(body, size):
    """(face (S, S), shares (S, S, 3)): what of a mesh lies on each pixel of its texture."""
    return raster.rasterise(within_unit(body.uvs)[body.faces] * size, size, size)


def atlas_picture(body, size):
    """(S, S, 3): the outlines of the triangles of a texture, each connected piece in its own shade."""
    from PIL import Image, ImageDraw

    from comfy_extras.geometry.topology import components

    picture = Image.new("RGB", (size, size))
    draw = ImageDraw.Draw(picture)
    part = components(body.faces, len(body.vertices))
    shades = numpy.random.default_rng(0).integers(60, 200, (part.max(initial=0) + 1, 3))
    for corners, number in zip(within_unit(body.uvs)[body.faces] * size, part, strict=True):
        points = [tuple(point) for point in corners.tolist()]
        draw.polygon(points, fill=tuple(shades[number].tolist()), outline=(255, 255, 255))
    return numpy.asarray(picture, numpy.float32) / 255


def voxel_places(coords, resolution):
    """Places of the voxels of a grid over -0.5..0.5."""
    return coords.astype(numpy.float64) / resolution - 0.5


def nearest_voxels(points, coords, resolution):
    """Numbers of the voxels that are nearest to points."""
    from scipy.spatial import cKDTree

    return cKDTree(voxel_places(coords, resolution)).query(points)[1]


def painted(body, coords, colors, resolution):
    """The mesh with the colours of the nearest voxels, as linear light; black without any."""
    if not len(coords):
        return replace(body, colors=numpy.zeros_like(body.vertices))
    found = numpy.clip(colors[nearest_voxels(body.vertices, coords, resolution), :3], 0, 1)
    return replace(body, colors=(found**VOXEL_GAMMA).astype(numpy.float32))


def moved_onto(points, reference):
    """The nearest vertices' places of another mesh, in place of points; `reference` None leaves them."""
    from scipy.spatial import cKDTree

    if reference is None:
        return points
    return reference.vertices[cKDTree(reference.vertices).query(points)[1]]


def baked_voxels(body, coords, values, resolution, size, reference=None):
    """(S, S, C): the values of the nearest voxels on the texture of a mesh, without seams."""
    face, shares = texels(body, size)
    seen = face >= 0
    picture = numpy.zeros((size, size, values.shape[1]), numpy.float32)
    if not len(coords) or not seen.any():
        return picture
    places = raster.blended(face, shares, body.vertices, body.faces)[seen]
    picture[seen] = values[nearest_voxels(moved_onto(places, reference), coords, resolution)]
    return raster.spread(picture, seen)


def tangents_of(body):
    """(N, 4): directions in which U grows, and the side on which V grows (1 or -1); normals must be there."""
    a, b, c = body.corners().astype(float).transpose(1, 0, 2)
    ua, ub, uc = body.uvs[body.faces].astype(float).transpose(1, 0, 2)
    (du1, dv1), (du2, dv2) = (ub - ua).T, (uc - ua).T
    area = du1 * dv2 - du2 * dv1
    scale = numpy.where(numpy.abs(area) > 1e-20, 1 / numpy.where(area == 0, 1, area), 0.0)[:, None]
    along_u = ((b - a) * dv2[:, None] - (c - a) * dv1[:, None]) * scale
    along_v = ((c - a) * du1[:, None] - (b - a) * du2[:, None]) * scale
    sums = numpy.zeros((2, len(body.vertices), 3))
    for corner in range(3):
        numpy.add.at(sums[0], body.faces[:, corner], along_u)
        numpy.add.at(sums[1], body.faces[:, corner], along_v)
    normals = body.normals.astype(float)
    flat = unit(sums[0] - normals * (normals * sums[0]).sum(axis=1, keepdims=True))
    # glTF counts V downwards, and its bitangent upwards.
    side = numpy.where((numpy.cross(normals, flat) * -sums[1]).sum(axis=1) < 0, -1.0, 1.0)
    return numpy.concatenate([flat, side[:, None]], axis=1).astype(numpy.float32)
