"""Gaussian splats are read, written, moved, seen and meshed: held to splats whose picture is known."""

import gzip
import io as streams
import struct

import numpy
import pytest
import torch
from scipy.spatial.transform import Rotation

from comfy_api.latest import Types
from comfy_extras import nodes_gaussian_splat as topic
from comfy_extras.geometry import cameras, meshes, splat_files, splats
from comfy_extras.geometry.splats import Cloud, sh_of

MOVES = " ".join(f"{name}_{axis}" for name in ("translate", "rotate", "scale") for axis in "xyz")


@pytest.mark.parametrize(("node", "inputs", "outputs"), [
    ("SplatToFile3D", "splat format", "FILE_3D_SPLAT_ANY"),
    ("File3DToSplat", "model_3d", "SPLAT"),
    ("RenderSplat", "splat width height frames splat_scale sharpen headlight_shading opacity_threshold "
     "render_style background bg_image camera_info", "IMAGE MASK"),
    ("CreateCameraInfo", "mode target_x target_y target_z roll fov zoom camera_type", "LOAD3D_CAMERA"),
    ("TransformSplat", f"splat {MOVES}", "SPLAT"),
    ("GetSplatCount", "splat", "SPLAT INT"),
    ("MergeSplat", "splats", "SPLAT"),
    ("SplatToMesh", "splat resolution kernel smooth level min_component min_opacity color_sharpen", "MESH"),
])  # fmt: skip
def test_inputs_and_outputs_are_those_of_workflows(node, inputs, outputs):
    schema = getattr(topic, node).define_schema()
    assert (schema.node_id, " ".join(each.id for each in schema.inputs)) == (node, inputs)
    assert " ".join(getattr(topic, node).RETURN_TYPES) == outputs


def cloud(count=20, harmonics=1, seed=0):
    """Splats at random."""
    draw = numpy.random.default_rng(seed)
    turns = draw.normal(size=(count, 4))
    turns /= numpy.linalg.norm(turns, axis=1, keepdims=True)
    sh = draw.normal(0, 0.3, (count, harmonics, 3))
    return Cloud(draw.normal(0, 1, (count, 3)), draw.uniform(0.01, 0.3, (count, 3)), turns,
                 draw.uniform(0.1, 0.9, count), sh)  # fmt: skip


def batch(*clouds):
    return splats.batch_of(list(clouds))


def run(node, *values, **more):
    return getattr(topic, node).execute(*values, **more)[0]


def same(first, second, turn=None, **tolerance):
    """Do two clouds look alike? Rotations are compared by what they do, within `turn` if that is given."""
    for name in ("positions", "scales", "opacities"):
        numpy.testing.assert_allclose(getattr(first, name), getattr(second, name), err_msg=name, **tolerance)
    of_turns = tolerance if turn is None else {"atol": turn}
    numpy.testing.assert_allclose(first.matrices(), second.matrices(), err_msg="rotations", **of_turns)
    numpy.testing.assert_allclose(first.colors, second.colors, err_msg="colors", **tolerance)


@pytest.mark.parametrize(("kind", "tolerance"), [("ply", 1e-5), ("ksplat", 2e-3), ("spz", 0.05)])
def test_splats_come_back_from_their_file(kind, tolerance):
    written = cloud()
    file = run("SplatToFile3D", batch(written), kind)
    assert file.format == kind
    read = splats.clouds_of(run("File3DToSplat", file))[0]
    # SPZ keeps three of four numbers of a rotation, which tells little of a fourth that is near zero.
    same(read, written, turn=0.2 if kind == "spz" else None, atol=tolerance, rtol=tolerance)
    unnamed = run("File3DToSplat", Types.File3D(streams.BytesIO(file.get_bytes())))
    assert torch.equal(unnamed.positions, batch(read).positions), "the format is known by the content too"


