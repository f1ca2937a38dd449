"""Meshes are mended, made simpler, unwrapped, baked and rendered: held to bodies whose shape is known."""

import numpy
import pytest
import torch
import trimesh

from comfy_api.latest import Types
from comfy_extras import nodes_mesh_postprocess as topic
from comfy_extras.geometry import baking, cameras, meshes, raster, remeshing, rendering, surfaces, topology

NODES = {
    "FillHoles": ("mesh max_perimeter weld_epsilon_rel max_vertices fill_chains", "MESH"),
    "WeldVertices": ("mesh epsilon_rel epsilon_abs", "MESH"),
    "DecimateMesh": ("mesh target_face_count placement_mode", "MESH"),
    "RemeshMesh": ("mesh resolution sign_mode band project_back fix_poles smooth_iters drop_small_components "
                   "precluster_max_verts", "MESH"),
    "UnwrapMesh": ("mesh segmenter resolution padding weld_distance", "MESH"),
    "RenderUVAtlas": ("mesh resolution", "IMAGE"),
    "PaintMesh": ("mesh voxel_colors", "MESH"),
    "BakeTextureFromVoxel": ("mesh voxel_colors texture_size reference_mesh", "IMAGE IMAGE IMAGE"),
    "MeshTextureToImage": ("mesh", "IMAGE IMAGE IMAGE IMAGE IMAGE"),
    "ApplyTextureToMesh": ("mesh base_color metallic roughness occlusion normal_map", "MESH"),
    "BakeNormalMapFromMesh": ("low_poly high_poly resolution cage_distance ignore_backfaces", "IMAGE"),
    "BakeAmbientOcclusion": ("low_poly high_poly resolution samples max_distance strength bias", "IMAGE"),
    "RenderMesh": ("mesh mode width height background model_3d_info camera_info", "IMAGE MASK"),
    "MeshSmoothNormals": ("mesh crease_angle", "MESH"),
}  # fmt: skip


@pytest.mark.parametrize("node", NODES)
def test_inputs_and_outputs_are_those_of_workflows(node):
    schema = getattr(topic, node).define_schema()
    inputs, outputs = NODES[node]
    assert (schema.node_id, " ".join(each.id for each in schema.inputs)) == (node, inputs)
    assert " ".join(getattr(topic, node).RETURN_TYPES) == outputs


def body_of(shape, **more):
    return meshes.Body(numpy.array(shape.vertices, "f4"), numpy.array(shape.faces, "i8"), **more)


def batch(*shapes, **more):
    return meshes.batch_of([body_of(shape, **more) for shape in shapes])


def shape_of(mesh, number=0):
    body = meshes.bodies_of(mesh)[number]
    return trimesh.Trimesh(body.vertices, body.faces, process=False)


def box():
    return trimesh.creation.box((1, 1, 1))


def ball(subdivisions=3, radius=1.0):
    return trimesh.creation.icosphere(subdivisions=subdivisions, radius=radius)


def loose(shape):
    """The same triangles, of which none shares a vertex with another."""
    return trimesh.Trimesh(
        shape.triangles.reshape(-1, 3), numpy.arange(len(shape.faces) * 3).reshape(-1, 3), process=False
    )


def run(node, *values, **more):
    return getattr(topic, node).execute(*values, **more)[0]


def square(**more):
    """Two triangles that fill -1..1 in x and y and look along +z, with texture coordinates over the whole
    texture.
    """
    vertices = numpy.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], "f4")
    uvs = numpy.array([[0, 1], [1, 1], [1, 0], [0, 0]], "f4")
    return meshes.Body(vertices, numpy.array([[0, 1, 2], [0, 2, 3]]), **{"uvs": uvs, **more})


def test_welded_triangles_hang_together():
    welded = shape_of(run("WeldVertices", batch(loose(ball())), 1e-5, 0.0))
    assert len(welded.vertices) == len(ball().vertices) and welded.is_watertight
    assert len(shape_of(run("WeldVertices", batch(loose(ball())), 0.0, 0.0)).vertices) == len(ball().vertices)


