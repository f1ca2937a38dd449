"""Pictures of Gaussian splats: elliptical weighted averages (Zwicker et al., 2001), nearest first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy

from comfy_extras.geometry import cameras, raster
from comfy_extras.geometry.meshes import unit
from comfy_extras.geometry.splats import TO_WORLD

BLUR_PIXELS = 0.3  # variance that every splat gets, so that none falls between pixels
LEAST_ALPHA, MOST_ALPHA = 1 / 255, 0.99
REACH = 3.0  # standard deviations
CLAY = 0.75


@dataclass
class _Flat:
    """Splats on a picture, nearest first: places (N, 2), inverted shapes (N, 3: xx, xy, yy), reach (N, 2)."""

    places: Any
    inverse: Any
    reach: Any
    opacities: Any
    values: Any
    """(N, C) that are averaged."""


def _flattened(cloud, camera, width, height, scale, values):
    points = cloud.positions * TO_WORLD
    local = (points - camera.position) @ camera.axes.T
    depth = -local[:, 2]
    order = numpy.argsort(depth, kind="stable")
    order = order[depth[order] > 0.01]
    places, _ = camera.seen(points[order].astype(float), width, height)
    x, y, depth = local[order, 0], local[order, 1], depth[order]
    per_unit = camera.pixels_per_unit(depth, height) * numpy.ones(len(order))
    slope = numpy.zeros((len(order), 2, 3))  # of pixels by right, up, back
    slope[:, 0, 0], slope[:, 1, 1] = per_unit, -per_unit
    if not camera.is_orthographic:
        slope[:, 0, 2], slope[:, 1, 2] = per_unit * x / depth, -per_unit * y / depth
    matrix = slope @ (camera.axes * TO_WORLD)
    shape = matrix @ cloud.kept(order).covariances() @ matrix.transpose(0, 2, 1) * scale**2
    xx, xy, yy = shape[:, 0, 0] + BLUR_PIXELS, shape[:, 0, 1], shape[:, 1, 1] + BLUR_PIXELS
    area = numpy.maximum(xx * yy - xy * xy, 1e-12)
    inverse = numpy.stack([yy, -xy, xx], axis=1) / area[:, None]
    reach = REACH * numpy.sqrt(numpy.stack([xx, yy], axis=1))
    return _Flat(places, inverse, reach, cloud.opacities[order], values[order])


def _composed(flat, width, height, sharpen):
    """(sum of values by their share in a pixel (H * W, C), sum of shares (H * W,), what shines through (H *
    W,)).
    """
    through = numpy.ones(height * width)
    sums, shares = numpy.zeros((height * width, flat.values.shape[1])), numpy.zeros(height * width)
    boxes = raster.boxes_around(flat.places - flat.reach, flat.places + flat.reach, width, height)
    for number, x, y in raster.pairs(boxes):
        dx, dy = x + 0.5 - flat.places[number, 0], y + 0.5 - flat.places[number, 1]
        xx, xy, yy = flat.inverse[number].T
        alpha = flat.opacities[number] * numpy.exp(-0.5 * (xx * dx * dx + 2 * xy * dx * dy + yy * dy * dy))
        seen = alpha >= LEAST_ALPHA
        pixel = (y * width + x)[seen]
        order = numpy.argsort(pixel, kind="stable")  # within a pixel, the nearest stays first
        pixel, number, alpha = (
            pixel[order],
            number[seen][order],
            numpy.minimum(alpha[seen][order], MOST_ALPHA),
        )
        if not len(pixel):
            continue
        darker = numpy.log1p(-alpha)
        total = numpy.cumsum(darker)
        first = numpy.flatnonzero(numpy.diff(pixel, prepend=-1))
        length = numpy.diff(first, append=len(pixel))
        before = numpy.repeat(total[first] - darker[first], length)
        share = through[pixel] * alpha * numpy.exp(total - darker - before)
        weight = share * alpha ** (sharpen - 1)
        for channel in range(sums.shape[1]):
            sums[:, channel] += numpy.bincount(pixel, weight * flat.values[number, channel], len(sums))
        shares += numpy.bincount(pixel, weight, len(sums))
        through[pixel[first]] *= numpy.exp(numpy.add.reduceat(darker, first))
    return sums, shares, through


def _normals(cloud, camera):
    """(N, 3): the shortest axis of each splat, towards the camera, as right, up, back."""
    shortest = cloud.scales.argmin(axis=1)
    axis = numpy.take_along_axis(cloud.matrices(), shortest[:, None, None], axis=2)[..., 0] * TO_WORLD
    local = axis @ camera.axes.T
    towards = camera.position - cloud.positions * TO_WORLD
    return local * numpy.where((axis * towards).sum(axis=1, keepdims=True) < 0, -1, 1)


def rendered(cloud, info, width, height, *, style, background, scale, sharpen, headlight):
    """(picture (H, W, 3), mask (H, W)). `background` is a colour or a picture; depth is white where it is
    nearest.
    """
    camera = cameras.camera_of(info)
    depth = -((cloud.positions * TO_WORLD - camera.position) @ camera.axes[2])[:, None]
    colors = numpy.full_like(cloud.colors, CLAY) if style == "clay" else cloud.colors
    values = numpy.concatenate([colors, depth, _normals(cloud, camera)], axis=1)
    sums, shares, through = _composed(
        _flattened(cloud, camera, width, height, scale, values), width, height, sharpen
    )
    mean = sums / numpy.maximum(shares, 1e-9)[:, None]
    cover = (1 - through)[:, None]
    normals = unit(mean[:, 4:])
    if style == "depth":
        found = mean[cover[:, 0] > 0.5, 3]
        low, high = (found.min(), found.max()) if len(found) else (0.0, 1.0)
        picture = numpy.clip((high - mean[:, 3:4]) / max(high - low, 1e-9), 0, 1) * (cover > 0.5)
    elif style == "normal":
        picture = (normals / 2 + 0.5) * (cover > 0.5)
    else:
        facing = numpy.clip(normals[:, 2:], 0, 1) ** (1.0 if style == "clay" else headlight)
        behind = numpy.broadcast_to(background, (height, width, 3)).reshape(-1, 3)
        picture = mean[:, :3] * facing * cover + behind * (1 - cover)
    picture = numpy.broadcast_to(picture, (height * width, 3)).reshape(height, width, 3)
    return picture.astype(numpy.float32), cover.reshape(height, width).astype(numpy.float32)


def framing(cloud, width, height):
    """A camera from which nearly all splats are seen."""
    points = cloud.positions * TO_WORLD
    distance = numpy.linalg.norm(points - points.mean(axis=0), axis=1)
    return cameras.framing(points[distance <= numpy.quantile(distance, 0.99)], width, height, margin=1.25)
