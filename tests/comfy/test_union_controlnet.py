"""Union ControlNets of SDXL, beside diffusers' own."""

import pytest
import torch
from diffusers import ControlNetUnionModel

import comfy.controlnet
import comfy.ops
import comfy.sd
from comfy.families import union_controlnet
from comfy_extras.nodes_controlnet import SetUnionControlNetType
from tests.comfy import test_controlnet, tiny_control, tiny_sd1
from tests.comfy.test_controlnet import applied, is_close, words

VECTOR = {"adm_in_channels": 32, "use_linear_in_transformer": True}


def inputs():
    torch.manual_seed(1)
    return {
        "x": torch.randn(2, 4, 8, 8), "hint": torch.rand(2, 3, 64, 64),
        "timesteps": torch.tensor([3.0, 700.0]), "context": torch.randn(2, 7, 64),
    }  # fmt: skip


def sample(model, positive, negative):
    return test_controlnet.sample(model, positive, negative, batch=1, steps=1)


def by_diffusers(net, kind: int, types: int):
    """The zoo's network on each picture alone: its attention runs along the batch."""
    config = {key: value for key, value in net.config.items() if not key.startswith("_")}
    sizes = {"num_control_type": types, "num_trans_channel": 32, "num_proj_channel": 32}
    own = ControlNetUnionModel.from_config({**config, **sizes, "addition_time_embed_dim": 256})
    own.load_state_dict(tiny_control.union_file(net, "diffusers"))
    given, results = inputs(), []
    told = torch.nn.functional.one_hot(torch.tensor([kind]), types)
    for index in range(2):
        x, hint, time, context = (value[[index]] for value in given.values())
        down, middle = own.eval()(x, time, context, [hint], told, [kind], return_dict=False)
        results.append([*down, middle])
    return [torch.cat(parts) for parts in zip(*results)]


@torch.no_grad()
def test_a_type_is_told_as_diffusers_tells_it():
    net = tiny_control.union()
    results = {}
    for kind in (0, 3):
        found = net(**inputs(), control_type=[kind])
        results[kind] = [*found["output"], *found["middle"]]
        assert all(map(is_close, results[kind], by_diffusers(net, kind, 6)))
    assert not is_close(results[0][-1], results[3][-1], 1e-3)


@torch.no_grad()
def test_without_a_type_the_picture_counts_as_in_a_controlnet():
    net = tiny_control.union()
    plain = tiny_control.controlnet()
    plain.load_state_dict(
        {key: tensor for key, tensor in net.state_dict().items() if key in plain.state_dict()}
    )
    net.control_add_embedding.linear_2.weight.zero_()
    net.control_add_embedding.linear_2.bias.zero_()
    assert torch.equal(net(**inputs())["middle"][0], plain(**inputs())["middle"][0])
    assert torch.equal(net(**inputs(), control_type=[])["middle"][0], plain(**inputs())["middle"][0])


@pytest.mark.parametrize("layout", ["diffusers", "original"])
@torch.no_grad()
def test_both_layouts_give_the_same_network(layout):
    net, config = tiny_control.union(8, **VECTOR), {**tiny_sd1.UNET, **VECTOR}
    control = comfy.controlnet.load_controlnet_state_dict(tiny_control.union_file(net, layout, config))
    assert isinstance(control.control_model, union_controlnet.UnionControlNet)
    given = {**inputs(), "y": torch.randn(2, 32), "control_type": [7]}
    assert torch.equal(control.control_model(**given)["middle"][0], net(**given)["middle"][0])


def test_the_node_sets_the_type_on_a_copy_and_it_counts():
    model = comfy.sd.load_state_dict_guess_config(tiny_sd1.checkpoint(), output_vae=False, output_clip=False)[
        0
    ]
    net = comfy.controlnet.load_controlnet_state_dict(tiny_control.union().state_dict())
    pose, canny, auto = (
        SetUnionControlNetType.execute(net, name).args[0]
        for name in ("openpose", "canny/lineart/anime_lineart/mlsd", "auto")
    )
    assert [each.extra_args["control_type"] for each in (pose, canny, auto)] == [[0], [3], []]
    assert net.extra_args == {}
    results = [sample(model, *applied(each)) for each in (pose, canny, auto, net)]
    assert not is_close(results[0], results[1], 1e-3) and not is_close(results[0], results[2], 1e-3)
    assert torch.equal(results[2], results[3])
    tile = SetUnionControlNetType.execute(net, "tile").args[0]
    with pytest.raises(
        ValueError, match="knows no pictures of the type 'tile'. It knows: openpose, depth.*auto"
    ):
        sample(model, *applied(tile))
    assert torch.equal(sample(model, words(1), words(2)), sample(model, *applied(net, 0.0)))


@torch.no_grad()
def test_weights_in_half_precision_are_cast_when_they_are_used():
    net = tiny_control.union()
    expected = net(**inputs(), control_type=[1])["middle"][0]
    half = comfy.ops.cast_on_use(net.half())
    assert is_close(half(**inputs(), control_type=[1])["middle"][0], expected, 5e-3)


def test_the_types_are_upstreams():
    (kinds,) = [each for each in SetUnionControlNetType.define_schema().inputs if each.id == "type"]
    assert kinds.options[:3] == ["auto", "openpose", "depth"] and len(kinds.options) == 9
