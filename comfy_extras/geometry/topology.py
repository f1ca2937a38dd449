"""Which triangles hang together: welding, holes, fewer triangles, normals."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import replace

import numpy

from comfy_extras.geometry.meshes import bounding_diagonal, face_normals, unit


def near_groups(points, distance):
    """(N,): the number of the group of each point; points nearer than `distance` are in one group."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    links = cKDTree(points).query_pairs(distance, output_type="ndarray")
    graph = coo_matrix((numpy.ones(len(links), bool), (links[:, 0], links[:, 1])), shape=(len(points),) * 2)
    return connected_components(graph, directed=False)[1]


def without_flat_faces(faces):
    """Faces that name three vertices."""
    a, b, c = faces.T
    return faces[(a != b) & (b != c) & (c != a)]


def welded(body, relative=0.0, absolute=0.0):
    """Vertices that are nearer than `relative` times the size of the mesh, or `absolute`, become one."""
    distance = max(relative * bounding_diagonal(body), absolute)
    if not len(body.vertices):
        return body
    groups = near_groups(body.vertices, distance)
    _, first, number = numpy.unique(groups, return_index=True, return_inverse=True)
    order = numpy.argsort(first)  # keeps the order of vertices
    place = numpy.empty_like(order)
    place[order] = numpy.arange(len(order))
    return body.with_vertices(first[order], without_flat_faces(place[number.reshape(-1)][body.faces]))


def boundary_edges(faces):
    """(E, 2): edges that only one face has, in the direction that a face beside them would take."""
    edges = numpy.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    keys = numpy.sort(edges, axis=1)
    _, inverse, counts = numpy.unique(keys, axis=0, return_inverse=True, return_counts=True)
    return edges[counts[inverse.reshape(-1)] == 1][:, ::-1]


def boundary_walks(faces):
    """(vertices in their order, is it closed) for each walk along the border."""
    following = defaultdict(list)
    for begin, end in boundary_edges(faces).tolist():
        following[begin].append(end)
    incoming = {end for ends in following.values() for end in ends}
    starts = [begin for begin in following if begin not in incoming] + list(following)
    walks = []
    for start in starts:
        walk = [start]
        while following[walk[-1]]:
            walk.append(following[walk[-1]].pop())
            if walk[-1] in walk[:-1]:
                at = walk.index(walk[-1])
                walks.append((walk[at:-1], True))
                walk = walk[: at + 1]
        if len(walk) > 1:
            walks.append((walk, False))
    return walks


def _fan(body, walk):
    """Triangles that close a ring: from the vertex from which they are shortest."""
    points = body.vertices[walk]
    spread = numpy.linalg.norm(points[:, None] - points[None], axis=-1).sum(axis=1)
    at = int(spread.argmin())
    ring = walk[at:] + walk[:at]
    return [(ring[0], ring[i], ring[i + 1]) for i in range(1, len(ring) - 1)]


def filled(body, max_perimeter, relative, max_vertices, fill_chains):
    """The mesh, welded, with triangles over its small holes."""
    body = welded(body, relative)
    added = []
    for walk, is_closed in boundary_walks(body.faces):
        ring = body.vertices[[*walk, walk[0]]]
        perimeter = numpy.linalg.norm(numpy.diff(ring, axis=0), axis=1).sum()
        is_small = 3 <= len(walk) <= max_vertices and perimeter <= max_perimeter
        if is_small and (is_closed or fill_chains):
            added += _fan(body, walk)
    if not added:
        return body
    return replace(body, faces=numpy.concatenate([body.faces, numpy.array(added, numpy.int64)]))


def decimated(body, target):
    """A mesh of about so many faces, by quadric errors (Garland and Heckbert, 1997). What lies on it is
    gone.
    """
    import fast_simplification

    if not 0 < target < len(body.faces):
        return body
    points = numpy.ascontiguousarray(body.vertices, numpy.float32)
    faces = numpy.ascontiguousarray(body.faces, numpy.int32)
    vertices, faces = fast_simplification.simplify(points, faces, target_count=int(target))
    result = body.shape_only(vertices, faces)
    return carried_over(body, result) if body.colors is not None else result


def carried_over(body, result):
    """The result with the colours of the nearest vertices of a mesh."""
    from scipy.spatial import cKDTree

    _, nearest = cKDTree(body.vertices).query(result.vertices)
    return replace(result, colors=body.colors[nearest])


def components(faces, count):
    """(M,): the number of the connected part that each face belongs to; `count` vertices."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    begin, end = faces[:, [0, 1]].reshape(-1), faces[:, [1, 2]].reshape(-1)
    graph = coo_matrix((numpy.ones(len(begin), bool), (begin, end)), shape=(count, count))
    return connected_components(graph, directed=False)[1][faces[:, 0]]


def without_small_parts(vertices, faces, share):
    """(vertices, faces) without connected parts of less than a share of the largest one's faces."""
    if not len(faces):
        return vertices, faces
    part = components(faces, len(vertices))
    sizes = numpy.bincount(part)
    faces = faces[sizes[part] >= share * sizes.max()]
    kept, number = numpy.unique(faces, return_inverse=True)
    return vertices[kept], number.reshape(-1, 3)


def smoothed_normals(body, crease_angle):
    """Normals that are the mean of the faces around a vertex. Faces that meet at more than `crease_angle`
    degrees
    keep an edge between them: the vertices there are doubled.
    """
    whole = face_normals(body)
    directions = unit(whole)
    if crease_angle >= 180 or not len(body.faces):
        sums = numpy.zeros_like(body.vertices, dtype=float)
        for corner in range(3):
            numpy.add.at(sums, body.faces[:, corner], whole)
        return replace(body, normals=unit(sums).astype(numpy.float32))
    limit = math.cos(math.radians(crease_angle))
    around = defaultdict(list)
    for face, corners in enumerate(body.faces.tolist()):
        for vertex in corners:
            around[vertex].append(face)
    kept, normals, faces, known = [], [], numpy.empty_like(body.faces), {}
    for face, corners in enumerate(body.faces.tolist()):
        for corner, vertex in enumerate(corners):
            beside = tuple(
                one for one in around[vertex] if directions[face] @ directions[one] >= limit - 1e-6
            )
            if (vertex, beside) not in known:
                known[vertex, beside] = len(kept)
                kept.append(vertex)
                normals.append(whole[list(beside)].sum(axis=0))
            faces[face, corner] = known[vertex, beside]
    split = body.with_vertices(numpy.array(kept), faces)
    return replace(split, normals=unit(numpy.array(normals)).astype(numpy.float32))
