"""Pictures cropped, turned, stitched, cut into tiles and saved."""

import io as bytes_io
import json
import struct
import types

import numpy as np
import pytest
import torch
from PIL import Image

import comfy.picture_encoding
import folder_paths
from comfy_api.latest import io
from comfy_extras import nodes_images as nodes


def pictures(*shape, seed=1):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Output and temp folders of the test's own."""
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "output"))
    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path / "temp"))
    return tmp_path


def visit(node, **hidden):
    """The class as the executor calls it, with hidden values."""
    node.GET_SCHEMA()
    return node.PREPARE_CLASS_CLONE({"hidden_inputs": hidden})


def test_a_crop_stays_inside_of_the_picture():
    image = pictures(2, 10, 20, 3)
    assert torch.equal(nodes.ImageCrop.execute(image, 4, 3, 5, 6)[0], image[:, 6:9, 5:9])
    assert torch.equal(nodes.ImageCrop.execute(image, 4, 3, 50, 60)[0], image[:, 9:, 19:])


def test_a_drawn_crop_is_shown(folders):
    image = pictures(1, 10, 20, 3)
    out = nodes.ImageCropV2.execute(image, {"x": 2, "y": 1, "width": 5, "height": 4})
    assert torch.equal(out[0], image[:, 1:5, 2:7])
    shown = folders / "temp" / out.ui.as_dict()["images"][0]["filename"]
    with Image.open(shown) as file:
        assert file.size == (5, 4)


@pytest.mark.parametrize("mask_is_inverted", [False, True])
def test_a_subject_is_centred_over_the_background(mask_is_inverted):
    image = torch.zeros(1, 60, 60, 3)
    image[:, 10:40, 20:50] = torch.tensor([1.0, 0.5, 0.0])
    mask = torch.zeros(1, 60, 60)
    mask[:, 10:40, 20:50] = 1
    mask = 1 - mask if mask_is_inverted else mask
    out = nodes.ImageCropToMask.execute(image, mask, 64, 64, 2.0, 0, "#0000ff")[0]
    assert out.shape == (1, 64, 64, 3)
    assert torch.allclose(out[0, 32, 32], torch.tensor([1.0, 0.5, 0.0]), atol=0.01)
    assert torch.allclose(out[0, 4, 4], torch.tensor([0.0, 0.0, 1.0]), atol=0.01)
    # the margin is a quarter of the picture on each side
    assert out[0, 32, 20, 0] > 0.9 and out[0, 32, 12, 0] < 0.1 and out[0, 52, 32, 0] < 0.1


def test_masks_must_be_one_or_as_many_as_pictures():
    with pytest.raises(ValueError, match="2 masks for 3 pictures"):
        nodes.ImageCropToMask.execute(pictures(3, 8, 8, 3), torch.ones(2, 8, 8), 64, 64, 1.0, 0, "#000000")


@pytest.mark.parametrize(("index", "length", "found"), [
    (0, 1, [0]), (1, 2, [1, 2]), (-1, 5, [3]), (-9, 1, [0]), (9, 3, [3]), (2, 9, [2, 3]),
])  # fmt: skip
def test_pictures_of_a_batch(index, length, found):
    batch = torch.arange(4.0).view(4, 1, 1, 1)
    assert nodes.ImageFromBatch.execute(batch, index, length)[0].flatten().tolist() == found


def test_a_batch_repeats():
    batch = torch.arange(2.0).view(2, 1, 1, 1)
    assert nodes.RepeatImageBatch.execute(batch, 3)[0].flatten().tolist() == [0, 1] * 3


def test_noise_follows_its_seed_and_leaves_others_alone():
    image = torch.full((1, 64, 64, 3), 0.5)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first, again, other = (nodes.ImageAddNoise.execute(image, seed, 0.1)[0] for seed in (5, 5, 6))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert (first - image).std().item() == pytest.approx(0.1, rel=0.05)


def one_color(value, height, width, batch=1, channels=3):
    return torch.full((batch, height, width, channels), float(value))


@pytest.mark.parametrize(("direction", "shape", "first_at"), [
    ("right", (10, 30), (0, 0)), ("left", (10, 30), (0, 20)),
    ("down", (20, 20), (0, 0)), ("up", (20, 20), (10, 0)),
])  # fmt: skip
def test_stitched_pictures_lie_where_the_direction_says(direction, shape, first_at):
    first, second = one_color(0.2, 10, 10), one_color(0.8, 10, 20)
    if direction in ("down", "up"):
        first = one_color(0.2, 10, 20)
    out = nodes.ImageStitch.execute(first, direction, False, 0, "white", second)[0]
    assert out.shape[1:3] == shape
    y, x = first_at
    assert torch.equal(out[:, y : y + 10, x : x + first.shape[2]], first)
    assert (out == 0.8).sum() == second.numel()


