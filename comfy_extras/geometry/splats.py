"""Gaussian splats as arrays, and moved, turned and joined.

Their space is that of 3D Gaussian Splatting (Kerbl et al., 2023): X right, Y down, Z forward. The viewer's
world is
turned half round X: (x, -y, -z).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy

from comfy_api.latest import Types

PLAIN = 0.28209479177387814  # the harmonic of degree 0
TO_WORLD = numpy.array([1.0, -1.0, -1.0])


@dataclass
class Cloud:
    """One item: positions, scales (N, 3); rotations (N, 4) as w, x, y, z; opacities (N,) of 0..1; sh (N, K,
    3).
    """

    positions: Any
    scales: Any
    rotations: Any
    opacities: Any
    sh: Any

    def __len__(self):
        return len(self.positions)

    @property
    def colors(self):
        """(N, 3) of 0..1, from the front."""
        return numpy.clip(self.sh[:, 0] * PLAIN + 0.5, 0, 1)

    def kept(self, which):
        """Those of a mask or of numbers."""
        return Cloud(*(getattr(self, field.name)[which] for field in fields(self)))

    def matrices(self):
        """(N, 3, 3): the rotation of each."""
        return rotation(self.rotations).as_matrix()

    def covariances(self):
        """(N, 3, 3): the shape of each."""
        shaped = self.matrices() * self.scales[:, None]
        return shaped @ shaped.transpose(0, 2, 1)


def sh_of(colors):
    """(N, 1, 3): colours of 0..1 as harmonics."""
    return ((colors - 0.5) / PLAIN)[:, None].astype(numpy.float32)


def rotation(quaternions):
    """scipy's rotation of quaternions w, x, y, z; those of no length do not turn."""
    from scipy.spatial.transform import Rotation

    given = numpy.asarray(quaternions, float)
    is_none = numpy.linalg.norm(given, axis=-1, keepdims=True) < 1e-12
    return Rotation.from_quat(numpy.roll(numpy.where(is_none, [1.0, 0, 0, 0], given), -1, axis=-1))


def quaternions(turn):
    """(N, 4) w, x, y, z of scipy's rotation, w not negative."""
    return numpy.roll(turn.as_quat(canonical=True), 1, axis=-1).astype(numpy.float32)


def count_of(splat, index):
    """Number of splats of an item."""
    return splat.positions.shape[1] if splat.counts is None else int(splat.counts[index])


def clouds_of(splat):
    """The items of a batch."""

    def array(tensor, index):
        return tensor[index, : count_of(splat, index)].detach().cpu().float().numpy()

    return [
        Cloud(
            *(array(part, index) for part in (splat.positions, splat.scales, splat.rotations)),
            array(splat.opacities, index).reshape(-1), array(splat.sh, index),
        )
        for index in range(splat.positions.shape[0])
    ]  # fmt: skip


def batch_of(clouds):
    """The batch (`SPLAT`) of these items; harmonics that one lacks are zero."""
    import torch

    longest = max(len(cloud) for cloud in clouds)
    harmonics = max(cloud.sh.shape[1] for cloud in clouds)

    def filled(name, shape):
        tensor = torch.zeros(len(clouds), longest, *shape)
        for row, cloud in zip(tensor, clouds, strict=True):
            values = torch.from_numpy(numpy.ascontiguousarray(getattr(cloud, name), numpy.float32))
            if name == "sh":
                row[: len(cloud), : values.shape[1]] = values
            else:
                row[: len(cloud)] = values.reshape(len(cloud), *shape)
        return tensor

    counts = [len(cloud) for cloud in clouds]
    return Types.SPLAT(
        filled("positions", (3,)), filled("scales", (3,)), filled("rotations", (4,)),
        filled("opacities", (1,)),
        filled("sh", (harmonics, 3)), counts=None if len(set(counts)) == 1 else torch.tensor(counts),
    )  # fmt: skip


def joined(clouds):
    """One item with the splats of all."""
    harmonics = max(cloud.sh.shape[1] for cloud in clouds)
    wide = [numpy.pad(cloud.sh, ((0, 0), (0, harmonics - cloud.sh.shape[1]), (0, 0))) for cloud in clouds]
    names = ("positions", "scales", "rotations", "opacities")
    parts = [numpy.concatenate([getattr(cloud, name) for cloud in clouds]) for name in names]
    return Cloud(*parts, numpy.concatenate(wide))


def transformed(cloud, move, degrees, scale):
    """Turned about x, then y, then z, stretched along the axes, then moved. Colours that depend on the side
    from
    which they are seen stay as they are.
    """
    from scipy.spatial.transform import Rotation

    turn = Rotation.from_euler("xyz", degrees, degrees=True)
    scale = numpy.asarray(scale, float)
    matrix = scale[:, None] * turn.as_matrix()
    positions = (cloud.positions @ matrix.T + numpy.asarray(move)).astype(numpy.float32)
    if numpy.ptp(scale) == 0:
        scales, turns = cloud.scales * scale[0], turn * rotation(cloud.rotations)
    else:
        squares, axes = numpy.linalg.eigh(matrix @ cloud.covariances() @ matrix.T)
        axes = axes * numpy.sign(numpy.linalg.det(axes))[:, None, None]  # no mirror
        scales, turns = numpy.sqrt(numpy.maximum(squares, 0)), Rotation.from_matrix(axes)
    return Cloud(positions, scales.astype(numpy.float32), quaternions(turns), cloud.opacities, cloud.sh)
