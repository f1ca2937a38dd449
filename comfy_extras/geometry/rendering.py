"""Pictures of meshes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy

from comfy_extras.geometry import cameras, raster, texturing, topology
from comfy_extras.geometry.meshes import unit

GRAY = 0.7
AMBIENT = 0.25  # light that comes from everywhere


@dataclass
class View:
    """What is seen of a mesh: number of the triangle (H, W), shares of its corners (H, W, 3), distances (H,
    W).
    """

    face: Any
    shares: Any
    depth: Any
    camera: cameras.Camera

    @property
    def is_seen(self):
        """(H, W)"""
        return self.face >= 0


def viewed(body, info, width, height):
    """What a camera sees. What is not wholly before it is left out."""
    camera = cameras.camera_of(info)
    places, nearness = camera.seen(body.vertices.astype(float), width, height)
    near = nearness[body.faces]
    is_before = (near > 0).all(axis=1)
    numbers = numpy.flatnonzero(is_before)
    face, shares = raster.rasterise(
        places[body.faces[is_before]], width, height, near[is_before],
        is_perspective=not camera.is_orthographic,
    )  # fmt: skip
    face = numpy.where(face >= 0, numbers[face] if len(numbers) else -1, -1)
    depth = -((body.vertices - camera.position) @ camera.axes[2])[:, None]
    return View(face, shares, raster.blended(face, shares, depth, body.faces)[..., 0], camera)


def sampled(picture, uvs):
    """Values of a picture (H, W, C) at places (P, 2) of 0..1, between its pixels by their distance."""
    height, width = picture.shape[:2]
    places = numpy.clip(uvs, 0, 1) * [width, height] - 0.5
    low = numpy.floor(places).astype(int)
    share = places - low
    x0, y0 = (numpy.clip(low[:, axis], 0, limit - 1) for axis, limit in ((0, width), (1, height)))
    x1, y1 = (numpy.clip(low[:, axis] + 1, 0, limit - 1) for axis, limit in ((0, width), (1, height)))
    sx, sy = share[:, :1], share[:, 1:]
    above = picture[y0, x0] * (1 - sx) + picture[y0, x1] * sx
    below = picture[y1, x0] * (1 - sx) + picture[y1, x1] * sx
    return above * (1 - sy) + below * sy


def _colors(body, view, mode):
    """(P, 3): the colours of what is seen, without light."""
    seen = view.is_seen
    if mode == "texture":
        uvs = raster.blended(view.face, view.shares, body.uvs, body.faces)[seen]
        return sampled(body.textures["texture"], uvs)
    if mode == "vertex colors":
        linear = raster.blended(view.face, view.shares, body.colors[:, :3], body.faces)[seen]
        return numpy.clip(linear, 0, 1) ** (1 / texturing.VOXEL_GAMMA)
    return numpy.full((int(seen.sum()), 3), GRAY)


def chosen_mode(body, mode):
    """What is shown: the best that there is, for "auto". ValueError for what there is not."""
    has = {
        "texture": body.uvs is not None and "texture" in body.textures,
        "vertex colors": body.colors is not None,
    }
    if mode == "auto":
        return next((name for name, is_there in has.items() if is_there), "solid")
    if not has.get(mode, True):
        raise ValueError(f"The mesh has no {mode}. Choose the mode auto, or give it some before.")
    return mode


def rendered(body, info, width, height, mode, background):
    """(picture (H, W, 3), mask (H, W)). Light comes from the camera; depth is white where it is nearest."""
    mode = chosen_mode(body, mode)
    if body.normals is None:
        body = topology.smoothed_normals(body, 180.0)
    view = viewed(body, info, width, height)
    seen = view.is_seen
    picture = numpy.broadcast_to(numpy.array(background, numpy.float32), (height, width, 3)).copy()
    if not seen.any():
        return picture, seen.astype(numpy.float32)
    normals = unit(raster.blended(view.face, view.shares, body.normals, body.faces)[seen].astype(float))
    local = normals @ view.camera.axes.T
    if mode == "normal":
        picture[seen] = local / 2 + 0.5
    elif mode == "depth":
        depth = view.depth[seen]
        picture[seen] = ((depth.max() - depth) / max(float(numpy.ptp(depth)), 1e-9))[:, None]
    else:
        light = AMBIENT + (1 - AMBIENT) * numpy.abs(local[:, 2:])
        light = 1.0 if body.of_all.get("unlit") else light
        picture[seen] = numpy.clip(_colors(body, view, mode) * light, 0, 1)
    return picture, seen.astype(numpy.float32)


def placed(body, transform):
    """The mesh where a viewer has put it: scaled, turned and moved."""
    from dataclasses import replace

    from scipy.spatial.transform import Rotation

    def values(name, axes, default):
        return [float((transform.get(name) or {}).get(axis, default(axis))) for axis in axes]

    scale = numpy.array(values("scale", "xyz", lambda axis: 1.0))
    turn = Rotation.from_quat(values("quaternion", "xyzw", lambda axis: float(axis == "w")))
    move = numpy.array(values("position", "xyz", lambda axis: 0.0))
    vertices = turn.apply(body.vertices * scale) + move
    normals = None if body.normals is None else unit(turn.apply(body.normals / scale)).astype(numpy.float32)
    return replace(body, vertices=vertices.astype(numpy.float32), normals=normals)
