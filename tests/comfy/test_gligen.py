"""GLIGEN makes tokens of boxes and texts as published, and each transformer of a UNet attends to them."""

import pytest
import torch
from diffusers.models.attention import GatedSelfAttentionDense

import comfy.gligen
import comfy.sample
import comfy.sd
import nodes
from comfy.errors import ModelFileError
from tests.comfy import tiny_sd1
from tests.comfy.tiny_sd1 import randomise

PLACES = {"input_blocks.1.1": 32, "middle_block.1": 64, "output_blocks.2.1": 32, "output_blocks.3.1": 32}
WIDTH = 64


def file_weights(strength=1.0):
    """A GLIGEN file for the tiny UNet."""
    torch.manual_seed(0)
    weights = {}
    for place, width in PLACES.items():
        module = randomise(GatedSelfAttentionDense(width, WIDTH, 8, width // 8))
        module.alpha_attn.data.fill_(strength)
        module.alpha_dense.data.fill_(strength)
        for key, tensor in module.state_dict().items():
            weights[f"{place}.transformer_blocks.0.fuser.{key}"] = tensor
    shapes = {"linears.0": (512, WIDTH + 64), "linears.2": (512, 512), "linears.4": (WIDTH, 512)}
    for layer, shape in shapes.items():
        weights[f"position_net.{layer}.weight"] = torch.randn(shape) * shape[1] ** -0.5
        weights[f"position_net.{layer}.bias"] = torch.randn(shape[0])
    weights["position_net.null_positive_feature"] = torch.randn(WIDTH)
    weights["position_net.null_position_feature"] = torch.randn(64)
    return weights


def test_tokens_are_made_of_texts_and_corners_in_sines():
    weights = file_weights()
    model, seen = comfy.gligen.load_gligen(weights), []
    model.module_list[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[1]))
    text = torch.randn(1, WIDTH)
    patch = model.set_position((2, 4, 16, 32), [(text, 4, 8, 2, 16)], torch.device("cpu"))
    patch(torch.zeros(2, 5, 32), {"transformer_index": 0})

    corners = torch.tensor([16 / 32, 2 / 16, 24 / 32, 6 / 16])  # x0, y0, x1, y1
    waves = [f(100 ** (i / 8) * corners) for i in range(8) for f in (torch.sin, torch.cos)]
    null = weights["position_net.null_positive_feature"], weights["position_net.null_position_feature"]
    for number, parts in ((0, (text[0], torch.cat(waves))), (1, null), (29, null)):
        x = torch.cat(parts)
        for layer in (0, 2, 4):
            name = f"position_net.linears.{layer}"
            x = torch.nn.functional.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])
            x = torch.nn.functional.silu(x) if layer < 4 else x
        for row in range(2):
            torch.testing.assert_close(seen[0][row, number], x, rtol=1e-4, atol=1e-4)


def picture(model, conditioning):
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    sides = conditioning, [[conditioning[0][0], {}]]
    return comfy.sample.sample(model, x, 1, 2.0, "euler", "normal", *sides, torch.zeros_like(x), seed=0)


@pytest.fixture(scope="module")
def checkpoint():
    return comfy.sd.load_state_dict_guess_config(tiny_sd1.checkpoint())[:2]


def test_a_box_changes_the_picture_unless_the_gates_are_shut(checkpoint):
    model, clip = checkpoint
    text = clip.encode_from_tokens_scheduled(clip.tokenize("a room"))
    plain = picture(model, text)
    apply = nodes.NODE_CLASS_MAPPINGS["GLIGENTextBoxApply"]().append
    for strength in (0.0, 1.0):
        gligen = comfy.gligen.patcher_of(file_weights(strength))
        (boxed,) = apply(text, clip, gligen, "a cat", 32, 32, 16, 0)
        (twice,) = apply(boxed, clip, gligen, "a dog", 16, 16, 48, 48)
        assert [params[1:] for params in twice[0][1]["gligen"][2]] == [(4, 4, 0, 2), (2, 2, 6, 6)]
        pictures = [picture(model, one) for one in (boxed, twice)]
        for one, other in ((pictures[0], plain), (pictures[1], plain), pictures):
            assert torch.allclose(one, other, atol=1e-2) == (strength == 0.0)
    assert torch.equal(picture(model, text), plain)


def test_patches_between_the_attentions_know_their_place(checkpoint):
    model, clip = checkpoint
    places = []
    text = clip.encode_from_tokens_scheduled(clip.tokenize("a room"))

    class Model:
        def set_position(self, shape, positions, device):
            def look(x, extra):
                places.append(
                    (extra["transformer_index"], extra["block"][0], extra["block_index"], x.shape[-1])
                )
                return x

            return look

        set_empty = set_position

    class Patcher:
        model = Model()

    cond = comfy.sampler_helpers.convert_cond([[text[0][0], {}]])[0]
    patches = comfy.samplers._gligen_patches(("position", Patcher(), []), torch.zeros(1, 4, 8, 8))
    patched = model.clone()
    patched.set_model_patch(patches["middle_patch"][0], "middle_patch")
    picture(patched, [[cond["cross_attn"], {}]])
    assert places[:4] == [
        (0, "input", 0, 32),
        (1, "middle", 0, 64),
        (2, "output", 0, 32),
        (3, "output", 0, 32),
    ]


def test_other_files_and_too_many_boxes_are_refused():
    with pytest.raises(ModelFileError, match="no GLIGEN model for texts in boxes"):
        comfy.gligen.load_gligen({"weight": torch.ones(2)})
    model = comfy.gligen.load_gligen(file_weights())
    box = (torch.ones(1, WIDTH), 1, 1, 0, 0)
    with pytest.raises(ValueError, match="There are 31 text boxes, and GLIGEN knows 30"):
        model.set_position((1, 4, 8, 8), [box] * 31, torch.device("cpu"))
