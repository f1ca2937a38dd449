"""Cameras as the web page's viewer tells them: right-handed, Y up, looking along their own -Z."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy


@dataclass
class Camera:
    """Where a camera stands (3,), its axes right, up and back (3, 3, rows), and its lens.

    `fov` is the angle from the bottom to the top in degrees; an orthographic camera sees what a perspective
    one
    sees at the distance of its target.
    """

    position: Any
    axes: Any
    fov: float
    zoom: float
    is_orthographic: bool
    distance: float

    def seen(self, points, width, height):
        """(places (N, 2) in pixels from the top left, nearness (N,)): 0 or less for what is behind the
        camera.
        """
        x, y, z = ((points - self.position) @ self.axes.T).T
        scale = height / 2 / math.tan(math.radians(self.fov) / 2) * self.zoom
        depth = numpy.full_like(z, self.distance) if self.is_orthographic else -z
        safe = numpy.where(depth > 1e-9, depth, 1e-9)
        places = numpy.stack([width / 2 + x / safe * scale, height / 2 - y / safe * scale], axis=1)
        nearness = 1 / numpy.maximum(-z, 1e-9)
        return places, numpy.where(-z > 1e-9, nearness, -1.0)

    def pixels_per_unit(self, depth, height):
        """How large a length of 1 is in pixels, at distances from the camera."""
        scale = height / 2 / math.tan(math.radians(self.fov) / 2) * self.zoom
        return scale / (self.distance if self.is_orthographic else depth)


def _vector(value):
    value = value or {}
    return numpy.array([float(value.get(axis, 0.0)) for axis in "xyz"])


def _looking(position, target):
    """(3, 3): rows right, up, back of a camera that looks from a place to another, upright."""
    back = position - target
    length = numpy.linalg.norm(back)
    if length < 1e-9:
        raise ValueError("The camera stands where it looks at. Move its position or its target.")
    back = back / length
    up = numpy.array([0.0, 1.0, 0.0]) if abs(back[1]) < 0.999 else numpy.array([0.0, 0.0, 1.0])
    right = numpy.cross(up, back)
    right /= numpy.linalg.norm(right)
    return numpy.stack([right, numpy.cross(back, right), back])


def camera_of(info):
    """The camera that `info` (a LOAD3D_CAMERA) describes."""
    from scipy.spatial.transform import Rotation

    position, target = _vector(info.get("position")), _vector(info.get("target"))
    turn = info.get("quaternion")
    axes = (
        Rotation.from_quat([float(turn.get(axis, 0.0)) for axis in "xyzw"]).as_matrix().T
        if turn
        else _looking(position, target)
    )
    return Camera(
        position, axes, float(info.get("fov") or 35.0), float(info.get("zoom") or 1.0),
        info.get("cameraType") == "orthographic", max(float(numpy.linalg.norm(position - target)), 1e-6),
    )  # fmt: skip


def _told(vector, names="xyz"):
    return {name: float(value) for name, value in zip(names, vector, strict=True)}


def info_of(position, target, axes, *, fov, zoom, camera_type):
    """The LOAD3D_CAMERA of a camera with these axes (rows right, up, back)."""
    from scipy.spatial.transform import Rotation

    turn = Rotation.from_matrix(numpy.asarray(axes).T).as_quat(canonical=True)
    return {
        "position": _told(position),
        "target": _told(target),
        "quaternion": _told(turn, "xyzw"),
        "fov": float(fov),
        "zoom": float(zoom),
        "cameraType": camera_type,
    }


def look_at(position, target, *, roll=0.0, fov=35.0, zoom=1.0, camera_type="perspective"):
    """A camera that looks from a place to another; `roll` turns it about its own axis, in degrees."""
    right, up, back = _looking(numpy.asarray(position, float), numpy.asarray(target, float))
    cos, sin = math.cos(math.radians(roll)), math.sin(math.radians(roll))
    axes = numpy.stack([cos * right + sin * up, cos * up - sin * right, back])
    return info_of(position, target, axes, fov=fov, zoom=zoom, camera_type=camera_type)


def around(target, yaw, pitch, distance):
    """The place at a distance from a target: `yaw` about Y from +Z on, `pitch` above the horizon, in
    degrees.
    """
    yaw, pitch = math.radians(yaw), math.radians(pitch)
    offset = [math.cos(pitch) * math.sin(yaw), math.sin(pitch), math.cos(pitch) * math.cos(yaw)]
    return numpy.asarray(target, float) + distance * numpy.array(offset)


def turned(quaternion, position, *, fov, zoom, camera_type):
    """A camera of a place and a rotation (x, y, z, w), of any length but 0."""
    from scipy.spatial.transform import Rotation

    if not any(quaternion):
        raise ValueError("The quaternion is zero, and names no rotation. Set quat_w to 1 for none.")
    axes = Rotation.from_quat(quaternion).as_matrix().T
    position = numpy.asarray(position, float)
    return info_of(position, position - axes[2], axes, fov=fov, zoom=zoom, camera_type=camera_type)


def framing(points, width, height, *, yaw=35.0, pitch=30.0, fov=35.0, margin=1.05):
    """A camera from which all points (N, 3) are seen, and a margin around them."""
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    radius = max(float(numpy.linalg.norm(points - middle, axis=1).max()), 1e-6)
    half = math.radians(fov) / 2
    narrow = math.atan(math.tan(half) * min(1.0, width / height))
    return look_at(around(middle, yaw, pitch, margin * radius / math.sin(narrow)), middle, fov=fov)


def orbited(info, degrees):
    """The same camera after a turn about the vertical axis through its target."""
    from scipy.spatial.transform import Rotation

    turn = Rotation.from_euler("y", degrees, degrees=True)
    position, target = _vector(info.get("position")), _vector(info.get("target"))
    axes = camera_of(info).axes @ turn.as_matrix().T
    return {**info, **{
        key: value
        for key, value in info_of(
            target + turn.apply(position - target), target, axes, fov=0, zoom=0, camera_type=""
        ).items()
        if key in ("position", "quaternion")
    }}  # fmt: skip