def test_all_harmonics_stand_in_a_ply_file_as_others_write_them():
    written = cloud(harmonics=4)
    data = splat_files.write_ply(written)
    header, body = data.split(b"end_header\n")
    names = [line.split()[2].decode() for line in header.splitlines() if line.startswith(b"property")]
    table = dict(zip(names, numpy.frombuffer(body, "<f4").reshape(20, -1).T, strict=True))
    # f_rest counts all harmonics of red, then of green, then of blue.
    numpy.testing.assert_allclose(table["f_rest_4"], written.sh[:, 2, 1], rtol=1e-6)
    numpy.testing.assert_allclose(1 / (1 + numpy.exp(-table["opacity"])), written.opacities, rtol=1e-5)
    numpy.testing.assert_allclose(numpy.exp(table["scale_2"]), written.scales[:, 2], rtol=1e-5)
    numpy.testing.assert_allclose(splat_files.read_ply(data).sh, written.sh, rtol=1e-6)


def test_ply_files_as_text_and_of_other_types_are_read():
    names = ["x", "y", "z", "opacity", *(f"scale_{i}" for i in range(3)), *(f"rot_{i}" for i in range(4)),
             *(f"f_dc_{i}" for i in range(3))]  # fmt: skip
    header = "ply\nformat ascii 1.0\ncomment by hand\nelement vertex 1\n{}element face 0\n" + (
        "property list uchar int vertex_indices\nend_header\n"
    )
    text = (
        header.format("".join(f"property float {name}\n" for name in names)) + "1 2 3 0 0 0 0 1 0 0 0 0 0 0\n"
    )
    read = splat_files.read(text.encode())
    assert (
        read.positions.tolist() == [[1, 2, 3]] and read.opacities.tolist() == [0.5] and read.scales.min() == 1
    )
    big = header.replace("ascii", "binary_big_endian").format(
        "".join(f"property double {n}\n" for n in names)
    )
    content = big.encode() + struct.pack(">14d", 1, 2, 3, *[0.0] * 4, 1, *[0.0] * 6)
    assert splat_files.read(content).positions.tolist() == [[1, 2, 3]]


def test_splat_files_are_read():
    record = struct.pack("<6f8B", 1, 2, 3, 0.1, 0.2, 0.3, 255, 0, 51, 102, 255, 128, 128, 128)
    read = splat_files.read(record, "splat")
    assert read.positions.tolist() == [[1, 2, 3]] and read.opacities.tolist() == [0.4]
    numpy.testing.assert_allclose(read.colors, [[1, 0, 0.2]], atol=1e-6)
    numpy.testing.assert_allclose(read.matrices()[0], numpy.eye(3), atol=1e-6)


def test_spz_places_keep_their_sign():
    one = cloud(2)
    one.positions[:] = [[-1.5, 2.25, -100.125], [0, 0.5, 3]]
    numpy.testing.assert_array_equal(
        splat_files.read_spz(splat_files.write_spz(one)).positions, one.positions
    )


def spz(version, count=1, size=100):
    header = struct.pack("<IIIBBBB", 0x5053474E, version, count, 0, 12, 0, 0)
    return gzip.compress(header + bytes(size), mtime=0)


POINTS = b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nend_header\n1\n"
COMPRESSED = bytearray(splat_files.write_ksplat(cloud(2)))
COMPRESSED[20] = 1


