"""Nearest points on the surface of a mesh, by dense samples of it and the triangles that these lie in."""

from __future__ import annotations

import numpy

from comfy_extras.geometry.meshes import face_normals, unit

MOST_SAMPLES = 20_000_000


def samples_of(body, spacing):
    """(places (S, 3), number of the triangle of each): points on all triangles, nowhere farther apart than
    spacing.
    """
    corners = body.corners().astype(numpy.float64)
    longest = numpy.linalg.norm(corners - numpy.roll(corners, 1, axis=1), axis=2).max(axis=1, initial=0)
    steps = numpy.maximum(numpy.ceil(longest / spacing), 1).astype(int)
    total = int(((steps + 1) * (steps + 2) // 2).sum())
    if total > MOST_SAMPLES:
        raise ValueError(
            f"The mesh needs {total:,} samples at this resolution. Choose a smaller one, or a simpler mesh."
        )
    places, faces = [], []
    for step in numpy.unique(steps):
        members = numpy.flatnonzero(steps == step)
        u, v = numpy.meshgrid(numpy.arange(step + 1), numpy.arange(step + 1))
        keep = (u + v) <= step
        shares = numpy.stack([u[keep], v[keep], step - u[keep] - v[keep]], axis=1) / step
        places.append(numpy.einsum("kc,mcx->mkx", shares, corners[members]).reshape(-1, 3))
        faces.append(numpy.repeat(members, len(shares)))
    return numpy.concatenate(places), numpy.concatenate(faces)


def nearest_in_triangles(points, corners):
    """(P, 3): the nearest point of each triangle (P, 3, 3); C. Ericson, Real-Time Collision Detection,
    5.1.5.
    """
    a, b, c = corners.transpose(1, 0, 2)
    best, least = None, None
    normal = numpy.cross(b - a, c - a)
    square = (normal * normal).sum(axis=1, keepdims=True)
    flat = points - normal * ((points - a) * normal).sum(axis=1, keepdims=True) / numpy.maximum(square, 1e-30)
    inside = square[:, 0] > 1e-30
    for first, second in ((a, b), (b, c), (c, a)):
        edge = second - first
        inside &= (numpy.cross(edge, flat - first) * normal).sum(axis=1) >= 0
        share = ((points - first) * edge).sum(axis=1) / numpy.maximum((edge * edge).sum(axis=1), 1e-30)
        place = first + numpy.clip(share, 0, 1)[:, None] * edge
        distance = ((points - place) ** 2).sum(axis=1)
        if best is None:
            best, least = place, distance
        else:
            nearer = distance < least
            best, least = numpy.where(nearer[:, None], place, best), numpy.minimum(distance, least)
    return numpy.where(inside[:, None], flat, best)


class Surface:
    """A mesh that is asked for what is nearest to points."""

    def __init__(self, body, spacing):
        from scipy.spatial import cKDTree

        self.body = body
        self.corners = body.corners().astype(numpy.float64)
        self.normals = unit(face_normals(body).astype(numpy.float64))
        self.samples, self._face_of_sample = samples_of(body, spacing)
        self._tree = cKDTree(self.samples)

    def nearest(self, points, facing=None, count=1):
        """(places (P, 3), distances (P,), triangles (P,)). With `facing` (P, 3), the nearest of `count`
        samples
        whose triangle looks that way is taken, if there is one.
        """
        _, number = self._tree.query(points, k=count, workers=-1)
        face = self._face_of_sample[number].reshape(len(points), -1)
        choice = numpy.zeros(len(points), int)
        if facing is not None:
            agrees = (self.normals[face] * facing[:, None]).sum(axis=2) > 0
            choice = agrees.argmax(axis=1)
        chosen = face[numpy.arange(len(points)), choice]
        places = nearest_in_triangles(points, self.corners[chosen])
        return places, numpy.linalg.norm(points - places, axis=1), chosen
