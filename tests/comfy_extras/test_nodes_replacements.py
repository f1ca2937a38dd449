"""Workflows that name classes of old versions run with their successors."""

import asyncio

import pytest

from app.node_replace_manager import NodeReplaceManager
from comfy_api import node_replacements
from comfy_extras.nodes_replacements import comfy_entrypoint


@pytest.fixture
def table():
    """The table of a server after the start."""
    manager = NodeReplaceManager()
    node_replacements.send_replacements_to(manager.register)
    asyncio.run(comfy_entrypoint().on_load())
    return manager


@pytest.mark.parametrize(
    ("old", "inputs", "new", "new_inputs"),
    [
        ("T2IAdapterLoader", {"t2i_adapter_name": "a"}, "ControlNetLoader", {"control_net_name": "a"}),
        ("ImageBatch", {"image1": ["1", 0], "image2": ["2", 0]}, "BatchImagesNode",
         {"images.image0": ["1", 0], "images.image1": ["2", 0]}),
        ("ResizeImagesByLongerEdge", {"images": ["1", 0], "longer_edge": 512}, "ImageScaleToMaxDimension",
         {"image": ["1", 0], "largest_size": 512, "upscale_method": "lanczos"}),
        ("ImageScaleBy", {"image": ["1", 0], "upscale_method": "area", "scale_by": 2.0},
         "ResizeImageMaskNode", {"input": ["1", 0], "resize_type": "scale by multiplier",
                                 "resize_type.multiplier": 2.0, "scale_method": "area"}),
    ],
)  # fmt: skip
def test_inputs_go_where_the_successor_takes_them(table, monkeypatch, old, inputs, new, new_inputs):
    monkeypatch.setattr("nodes.NODE_CLASS_MAPPINGS", {new: object})
    graph = {"9": {"class_type": old, "inputs": inputs}}
    table.apply_replacements(graph)
    assert graph == {"9": {"class_type": new, "inputs": new_inputs}}


@pytest.mark.parametrize(
    ("old", "new"),
    [("ConditioningAverage ", "ConditioningAverage"),
     ("SDV_img2vid_Conditioning", "SVD_img2vid_Conditioning"),
     ("Load3DAnimation", "Load3D"), ("Preview3DAnimation", "Preview3D")],
)  # fmt: skip
def test_a_class_that_was_only_renamed_is_told(table, old, new):
    (entry,) = table.as_dict()[old]
    assert (entry["old_node_id"], entry["new_node_id"]) == (old, new)
    assert entry["input_mapping"] is None and entry["output_mapping"] is None


def test_the_extension_brings_no_nodes():
    assert asyncio.run(comfy_entrypoint().get_node_list()) == []