@pytest.mark.parametrize(("data", "kind", "message"), [
    (b"x" * 33, "splat", "33 bytes are no multiple of 32"),
    (POINTS, "ply", "has no y: it holds points or a mesh"),
    (POINTS.replace(b"end_header", b""), "ply", "no end of its header"),
    (POINTS.replace(b"vertex", b"face"), "ply", "does not begin with vertices"),
    (POINTS.replace(b"float x", b"odd x"), "ply", "of the type 'odd'"),
    (POINTS.replace(b"ascii", b"binary_little_endian"), "ply", "ends before its 1 vertices do"),
    (bytes(COMPRESSED), "ksplat", "is compressed, which cannot be read; save it as PLY"),
    (splat_files.write_ksplat(cloud(2))[:-1], "ksplat", "ends too early"),
    (b"\1" + bytes(5000), "ksplat", "unknown version"),
    (spz(3), "spz", "has version 3; 1 and 2 can be read"),
    (spz(2, 50), "spz", "ends too early"),
    (b"\x1f\x8bnonsense", "", "cannot be unpacked"),
])  # fmt: skip
def test_what_holds_no_splats_is_an_error(data, kind, message):
    with pytest.raises(ValueError, match="The file cannot be read as splats: .*" + message):
        run("File3DToSplat", Types.File3D(streams.BytesIO(data), kind))


def test_harmonics_of_a_ksplat_file_are_refused():
    data = bytearray(splat_files.write_ksplat(cloud(2)))
    data[4096 + 40] = 1
    with pytest.raises(ValueError, match="has harmonics, which cannot be read"):
        splat_files.read(bytes(data), "ksplat")


def test_no_splats_are_no_file():
    with pytest.raises(ValueError, match="no splats to save"):
        run("SplatToFile3D", batch(cloud(0)))
    with pytest.raises(ValueError, match="holds no splats"):
        run("File3DToSplat", Types.File3D(streams.BytesIO(b""), "splat"))


def moved(one, translate=(0, 0, 0), rotate=(0, 0, 0), scale=(1, 1, 1)):
    how = {f"{name}_{axis}": value for name, values in
           (("translate", translate), ("rotate", rotate), ("scale", scale))
           for axis, value in zip("xyz", values)}  # fmt: skip
    return splats.clouds_of(run("TransformSplat", batch(one), **how))[0]


@pytest.mark.parametrize("scale", [(2, 2, 2), (1, 2, 0.5)])
def test_splats_are_turned_stretched_and_moved(scale):
    one = cloud()
    result = moved(one, (1, 2, 3), (30, -40, 100), scale)
    matrix = numpy.diag(scale) @ Rotation.from_euler("xyz", (30, -40, 100), degrees=True).as_matrix()
    numpy.testing.assert_allclose(result.positions, one.positions @ matrix.T + [1, 2, 3], atol=1e-5)
    numpy.testing.assert_allclose(result.covariances(), matrix @ one.covariances() @ matrix.T, atol=1e-5)
    numpy.testing.assert_allclose(numpy.linalg.det(result.matrices()), 1, atol=1e-5)


def test_merged_splats_are_all_there():
    first, second = cloud(3), cloud(5, harmonics=4, seed=1)
    merged = run("MergeSplat", {"splat0": batch(first), "splat1": batch(second)})
    assert merged.positions.shape == (1, 8, 3) and merged.sh.shape == (1, 8, 4, 3)
    same(splats.clouds_of(merged)[0].kept(slice(3, 8)), second, atol=1e-5)
    assert not merged.sh[0, :3, 1:].any()


def test_batches_of_unlike_sizes_are_not_merged():
    with pytest.raises(ValueError, match=r"batches have \[1, 2\] items"):
        run("MergeSplat", {"splat0": batch(cloud()), "splat1": batch(cloud(), cloud())})


def test_splats_are_counted_without_what_fills_up():
    splat = batch(cloud(3), cloud(5))
    output = topic.GetSplatCount.execute(splat)
    assert output[1] == 8 and splat.counts.tolist() == [3, 5] and output.ui.as_dict() == {"text": ("8",)}


FRONT = {
    "position": {"z": 4},
    "target": {},
    "fov": 2 * numpy.degrees(numpy.arctan(0.5)),
    "cameraType": "perspective",
}


