"""Nodes whose model family is absent: their signature is real, and running one names the family."""

from __future__ import annotations

import pytest

from comfy_api.latest import io
from comfy_extras.absent_families import FamilyAbsent, absent_node, raise_absent


def make(**more):
    return absent_node(
        "Sample Loader 1.5",
        "Some Model",
        class_name="SampleLoader15",
        category="loaders",
        inputs=lambda: [io.Combo.Input("name", options=["a"]), io.Image.Input("image", optional=True)],
        outputs=lambda: [io.Model.Output(display_name="model")],
        **more,
    )


def test_the_signature_is_that_of_any_node():
    node = make(description="Loads.", search_aliases=["x"])
    assert issubclass(node, io.ComfyNode)
    assert node.__name__ == "SampleLoader15"
    told = node.GET_NODE_INFO_V1()
    assert told["name"] == "Sample Loader 1.5"
    assert told["input_order"] == {"required": ["name"], "optional": ["image"]}
    assert (told["output"], told["output_name"], told["category"]) == (["MODEL"], ["model"], "loaders")
    assert (told["description"], told["search_aliases"]) == ("Loads.", ["x"])


def test_lists_of_files_are_read_at_each_look():
    files = ["a"]
    node = absent_node("Loader", "Some Model", inputs=lambda: [io.Combo.Input("name", options=list(files))])
    assert node.INPUT_TYPES()["required"]["name"][1]["options"] == ["a"]
    files.append("b")
    assert node.INPUT_TYPES()["required"]["name"][1]["options"] == ["a", "b"]


def test_running_it_names_the_node_the_family_and_what_to_do():
    node = make()
    with pytest.raises(FamilyAbsent) as told:
        node.PREPARE_CLASS_CLONE(None).EXECUTE_NORMALIZED(name="a")
    message = str(told.value)
    assert message.startswith(
        "Sample Loader 1.5 needs Some Model, a model family that this version cannot run"
    )
    assert "Flux.1" in message and "Stable Diffusion XL" in message
    assert "run this one with upstream ComfyUI" in message and "open an issue" in message


def test_other_nodes_can_raise_it():
    with pytest.raises(FamilyAbsent, match=r"^Mine needs PixArt, "):
        raise_absent("PixArt", "Mine")
