"""Layers: stacks, how they are mixed, what the editor keeps, and pictures of them."""

import colorsys
import math

import numpy as np
import pytest
import torch

import folder_paths
from comfy.layer_blending import MODES, blended, to_linear, to_srgb
from comfy.layers import UnusableLayers, bounds, layers_of
from comfy_extras.nodes_compositor import BLEND_MODES, AddLayer, ImageCompositor, LayersFromBoundingBoxes


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path))


def flat(color, height=4, width=4):
    return torch.tensor(color).repeat(1, height, width, 1)


RED, BLUE = flat([1.0, 0.0, 0.0]), flat([0.0, 0.0, 1.0])


def stack(*layers):
    document = None
    for layer in layers:
        document = AddLayer.execute(layers=document, **layer)[0]
    return document


def picture_of(document, state=None):
    return ImageCompositor.execute(document, state)


# --- mixing -----------------------------------------------------------------------------------------------


def mixed(mode, below, above):
    """What is seen of one opaque pixel on another, as sRGB."""
    layers = [np.float32([*to_linear(np.float32(color)), 1.0])[None] for color in (below, above)]
    return to_srgb(blended(mode, *layers, 1.0)[0, :3])


def linear(rule):
    """A rule for single channels in linear light."""
    return lambda b, a: to_srgb(rule(to_linear(b), to_linear(a)))


# In sRGB values 0.2..0.8, where no division by zero and no clipping is near.
CHANNEL_RULES = {
    "normal": lambda b, a: a,
    "multiply": linear(lambda b, a: b * a),
    "screen": lambda b, a: b + a - b * a,
    "overlay": lambda b, a: 2 * b * a if b < 0.5 else 1 - 2 * (1 - b) * (1 - a),
    "darken": min, "lighten": max,
    "color-dodge": lambda b, a: min(b / (1 - a), 1),
    "color-burn": lambda b, a: 1 - min((1 - b) / a, 1),
    "hard-light": lambda b, a: 2 * b * a if a <= 0.5 else 1 - 2 * (1 - b) * (1 - a),
    "soft-light": lambda b, a: (1 - b) * b * a + b * (b + a - b * a),
    "difference": lambda b, a: abs(b - a),
    "exclusion": lambda b, a: b + a - 2 * b * a,
    "linear-dodge": linear(lambda b, a: b + a),
    "linear-burn": lambda b, a: b + a - 1,
    "vivid-light": lambda b, a: max(1 - (1 - b) / (2 * a), 0) if a <= 0.5 else min(b / (2 * (1 - a)), 1),
    "pin-light": lambda b, a: max(b, 2 * a - 1) if a > 0.5 else min(b, 2 * a),
    "linear-light": lambda b, a: b + 2 * a - 1,
    "hard-mix": lambda b, a: float(b + a >= 1),
    "subtract": linear(lambda b, a: max(b - a, 0)),
    "divide": linear(lambda b, a: min(b / a, 1)),
    "grain-extract": lambda b, a: b - a + 0.5,
    "grain-merge": lambda b, a: b + a - 0.5,
}  # fmt: skip


@pytest.mark.parametrize("mode", CHANNEL_RULES)
def test_channels_are_mixed_by_the_rule_of_the_mode(mode):
    for below, above in ((0.3, 0.6), (0.7, 0.2), (0.6, 0.7), (0.25, 0.35), (0.8, 0.8)):
        expected = CHANNEL_RULES[mode](below, above)
        assert mixed(mode, [below] * 3, [above] * 3)[0] == pytest.approx(float(expected), abs=2e-4)


def test_all_modes_are_offered_and_tested():
    assert list(BLEND_MODES) == list(MODES)
    assert set(MODES) - set(CHANNEL_RULES) == {"hue", "saturation", "color", "luminosity"}


BELOW, ABOVE = (0.7, 0.5, 0.4), (0.3, 0.45, 0.6)


def test_hue_and_saturation_are_those_of_hsv():
    own, other = colorsys.rgb_to_hsv(*BELOW), colorsys.rgb_to_hsv(*ABOVE)
    assert np.allclose(mixed("hue", BELOW, ABOVE), colorsys.hsv_to_rgb(other[0], own[1], own[2]), atol=1e-4)
    expected = colorsys.hsv_to_rgb(own[0], other[1], own[2])
    assert np.allclose(mixed("saturation", BELOW, ABOVE), expected, atol=1e-4)