def test_welding_as_a_length_takes_what_is_nearer():
    mesh = meshes.batch_of([meshes.Body(
        numpy.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1.05, 0, 0], [2, 2, 0]], "f4"),
        numpy.array([[0, 1, 2], [0, 3, 4], [1, 3, 2]]), colors=numpy.arange(15, dtype="f4").reshape(5, 3),
    )])  # fmt: skip
    body = meshes.bodies_of(run("WeldVertices", mesh, 0.0, 0.1))[0]
    assert len(body.vertices) == 4 and body.colors[:, 0].tolist() == [0, 3, 6, 12]
    assert body.faces.tolist() == [[0, 1, 2], [0, 1, 3]], "the flat triangle is gone"


def holed(count):
    """A ball without the triangles around one vertex."""
    shape = ball()
    keep = ~(shape.faces == 20).any(axis=1)
    return trimesh.Trimesh(shape.vertices, shape.faces[keep], process=False), int((~keep).sum())


@pytest.mark.parametrize(
    ("perimeter", "most", "is_closed"), [(9.0, 16, True), (0.01, 16, False), (9.0, 3, False)]
)
def test_small_holes_are_closed(perimeter, most, is_closed):
    shape, _ = holed(1)
    assert not shape.is_watertight
    result = shape_of(run("FillHoles", batch(shape), perimeter, 1e-5, most, False))
    assert result.is_watertight is is_closed and (not is_closed or result.is_winding_consistent)
    assert result.volume == pytest.approx(ball().volume, rel=0.02)


def test_a_border_that_does_not_come_back_is_closed_if_wished():
    strip = meshes.batch_of([meshes.Body(numpy.eye(3, dtype="f4"), numpy.array([[0, 1, 2]]))])
    assert len(shape_of(run("FillHoles", strip, 9.0, 0.0, 16, False)).faces) == 2
    walks = topology.boundary_walks(numpy.array([[0, 1, 2], [0, 3, 4]]))
    assert sorted(len(walk) for walk, _ in walks) == [3, 3] and all(is_closed for _, is_closed in walks)


def test_a_simpler_mesh_has_nearly_the_shape_of_the_old_one():
    for mode in ({"placement_mode": "midpoint"}, {"placement_mode": "qem", "line_quadric_weight": 0.0}):
        result = shape_of(run("DecimateMesh", batch(ball(4)), 500, mode))
        assert len(result.faces) == pytest.approx(500, abs=20) and result.is_watertight
        assert result.volume == pytest.approx(ball(4).volume, rel=0.03)
    assert len(shape_of(run("DecimateMesh", batch(ball()), 0, mode)).faces) == len(ball().faces)


def test_weights_that_cannot_be_computed_are_refused():
    with pytest.raises(
        ValueError, match="feature_edge_quadric_weight is 2, which cannot be computed here. Set it to 0"
    ):
        run("DecimateMesh", batch(ball()), 5, {"placement_mode": "qem", "feature_edge_quadric_weight": 2.0})


REMESH = {"project_back": 0.0, "fix_poles": False, "smooth_iters": 0, "drop_small_components": 0.01,
          "precluster_max_verts": 0}  # fmt: skip


def remeshed(shape, resolution=32, band=1.0, **mode):
    return shape_of(run("RemeshMesh", batch(shape), resolution, mode, band, **REMESH))


def test_a_remeshed_box_keeps_its_size_and_edges():
    sharp = remeshed(box(), sign_mode="sdf", qef=True, manifold=False)
    round_one = remeshed(box(), sign_mode="sdf", qef=False, manifold=False)
    assert sharp.is_watertight and sharp.volume == pytest.approx(1.0, abs=0.02)
    assert numpy.abs(sharp.bounds - box().bounds).max() < 0.02
    corner = [numpy.linalg.norm(one.vertices - 0.5, axis=1).min() for one in (sharp, round_one)]
    assert corner[0] < corner[1] / 2, "corners are nearer with the planes of the surface than without"


def test_an_open_mesh_gets_a_skin():
    sheet = trimesh.Trimesh(square().vertices, square().faces)
    skin = remeshed(sheet, sign_mode="udf")
    cell = 2 / 24
    assert skin.is_watertight and skin.volume == pytest.approx(2 * 2 * 2 * cell, rel=0.25)
    assert numpy.abs(skin.vertices[:, 2]).max() == pytest.approx(cell, rel=0.1)


