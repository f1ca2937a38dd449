"""Boxes that are drawn, or come in as boxes, elements or JSON."""

import json

import pytest
import torch

from comfy.boxes import UnusableBoxes, elements_of, parsed, regions_of
from comfy_extras.nodes_bounding_boxes import CreateBoundingBoxes

BOX = {
    "x": 100,
    "y": 50,
    "width": 200,
    "height": 300,
    "metadata": {"type": "text", "text": "Hi", "desc": "sign"},
}
ELEMENT = {
    "type": "text",
    "bbox": [100, 100, 700, 300],
    "text": "Hi",
    "desc": "sign",
    "color_palette": ["#ff0000"],
}


def test_drawn_boxes_become_boxes_and_elements():
    box = {**BOX, "metadata": {**BOX["metadata"], "palette": ["#ff0000"]}}
    preview, boxes, elements = CreateBoundingBoxes.execute(1000, 500, [box]).args
    assert boxes == [[{"x": 100, "y": 50, "width": 200, "height": 300}]]
    assert elements == [{**ELEMENT, "color_palette": ["#FF0000"]}]
    assert preview.shape == (1, 500, 1000, 3)
    assert preview[0, 350, 200].tolist() == [1, 0, 0] and preview[0, 450, 900, 0].item() == pytest.approx(
        32 / 255
    )


def test_elements_become_boxes_and_come_back():
    (box,) = parsed([ELEMENT], 1000, 500)
    assert {side: box[side] for side in ("x", "y", "width", "height")} == {
        "x": 100, "y": 50, "width": 200, "height": 300
    }  # fmt: skip
    assert elements_of(regions_of([box], 1000, 500)) == [{**ELEMENT, "color_palette": ["#FF0000"]}]


@pytest.mark.parametrize("data", [[BOX], BOX, [[BOX], [{}]], json.dumps([BOX]), f"  {json.dumps(BOX)} "])
def test_every_form_of_boxes_is_read(data):
    assert parsed(data, 1000, 500) == [BOX]


@pytest.mark.parametrize("data", [None, [], "", "  ", [[]]])
def test_nothing_is_no_boxes(data):
    assert parsed(data, 1000, 500) == []


@pytest.mark.parametrize(("data", "reason"), [
    ("{nonsense", "no JSON"), ([1, 2], "list of int"), (5, "it is a int"),
    ({"x": 1}, "no y or width or height"),
    ([{"bbox": [1, 2, 3]}], "no 'bbox' of four numbers"), ([{"bbox": "abcd"}], "no 'bbox' of four numbers"),
    ([{"bbox": [1, 2, 3, 4]}, {"x": 1}], "no 'bbox' of four numbers"),
])  # fmt: skip
def test_what_is_no_box_is_refused_with_the_reason(data, reason):
    with pytest.raises(UnusableBoxes, match=reason):
        parsed(data, 1000, 500)


def test_boxes_drawn_backwards_are_turned_round():
    box = {"x": 300, "y": 350, "width": -200, "height": -300}
    _, boxes, elements = CreateBoundingBoxes.execute(1000, 500, [box]).args
    assert boxes == [[{"x": 100, "y": 50, "width": 200, "height": 300}]]
    assert elements[0]["bbox"] == [100, 100, 700, 300] and elements[0]["type"] == "obj"


def test_what_is_drawn_counts_until_other_boxes_come_in():
    drawn, incoming = [{**BOX, "x": 7}], parsed([ELEMENT], 1000, 500)

    def x_of(last_incoming):
        out = CreateBoundingBoxes.execute(1000, 500, drawn, last_incoming, bboxes=[ELEMENT])
        assert out.ui["input_bboxes"] == incoming and out.ui["dims"] == [1000, 500]
        return out[1][0][0]["x"]

    assert x_of(None) == 100 and x_of(incoming) == 7


def test_no_boxes_at_all():
    preview, boxes, elements = CreateBoundingBoxes.execute(2048, 64).args
    assert boxes == [] and elements == [] and preview.shape == (1, 32, 1024, 3)


def test_the_background_is_seen_dimmed():
    preview = CreateBoundingBoxes.execute(64, 64, background=torch.ones(1, 100, 200, 3))[0]
    assert preview.shape == (1, 100, 200, 3) and preview.mean().item() == pytest.approx(0.25, abs=0.01)
