"""Meshes out of volumes, and 3D files: what is written is read by an independent library."""

import io as streams
import json
import struct
from types import SimpleNamespace

import numpy
import pytest
import torch
import trimesh
from PIL import Image

import folder_paths
from comfy_api.latest import Types, io
from comfy_extras import nodes_hunyuan3d, nodes_load_3d, nodes_save_3d
from comfy_extras.geometry import gltf, meshes, voxels

VIEWER = "viewport_state width height model_3d_info camera_info"
SAVED = f"model_3d filename_prefix {VIEWER}"
VIEWED = "LOAD3D_MODEL_INFO LOAD3D_CAMERA INT INT"


@pytest.fixture
def folders(tmp_path, monkeypatch):
    for name in ("input", "output", "temp"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(folder_paths, f"{name}_directory", str(tmp_path / name))
    return tmp_path


def clone_of(node, prompt=None):
    """The class as the executor calls it."""
    return node.PREPARE_CLASS_CLONE({"hidden_inputs": {io.Hidden.prompt: prompt}})


def tetrahedron(**more):
    vertices = [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]
    faces = [[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]]
    return Types.MESH(torch.tensor([vertices], dtype=torch.float32), torch.tensor([faces]), **more)


def opened(content):
    """What trimesh finds in a GLB file, as one mesh."""
    return trimesh.load(streams.BytesIO(content), file_type="glb", process=False).to_geometry()


def attribute(content, name):
    """The floats of an attribute, found as the specification of glTF says."""
    scene = json_of(content)
    accessor = scene["accessors"][scene["meshes"][0]["primitives"][0]["attributes"][name]]
    view = scene["bufferViews"][accessor["bufferView"]]
    begin = 20 + struct.unpack_from("<I", content, 12)[0] + 8 + view["byteOffset"]
    values = numpy.frombuffer(content[begin : begin + view["byteLength"]], "<f4")
    return values.reshape(accessor["count"], int(accessor["type"][-1]))


def json_of(content):
    return json.loads(content[20 : 20 + struct.unpack_from("<I", content, 12)[0]])


@pytest.mark.parametrize(("module", "node", "inputs", "outputs"), [
    (nodes_load_3d, "Load3D", "model_file image width height",
     "IMAGE MASK STRING IMAGE LOAD3D_CAMERA VIDEO FILE_3D LOAD3D_MODEL_INFO"),
    (nodes_load_3d, "Load3DAdvanced", "model_file viewport_state width height", f"FILE_3D {VIEWED}"),
    (nodes_load_3d, "Preview3D", "model_file camera_info bg_image", ""),
    (nodes_load_3d, "Preview3DAdvanced", f"model_3d {VIEWER}", f"FILE_3D {VIEWED}"),
    (nodes_load_3d, "PreviewGaussianSplat", f"model_3d {VIEWER}", f"FILE_3D_SPLAT_ANY {VIEWED}"),
    (nodes_load_3d, "PreviewPointCloud", f"model_3d {VIEWER}", f"FILE_3D_POINT_CLOUD_ANY {VIEWED}"),
    (nodes_save_3d, "SaveGLB", "mesh filename_prefix", ""),
    (nodes_save_3d, "MeshToFile3D", "mesh", "FILE_3D_GLB"),
    (nodes_save_3d, "RotateMesh", "mesh mode", "MESH"),
    (nodes_save_3d, "MergeMeshes", "meshes", "MESH"),
    (nodes_save_3d, "GetMeshInfo", "mesh", "MESH STRING"),
    (nodes_save_3d, "Save3DAdvanced", SAVED, f"FILE_3D {VIEWED}"),
    (nodes_save_3d, "SaveGaussianSplat", SAVED, f"FILE_3D_SPLAT_ANY {VIEWED}"),
    (nodes_save_3d, "SavePointCloud", SAVED, f"FILE_3D_POINT_CLOUD_ANY {VIEWED}"),
    (nodes_hunyuan3d, "EmptyLatentHunyuan3Dv2", "resolution batch_size", "LATENT"),
    (nodes_hunyuan3d, "Hunyuan3Dv2Conditioning", "clip_vision_output", "CONDITIONING CONDITIONING"),
    (nodes_hunyuan3d, "Hunyuan3Dv2ConditioningMultiView", "front left back right",
     "CONDITIONING CONDITIONING"),
    (nodes_hunyuan3d, "VAEDecodeHunyuan3D", "samples vae num_chunks octree_resolution", "VOXEL"),
    (nodes_hunyuan3d, "VoxelToMeshBasic", "voxel threshold", "MESH"),
    (nodes_hunyuan3d, "VoxelToMesh", "voxel algorithm threshold", "MESH"),
])  # fmt: skip
def test_inputs_and_outputs_are_those_of_workflows(module, node, inputs, outputs):
    schema = getattr(module, node).define_schema()
    assert (schema.node_id, " ".join(each.id for each in schema.inputs)) == (node, inputs)
    assert " ".join(getattr(module, node).RETURN_TYPES) == outputs


def ball(size=20, radius=6.3):
    """How far inside of a ball in the middle each value of a volume stands, in cells."""
    places = numpy.stack(numpy.meshgrid(*[numpy.arange(size) + 0.5] * 3, indexing="ij"), axis=-1)
    return (radius - numpy.linalg.norm(places - size / 2, axis=-1)).astype(numpy.float32)


def mesh_of(vertices, faces, **how):
    return trimesh.Trimesh(vertices, faces, **how)


def test_a_surface_net_of_a_ball_is_closed_and_as_large_as_the_ball():
    body = mesh_of(*voxels.surface_net(ball(), 0.0), process=False)
    radius = 6.3 / 10  # of a volume from -1 to 1
    assert body.is_watertight and body.is_winding_consistent
    assert body.volume == pytest.approx(4 / 3 * numpy.pi * radius**3, rel=0.05), (
        "positive: faces look outwards"
    )
    distances = numpy.linalg.norm(body.vertices, axis=1)
    assert distances.min() > radius - 0.03 and distances.max() < radius + 0.01


def test_the_threshold_moves_the_surface():
    body = mesh_of(*voxels.surface_net(ball(), 2.0), process=False)
    assert numpy.linalg.norm(body.vertices, axis=1).mean() == pytest.approx(0.43, abs=0.01)


def test_a_full_volume_is_closed_at_its_border():
    body = mesh_of(*voxels.surface_net(numpy.ones((3, 4, 5)), 0.5), process=False)
    assert body.is_watertight and body.volume > 0
    sides = body.bounds[1] - body.bounds[0]
    assert sides[0] > sides[1] > sides[2], "x is along W, y along H and z along D"


def test_cubes_are_the_sides_of_full_cells():
    volume = numpy.zeros((4, 5, 6))
    volume[1, 2, 3] = volume[1, 2, 4] = 1
    vertices, faces = voxels.cubes(volume, 0.5)
    assert (len(vertices), len(faces)) == (10 * 4, 10 * 2)
    body = mesh_of(vertices, faces)
    assert body.is_watertight and body.volume == pytest.approx(2 * (2 / 6) ** 3)
    expected = numpy.array([[3, 2, 1], [5, 3, 2]]) / 6 * 2 - 1
    numpy.testing.assert_allclose(body.bounds, expected, atol=1e-6)


@pytest.mark.parametrize(("node", "more"), [
    (nodes_hunyuan3d.VoxelToMesh, ("surface net",)), (nodes_hunyuan3d.VoxelToMesh, ("basic",)),
    (nodes_hunyuan3d.VoxelToMeshBasic, ()),
])  # fmt: skip
def test_volumes_of_a_batch_become_meshes_of_unlike_sizes(node, more):
    batch = numpy.stack([ball(radius=6.3), ball(radius=4.1)])
    mesh = node.execute(Types.VOXEL(torch.from_numpy(batch)), *more, 0.0)[0]
    first, second = meshes.bodies_of(mesh)
    assert len(first.faces) > len(second.faces) > 0 and mesh.face_counts.tolist()[1] == len(second.faces)
    assert abs(second.vertices).max() == pytest.approx(0.41, abs=0.05)


def test_a_volume_below_the_threshold_is_an_error():
    with pytest.raises(ValueError, match=r"above 0.6: it goes from -\S+ to 0.5\. Choose a lower threshold"):
        nodes_hunyuan3d.VoxelToMesh.execute(Types.VOXEL(torch.tensor([[[[-1.0, 0.5]]]])), "surface net", 0.6)


def test_a_glb_file_holds_all_of_a_mesh():
    generator = torch.Generator().manual_seed(0)
    mesh = tetrahedron(
        uvs=torch.rand(1, 4, 2, generator=generator), normals=torch.rand(1, 4, 3, generator=generator),
        texture=torch.rand(1, 4, 8, 3, generator=generator),
    )  # fmt: skip
    content = gltf.write_glb(meshes.bodies_of(mesh)[0], {"workflow": "{}"})
    read = opened(content)
    numpy.testing.assert_array_equal(read.vertices, mesh.vertices[0])
    numpy.testing.assert_array_equal(read.faces, mesh.faces[0])
    numpy.testing.assert_array_equal(attribute(content, "NORMAL"), mesh.normals[0])
    # trimesh counts V from below, glTF from above.
    numpy.testing.assert_allclose(read.visual.uv[:, 1], 1 - mesh.uvs[0, :, 1].numpy(), atol=1e-6)
    picture = numpy.asarray(read.visual.material.baseColorTexture)
    numpy.testing.assert_allclose(picture[..., :3] / 255, mesh.texture[0], atol=1 / 255)
    assert json_of(content)["asset"]["extras"] == {"workflow": "{}"}
    assert len(content) % 4 == 0 and struct.unpack_from("<4sII", content) == (b"glTF", 2, len(content))


@pytest.mark.parametrize("channels", [3, 4])
def test_colors_of_vertices_are_kept(channels):
    colors = torch.rand(1, 4, channels, generator=torch.Generator().manual_seed(1))
    content = gltf.write_glb(meshes.bodies_of(tetrahedron(vertex_colors=colors))[0])
    numpy.testing.assert_array_equal(attribute(content, "COLOR_0"), colors[0])
    assert json_of(content)["materials"][0]["pbrMetallicRoughness"]["baseColorFactor"] == [1.0] * 4


UVS = torch.zeros(1, 4, 2)
PICTURE = torch.zeros(1, 2, 2, 3)


@pytest.mark.parametrize(("more", "expected"), [
    ({}, {"pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 0.5}, "doubleSided": True}),
    ({"unlit": True}, {"extensions": {"KHR_materials_unlit": {}}}),
    ({"uvs": UVS, "metallic_roughness": PICTURE, "occlusion_in_mr": True}, {
        "pbrMetallicRoughness": {
            "metallicRoughnessTexture": {"index": 0, "texCoord": 0}, "metallicFactor": 1.0},
        "occlusionTexture": {"index": 0, "texCoord": 0, "strength": 1.0}}),
    ({"uvs": UVS, "normal_map": PICTURE, "material": {"normal_scale": 0.5}},
     {"normalTexture": {"index": 0, "texCoord": 0, "scale": 0.5}}),
    ({"uvs": UVS, "emissive": PICTURE, "material": {"emissive_strength": 3.0}}, {
        "emissiveFactor": [1.0, 1.0, 1.0], "emissiveTexture": {"index": 0, "texCoord": 0},
        "extensions": {"KHR_materials_emissive_strength": {"emissiveStrength": 3.0}}}),
    ({"material": {"base_color_factor": [1, 0, 0, 1], "metallic_factor": 0.7, "double_sided": False}}, {
        "pbrMetallicRoughness": {"baseColorFactor": [1.0, 0.0, 0.0, 1.0], "metallicFactor": 0.7},
        "doubleSided": False}),
])  # fmt: skip
def test_materials_say_what_the_mesh_says(more, expected):
    scene = json_of(gltf.write_glb(meshes.bodies_of(tetrahedron(**more))[0]))
    (material,) = scene["materials"]
    for key, value in expected.items():
        found = material[key]
        assert {name: found[name] for name in value} == value if isinstance(value, dict) else found == value
    assert scene.get("extensionsUsed", []) == list(material.get("extensions", {}))


def test_meshes_of_a_batch_are_saved_one_file_each(folders):
    batch = meshes.batch_of([
        meshes.Body(numpy.eye(3, dtype="f4"), numpy.array([[0, 1, 2]])),
        meshes.Body(numpy.zeros((4, 3), "f4"), numpy.array([[0, 1, 2], [1, 2, 3]])),
    ])  # fmt: skip
    output = clone_of(nodes_save_3d.SaveGLB, {"1": {}}).execute(batch, "3d/m")
    names = [file["filename"] for file in output.ui["3d"]]
    assert names == ["m_00001_.glb", "m_00002_.glb"]
    contents = [(folders / "output" / "3d" / name).read_bytes() for name in names]
    assert [len(opened(content).faces) for content in contents] == [1, 2]
    assert json_of(contents[0])["asset"]["extras"] == {"prompt": '{"1": {}}'}


def test_a_3d_file_is_saved_as_it_is(folders):
    file = Types.File3D(streams.BytesIO(b"solid"), "stl")
    (saved,) = clone_of(nodes_save_3d.SaveGLB).execute(file, "s").ui["3d"]
    assert saved["filename"] == "s_00001_.stl"
    assert (folders / "output" / "s_00001_.stl").read_bytes() == b"solid"


def test_an_empty_mesh_is_an_error():
    empty = Types.MESH(torch.zeros(1, 0, 3), torch.zeros(1, 0, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match="mesh is empty: it has no faces"):
        nodes_save_3d.MeshToFile3D.execute(empty)


def test_a_face_that_names_no_vertex_is_an_error():
    with pytest.raises(
        ValueError, match=r"Mesh 0 of the batch has 4 vertices, .* others \(0..9\)"
    ):
        meshes.bodies_of(Types.MESH(torch.zeros(1, 4, 3), torch.tensor([[[0, 1, 9]]])))


def test_half_of_the_counts_is_made_up_again():
    batch = meshes.batch_of(meshes.bodies_of(tetrahedron()))
    assert batch.vertex_counts is None and torch.equal(batch.faces, tetrahedron().faces)


def test_a_mesh_becomes_a_file_in_memory():
    file = nodes_save_3d.MeshToFile3D.execute(tetrahedron())[0]
    assert file.format == "glb" and opened(file.get_bytes()).is_watertight


def turned(vector, **mode):
    vertices = torch.tensor([[vector]], dtype=torch.float32)
    mesh = Types.MESH(vertices, torch.zeros(1, 0, 3), normals=vertices, tangents=torch.ones(1, 1, 4))
    result = nodes_save_3d.RotateMesh.execute(mesh, mode)[0]
    assert torch.equal(result.normals, result.vertices) and result.tangents[0, 0, 3] == 1
    assert torch.equal(mesh.vertices, vertices), "the mesh that came in stays as it is"
    return [round(value, 5) for value in result.vertices[0, 0].tolist()]


@pytest.mark.parametrize(("angles", "expected"), [
    ((90, 0, 0), [1, -3, 2]), ((0, 90, 0), [3, 2, -1]), ((0, 0, 90), [-2, 1, 3]), ((90, 90, 0), [2, -3, -1]),
])  # fmt: skip
def test_a_mesh_is_turned_about_x_then_y_then_z(angles, expected):
    named = dict(zip(("angle_x", "angle_y", "angle_z"), angles))
    assert turned([1, 2, 3], mode="euler_xyz", **named) == expected


def test_a_mesh_is_turned_by_a_quaternion_of_any_length():
    assert turned([1, 2, 3], mode="quaternion", qw=0.5, qx=0.5, qy=0, qz=0) == [1, -3, 2]
    with pytest.raises(ValueError, match="quaternion is zero"):
        turned([1, 2, 3], mode="quaternion", qw=0, qx=0, qy=0, qz=0)


def test_merged_meshes_are_all_there():
    first = tetrahedron(uvs=torch.full((1, 4, 2), 0.5), texture=PICTURE)
    second = tetrahedron(vertex_colors=torch.full((1, 4, 3), 0.25))
    second.vertices = second.vertices + 5
    merged = nodes_save_3d.MergeMeshes.execute({"mesh0": first, "mesh1": second})[0]
    assert torch.equal(merged.vertices[0], torch.cat([first.vertices[0], second.vertices[0]]))
    body = mesh_of(merged.vertices[0], merged.faces[0], process=False)
    assert body.is_watertight and body.volume == pytest.approx(2 / 6)
    assert merged.uvs[0].tolist() == [[0.5, 0.5]] * 4 + [[0, 0]] * 4
    assert merged.vertex_colors[0, :, 0].tolist() == [1] * 4 + [0.25] * 4
    assert torch.equal(merged.texture, PICTURE)


def test_information_names_what_there_is():
    mesh = tetrahedron(uvs=UVS, texture=torch.zeros(1, 4, 8, 3))
    output = nodes_save_3d.GetMeshInfo.execute(mesh)
    assert output[0] is mesh and output.ui.as_dict() == {"text": (output[1],)}
    assert output[1] == "Vertices:   4\nFaces:      4\nAttributes: uvs, texture 8x4"


STATE = {"camera_info": {"zoom": 1}, "model_3d_info": [{"a": 1}]}


@pytest.mark.parametrize("node", ["Preview3DAdvanced", "PreviewGaussianSplat", "PreviewPointCloud"])
def test_a_file_is_shown_as_the_viewer_or_the_links_say(folders, node):
    file = Types.File3D(streams.BytesIO(b"data"), "ply")
    execute = getattr(nodes_load_3d, node).execute
    output = execute(file, STATE, 10, 20)
    name, camera, info = output.ui.as_dict()["result"]
    assert (folders / "temp" / name).read_bytes() == b"data" and name.endswith(".ply")
    assert output.args == (file, [{"a": 1}], {"zoom": 1}, 10, 20) and (camera, info) == output.args[2:0:-1]
    linked = execute(file, STATE, 10, 20, camera_info={"zoom": 2}, model_3d_info=[])
    assert linked.args[1:3] == ([], {"zoom": 2})
    assert execute(file, "", 1, 1).args[1:3] == ([], None)


@pytest.mark.parametrize("node", ["Save3DAdvanced", "SaveGaussianSplat", "SavePointCloud"])
def test_a_file_is_saved_and_shown(folders, node):
    file = Types.File3D(streams.BytesIO(b"data"), "ply")
    output = getattr(nodes_save_3d, node).execute(file, STATE, 10, 20, "3d/x")
    assert output.ui.as_dict()["result"][0] == "3d/x_00001.ply"
    assert (folders / "output" / "3d" / "x_00001.ply").read_bytes() == b"data"
    assert output.args == (file, [{"a": 1}], {"zoom": 1}, 10, 20)


def test_a_path_or_a_file_is_previewed(folders):
    shown = nodes_load_3d.Preview3D.execute("3d/a.glb", camera_info={"zoom": 1}).ui.as_dict()["result"]
    assert shown == ["3d/a.glb", {"zoom": 1}, None]
    file = Types.File3D(streams.BytesIO(b"data"), "glb")
    name, _, background = nodes_load_3d.Preview3D.execute(file, bg_image=torch.rand(1, 4, 4, 3)).ui.as_dict()[
        "result"
    ]
    assert (folders / "output" / name).read_bytes() == b"data" and (folders / background).is_file()


def test_the_files_of_the_folder_3d_are_listed(folders):
    (folders / "input" / "3d" / "sub").mkdir(parents=True)
    for name in ("3d/b.glb", "3d/sub/a.obj", "3d/c.ply", "3d/d.txt", "e.glb"):
        (folders / "input" / name).write_bytes(b"x")
    listed = [node.INPUT_TYPES()["required"]["model_file"][1]["options"]
              for node in (nodes_load_3d.Load3D, nodes_load_3d.Load3DAdvanced)]  # fmt: skip
    assert listed == [["none", "3d/b.glb", "3d/c.ply", "3d/sub/a.obj"], ["none", "3d/b.glb", "3d/sub/a.obj"]]
    assert nodes_load_3d.Load3D.validate_inputs("3d/b.glb") is True
    assert nodes_load_3d.Load3DAdvanced.validate_inputs("none") is True
    assert "Invalid 3D file: z.glb" in nodes_load_3d.Load3D.validate_inputs("z.glb")


def test_the_pictures_of_the_viewer_are_loaded(folders):
    for name, value in (("i.png", 255), ("n.png", 51)):
        Image.new("RGB", (4, 2), (value, value, value)).save(folders / "input" / name)
    Image.new("RGBA", (4, 2), (0, 0, 0, 0)).save(folders / "input" / "m.png")
    (folders / "input" / "b.glb").write_bytes(b"x")
    state = {"image": "i.png", "mask": "m.png", "normal": "n.png", "recording": "", **STATE}
    outputs = nodes_load_3d.Load3D.execute("b.glb", state, width=4, height=2).result
    image, mask, path, normal, camera, video, file, info = outputs
    assert image.shape == (1, 2, 4, 3) and image.min() == 1 and normal.max() == pytest.approx(0.2)
    assert mask.min() == 1 and (path, camera, video, info) == ("b.glb", {"zoom": 1}, None, [{"a": 1}])
    assert file.get_bytes() == b"x"
    assert nodes_load_3d.Load3D.execute("none", state).args[2:7:4] == ("", None)
    advanced = nodes_load_3d.Load3DAdvanced.execute("b.glb", STATE, 4, 2)
    assert advanced[0].get_bytes() == b"x" and advanced.args[1:] == ([{"a": 1}], {"zoom": 1}, 4, 2)


def test_views_are_told_apart_and_joined():
    state = torch.zeros(1, 3, 8)
    view = SimpleNamespace(last_hidden_state=state)
    positive, negative = nodes_hunyuan3d.Hunyuan3Dv2ConditioningMultiView.execute(
        front=view, back=view
    ).result
    embeds = positive[0][0]
    assert embeds.shape == (1, 6, 8) and not negative[0][0].any()
    frequencies = 10000.0 ** -(numpy.arange(4) / 4)
    for number, tokens in ((0, embeds[0, :3]), (2, embeds[0, 3:])):
        expected = numpy.concatenate([numpy.sin(number * frequencies), numpy.cos(number * frequencies)])
        numpy.testing.assert_allclose(tokens.numpy(), numpy.tile(expected, (3, 1)), atol=1e-6)
    single = nodes_hunyuan3d.Hunyuan3Dv2Conditioning.execute(SimpleNamespace(last_hidden_state=state + 1))
    assert single[0][0][0].min() == 1 and single[1][0][0].max() == 0
    with pytest.raises(ValueError, match="No view is linked"):
        nodes_hunyuan3d.Hunyuan3Dv2ConditioningMultiView.execute()


def test_a_latent_is_decoded_by_the_vae_that_is_given():
    asked = {}

    class Volumes:
        def decode(self, samples, vae_options):
            asked.update(vae_options)
            return samples * 2

    latent = nodes_hunyuan3d.EmptyLatentHunyuan3Dv2.execute(5, 2)[0]
    assert latent["samples"].shape == (2, 64, 5) and latent["type"] == "hunyuan3dv2"
    voxel = nodes_hunyuan3d.VAEDecodeHunyuan3D.execute({"samples": torch.ones(1, 2, 2, 2)}, Volumes(), 9, 7)[
        0
    ]
    assert voxel.data.max() == 2 and asked == {"num_chunks": 9, "octree_resolution": 7}