@pytest.mark.slow
def test_the_inner_skin_is_dropped_if_wished():
    both, outer = (remeshed(ball(), sign_mode="udf", drop_inverted_components=drop) for drop in (False, True))
    assert len(both.split()) == 2 and len(outer.split()) == 1 and outer.volume > ball().volume
    enclosed = remeshed(ball(), sign_mode="udf", drop_enclosed_components=True)
    assert len(enclosed.faces) == len(outer.faces)


@pytest.mark.parametrize(("mode", "more", "name"), [
    ({"sign_mode": "sdf", "manifold": True}, {}, "manifold"),
    ({"sign_mode": "udf"}, {"fix_poles": True}, "fix_poles"),
])  # fmt: skip
def test_what_remeshing_cannot_do_is_refused(mode, more, name):
    with pytest.raises(ValueError, match=f"{name} is on, which cannot be computed here"):
        run("RemeshMesh", batch(box()), 32, mode, 1.0, **{**REMESH, **more})


def test_nothing_to_remesh_is_an_error():
    empty = meshes.batch_of([meshes.Body(numpy.zeros((3, 3)), numpy.zeros((0, 3), int))])
    with pytest.raises(ValueError, match="no faces to remesh"):
        run("RemeshMesh", empty, 32, {"sign_mode": "udf"}, 1.0, **REMESH)


def test_a_mesh_too_large_for_the_grid_is_refused(monkeypatch):
    monkeypatch.setattr(surfaces, "MOST_SAMPLES", 100)
    with pytest.raises(ValueError, match="samples at this resolution. Choose a smaller one"):
        surfaces.Surface(body_of(ball()), 0.01)


def test_nearest_points_are_on_the_ball():
    surface = surfaces.Surface(body_of(ball(4)), 0.05)
    points = numpy.random.default_rng(0).normal(size=(50, 3))
    places, distances, _ = surface.nearest(points)
    numpy.testing.assert_allclose(distances, numpy.abs(numpy.linalg.norm(points, axis=1) - 1), atol=0.01)
    numpy.testing.assert_allclose(
        places, points / numpy.linalg.norm(points, axis=1, keepdims=True), atol=0.03
    )


@pytest.mark.parametrize(("point", "expected"), [
    ((0.2, 0.2, 3), (0.2, 0.2, 0)), ((-1, -1, 1), (0, 0, 0)),
    ((2, -1, 0), (1, 0, 0)), ((1, 1, 0), (0.5, 0.5, 0)),
    ((0.5, -2, 1), (0.5, 0, 0)),
])  # fmt: skip
def test_the_nearest_point_of_a_triangle(point, expected):
    corners = numpy.array([[[0, 0, 0], [1, 0, 0], [0, 1, 0]]], float)
    numpy.testing.assert_allclose(
        surfaces.nearest_in_triangles(numpy.array([point], float), corners)[0], expected
    )


def test_smoothing_keeps_the_size():
    shape = ball()
    noisy = shape.vertices * (1 + 0.03 * numpy.random.default_rng(0).normal(size=(len(shape.vertices), 1)))
    smooth = remeshing.smoothed(noisy, shape.faces, 10)
    lengths = [numpy.linalg.norm(points, axis=1) for points in (noisy, smooth)]
    assert lengths[1].std() < lengths[0].std() / 2 and lengths[1].mean() == pytest.approx(1, abs=0.02)


def test_small_parts_are_dropped():
    both = trimesh.util.concatenate([ball(3), box().apply_translation((5, 0, 0))])
    _, faces = topology.without_small_parts(both.vertices, both.faces, 0.05)
    assert len(faces) == len(ball(3).faces)


def test_smooth_normals_of_a_ball_point_outwards():
    body = meshes.bodies_of(run("MeshSmoothNormals", batch(ball()), 180.0))[0]
    numpy.testing.assert_allclose(body.normals, body.vertices, atol=0.02)