def test_stitching_matches_sizes_batches_and_channels():
    first, second = one_color(0.25, 20, 10, batch=2), one_color(0.75, 10, 20, batch=1, channels=4)
    out = nodes.ImageStitch.execute(first, "right", True, 3, "red", second)[0]
    assert out.shape == (2, 20, 10 + 4 + 40, 4)  # the gap is made even, the second twice as large
    assert torch.equal(out[0, 0, 11], torch.tensor([1.0, 0.0, 0.0, 1.0]))
    assert torch.allclose(out[1, 5, 30], torch.tensor(0.75), atol=0.01)
    assert torch.equal(out[0, 0, 0], torch.tensor([0.25, 0.25, 0.25, 1.0]))


def test_the_smaller_picture_is_centred_where_sizes_are_not_matched():
    first, second = one_color(0.2, 11, 4), one_color(0.8, 6, 4)
    out = nodes.ImageStitch.execute(first, "right", False, 0, "white", second)[0]
    column = out[0, :, 6, 0].tolist()
    assert column == pytest.approx([1.0] * 2 + [0.8] * 6 + [1.0] * 3)


def test_one_picture_alone_is_not_stitched():
    image = pictures(1, 4, 4, 3)
    assert nodes.ImageStitch.execute(image, "right", True, 8, "red")[0] is image


def test_a_padded_picture_is_in_the_middle():
    out = nodes.ResizeAndPadImage.execute(one_color(0.5, 10, 20), 40, 40, "white", "area")[0]
    assert out.shape == (1, 40, 40, 3)
    assert (out[:, 10:30] == 0.5).all() and (out[:, :10] == 1).all() and (out[:, 30:] == 1).all()


@pytest.mark.parametrize(("rotation", "method"), [
    ("none", None), ("90 degrees", Image.Transpose.ROTATE_270), ("180 degrees", Image.Transpose.ROTATE_180),
    ("270 degrees", Image.Transpose.ROTATE_90),
])  # fmt: skip
def test_turns_are_clockwise(rotation, method):
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    turned = Image.fromarray(pixels) if method is None else Image.fromarray(pixels).transpose(method)
    out = nodes.ImageRotate.execute(torch.from_numpy(pixels)[None, ..., None], rotation)[0]
    assert np.array_equal(out[0, ..., 0].numpy(), np.asarray(turned))


def test_flips():
    image = torch.arange(6).view(1, 2, 3, 1)
    down, across = (
        nodes.ImageFlip.execute(image, way)[0].flatten().tolist()
        for way in ("x-axis: vertically", "y-axis: horizontally")
    )
    assert down == [3, 4, 5, 0, 1, 2] and across == [2, 1, 0, 5, 4, 3]


@pytest.mark.parametrize(
    ("shape", "wanted"), [((30, 60), (50, 100)), ((60, 30), (100, 50)), ((7, 7), (100, 100))]
)
def test_the_longer_side_has_the_length(shape, wanted):
    out = nodes.ImageScaleToMaxDimension.execute(one_color(0.3, *shape), "bilinear", 100)[0]
    assert out.shape[1:3] == wanted


def test_a_length_of_nothing_is_refused():
    with pytest.raises(ValueError, match="largest_size is 0"):
        nodes.ImageScaleToMaxDimension.execute(one_color(0.3, 4, 4), "area", 0)


@pytest.mark.parametrize(("size", "tile", "overlap", "starts"), [
    (200, 64, 16, [0, 48, 96, 136]), (64, 64, 16, [0]), (50, 64, 16, [0]), (128, 64, 0, [0, 64]),
    (100, 64, 64, [0, 16, 32, 36]),  # an overlap of a whole tile is three quarters
])  # fmt: skip
def test_tiles_cover_a_side(size, tile, overlap, starts):
    grid = nodes.SplitImageToTileList.get_grid_coords(size, 64, tile, 64, overlap)
    assert [box[0] for box in grid] == starts
    assert all(box[2] - box[0] == min(tile, size) for box in grid)


@pytest.mark.parametrize("overlap", [0, 16])
def test_a_picture_comes_back_from_its_tiles(overlap):
    image = pictures(2, 150, 200, 3)
    tiles = nodes.SplitImageToTileList.execute(image, 64, 64, overlap)[0]
    merged = nodes.ImageMergeTileList.execute(tiles, [200], [150], [overlap])[0]
    assert torch.allclose(merged, image, atol=1e-5)


def test_a_seam_fades():
    tiles = [torch.zeros(1, 64, 64, 1), torch.ones(1, 64, 64, 1)]
    row = nodes.ImageMergeTileList.execute(tiles, [112], [64], [16])[0][0, 32, :, 0]
    weights = np.sin(np.pi * np.linspace(0, 1, 64)).clip(1e-5)
    expected = weights[:16] / (weights[:16] + weights[48:])
    assert np.allclose(row[48:64].numpy(), expected, atol=1e-5)
    assert (row[:48] == 0).all() and (row[64:] == 1).all()


def test_the_size_is_told_to_those_who_watch():
    import comfy_execution.progress as progress

    said = []
    watching = progress.WebUIProgressHandler(
        types.SimpleNamespace(send_progress_text=lambda *text: said.append(text), client_id=None, sockets={})
    )
    progress.reset_progress_state("p", None)
    progress.add_progress_handler(watching)
    out = visit(nodes.GetImageSize, UNIQUE_ID="7").execute(one_color(0, 4, 6, batch=2))
    progress.reset_progress_state("p", None)
    assert out.args == (6, 4, 2)
    assert said == [("width: 6, height: 4\n batch size: 2", "7")]