def splat_at(*places, size=0.2, color=(1, 0, 0), opacity=0.8):
    """Round splats at places of the viewer's world (Y up)."""
    count = len(places)
    return Cloud(numpy.array(places, float) * [1, -1, -1], numpy.full((count, 3), size),
                 numpy.tile([1.0, 0, 0, 0], (count, 1)), numpy.full(count, opacity),
                 sh_of(numpy.broadcast_to(numpy.array(color, float), (count, 3))))  # fmt: skip


PLAIN = {"frames": 1, "splat_scale": 1.0, "sharpen": 1.0, "headlight_shading": 0.0, "opacity_threshold": 0.0,
         "render_style": "color", "background": "#000000"}  # fmt: skip


def picture(one, info=FRONT, size=64, **more):
    image, mask = topic.RenderSplat.execute(
        batch(one), size, size, **{**PLAIN, **more}, camera_info=info
    ).result
    return image[0].numpy(), mask[0].numpy()


def test_a_splat_is_a_gaussian_at_its_place():
    image, mask = picture(splat_at((0.5, 0.25, 0)))
    # 16 pixels are a length of 1 at the target: the middle is at (40, 28), a deviation is 3.2 pixels.
    y, x = numpy.mgrid[:64, :64] + 0.5
    variance = (0.2 * 16) ** 2 + 0.3
    expected = 0.8 * numpy.exp(-((x - 40) ** 2 + (y - 28) ** 2) / 2 / variance)
    near = (x - 40) ** 2 + (y - 28) ** 2 < 64
    numpy.testing.assert_allclose(mask[near], expected[near], atol=0.02)
    numpy.testing.assert_allclose(image[near][:, 0], expected[near], atol=0.02)
    assert not image[..., 1:].any()


def test_a_long_splat_lies_as_it_is_turned():
    one = splat_at((0, 0, 0))
    one.scales[:] = [0.6, 0.05, 0.05]
    one.rotations[:] = [0.5**0.5, 0, 0, 0.5**0.5]  # by 90 degrees about z
    _, mask = picture(one)
    rows, columns = numpy.nonzero(mask > 0.2)
    assert numpy.ptp(rows) > 4 * numpy.ptp(columns)


def test_nearer_splats_hide_those_behind():
    both = splats.joined([splat_at((0, 0, -1), color=(0, 0, 1)), splat_at((0, 0, 1), color=(1, 0, 0))])
    for one in (both, both.kept([1, 0])):
        image, mask = picture(one)
        # 0.8 of the nearer one, then 0.8 of what shines through, and again 0.8 and 0.04 in all.
        numpy.testing.assert_allclose(image[32, 32], [0.8, 0, 0.16], atol=0.02)
        assert mask[32, 32] == pytest.approx(0.96, abs=0.02)


def test_many_splats_are_composed_as_one_by_one(monkeypatch):
    from comfy_extras.geometry import raster

    one = cloud(200)
    whole, mask = picture(one)
    monkeypatch.setattr(raster, "PAIRS_AT_ONCE", 500)
    parts, mask_of_parts = picture(one)
    numpy.testing.assert_allclose(parts, whole, atol=1e-5)
    numpy.testing.assert_allclose(mask_of_parts, mask, atol=1e-5)


def test_behind_splats_is_the_background():
    image, _ = picture(splat_at((0, 0, 0)), background="#0000ff")
    numpy.testing.assert_allclose(image[32, 32], [0.8, 0, 0.2], atol=0.02)
    assert image[0, 0].tolist() == [0, 0, 1]
    behind = torch.zeros(1, 8, 8, 3)
    behind[..., 1] = 1
    image, _ = picture(splat_at((0, 0, 0)), bg_image=behind)
    numpy.testing.assert_allclose(image[0, 0], [0, 1, 0], atol=1e-5)


