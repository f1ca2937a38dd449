"""The nodes of control models have the inputs and outputs that workflows name."""

import pytest

import nodes
from comfy_extras import nodes_controlnet

SIDES = ["positive", "negative"]
RANGE = ["strength", "start_percent", "end_percent"]


@pytest.mark.parametrize(
    ("node", "inputs"),
    [
        ("SetUnionControlNetType", ["control_net", "type"]),
        ("ControlNetApplySD3", [*SIDES, "control_net", "vae", "image", *RANGE]),
        ("ControlNetInpaintingAliMamaApply", [*SIDES, "control_net", "vae", "image", "mask", *RANGE]),
    ],
)
def test_inputs_stand_in_the_order_of_workflows(node, inputs):
    schema = getattr(nodes_controlnet, node).define_schema()
    assert schema.node_id == node and schema.category == "conditioning/controlnet"
    assert [each.id for each in schema.inputs] == inputs
    names = [each.display_name for each in schema.outputs]
    assert names == (SIDES if inputs[0] == "positive" else names[:1])


def test_the_loader_of_differences_takes_the_model_first():
    node = nodes.NODE_CLASS_MAPPINGS["DiffControlNetLoader"]
    assert list(node.INPUT_TYPES()["required"]) == ["model", "control_net_name"]
    assert node.RETURN_TYPES == ("CONTROL_NET",) and node.FUNCTION == "load_controlnet"
    assert nodes.NODE_DISPLAY_NAME_MAPPINGS["DiffControlNetLoader"] == "Load ControlNet Model (diff)"


def test_a_strength_of_nothing_leaves_both_sides_as_they_are():
    apply = nodes_controlnet.ControlNetApplySD3.execute
    assert apply([1], [2], None, None, 0, 0.0, 1.0).args == ([1], [2])