def test_edges_of_a_box_stay_sharp():
    body = meshes.bodies_of(run("MeshSmoothNormals", batch(box()), 40.0))[0]
    assert len(body.vertices) == 24
    expected = meshes.unit(meshes.face_normals(body))
    numpy.testing.assert_allclose(
        body.normals[body.faces], numpy.repeat(expected[:, None], 3, axis=1), atol=1e-6
    )
    whole = meshes.bodies_of(run("MeshSmoothNormals", batch(box()), 180.0))[0]
    assert len(whole.vertices) == 8 and numpy.allclose(numpy.abs(whole.normals).min(), 0.57, atol=0.3)


def test_an_unwrapped_mesh_covers_its_texture_without_overlap():
    mesh = run("UnwrapMesh", batch(loose(box())), "pec", 256, 2, 1e-4)
    body = meshes.bodies_of(mesh)[0]
    assert body.uvs.min() >= 0 and body.uvs.max() <= 1 and shape_of(mesh).area == pytest.approx(6, rel=1e-4)
    places = body.uvs[body.faces].astype(float)
    sides = places[:, 1:] - places[:, :1]
    areas = numpy.abs(sides[:, 0, 0] * sides[:, 1, 1] - sides[:, 0, 1] * sides[:, 1, 0]) / 2
    seen = (raster.rasterise(places * 512, 512, 512)[0] >= 0).mean()
    assert seen == pytest.approx(areas.sum(), abs=0.02), "what overlaps would be counted once only"
    picture = run("RenderUVAtlas", mesh, 128)
    assert picture.shape == (1, 128, 128, 3) and (picture[0].amax(-1) > 0).float().mean() == pytest.approx(
        seen, abs=0.1
    )


@pytest.mark.parametrize(
    ("node", "more"), [("RenderUVAtlas", (64,)), ("ApplyTextureToMesh", (torch.ones(1, 2, 2, 3),))]
)
def test_a_mesh_that_is_not_unwrapped_is_an_error(node, more):
    with pytest.raises(
        ValueError, match="needs a mesh with texture coordinates. Put Unwrap Mesh UVs before it"
    ):
        run(node, batch(box()), *more)


def voxels(columns=3):
    """Voxels of a grid of 10 in the plane z = 0: red grows with x, green with y."""
    x, y = (part.reshape(-1) for part in numpy.meshgrid(numpy.arange(11), numpy.arange(11)))
    coords = numpy.stack([x, y, numpy.full_like(x, 5)], axis=1)
    values = numpy.stack([x / 10, y / 10, 0 * x, 0 * x + 0.25, 0 * x + 0.75], axis=1)[:, :columns]
    return Types.VOXEL(torch.from_numpy(coords), torch.from_numpy(values), 10)


def test_vertices_get_the_light_of_the_nearest_voxel():
    mesh = meshes.batch_of([square()])
    mesh.vertices = mesh.vertices * 0.4
    colors = run("PaintMesh", mesh, voxels()).vertex_colors[0]
    expected = torch.tensor([[0.1, 0.1, 0], [0.9, 0.1, 0], [0.9, 0.9, 0], [0.1, 0.9, 0]]) ** 2.2
    torch.testing.assert_close(colors, expected, atol=1e-5, rtol=0)
    empty = Types.VOXEL(torch.zeros(0, 3), torch.zeros(0, 3), 10)
    assert not run("PaintMesh", mesh, empty).vertex_colors.any()


def test_voxels_of_several_items_go_to_their_own_mesh():
    voxel = Types.VOXEL(
        torch.tensor([[0, 5, 5, 5], [1, 5, 5, 5]]), torch.tensor([[1.0, 0, 0], [0, 1.0, 0]]), 10
    )
    colors = run("PaintMesh", batch(box(), box()), voxel).vertex_colors
    assert colors[0, :, 0].min() == 1 and colors[1, :, 1].min() == 1 and not colors[1, :, 0].any()


def test_voxels_without_colors_are_an_error():
    with pytest.raises(ValueError, match="voxels have no colours"):
        run("PaintMesh", batch(box()), Types.VOXEL(torch.zeros(1, 4, 4, 4)))


