"""Geometry that MoGe and Depth Anything 3 found: as pictures, surfaces and angles."""

import math

import pytest
import torch

from comfy_extras import nodes_depth_anything_3 as da3
from comfy_extras import nodes_moge as moge

RED_END, BLUE_END = [0.5659, 0.0504, 0.0], [0.1357, 0.0914, 0.1067]


def plane(height=3, width=4, z=2.0):
    """Points (1, H, W, 3) one apart, at the same distance."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([columns, rows, torch.full_like(rows, z)], dim=-1)[None].float()


def moge_picture(output, **geometry):
    return moge.MoGeRender.execute(geometry, output).args[0]


def test_moge_depth_is_nearness_between_its_ends():
    depth = torch.tensor([[[1.0, 2.0, 4.0, math.inf, 0.0]]])
    # 1/depth is 1, 1/2 and 1/4; the quantiles 0.001 and 0.999 lie 0.0005 and 0.001 inside.
    expected = torch.tensor([1.0, (0.5 - 0.2505) / (0.999 - 0.2505), 0.0, 0.0, 0.0])
    picture = moge_picture("depth", depth=depth)
    assert picture.shape == (1, 1, 5, 3)
    assert torch.allclose(picture[0, 0, :, 1], expected, atol=1e-5)
    colours = moge_picture("depth_colored", depth=depth)[0, 0]
    assert torch.allclose(colours[4], torch.tensor(BLUE_END), atol=1e-3)
    assert colours[0, 0] > 0.4 > 0.1 > colours[0, 2]
    assert not moge_picture("depth", depth=torch.zeros(1, 2, 2)).any()


def test_moge_normals_point_to_the_viewer_also_from_points_alone():
    given = torch.tensor([0.6, 0.0, -0.8]).expand(1, 2, 2, 3)
    assert torch.allclose(moge_picture("normal_opengl", normal=given)[0, 0, 0], torch.tensor([0.8, 0.5, 0.9]))
    sloped = plane(4, 4, z=9.0)
    sloped[..., 2] -= sloped[..., 1]  # a floor, farther above: the normal is (0, -1, -1) / sqrt(2)
    found = moge_picture("normal_opengl", points=sloped)[0, 1, 1]
    half = 0.5**0.5 / 2
    assert torch.allclose(found, torch.tensor([0.5, 0.5 + half, 0.5 + half]), atol=1e-5)
    assert moge_picture("normal_directx", points=sloped)[0, 1, 1, 1] < 0.5


def test_moge_says_what_a_geometry_lacks():
    assert moge_picture("mask", mask=torch.eye(3)[None])[..., 2].equal(torch.eye(3)[None])
    with pytest.raises(ValueError, match="The MoGe geometry has no mask; it has depth. Take another output"):
        moge_picture("mask", depth=torch.ones(1, 2, 2))
    with pytest.raises(ValueError, match="output is x. It is depth, depth_colored"):
        moge_picture("x", depth=torch.ones(1, 2, 2))


def moge_mesh(points, index=0, step=1, threshold=0.04, texture=False, **more):
    geometry = {"points": points, "image": torch.rand(*points.shape), **more}
    return moge.MoGePointMapToMesh.execute(geometry, index, step, threshold, texture).args[0], geometry


def test_a_moge_surface_faces_the_viewer_and_carries_its_picture():
    mesh, geometry = moge_mesh(plane(), texture=True, intrinsics=torch.eye(3)[None])
    assert mesh.vertices.shape == (1, 12, 3) and mesh.faces.shape == (1, 2 * 2 * 3, 3)
    assert mesh.vertices[0, 5].tolist() == [1, -1, -2]
    assert torch.allclose(mesh.uvs[0, 5], torch.tensor([1 / 3, 1 / 2]))
    a, b, c = mesh.vertices[0][mesh.faces[0]].unbind(1)
    assert (torch.linalg.cross(b - a, c - a)[:, 2] > 0).all()
    assert torch.equal(mesh.texture, geometry["image"])
    assert moge_mesh(plane(5, 5), step=2)[0].faces.shape == (1, 8, 3)


def test_a_surface_leaves_out_jumps_and_missing_points():
    points = plane(3, 8)
    points[..., 4:, 2] = 9  # columns 3 and 4 are at the jump
    assert moge_mesh(points, intrinsics=torch.eye(3))[0].vertices.shape == (1, 18, 3)
    assert moge_mesh(points, threshold=0)[0].faces.shape == (1, 28, 3)
    assert moge_mesh(points, depth=torch.ones(1, 3, 8))[0].faces.shape == (1, 28, 3)
    points[:, 0, 0] = math.inf
    assert moge_mesh(points, threshold=0)[0].faces.shape == (1, 26, 3)


def test_a_panorama_has_its_axes_turned():
    mesh, _ = moge_mesh(plane())
    assert mesh.vertices[0, 6].tolist() == [1, 2, 2]  # was (2, 1, 2)


def test_a_moge_mesh_that_cannot_be_says_why():
    with pytest.raises(ValueError, match="batch_index is 1, but the geometry has 1 pictures"):
        moge_mesh(plane(), index=1)
    with pytest.raises(
        ValueError, match="No surface is left of the MoGe geometry. Set discontinuity_threshold"
    ):
        moge_mesh(plane() * math.inf)


def test_the_field_of_view_is_that_of_the_focal_lengths():
    geometry = {"intrinsics": torch.diag(torch.tensor([0.5, 1.0, 1.0]))[None], "depth": torch.ones(1, 40, 20)}
    found = {
        axis: moge.MoGeGeometryToFOV.execute(geometry, axis, "degrees").args
        for axis in ("horizontal", "vertical", "diagonal")
    }
    assert found["horizontal"] == pytest.approx((90, 40))
    assert found["vertical"][0] == pytest.approx(2 * math.degrees(math.atan(0.5)))
    assert found["diagonal"][0] == pytest.approx(2 * math.degrees(math.atan(1.25**0.5)))
    assert moge.MoGeGeometryToFOV.execute(geometry, "horizontal", "radians").args[0] == pytest.approx(
        math.pi / 2
    )
    with pytest.raises(ValueError, match="has no camera"):
        moge.MoGeGeometryToFOV.execute({"depth": torch.ones(1, 2, 2)}, "vertical", "degrees")
    with pytest.raises(ValueError, match="has no image, points or depth"):
        moge.MoGeGeometryToFOV.execute({"intrinsics": torch.eye(3)}, "vertical", "degrees")


def da3_picture(kind, geometry, **options):
    return da3.DA3Render.execute(geometry, {"output": kind, **options}).args[0]


def test_da3_depth_is_near_at_one_and_sky_is_black():
    depth = torch.arange(1.0, 102.0).view(1, 1, 101)
    sky = (depth > 101 - 0.5).float()
    least_most = da3_picture("depth", {"depth": depth}, normalization="min_max", apply_sky_clip=False)
    assert torch.allclose(least_most[0, 0, :, 0], torch.linspace(1, 0, 101), atol=1e-6)
    raw = da3_picture("depth", {"depth": depth}, normalization="raw", apply_sky_clip=False)
    assert torch.equal(raw[..., 1], depth)
    style = da3_picture("depth", {"depth": depth}, normalization="v2_style", apply_sky_clip=False)[0, 0, :, 0]
    assert torch.allclose(style, (1 - (torch.arange(101.0) - 1) / 98).clamp(0, 1), atol=1e-5)
    style = da3_picture(
        "depth", {"depth": depth, "sky": sky}, normalization="v2_style", apply_sky_clip=False
    )[0, 0, :, 0]
    assert style[100] == 0 and style[0] == 1
    assert torch.allclose(style[50], torch.tensor(0.5), atol=0.01)


def test_da3_sky_is_clipped_to_the_far_end_of_the_land():
    depth = torch.cat([torch.arange(100.0), torch.full((20,), 5.0)]).view(1, 1, 120)
    sky = (torch.arange(120) >= 100).float().view(1, 1, 120)
    picture = da3_picture("depth", {"depth": depth, "sky": sky}, normalization="raw", apply_sky_clip=True)
    assert torch.allclose(picture[0, 0, 100:, 0], torch.tensor(98.01))
    assert torch.equal(picture[0, 0, :100, 0], depth[0, 0, :100])
    with pytest.raises(ValueError, match="has no sky. The mono and metric models find it"):
        da3_picture("depth", {"depth": depth}, normalization="raw", apply_sky_clip=True)


def test_da3_sky_and_confidence_are_gray_or_coloured():
    values = torch.tensor([[[0.0, 1.0]]])
    assert da3_picture("sky_mask", {"sky": values}, colored=False)[0, 0].tolist() == [[0, 0, 0], [1, 1, 1]]
    colours = da3_picture("confidence", {"confidence": values * 8 + 3}, colored=True)[0, 0]
    assert torch.allclose(colours, torch.tensor([BLUE_END, RED_END]), atol=1e-3)
    with pytest.raises(ValueError, match="has no confidence. The small and base models"):
        da3_picture("confidence", {}, colored=False)
    with pytest.raises(ValueError, match="output is x. It is depth"):
        da3_picture("x", {})


def da3_mesh(index=0, least=0.1, use_sky=True, **geometry):
    depth = geometry.setdefault("depth", torch.full((1, 3, 4), 2.0))
    geometry["image"] = torch.rand(*depth.shape, 3)
    return da3.DA3GeometryToMesh.execute(geometry, index, 1, 0.04, least, use_sky, True).args[0]


def test_da3_points_lie_on_the_rays_of_the_camera_and_in_the_world():
    camera = torch.tensor([[2.0, 0, 1], [0, 4, 1], [0, 0, 1]])[None, None]
    mesh = da3_mesh(intrinsics=camera)
    assert mesh.vertices[0, 11].tolist() == [2, -0.5, -2]  # pixel (3, 2): ((3-1)/2, (2-1)/4, 1) * 2
    turned = torch.tensor([[0.0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3]])[None, None]
    moved = da3_mesh(intrinsics=camera, extrinsics=turned)
    back = torch.tensor([0.5 - 2, -(2.0 - 1), 2 - 3])  # R^T (p - t), and then y and z turned
    assert torch.allclose(moved.vertices[0, 11], back * torch.tensor([1.0, -1, -1]))
    lost = da3_mesh(intrinsics=camera, extrinsics=turned * math.nan)
    assert torch.equal(lost.vertices, mesh.vertices)
    assert torch.allclose(da3_mesh().vertices[0, 0], torch.tensor([-1.5 / 2.8, 1 / 2.8, -1]) * 2)


def test_da3_leaves_out_sky_uncertain_and_missing_depths():
    left = torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(1, 3, 4)
    assert da3_mesh().faces.shape == (1, 12, 3)
    # What is left out counts as a jump in depth: the column beside it goes, too.
    assert da3_mesh(sky=left).faces.shape == (1, 4, 3)
    assert da3_mesh(sky=left, use_sky=False).faces.shape == (1, 12, 3)
    assert da3_mesh(least=0.5, confidence=1 - left).faces.shape == (1, 4, 3)
    assert da3_mesh(least=0.0, confidence=1 - left).faces.shape == (1, 12, 3)
    holes = torch.full((1, 3, 5), 2.0)
    holes[:, :, 0] = math.nan
    assert da3_mesh(depth=holes).faces.shape == (1, 8, 3)
    with pytest.raises(ValueError, match="No surface is left of the DA3 geometry"):
        da3_mesh(depth=torch.zeros(1, 3, 4))
    with pytest.raises(ValueError, match="batch_index is 3, but the geometry has 1"):
        da3_mesh(index=3)
