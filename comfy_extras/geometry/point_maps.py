"""Depth maps and maps of points as pictures and as surfaces.

Points are (H, W, 3) with x to the right, y down and z away from the camera; depths (H, W).
"""

from __future__ import annotations

from typing import Any

# Google's Turbo colours as polynomials of the value, one row for each of red, green and blue.
_TURBO = (
    (0.13572138, 4.61539260, -42.66032258, 132.13108234, -152.94239396, 59.28637943),
    (0.09140261, 2.19418839, 4.84296658, -14.18503333, 4.27729857, 2.82956604),
    (0.10667330, 12.64194608, -60.58204836, 110.36276771, -89.90310912, 27.34824973),
)
_TINY = 1e-6
_MOST_SORTED = 4_000_000  # torch.quantile takes 16 million values; an even part of them is as good


def turbo(values: Any) -> Any:
    """(...) in 0..1 -> (..., 3): blue over green to red."""
    import torch

    values = values.clamp(0, 1)
    powers = torch.stack([values**power for power in range(6)], dim=-1)
    return (powers @ values.new_tensor(_TURBO).T).clamp(0, 1)


def gray(values: Any) -> Any:
    """(...) -> (..., 3)"""
    return values.unsqueeze(-1).expand(*values.shape, 3).contiguous()


def quantiles(values: Any, *shares: float) -> Any:
    """The quantiles of all the values; of very many, those of an even part."""
    import torch

    values = values.flatten().float()
    values = values[:: 1 + len(values) // _MOST_SORTED]
    return torch.quantile(values, values.new_tensor(shares))


def disparity(depth: Any) -> Any:
    """1 / depth of one picture, from 0 for the farthest to 1 for the nearest; 0 where there is no depth."""
    import torch

    is_known = torch.isfinite(depth) & (depth > 0)
    if not is_known.any():
        return torch.zeros_like(depth)
    near = 1 / torch.where(is_known, depth, torch.ones_like(depth)).clamp(min=_TINY)
    low, high = quantiles(near[is_known], 0.001, 0.999)
    scaled = ((near - low) / (high - low).clamp(min=_TINY)).clamp(0, 1)
    return torch.where(is_known, scaled, torch.zeros_like(scaled))


def normals(points: Any) -> Any:
    """Unit vectors (H, W, 3) out of the surface; 0 at the border of the map and where there is no point."""
    import torch

    is_known = torch.isfinite(points).all(dim=-1, keepdim=True)
    points = torch.where(is_known, points, torch.zeros_like(points))
    right, down = torch.zeros_like(points), torch.zeros_like(points)
    right[:, 1:-1] = points[:, 2:] - points[:, :-2]
    down[1:-1] = points[2:] - points[:-2]
    found = torch.nn.functional.normalize(torch.linalg.cross(down, right), dim=-1)
    return torch.where(is_known, found, torch.zeros_like(found))


def _is_steep(depth, threshold):
    """Where depths of the 3x3 pixels around differ by more than this share of the depth."""
    import torch

    pool = torch.nn.functional.max_pool2d
    farthest = pool(depth[None, None], 3, stride=1, padding=1)[0, 0]
    nearest = -pool(-depth[None, None], 3, stride=1, padding=1)[0, 0]
    return (farthest - nearest) / depth.clamp(min=_TINY) > threshold


def surface(points: Any, *, step: int = 1, threshold: float = 0.0, depth: Any = None) -> tuple[Any, Any, Any]:
    """(vertices (N, 3), faces (M, 3), uvs (N, 2)) through each `step`-th point, on the CPU.

    No triangle touches a point that is not finite, or one where the depth jumps by more than the share
    `threshold` (0: no limit). `depth` is z unless it is given.
    """
    import torch

    points = points.detach().cpu()
    is_known = torch.isfinite(points).all(dim=-1)
    is_used = is_known
    if threshold > 0:
        depth = points[..., 2] if depth is None else depth.detach().cpu()
        is_used = is_known & ~_is_steep(torch.where(is_known, depth, torch.zeros_like(depth)), threshold)
    points, is_used = points[::step, ::step], is_used[::step, ::step]
    height, width = is_used.shape
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    uvs = torch.stack([columns / max(1, width - 1), rows / max(1, height - 1)], dim=-1)
    numbers = (is_used.flatten().long().cumsum(0) - 1).view(height, width)
    is_whole = is_used[:-1, :-1] & is_used[:-1, 1:] & is_used[1:, 1:] & is_used[1:, :-1]
    corners = (numbers[:-1, :-1], numbers[:-1, 1:], numbers[1:, 1:], numbers[1:, :-1])
    first, second, third, fourth = (corner[is_whole] for corner in corners)
    triangles = [torch.stack([first, second, third], dim=-1), torch.stack([first, third, fourth], dim=-1)]
    return points[is_used], torch.cat(triangles), uvs[is_used]


def facing_viewer(vertices: Any, faces: Any) -> tuple[Any, Any]:
    """A surface in a camera's axes in those of glTF: y up and z towards the viewer."""
    return vertices * vertices.new_tensor((1.0, -1.0, -1.0)), faces[:, [0, 2, 1]].contiguous()