@pytest.mark.parametrize(("columns", "metal", "rough"), [(5, 0.25, 0.75), (3, 0.0, 1.0)])
def test_voxels_are_baked_where_the_texture_lies(columns, metal, rough):
    mesh = meshes.batch_of([square()])
    mesh.vertices = mesh.vertices * 0.5
    base, metallic, roughness = topic.BakeTextureFromVoxel.execute(mesh, voxels(columns), 64).result
    assert base.shape == (1, 64, 64, 3)
    # The top left of the texture is where x is small and y is large.
    torch.testing.assert_close(base[0, 0, 0], torch.tensor([0.0, 1.0, 0.0]), atol=0.06, rtol=0)
    torch.testing.assert_close(base[0, -1, -1], torch.tensor([1.0, 0.0, 0.0]), atol=0.06, rtol=0)
    middle = base[0, 32, :, 0]
    assert torch.equal(middle, middle.sort().values)
    assert float(metallic.mean()) == pytest.approx(metal) and float(roughness.mean()) == pytest.approx(rough)


def test_voxels_are_looked_for_where_the_reference_is():
    low = meshes.batch_of([square()])
    high = meshes.batch_of([square()])
    low.vertices, high.vertices = low.vertices * 0.5, low.vertices * 0.0
    base = topic.BakeTextureFromVoxel.execute(low, voxels(), 64, high)[0]
    torch.testing.assert_close(base, torch.tensor([0.5, 0.5, 0]).expand_as(base), atol=1e-5, rtol=0)