def test_colour_keeps_the_lightness_and_luminosity_the_colour():
    own, other = colorsys.rgb_to_hls(*BELOW), colorsys.rgb_to_hls(*ABOVE)
    expected = colorsys.hls_to_rgb(other[0], own[1], other[2])
    assert np.allclose(mixed("color", BELOW, ABOVE), expected, atol=1e-4)
    out = to_linear(mixed("luminosity", BELOW, ABOVE))
    ratio = out / to_linear(np.float32(BELOW))
    weights = np.float32([0.2224884, 0.71690369, 0.06060791])
    assert np.allclose(ratio, ratio[0], rtol=1e-3)
    assert out @ weights == pytest.approx(to_linear(np.float32(ABOVE)) @ weights, rel=1e-3)


@pytest.mark.parametrize("mode", MODES)
def test_no_mode_breaks_at_black_white_and_gray(mode):
    values = [(0, 0, 0), (1, 1, 1), (0.5, 0.5, 0.5), (1, 0, 0)]
    for below in values:
        for above in values:
            assert np.isfinite(mixed(mode, below, above)).all()


def test_only_normal_layers_add_to_what_is_transparent():
    below, above = np.zeros((1, 4), np.float32), np.float32([[0.5, 0.5, 0.5, 1.0]])
    assert blended("normal", below, above, 0.25)[0].round(decimals=4).tolist() == pytest.approx(
        [0.5, 0.5, 0.5, 0.25]
    )
    assert blended("multiply", below, above, 1.0)[0, 3] == 0


# --- pictures ---------------------------------------------------------------------------------------------


def test_layers_lie_where_they_are_put():
    document = stack({"image": RED}, {"image": BLUE, "x": 2, "y": 1})
    picture, mask = picture_of(document).args
    assert picture.shape == (1, 5, 6, 4)  # as far as the layers reach, transparent where none is
    assert picture[0, 0, 0].round(decimals=4).tolist() == [1, 0, 0, 1] and picture[0, 4, 5].round(
        decimals=4
    ).tolist() == [0, 0, 1, 1]
    assert picture[0, 2, 3].round(decimals=4).tolist() == [0, 0, 1, 1]
    assert mask[0, 4, 0] == 1 and mask[0, 0, 0] == 0


def test_an_opaque_picture_has_no_alpha_channel():
    picture, mask = picture_of(stack({"image": RED})).args
    assert picture.shape == (1, 4, 4, 3) and mask.sum() == 0


def test_higher_numbers_lie_above():
    document = stack({"image": RED, "z_index": 1}, {"image": BLUE})
    assert picture_of(document)[0][0, 0, 0].round(decimals=4).tolist() == [1, 0, 0]


def test_size_mirror_and_turn():
    image = torch.zeros(1, 2, 4, 3)
    image[:, :, :2, 0] = 1.0  # red on the left
    left = picture_of(stack({"image": image, "width": 8, "height": 6}))[0][0]
    assert left.shape == (6, 8, 3) and left[3, 1, 0] > 0.9 and left[3, 6, 0] < 0.1
    right = picture_of(stack({"image": image, "flip_h": True}))[0][0]
    assert right[0, 3, 0] > 0.999 and right[0, 0, 0] == 0
    turned = stack({"image": image, "rotation": 90.0, "x": 10, "y": 10})
    assert bounds(layers_of(turned)[0]) == pytest.approx((11, 9, 2, 4), abs=1)
    picture = picture_of(turned)[0][0]
    red = (picture[..., 0] > 0.5).nonzero().float().mean(dim=0)
    opaque = (picture[..., 3] > 0.5).nonzero().float().mean(dim=0)
    assert red[0] < opaque[0] - 0.5  # clockwise: what was on the left is above


def test_masks_and_alpha_make_transparent():
    image = torch.cat((RED, torch.full((1, 4, 4, 1), 0.5)), dim=-1)
    mask = torch.zeros(1, 4, 4)
    mask[:, :2] = 1
    alpha = picture_of(stack({"image": image, "mask": mask}))[0][0, ..., 3]
    assert alpha[0, 0] == 0 and alpha[3, 3].item() == pytest.approx(0.5, abs=0.01)


def test_each_picture_of_a_batch_is_a_layer():
    out = picture_of(stack({"image": torch.cat((RED, BLUE)), "opacity": 0.5, "name": "two"}))
    assert [box["name"] for box in out.ui["compositor_bboxes"]] == ["two", "two"]
    assert len(out.ui["compositor_layers"]) == 2 and out.ui["compositor_bboxes"][0]["opacity"] == 0.5
    assert out[0][0, 0, 0, 3].item() == pytest.approx(0.75)


def test_an_empty_stack_is_black():
    assert picture_of({"version": 1, "layers": []})[0].shape == (1, 64, 64, 3)


