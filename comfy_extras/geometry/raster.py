"""Triangles as pixels: which one is seen where, and at which point of it."""

from __future__ import annotations

import numpy

PAIRS_AT_ONCE = 2_000_000  # of a triangle and a pixel: bounds the memory


def pairs(boxes):
    """Pieces of (number of a box, x, y) for the pixels of boxes (N, 4) of x, y from, x, y to (exclusive)."""
    width = numpy.maximum(boxes[:, 2] - boxes[:, 0], 0)
    area = width * numpy.maximum(boxes[:, 3] - boxes[:, 1], 0)
    ends = numpy.cumsum(area)
    begin = 0
    while begin < len(boxes):
        done = ends[begin - 1] if begin else 0
        end = max(int(numpy.searchsorted(ends, done + PAIRS_AT_ONCE, "right")), begin + 1)
        counts = area[begin:end]
        number = numpy.repeat(numpy.arange(begin, end), counts)
        place = numpy.arange(len(number)) - numpy.repeat(numpy.cumsum(counts) - counts, counts)
        yield number, boxes[number, 0] + place % width[number], boxes[number, 1] + place // width[number]
        begin = end


def boxes_around(low, high, width, height):
    """(N, 4): the pixels whose middles may lie between places (N, 2), within a picture."""
    limits = numpy.array([width, height])
    begin = numpy.clip(numpy.ceil(low - 0.5), 0, limits)
    end = numpy.clip(numpy.floor(high - 0.5) + 1, 0, limits)
    return numpy.concatenate([begin, end], axis=1).astype(numpy.int64)


def _weights(corners, x, y):
    """(P, 3): what share each corner (P, 3, 2) has in a place; outside of the triangle some are negative."""
    a, b, c = corners.transpose(1, 0, 2)
    point = numpy.stack([x, y], axis=1)

    def twice_area(first, second, third):
        return (second[:, 0] - first[:, 0]) * (third[:, 1] - first[:, 1]) - (second[:, 1] - first[:, 1]) * (
            third[:, 0] - first[:, 0]
        )

    whole = twice_area(a, b, c)
    whole = numpy.where(numpy.abs(whole) < 1e-12, numpy.inf, whole)
    return (
        numpy.stack([twice_area(b, c, point), twice_area(c, a, point), twice_area(a, b, point)], axis=1)
        / (whole[:, None])
    )


def rasterise(corners, width, height, nearness=None, *, is_perspective=True):
    """(number of the nearest triangle (H, W), -1 for none; shares of its corners (H, W, 3)).

    corners (M, 3, 2) in pixels from the top left; `nearness` (M, 3) grows towards the eye. For a picture in
    perspective it is one through the distance, by which shares are corrected. Without it, later triangles lie
    above.
    """
    face = numpy.full(height * width, -1, numpy.int64)
    nearest = numpy.full(height * width, -numpy.inf)
    shares = numpy.zeros((height * width, 3))
    for number, x, y in pairs(boxes_around(corners.min(axis=1), corners.max(axis=1), width, height)):
        weights = _weights(corners[number], x + 0.5, y + 0.5)
        inside = (weights >= -1e-9).all(axis=1) & (weights.sum(axis=1) > 0.5)
        number, weights, pixel = number[inside], weights[inside], (y * width + x)[inside]
        near = number.astype(float) if nearness is None else (weights * nearness[number]).sum(axis=1)
        order = numpy.lexsort((near, pixel))
        last = numpy.flatnonzero(numpy.diff(pixel[order], append=-1))
        best = order[last]
        best = best[near[best] > nearest[pixel[best]]]
        at = pixel[best]
        face[at], nearest[at] = number[best], near[best]
        shares[at] = weights[best]
        if nearness is not None and is_perspective:
            shares[at] *= nearness[number[best]] / near[best, None]
    return face.reshape(height, width), shares.reshape(height, width, 3)


def blended(face, shares, values, faces):
    """(H, W, C): values (N, C) of vertices, at what is seen; 0 where there is nothing."""
    seen = face >= 0
    picture = numpy.zeros((*face.shape, values.shape[1]), numpy.float32)
    picture[seen] = (values[faces[face[seen]]] * shares[seen][..., None]).sum(axis=1)
    return picture


def spread(picture, is_known):
    """Fills what is not known with the nearest that is, so that textures have no seams."""
    from scipy.ndimage import distance_transform_edt

    if is_known.all() or not is_known.any():
        return picture
    nearest = distance_transform_edt(~is_known, return_distances=False, return_indices=True)
    return picture[tuple(nearest)]
