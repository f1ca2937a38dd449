"""Layers that cast their weights when they are used."""

import pytest
import torch

from comfy import ops

LAYERS = [
    ("Linear", (4, 6), (2, 4)),
    ("Conv1d", (4, 6, 3), (2, 4, 8)),
    ("Conv2d", (4, 6, 3), (2, 4, 8, 8)),
    ("Conv3d", (4, 6, 3), (2, 4, 5, 5, 5)),
    ("GroupNorm", (2, 4), (2, 4, 8)),
    ("LayerNorm", (4,), (2, 4)),
]


@pytest.mark.parametrize(("name", "arguments", "shape"), LAYERS)
def test_half_weights_and_single_input_give_the_result_of_single_weights(name, arguments, shape):
    plain = getattr(torch.nn, name)(*arguments).half().requires_grad_(False)
    expected = getattr(torch.nn, name)(*arguments)
    expected.load_state_dict({key: tensor.float() for key, tensor in plain.state_dict().items()})
    x = torch.randn(shape)
    wanted = expected(x)
    casting = ops.cast_on_use(torch.nn.Sequential(plain))
    torch.testing.assert_close(casting(x), wanted)
    assert type(plain) is getattr(ops.manual_cast, name)
    built = getattr(ops.disable_weight_init, name)(*arguments)
    built.load_state_dict(expected.state_dict())
    torch.testing.assert_close(built(x), wanted)


def test_a_layer_norm_without_weights_and_an_embedding_work():
    norm = ops.manual_cast.LayerNorm(4, elementwise_affine=False)
    torch.testing.assert_close(norm(torch.ones(2, 4)), torch.zeros(2, 4))
    table = ops.manual_cast.Embedding(3, 2)
    torch.nn.init.ones_(table.weight)
    assert table.half()(torch.tensor([1]), out_dtype=torch.float32).dtype is torch.float32


def test_functions_on_weight_and_bias_are_applied():
    layer = ops.disable_weight_init.Linear(2, 1)
    torch.nn.init.ones_(layer.weight), torch.nn.init.zeros_(layer.bias)
    layer.weight_function = [lambda weight: weight * 3]
    layer.bias_function = [lambda bias: bias + 1]
    assert layer(torch.ones(1, 2)).item() == 7
    weight, bias = ops.cast_bias_weight(layer, dtype=torch.float16)
    assert weight.dtype is bias.dtype is torch.float16


def test_the_kind_of_layers_follows_the_dtypes():
    assert ops.pick_operations(torch.float16, torch.float32) is ops.manual_cast
    assert ops.pick_operations(torch.float16, None) is ops.disable_weight_init
    assert ops.cast_to_input(torch.ones(1).half(), torch.ones(1)).dtype is torch.float32