def test_animations_have_all_frames_and_their_workflow(folders):
    batch = torch.stack([one_color(value, 8, 8)[0] for value in (0.0, 0.5, 1.0)])
    webp = visit(nodes.SaveAnimatedWEBP, PROMPT={"1": "x"}).execute(batch, 5.0, "a", True, 80, "default")
    png = visit(nodes.SaveAnimatedPNG, PROMPT={"1": "x"}).execute(batch, 5.0, 4, "b")
    for out in (webp, png):
        shown = out.ui.as_dict()
        assert shown["animated"] == (True,)
        with Image.open(folders / "output" / shown["images"][0]["filename"]) as file:
            assert file.n_frames == 3
            file.seek(1)
            assert file.convert("RGB").getpixel((3, 3)) == (127, 127, 127)
    with Image.open(folders / "output" / webp.ui.as_dict()["images"][0]["filename"]) as file:
        assert file.getexif()[0x0110] == 'prompt:{"1": "x"}'


def saved(folders, images, **choice):
    node = visit(nodes.SaveImageAdvanced, PROMPT={"1": "é"}, EXTRA_PNGINFO={"workflow": {"a": 1}})
    files = node.execute(images, "deep/file", choice).ui["images"]
    return [(folders / "output" / file["subfolder"] / file["filename"]).read_bytes() for file in files]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_eight_bits_are_those_of_pillow(folders, channels):
    images = pictures(2, 5, 7, channels)
    for content, image in zip(saved(folders, images, format="png", bit_depth="8-bit"), images):
        picture = Image.open(bytes_io.BytesIO(content))
        assert np.array_equal(np.asarray(picture).reshape(5, 7, channels), (image * 255).byte().numpy())
        texts = {key: json.loads(text) for key, text in picture.text.items()}
        assert texts == {"prompt": {"1": "é"}, "workflow": {"a": 1}}


def test_sixteen_bits_keep_what_eight_lose(folders):
    image = torch.linspace(0, 1, 64).view(1, 8, 8, 1).expand(1, 8, 8, 3).contiguous()
    (content,) = saved(folders, image, format="png", bit_depth="16-bit")
    import av

    with av.open(bytes_io.BytesIO(content), format="png_pipe") as container:
        found = next(container.decode(video=0)).to_ndarray(format="rgb48le")
    assert np.array_equal(found, (image[0].numpy() * 65535).astype(np.uint16))
    assert b"workflow" in content


def exr_pixels(content):
    import av

    with av.open(bytes_io.BytesIO(content), format="exr_pipe") as container:
        return next(container.decode(video=0)).to_ndarray(format="gbrpf32le")


def srgb(value):
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4


def hlg(value):
    a, b = 0.17883277, 0.28466892
    return value**2 / 3 if value <= 0.5 else (np.exp((value - (0.5 - a * np.log(4 * a))) / a) + b) / 12


@pytest.mark.parametrize(("space", "curve", "red_x"), [
    ("sRGB", srgb, 0.64), ("HDR", hlg, 0.708), ("linear", lambda value: value, 0.64),
])  # fmt: skip
def test_exr_files_hold_linear_light_and_can_be_read(folders, space, curve, red_x):
    image = pictures(1, 40, 9, 3)  # more rows than one block of the format
    (content,) = saved(folders, image, format="exr", bit_depth="32-bit float", input_color_space=space)
    assert np.allclose(exr_pixels(content), np.vectorize(curve)(image[0].double().numpy()), atol=1e-6)
    place = content.index(b"chromaticities\0chromaticities\0") + 30
    assert struct.unpack_from("<if", content, place) == (32, pytest.approx(red_x))
    assert json.dumps({"1": "é"}).encode() in content


def test_other_numbers_of_channels_are_refused():
    with pytest.raises(comfy.picture_encoding.UnsupportedPicture, match="2 channels .* png"):
        comfy.picture_encoding.encoded(torch.zeros(2, 2, 2), "png", "8-bit", "sRGB")


def test_vector_graphics_are_saved_with_their_workflow(folders):
    svg = io.SVG.Type([bytes_io.BytesIO(b'<?xml version="1.0"?><svg width="1"><g/></svg>')])
    node = visit(nodes.SaveSVGNode, PROMPT={"1": "]]>"})
    file = node.execute(svg).ui["images"][0]
    text = (folders / "output" / file["subfolder"] / file["filename"]).read_text()
    from xml.etree import ElementTree

    root = ElementTree.fromstring(text)
    assert [child.tag for child in root] == ["metadata", "g"]
    assert json.loads(root[0].text) == {"prompt": {"1": "]]>"}}


def test_a_box_is_its_four_numbers():
    assert nodes.BoundingBox.execute(1, 2, 3, 4)[0] == {"x": 1, "y": 2, "width": 3, "height": 4}