@pytest.mark.parametrize(("document", "reason"), [
    ({"version": 2, "layers": []}, "version 2, not 1"),
    ({"layers": [{"image": RED, "type": "vector"}]}, "type 'vector'"),
    ({"layers": [{"image": RED, "blend_mode": "dissolve"}]}, "no blend mode 'dissolve'"),
    ({"layers": [{"image": RED.repeat(51, 1, 1, 1)}]}, "51 layers, and 50"),
    ({"layers": [{"image": RED}], "canvas": (16385, 5)}, "canvas is 16385 x 5"),
])  # fmt: skip
def test_what_cannot_be_composed_is_refused(document, reason):
    with pytest.raises(UnusableLayers, match=reason):
        picture_of(document)


# --- what the editor saved --------------------------------------------------------------------------------


def state_for(document, *transforms, **more):
    inputs = [layer.fingerprint() for layer in layers_of(document)]
    layers = [{"transform": transform} for transform in transforms]
    return {"version": 1, "canvas": {"w": 8, "h": 6}, "layers": layers, "inputs": inputs, **more}


def test_a_saved_composition_counts_for_the_layers_that_it_was_made_with():
    document = stack({"image": RED}, {"image": BLUE})
    state = state_for(document, {"x": 0, "y": 0}, {"x": 4, "y": 2}, background={"color": "#0f0"})
    out = picture_of(document, state)
    assert "compositor_state_stale" not in out.ui
    colors = [out[0][0, y, x].round(decimals=4).tolist() for y, x in ((0, 0), (3, 5), (5, 0))]
    assert colors == [[1, 0, 0], [0, 0, 1], [0, 1, 0]]
    changed = picture_of(stack({"image": RED}, {"image": BLUE * 0.5}), state)
    assert changed.ui["compositor_state_stale"] == [True] and changed[0].shape == (1, 4, 4, 3)


def test_the_editor_changes_the_order():
    document = stack({"image": RED}, {"image": BLUE})
    state = state_for(document, {}, {}, order=[1, 0])
    assert picture_of(document, state)[0][0, 0, 0].round(decimals=4).tolist() == [1, 0, 0, 1]


@pytest.mark.parametrize("change", [
    {"order": [0, 0]}, {"order": ["1", 0]}, {"background": 5}, {"background": {"color": 7, "visible": False}},
    {"layers": [{"transform": {"x": math.inf, "w": -5, "rotation": math.nan}, "opacity": "x"}, None]},
])  # fmt: skip
def test_nonsense_in_a_state_is_left_out(change):
    document = stack({"image": RED}, {"image": BLUE})
    state = {**state_for(document, {}, {}), **change}
    assert picture_of(document, state)[0][0, 0, 0].round(decimals=4).tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    "state", ["{nonsense", {"version": 9}, {"canvas": {"w": 0, "h": 5}, "layers": []}, "[]"]
)
def test_what_is_no_state_is_as_if_there_were_none(state):
    assert picture_of(stack({"image": RED}), state)[0].shape == (1, 4, 4, 3)


# --- boxes ------------------------------------------------------------------------------------------------


def test_pictures_of_a_batch_go_to_their_boxes():
    boxes = [
        {"x": 5, "y": 6, "width": 8, "height": 0, "metadata": {"desc": "one"}},
        {
            "x": 1,
            "y": 2,
            "metadata": {"name": "two", "z_index": 9, "content_rect": [1, 2, 2, 99]},
            "width": 3,
            "height": 3,
        },
    ]
    mask = torch.rand(3, 4, 4)
    document = LayersFromBoundingBoxes.execute(
        torch.cat((RED, BLUE, RED)), boxes, mask, stack({"image": RED}), canvas_width=30, canvas_height=20
    )[0]
    first, second, third = document["layers"][1:]
    assert document["canvas"] == (30, 20)
    assert (first["x"], first["y"], first["w"], "h" in first, first["name"]) == (5, 6, 8, False, "one")
    assert (second["x"], second["y"], second["name"], second["z_index"], "w" in second) == (
        2,
        4,
        "two",
        9,
        False,
    )
    assert second["image"].shape == (1, 2, 2, 3) and torch.equal(second["mask"], mask[1:2, 2:4, 1:3])
    assert (third["x"], third["y"], third["z_index"]) == (0, 0, 3) and "name" not in third


def test_elements_need_a_canvas():
    element = [{"bbox": [0, 500, 500, 1000], "desc": "x"}]
    with pytest.raises(ValueError, match="Set canvas_width and canvas_height"):
        LayersFromBoundingBoxes.execute(RED, element)
    item = LayersFromBoundingBoxes.execute(RED, element, canvas_width=40, canvas_height=20)[0]["layers"][0]
    assert (item["x"], item["y"], item["w"], item["h"]) == (20, 0, 20, 10)
