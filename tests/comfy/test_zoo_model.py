"""What all transformers of the zoo share as networks: which layouts of a file they take."""

import pytest
import torch
from diffusers.models.transformers.transformer_z_image import RopeEmbedder

import comfy.sd
from comfy.errors import ModelFileError
from comfy.families import rotary
from comfy.families.zoo_layers import ZooLayers
from comfy.families.zoo_model import ZooTransformer, run_patches
from tests.comfy import tiny_flux


@pytest.fixture(scope="module")
def network():
    return comfy.sd.load_diffusion_model_state_dict(tiny_flux.transformer(depth=1, single=1)).model


def empty_like(model):
    return type(model.diffusion_model).empty(**model.model_config.unet_config)


def test_a_file_that_names_its_layers_as_the_zoo_does_is_taken_as_it_is(network):
    weights = network.diffusion_model.state_dict()
    again = empty_like(network)
    again.load_weights(weights)
    for key, tensor in again.state_dict().items():
        assert tensor.data_ptr() == weights[key].data_ptr(), key
    saved, expected = (net.checkpoint_weights(weights) for net in (again, network.diffusion_model))
    assert set(saved) == set(expected) and "double_blocks.0.img_attn.qkv.weight" in saved


def test_what_such_a_file_lacks_is_named_as_the_zoo_names_it(network):
    weights = dict(network.diffusion_model.state_dict())
    del weights["transformer_blocks.0.attn.to_k.weight"]
    with pytest.raises(ModelFileError, match=r"\(Flux\).*lacks .*: transformer_blocks.0.attn.to_k"):
        empty_like(network).load_weights(weights)


def test_a_network_may_call_its_blocks_layers():
    class Blocks(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = torch.nn.ModuleList([torch.nn.Linear(2, 2)])

    class Net(ZooTransformer, Blocks):
        def __init__(self):
            super().__init__()
            self.finish(None, ZooLayers({"first": ("layers.0",)}))

    net = Net()
    net.load_weights({"first.weight": torch.eye(2), "first.bias": torch.ones(2)})
    assert torch.equal(net.layers[0](torch.ones(2)), torch.full((2,), 2.0))
    assert set(net.checkpoint_weights(net.state_dict())) == {"first.weight", "first.bias"}


def test_rotations_are_the_zoos_and_go_on_between_whole_positions():
    axes, lengths = [8, 12, 12], [40, 16, 16]
    ids = torch.tensor([[1, 0, 0], [33, 3, 15], [39, 7, 2]])
    expected = RopeEmbedder(256.0, axes, lengths)(ids)
    got = rotary.rotations(ids.float(), axes, 256.0)
    torch.testing.assert_close(got, expected.unsqueeze(0))
    half = rotary.rotations(ids.float() / 2, axes, 256.0)
    torch.testing.assert_close(half * half, got)
    x = torch.randn(1, 3, 1, 16, 2)
    turned = (rotary.as_matrices(got) @ x.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(turned, torch.view_as_real(torch.view_as_complex(x) * got.unsqueeze(2)))


def test_patches_see_what_the_one_before_gave_back():
    def first(told):
        told["vec"] = None
        return {"img": told["img"] + 1}

    def second(told):
        assert told["vec"] == "v"
        return {"img": told["img"] * 2, "txt": 5, "vec": None}

    options = {"patches": {"double_block": [first, second]}}
    told = {"img": 1, "txt": 0, "vec": "v", "transformer_options": options}
    assert run_patches("double_block", told) == {**told, "img": 4, "txt": 5}
    assert run_patches("single_block", told) == told