def test_styles_show_what_they_name():
    near_and_far = splats.joined([splat_at((-1, 0, 1), opacity=1.0), splat_at((1, 0, -1), opacity=1.0)])
    depth, _ = picture(near_and_far, render_style="depth")
    assert depth.max() == pytest.approx(1) and depth[32, 42].max() < 0.1 and not depth[0, 0].any()
    flat = splat_at((0, 0, 0), opacity=1.0)
    flat.scales[:, 2] = 0.01
    normal, _ = picture(flat, render_style="normal")
    numpy.testing.assert_allclose(normal[32, 32], [0.5, 0.5, 1], atol=0.01)
    clay, _ = picture(flat, render_style="clay")
    assert clay[32, 32].tolist() == pytest.approx([0.75 * 0.99] * 3, abs=0.02)


def test_what_looks_aside_gets_darker_by_the_headlight():
    leaning = splat_at((0, 0, 0), opacity=1.0)
    leaning.scales[:, 2] = 0.01
    leaning.rotations[:] = [0.75**0.5, 0, 0.5, 0]  # by 60 degrees about y
    plain, lit = (picture(leaning, headlight_shading=value)[0][32, 32, 0] for value in (0.0, 2.0))
    assert lit / plain == pytest.approx(0.25, abs=0.02)


def test_sharpening_takes_the_colour_of_what_covers_most():
    both = splats.joined([splat_at((0, 0, 0.1), opacity=0.2), splat_at((0, 0, 0), color=(0, 1, 0))])
    plain, sharp = (picture(both, sharpen=value)[0][32, 32] for value in (1.0, 4.0))
    assert sharp[0] < plain[0] and sharp[1] > plain[1] and sharp.sum() == pytest.approx(plain.sum(), abs=0.01)


def test_faint_splats_and_those_behind_the_camera_are_left_out():
    both = splats.joined([splat_at((0, 0, 0), opacity=0.3), splat_at((1, 0, 0)), splat_at((0, 0, 6))])
    _, mask = picture(both, opacity_threshold=0.5)
    assert mask[32, 32] == 0 and mask[32, 48] > 0.7
    with pytest.raises(ValueError, match="no splats to render"):
        picture(both, opacity_threshold=1.0)


def test_frames_go_around_the_target():
    one = batch(splat_at((1, 0, 0)))
    images, masks = topic.RenderSplat.execute(one, 64, 64, **{**PLAIN, "frames": 4}, camera_info=FRONT).result
    middles = [numpy.argwhere(mask.numpy() > 0.5).mean(axis=0)[1] for mask in masks]
    # From the right the splat lies in the middle and is nearer, from behind it lies on the left.
    assert middles == pytest.approx([47.5, 31.5, 15.5, 31.5], abs=0.8)
    back, _ = topic.RenderSplat.execute(one, 64, 64, **{**PLAIN, "frames": -4}, camera_info=FRONT).result
    torch.testing.assert_close(back[1], images[3], atol=1e-4, rtol=0)
    assert (masks[1] > 0.1).sum() > (masks[3] > 0.1).sum()


def test_without_a_camera_nearly_all_is_seen():
    _, mask = topic.RenderSplat.execute(batch(shell(500)), 64, 64, **PLAIN).result
    assert mask[0, 8:56, 8:56].mean() > 0.3 and mask[0, 0].mean() < 0.05 > mask[0, :, 0].mean()


LENS = {
    "target_x": 1.0,
    "target_y": 0.0,
    "target_z": 0.0,
    "fov": 40.0,
    "zoom": 2.0,
    "camera_type": "orthographic",
}


def created(roll=0.0, **mode):
    return topic.CreateCameraInfo.execute(mode, roll=roll, **LENS)[0]


def test_a_camera_goes_around_its_target():
    info = created(mode="orbit", yaw=90.0, pitch=30.0, distance=2.0)
    assert info["position"] == pytest.approx({"x": 1 + 2 * 0.75**0.5, "y": 1, "z": 0}, abs=1e-6)
    assert (info["fov"], info["zoom"], info["cameraType"]) == (40, 2, "orthographic")
    camera = cameras.camera_of(info)
    places, _ = camera.seen(numpy.array([[1.0, 0, 0], [1, 1, 0]]), 100, 100)
    numpy.testing.assert_allclose(places[0], [50, 50], atol=1e-6)
    assert places[1, 0] == pytest.approx(50) and places[1, 1] < 50, "up is up"


