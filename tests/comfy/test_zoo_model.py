"""What all transformers of the zoo share as networks: which layouts of a file they take."""

import pytest
import torch

import comfy.sd
from comfy.errors import ModelFileError
from comfy.families.zoo_layers import ZooLayers
from comfy.families.zoo_model import ZooTransformer
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
