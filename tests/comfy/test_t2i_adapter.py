"""T2I-Adapters, beside diffusers' own."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file

import comfy.controlnet
import comfy.sd
from comfy.families import t2i_adapter
from tests.comfy import test_controlnet, tiny_control, tiny_sd1
from tests.comfy.test_controlnet import applied, is_close, picture, words

UNETS = dict.fromkeys(tiny_control.KINDS, tiny_control.SD_LEVELS) | {
    "full_adapter_xl": tiny_control.XL_LEVELS
}


def hint(height=64, width=64, channels=3):
    return torch.rand(2, channels, height, width, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("layout", ["original", "original, pickled", "diffusers"])
@pytest.mark.parametrize("kind", tiny_control.KINDS)
@torch.no_grad()
def test_every_kind_and_layout_is_evaluated_as_diffusers_does_it(kind, layout):
    zoo = tiny_control.adapter(kind)
    weights = zoo.state_dict() if layout == "diffusers" else tiny_control.original_adapter(zoo)
    weights = {"adapter": weights} if "pickled" in layout else weights
    assert t2i_adapter.is_t2i_adapter(weights)
    control = t2i_adapter.LDMT2IAdapter.from_weights(weights)(hint())
    found = [result for result in reversed(control["input"]) if result is not None]
    expected = zoo(hint())
    if kind == "full_adapter_xl":
        assert torch.equal(control["middle"][0], expected.pop())
    assert len(found) == len(expected) and all(map(torch.equal, found, expected))


@pytest.mark.parametrize("kind", tiny_control.KINDS)
@torch.no_grad()
def test_the_unet_adds_each_result_where_diffusers_adds_it(kind):
    torch.manual_seed(1)
    unet, zoo = tiny_sd1.tiny_unet(**UNETS[kind]), tiny_control.adapter(kind)
    x, times, context = torch.randn(2, 4, 8, 8), torch.tensor([3.0, 700.0]), torch.randn(2, 7, 64)
    adapter = t2i_adapter.LDMT2IAdapter.from_weights(zoo.state_dict())
    found = unet(x, times, context=context, control=adapter(hint()))
    expected = UNet2DConditionModel.forward(
        unet, x, times, context, down_intrablock_additional_residuals=zoo(hint()), return_dict=False
    )[0]
    assert is_close(found, expected)
    assert not is_close(unet(x, times, context=context), expected, 1e-2)


@torch.no_grad()
def test_the_first_release_has_larger_kernels_and_strided_layers():
    weights = tiny_control.original_adapter(tiny_control.adapter("full_adapter"))
    for key, tensor in weights.items():
        if key.endswith((".block2.weight", ".in_conv.weight")):
            weights[key] = torch.nn.functional.pad(tensor, (1, 1, 1, 1))  # does the same as the 1x1 inside
    plain = t2i_adapter.LDMT2IAdapter.from_weights(tiny_control.adapter("full_adapter").state_dict())
    wide = t2i_adapter.LDMT2IAdapter.from_weights(weights)
    assert is_close(wide(hint())["input"][0], plain(hint())["input"][0])
    for level, width in ((1, 32), (2, 64), (3, 64)):
        mean = torch.zeros(width, width, 3, 3)
        mean[range(width), range(width), 1:, 1:] = 0.25
        weights[f"body.{2 * level}.down_opt.op.weight"] = mean
        weights[f"body.{2 * level}.down_opt.op.bias"] = torch.zeros(width)
    assert is_close(t2i_adapter.LDMT2IAdapter.from_weights(weights)(hint())["input"][0],
                    plain(hint())["input"][0])  # fmt: skip


@torch.no_grad()
def test_odd_sides_are_halved_as_the_unet_halves_them():
    adapter = t2i_adapter.LDMT2IAdapter.from_weights(tiny_control.adapter("full_adapter").state_dict())
    sizes = [tuple(result.shape[2:]) for result in adapter(hint(72, 104))["input"] if result is not None]
    assert sizes == [(2, 2), (3, 4), (5, 7), (9, 13)]


# --- sampling ---


def sample(model, positive, negative, batch=1):
    return test_controlnet.sample(model, positive, negative, batch)


@pytest.fixture(scope="module")
def model():
    weights = tiny_sd1.checkpoint(**tiny_control.SD_LEVELS)
    return comfy.sd.load_state_dict_guess_config(weights, output_vae=False, output_clip=False)[0]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "adapter.safetensors"
    save_file(tiny_control.original_adapter(tiny_control.adapter("full_adapter")), path)
    return str(path)


@pytest.mark.slow
def test_an_adapter_is_loaded_and_applied_like_a_controlnet(model, file):
    adapter = comfy.controlnet.load_controlnet(file)
    assert isinstance(adapter, comfy.controlnet.T2IAdapter) and adapter.get_models() == [adapter.patcher]
    plain, whole = sample(model, words(1), words(2)), sample(model, *applied(adapter))
    assert not is_close(whole, plain, 1e-3)
    assert is_close(sample(model, *applied(adapter, start=1.0)), plain), "never its turn"
    assert is_close(sample(model, *applied(adapter, 1e-7)), plain)
    first_half = sample(model, *applied(adapter, end=0.3))
    assert not is_close(first_half, plain, 1e-4) and not is_close(first_half, whole, 1e-4)
    twice = applied(adapter, 0.5, sides=applied(adapter, 0.5))
    assert is_close(sample(model, *twice), whole), "two add up"
    assert twice[0][0][1]["control"].control_input is None, "nothing is kept of a run"


def test_a_pickle_that_holds_the_weights_one_level_down_is_read(tmp_path):
    weights = tiny_control.original_adapter(tiny_control.adapter("light_adapter"))
    torch.save({"adapter": weights}, tmp_path / "adapter.pth")
    adapter = comfy.controlnet.load_controlnet(str(tmp_path / "adapter.pth"))
    assert isinstance(adapter, comfy.controlnet.T2IAdapter) and adapter.file == "adapter.pth"


@pytest.mark.slow
def test_an_adapter_and_a_controlnet_work_together(model, file):
    adapter = comfy.controlnet.load_controlnet(file)
    net = tiny_control.controlnet(**tiny_control.SD_LEVELS)
    net = comfy.controlnet.load_controlnet_state_dict(net.state_dict())
    one_way = sample(model, *applied(net, sides=applied(adapter)))
    assert is_close(sample(model, *applied(adapter, sides=applied(net))), one_way)
    assert all(not is_close(sample(model, *applied(alone)), one_way, 1e-3) for alone in (net, adapter))


@pytest.mark.slow
def test_each_latent_of_a_batch_has_its_picture(model, file):
    adapter = comfy.controlnet.load_controlnet(file)
    pictures = torch.cat([picture(1), picture(2)])
    both = sample(model, *applied(adapter, image=pictures), batch=2)
    alone = [sample(model, *applied(adapter, image=pictures[[index]]), batch=2) for index in range(2)]
    assert is_close(both[0], alone[0][0]) and is_close(both[1], alone[1][1])


@torch.no_grad()
def test_pictures_are_brought_to_a_size_that_the_network_takes_and_to_its_channels():
    seen = {}
    for kind, channels in (("full_adapter_xl", 3), ("full_adapter", 1)):
        zoo = tiny_control.adapter(kind, in_channels=channels)
        adapter = comfy.controlnet.load_t2i_adapter(zoo.state_dict())
        adapter.t2i_model.register_forward_pre_hook(lambda _, given: seen.update(hint=given[0]))
        control = adapter.copy().set_cond_hint(picture().movedim(-1, 1))
        control.get_control(torch.zeros(1, 4, 9, 8), torch.ones(1), {}, 1, {})
        size = (80, 64) if kind == "full_adapter_xl" else (72, 64)
        assert seen["hint"].shape == (1, channels, *size)
    expected = comfy.utils.common_upscale(picture().movedim(-1, 1), 64, 72, "nearest-exact", "center")
    assert torch.allclose(seen["hint"], expected.mean(dim=1, keepdim=True))


def test_what_is_no_adapter_gives_nothing():
    assert comfy.controlnet.load_t2i_adapter({"a": torch.zeros(1)}) is None
