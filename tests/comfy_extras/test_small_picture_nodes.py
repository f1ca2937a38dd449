"""Nodes of one file each: colours, sizes, curves, comparisons, paintings, letters, cameras, latents."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageFont

import folder_paths
from comfy.lettering import lettered, wrapped
from comfy_extras.nodes_color import ColorToRGBInt
from comfy_extras.nodes_curve import CurveEditor, ImageHistogram
from comfy_extras.nodes_image_compare import ImageCompare
from comfy_extras.nodes_latent import ReplaceVideoLatentFrames, reshape_latent_to
from comfy_extras.nodes_painter import PainterNode
from comfy_extras.nodes_rebatch import LatentRebatch
from comfy_extras.nodes_resolution import ResolutionSelector
from comfy_extras.nodes_text_overlay import TextOverlay
from comfy_extras.nodes_webcam import WebcamCapture


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Input and temp folders of the test's own."""
    for name in ("input", "temp"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(folder_paths, f"{name}_directory", str(tmp_path / name))
    return tmp_path


@pytest.mark.parametrize(("color", "wanted"), [
    ("#ff8040", (0xFF8040, "#ff8040", 1.0)), ("#00000a80", (10, "#00000a", 128 / 255)),
])  # fmt: skip
def test_a_colour_in_numbers(color, wanted):
    assert ColorToRGBInt.execute(color).args == wanted


@pytest.mark.parametrize("color", ["red", "#12345", "ff8040", "#ff80zz", "#ff8040\n", "#+f8040"])
def test_what_is_no_colour_is_refused(color):
    with pytest.raises(ValueError, match="is no colour"):
        ColorToRGBInt.execute(color)


@pytest.mark.parametrize(("aspect", "megapixels", "multiple", "wanted"), [
    ("1:1 (Square)", 1.0, 8, (1024, 1024)), ("16:9 (Widescreen)", 1.0, 8, (1368, 768)),
    ("9:16 (Portrait Widescreen)", 1.0, 64, (768, 1344)), ("21:9 (Ultrawide)", 2.0, 8, (2216, 952)),
    ("2:3 (Portrait Photo)", 0.5, 16, (592, 880)),
])  # fmt: skip
def test_sizes_of_proportions(aspect, megapixels, multiple, wanted):
    width, height = ResolutionSelector.execute(aspect, megapixels, multiple).args
    assert (width, height) == wanted


def test_a_curve_is_passed_on_with_its_histogram():
    out = CurveEditor.execute({"points": [[0, 0], [1, 0.5]], "interpolation": "linear"}, [1, 2])
    assert out[0].interp(0.5) == pytest.approx(0.25) and out.ui == {"histogram": [1, 2]}
    assert CurveEditor.execute([[0, 0], [1, 1]]).ui is None


def test_a_histogram_counts_levels():
    image = torch.zeros(1, 2, 2, 3)
    image[0, 0] = torch.tensor([1.0, 0.5, 0.0])
    rgb, luminance, red, green, blue = ImageHistogram.execute(image).args
    assert (red[0], red[255], green[127], blue[0]) == (2, 2, 2, 4)
    assert rgb[0] == (2 + 2 + 4) // 3 and sum(luminance) == 4
    assert luminance[int((0.2126 + 0.5 * 0.7152) * 255)] == 2


def test_compared_pictures_are_told_side_by_side(folders):
    shown = ImageCompare.execute(torch.zeros(1, 4, 4, 3), torch.ones(2, 4, 4, 3)).ui
    assert [len(shown[side]) for side in ("a_images", "b_images")] == [1, 2]
    with Image.open(folders / "temp" / shown["b_images"][1]["filename"]) as file:
        assert file.getpixel((0, 0)) == (255, 255, 255)
    assert ImageCompare.execute().ui == {"a_images": [], "b_images": []}


def test_an_empty_canvas_has_its_colour(folders):
    picture, mask = PainterNode.execute("", 64, 128, "#ff8000").args
    assert picture.shape == (1, 128, 64, 3) and mask.sum() == 0
    assert picture[0, 5, 5].tolist() == pytest.approx([1.0, 128 / 255, 0.0])


def test_a_painting_lies_on_the_picture(folders):
    painting = np.zeros((128, 64, 4), dtype=np.uint8)
    painting[:64] = (255, 0, 0, 51)
    Image.fromarray(painting).save(folders / "input" / "p.png")
    picture, mask = PainterNode.execute("p.png", 64, 64, image=torch.full((1, 128, 64, 3), 0.5)).args
    assert picture[0, 10, 10].tolist() == pytest.approx([0.6, 0.4, 0.4])
    assert mask[0, 10, 10].item() == pytest.approx(0.2) and mask[0, 100, 10] == 0
    smaller = PainterNode.execute("p.png", 32, 64).args
    assert smaller[0].shape == (1, 64, 32, 3)


def test_a_painting_is_painted_again_when_its_file_changes(folders):
    file = folders / "input" / "p.png"
    Image.new("RGBA", (4, 4)).save(file)
    before = PainterNode.fingerprint_inputs("p.png", 64, 64)
    Image.new("RGBA", (4, 4), (1, 2, 3, 4)).save(file)
    assert before != PainterNode.fingerprint_inputs("p.png", 64, 64)
    assert PainterNode.fingerprint_inputs("", 64, 64) == ""


def test_a_painting_that_is_gone_is_named(folders):
    with pytest.raises(FileNotFoundError, match="'gone.png' is not in the input folder"):
        PainterNode.execute("gone.png", 64, 64)


# --- letters ----------------------------------------------------------------------------------------------


def test_lines_are_as_wide_as_they_may_be():
    font = ImageFont.load_default(size=20)
    words = [f"word{index}" for index in range(30)]
    lines = wrapped(" ".join(words) + "\n\n" + "x" * 60, font, 150)
    assert all(font.getlength(line) <= 150 for line in lines)
    assert " ".join(lines).split()[:30] == words and "".join(lines[lines.index("") + 1 :]) == "x" * 60
    for line, following in zip(lines, lines[1:]):
        if line and following and "x" not in following:
            assert font.getlength(f"{line} {following.split()[0]}") > 150


def box_of(layer):
    rows, columns = np.nonzero(layer[..., 3].numpy())
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


@pytest.mark.parametrize("position", ["top", "bottom"])
@pytest.mark.parametrize("align", ["left", "center", "right"])
def test_letters_are_at_the_margin(position, align):
    layer = lettered(
        "Two lines\nof text", 400, 300,
        percent=10, color="#ff0000", position=position, align=align, outline=False,
    )  # fmt: skip
    left, top, right, bottom = box_of(layer)
    assert (top if position == "top" else 300 - bottom) == pytest.approx(3, abs=2)
    sides = {"left": left - 3, "right": 397 - right, "center": (left + right) / 2 - 200}
    assert abs(sides[align]) <= 4
    assert layer[..., :3][layer[..., 3] == 1].unique(dim=0).tolist() == [[1.0, 0.0, 0.0]]


def test_an_outline_is_black_and_wider():
    options = {"percent": 20, "color": "white", "position": "top", "align": "left"}
    plain, outlined = (lettered("A", 100, 100, outline=outline, **options) for outline in (False, True))
    assert (outlined[..., 3] > 0).sum() > (plain[..., 3] > 0).sum()
    assert [0.0, 0.0, 0.0, 1.0] in outlined.reshape(-1, 4).unique(dim=0).tolist()


def test_a_long_text_becomes_small_enough():
    options = {"percent": 30, "color": "white", "position": "top", "align": "left", "outline": False}
    left, top, right, bottom = box_of(lettered("word " * 60, 300, 300, **options))
    assert bottom <= 298 and right <= 298


def test_text_is_written_on_every_picture_of_a_batch():
    images = torch.full((2, 240, 320, 4), 0.25)
    images[..., 3] = 0
    out = TextOverlay.execute(images, "A\\nB", 20.0, "#00ff00", "top", "left", False)[0]
    assert torch.equal(out[0], out[1])
    letters = out[0, ..., 3] == 1
    assert letters.any() and torch.allclose(out[0][letters], torch.tensor([0.0, 1.0, 0.0, 1.0]))
    rows = letters.any(dim=1).numpy()
    assert np.count_nonzero(np.diff(rows.astype(int)) == 1) == 2 - rows[0]  # \n is a new line
    assert TextOverlay.execute(images, "  ", 5.0, "#00ff00", "top", "left", False)[0] is images


def test_a_colour_that_pillow_does_not_know_is_refused():
    with pytest.raises(ValueError, match="unknown color"):
        TextOverlay.execute(torch.zeros(1, 20, 20, 3), "A", 20.0, "greenish", "top", "left", False)


# --- cameras and latents ----------------------------------------------------------------------------------


def test_the_picture_of_a_camera_is_read(folders):
    Image.new("RGB", (6, 4), (255, 0, 0)).save(folders / "input" / "shot.png")
    (image,) = WebcamCapture().load_capture("shot.png", width=0, height=0, capture_on_queue=True)
    assert image.shape == (1, 4, 6, 3) and image[0, 0, 0].tolist() == [1, 0, 0]
    before = WebcamCapture.IS_CHANGED("shot.png", 0, 0, True)
    Image.new("RGB", (6, 4), (0, 255, 0)).save(folders / "input" / "shot.png")
    assert before != WebcamCapture.IS_CHANGED("shot.png", 0, 0, True)


def latent(count, height=4, width=5, **more):
    return {"samples": torch.rand(count, 4, height, width), **more}


def test_latents_are_put_into_batches_of_their_size():
    masked = latent(3, 6, noise_mask=torch.full((1, 12, 10), 0.5), batch_index=[7, 8, 9])
    given = [latent(2), latent(2), masked]
    batches = LatentRebatch.execute(given, [3])[0]
    assert [len(batch["samples"]) for batch in batches] == [3, 1, 3]
    assert [batch["batch_index"] for batch in batches] == [[0, 1, 2], [3], [7, 8, 9]]
    assert torch.equal(
        torch.cat([batch["samples"] for batch in batches[:2]]),
        torch.cat([one["samples"] for one in given[:2]]),
    )
    assert "noise_mask" not in batches[0]
    assert batches[2]["noise_mask"].shape == (3, 1, 48, 40) and (batches[2]["noise_mask"] == 0.5).all()


def video(frames, value):
    return {"samples": torch.full((1, 4, frames, 2, 2), float(value))}


@pytest.mark.parametrize(("index", "replaced"), [(0, [0, 1]), (3, [3, 4]), (-2, [3, 4]), (4, []), (-9, [])])
def test_frames_of_a_video_latent_are_replaced_where_they_fit(index, replaced):
    target = video(5, 0)
    out = ReplaceVideoLatentFrames.execute(target, index, video(2, 1))[0]
    assert out["samples"][0, 0, :, 0, 0].nonzero().flatten().tolist() == replaced
    assert target["samples"].sum() == 0
    assert ReplaceVideoLatentFrames.execute(target, index)[0] is target


def test_a_latent_takes_the_size_and_number_of_another():
    assert reshape_latent_to((3, 4, 8, 8), torch.rand(2, 4, 4, 4)).shape == (3, 4, 8, 8)
    assert reshape_latent_to((3, 4, 8, 8), torch.rand(2, 4, 4, 4), repeat_batch=False).shape == (2, 4, 8, 8)