def test_roll_turns_the_picture():
    info = created(roll=90.0, mode="look_at", position_x=1.0, position_y=0.0, position_z=3.0)
    places, _ = cameras.camera_of(info).seen(numpy.array([[1.0, 1, 0]]), 100, 100)
    assert places[0, 0] > 50 and places[0, 1] == pytest.approx(50), "what was above is now on the right"


def test_a_camera_may_have_a_rotation():
    half = 0.5**0.5
    place = {"position_x": 1.0, "position_y": 2.0, "position_z": 3.0}
    info = created(mode="quaternion", **place, quat_x=0.0, quat_y=2 * half, quat_z=0.0, quat_w=2 * half)
    assert info["target"] == pytest.approx({"x": 0, "y": 2, "z": 3}, abs=1e-6), "turned to the left from -Z"
    assert info["quaternion"] == pytest.approx({"x": 0, "y": half, "z": 0, "w": half})
    with pytest.raises(ValueError, match="quaternion is zero"):
        created(mode="quaternion", **place, quat_x=0.0, quat_y=0.0, quat_z=0.0, quat_w=0.0)


def shell(count=1500, radius=1.0, color=(1, 0, 0)):
    """Splats on a ball, evenly."""
    number = numpy.arange(count) + 0.5
    height, angle = 1 - 2 * number / count, numpy.pi * (1 + 5**0.5) * number
    ring = numpy.sqrt(1 - height * height)
    places = radius * numpy.stack([ring * numpy.cos(angle), height, ring * numpy.sin(angle)], axis=1)
    return splat_at(*places, size=0.05, color=color)


MESHING = {"resolution": 64, "kernel": 3, "smooth": 0, "level": 0.5, "min_component": 50, "min_opacity": 0.02,
           "color_sharpen": 2.0}  # fmt: skip


@pytest.mark.slow
def test_a_surface_lies_around_the_splats():
    body = meshes.bodies_of(run("SplatToMesh", batch(shell()), **MESHING))[0]
    distance = numpy.linalg.norm(body.vertices, axis=1)
    assert numpy.abs(distance - 1).max() < 0.15 and len(body.faces) > 1000
    numpy.testing.assert_allclose(body.colors, numpy.broadcast_to([1, 0, 0], body.colors.shape), atol=1e-3)
    upright = shell(color=(0.5, 0, 0))
    upright.positions = upright.positions + numpy.array([0, -2, 0])  # up, in the viewer's world
    upright = meshes.bodies_of(run("SplatToMesh", batch(upright), **MESHING))[0]
    assert upright.vertices[:, 1].mean() == pytest.approx(2, abs=0.05)
    assert upright.colors[:, 0].mean() == pytest.approx(0.214, abs=1e-3), "half of sRGB is 0.214 of the light"
    outer = run("SplatToMesh", batch(shell()), **{**MESHING, "level": 0.1})
    assert numpy.linalg.norm(meshes.bodies_of(outer)[0].vertices, axis=1).max() > distance.max()


def test_small_parts_and_faint_splats_make_no_surface():
    lonely = splats.joined([shell(), splat_at((1.6, 0, 0), size=0.05)])
    body = meshes.bodies_of(run("SplatToMesh", batch(lonely), **{**MESHING, "min_component": 200}))[0]
    assert body.vertices[:, 0].max() < 1.3
    with pytest.raises(ValueError, match="No splat has an opacity of 0.9 or more"):
        run("SplatToMesh", batch(shell(10)), **{**MESHING, "min_opacity": 0.9})
    with pytest.raises(ValueError, match="No part of the surface is large enough"):
        run("SplatToMesh", batch(shell(10)), **{**MESHING, "min_component": 99999})