def test_textures_go_onto_a_mesh_and_come_back():
    pictures = torch.rand(5, 1, 8, 8, 3, generator=torch.Generator().manual_seed(0))
    base, normal = pictures[0], pictures[1]
    metal, rough, covered = (one[..., :1].expand(-1, -1, -1, 3) for one in pictures[2:])
    mesh = run("ApplyTextureToMesh", meshes.batch_of([square()]), base, metal, rough, covered, normal)
    assert mesh.occlusion_in_mr and mesh.tangents.shape == (1, 4, 4)
    found = topic.MeshTextureToImage.execute(mesh).result
    for one, other in zip(found, (base, metal, rough, covered, normal), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


def test_what_a_mesh_does_not_say_is_open_flat_and_no_metal():
    mesh = run("ApplyTextureToMesh", meshes.batch_of([square()]), torch.ones(1, 4, 4, 3))
    _, metal, rough, covered, normal = topic.MeshTextureToImage.execute(mesh).result
    assert not metal.any() and not rough.any() and covered.min() == 1
    assert normal[0, 0, 0].tolist() == [0.5, 0.5, 1.0]
    with pytest.raises(ValueError, match="mesh has no texture"):
        topic.MeshTextureToImage.execute(batch(box()))


def test_coordinates_outside_of_the_texture_are_moved_into_it():
    mesh = meshes.batch_of([square(uvs=square().uvs * 4 - 1)])
    uvs = run("ApplyTextureToMesh", mesh, torch.ones(1, 4, 4, 3)).uvs
    torch.testing.assert_close(uvs[0], torch.from_numpy(square().uvs))


def test_tangents_follow_the_texture():
    mesh = run("ApplyTextureToMesh", meshes.batch_of([square()]), *[torch.ones(1, 4, 4, 3)] * 5)
    torch.testing.assert_close(mesh.tangents[0], torch.tensor([[1.0, 0, 0, 1]] * 4))
    mirrored = square(uvs=square().uvs * [1, -1] + [0, 1])
    mesh = run("ApplyTextureToMesh", meshes.batch_of([mirrored]), *[torch.ones(1, 4, 4, 3)] * 5)
    assert mesh.tangents[0, :, 3].tolist() == [-1] * 4


def tilted(slope):
    """A sheet over the square that rises with x."""
    body = square(uvs=None)
    body.vertices[:, 2] = body.vertices[:, 0] * slope
    return meshes.batch_of([body])


def test_a_normal_map_leans_as_the_detailed_mesh_does():
    low = meshes.batch_of([square()])
    flat = run("BakeNormalMapFromMesh", low, low, 16, 0.05, True)
    torch.testing.assert_close(flat, torch.tensor([0.5, 0.5, 1.0]).expand_as(flat), atol=1e-5, rtol=0)
    leaning = run("BakeNormalMapFromMesh", low, tilted(0.2), 16, 0.5, True)
    normal = numpy.array([-0.2, 0, 1]) / numpy.linalg.norm([-0.2, 0, 1])
    numpy.testing.assert_allclose(leaning[0, 8, 8].numpy(), normal / 2 + 0.5, atol=0.01)


def test_a_detailed_mesh_that_is_far_away_leaves_the_map_flat():
    far = meshes.batch_of([square(uvs=None)])
    far.vertices = far.vertices + torch.tensor([0, 0, 3.0])
    flat = run("BakeNormalMapFromMesh", meshes.batch_of([square()]), far, 16, 0.05, True)
    torch.testing.assert_close(flat, torch.tensor([0.5, 0.5, 1.0]).expand_as(flat), atol=1e-5, rtol=0)


OCCLUSION = {"resolution": 16, "samples": 16, "max_distance": 1.0, "strength": 1.0, "bias": 0.01}


def test_open_places_get_all_light_and_covered_ones_less():
    low = meshes.batch_of([square()])
    assert run("BakeAmbientOcclusion", low, low, **OCCLUSION).min() > 0.98
    roof = square(uvs=None)
    roof.vertices = roof.vertices * numpy.array([1, 1, 0], "f4") + numpy.array([0, 0, 0.3], "f4")
    covered = meshes.batch_of([topology_joined(square(uvs=None), roof)])
    under = run("BakeAmbientOcclusion", low, covered, **OCCLUSION)[0, ..., 0]
    assert under[8, 8] < 0.25 and under[0, 8] > under[8, 8] + 0.2, "light comes in from the sides"
    halved = run("BakeAmbientOcclusion", low, covered, **{**OCCLUSION, "strength": 0.5})[0, ..., 0]
    torch.testing.assert_close(halved, 1 - (1 - under) / 2, atol=1e-5, rtol=0)
    near_only = run("BakeAmbientOcclusion", low, covered, **{**OCCLUSION, "max_distance": 0.05})
    assert near_only.min() > 0.98


def topology_joined(first, second):
    faces = numpy.concatenate([first.faces, second.faces + len(first.vertices)])
    return meshes.Body(numpy.concatenate([first.vertices, second.vertices]), faces)


def test_directions_are_spread_evenly():
    spread = baking.directions(200)
    numpy.testing.assert_allclose(numpy.linalg.norm(spread, axis=1), 1)
    assert numpy.abs(spread.mean(axis=0)).max() < 0.02 and (spread[:, 1] > 0).mean() == 0.5


FRONT = {
    "position": {"z": 4},
    "target": {},
    "fov": 2 * numpy.degrees(numpy.arctan(0.5)),
    "cameraType": "perspective",
}


def rendered(mesh, mode="auto", info=None, background="#000000", **more):
    image, mask = topic.RenderMesh.execute(
        mesh, mode, 64, 64, background, camera_info=info or FRONT, **more
    ).result
    assert image.shape == (1, 64, 64, 3) and mask.shape == (1, 64, 64)
    return image[0], mask[0]


def test_a_square_is_seen_at_its_size():
    image, mask = rendered(meshes.batch_of([square()]), background="#3366cc")
    # At a distance of 4 a height of 4 fills the picture: the square of 2 fills half of each side.
    assert mask[16:48, 16:48].all() and mask.sum() == 32 * 32
    torch.testing.assert_close(image[0, 0], torch.tensor([0x33, 0x66, 0xCC]) / 255)
    near, _ = rendered(meshes.batch_of([square()]), info={**FRONT, "zoom": 2})
    assert (near.amax(-1) > 0).all()


def test_an_orthographic_camera_shows_the_same_at_every_distance():
    info = {**FRONT, "cameraType": "orthographic"}
    deep = square()
    deep.vertices[:, 2] -= 6
    assert rendered(meshes.batch_of([deep]), info=info)[1].sum() == 32 * 32
    assert rendered(meshes.batch_of([deep]))[1].sum() < 32 * 32 / 4


@pytest.mark.parametrize(("mode", "more", "expected"), [
    ("texture", {}, None), ("auto", {}, None), ("normal", {}, (0.5, 0.5, 1)), ("solid", {}, (0.7, 0.7, 0.7)),
    ("vertex colors", {"colors": numpy.full((4, 3), 0.5**2.2)}, (0.5, 0.5, 0.5)),
])  # fmt: skip
def test_modes_show_what_they_name(mode, more, expected):
    texture = numpy.zeros((2, 2, 3), "f4")
    texture[0, 0], texture[1, 1] = (1, 0, 0), (0, 0, 1)
    mesh = meshes.batch_of([square(textures={"texture": texture}, **more)])
    image, _ = rendered(mesh, mode)
    if expected is None:
        assert image[18, 18].tolist() == [1, 0, 0] and image[45, 45].tolist() == [0, 0, 1]
    else:
        numpy.testing.assert_allclose(image[32, 32], expected, atol=1e-4)


def test_depth_is_white_in_front():
    body = square()
    body.vertices[:, 2] = body.vertices[:, 0] * 0.5
    image, _ = rendered(meshes.batch_of([body]), "depth")
    row = image[32, 20:44, 0]
    assert torch.equal(row, row.sort().values) and row[-1] > 0.7 > row[0]


def test_what_is_nearer_hides_what_is_behind():
    back, front = square(uvs=None), square(uvs=None)
    front.vertices = front.vertices * 0.5 + numpy.array([0, 0, 1], "f4")
    both = topology_joined(back, front)
    for body in (both, meshes.Body(both.vertices, both.faces[::-1].copy())):
        colors = numpy.repeat([[1, 0, 0], [0, 1, 0]], 4, axis=0).astype("f4")
        image, _ = rendered(meshes.batch_of([meshes.Body(body.vertices, body.faces, colors=colors)]))
        assert image[32, 32].tolist() == [0, 1, 0] and image[18, 18].tolist() == [1, 0, 0]


def test_a_mode_of_what_is_not_there_is_an_error():
    with pytest.raises(ValueError, match="mesh has no texture. Choose the mode auto"):
        rendered(batch(box()), "texture")
    with pytest.raises(ValueError, match="'blue' is no colour. Write one as #rrggbb"):
        rendered(batch(box()), background="blue")
    with pytest.raises(ValueError, match="nothing to render"):
        rendered(Types.MESH(torch.zeros(1, 0, 3), torch.zeros(1, 0, 3, dtype=torch.int64)))


def test_a_mesh_stands_where_the_viewer_has_put_it():
    half = 0.5**0.5
    info = [{"scale": {"x": 0.5, "y": 1, "z": 1}, "position": {"x": 0.5, "y": 0, "z": 0},
             "quaternion": {"x": 0, "y": 0, "z": half, "w": half}}]  # fmt: skip
    _, mask = rendered(meshes.batch_of([square()]), model_3d_info=info)
    rows, columns = numpy.nonzero(mask.numpy())
    # Half as wide, then turned by 90 degrees: half as high; then moved to the right.
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == (24, 40, 24, 56)


def test_without_a_camera_all_is_seen():
    _, mask = topic.RenderMesh.execute(batch(ball(1)), "auto", 96, 64, "#000000").result
    assert mask.mean() > 0.3 and not mask[0, :, 0].any() and not mask[0, 0].any()


def test_perspective_does_not_bend_textures():
    texture = numpy.linspace(0, 1, 64, dtype="f4").reshape(1, 64, 1).repeat(64, axis=0).repeat(3, axis=2)
    body = square(textures={"texture": texture}, of_all={"unlit": True})
    body.vertices[:, 2] = body.vertices[:, 0]  # goes away to the left
    view = rendering.viewed(body, FRONT, 64, 64)
    places = raster.blended(view.face, view.shares, body.vertices, body.faces)
    image, mask = rendered(meshes.batch_of([body]), "texture")
    seen = mask.bool().numpy()
    numpy.testing.assert_allclose(image.numpy()[seen][:, 0], (places[seen][:, 0] + 1) / 2, atol=0.02)
    # Where a ray through a pixel meets the plane z = x.
    column = numpy.arange(64)[seen[32]]
    slope = ((column + 0.5) / 32 - 1) * 0.5
    numpy.testing.assert_allclose(places[32][seen[32]][:, 0], 4 * slope / (1 + slope), atol=1e-3)


def test_a_camera_cannot_stand_where_it_looks_at():
    with pytest.raises(ValueError, match="camera stands where it looks at"):
        cameras.look_at([1, 2, 3], [1, 2, 3])
