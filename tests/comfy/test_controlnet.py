"""ControlNets of latent diffusion's UNets, beside diffusers' own."""

import pytest
import torch
from diffusers import ControlNetModel
from safetensors.torch import save_file

import comfy.controlnet
import comfy.sample
import comfy.samplers
import comfy.sd
from comfy.families import ldm_controlnet
from comfy_extras import core_controlnet
from tests.comfy import tiny_sd1
from tests.comfy.tiny_control import controlnet as network
from tests.comfy.tiny_control import original_controlnet as original_weights

DEEPER = {"use_linear_in_transformer": True, "transformer_depth": (1, 2), "transformer_depth_middle": 2}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "control.safetensors"
    save_file(original_weights(network()), path)
    return path


def inputs():
    torch.manual_seed(1)
    return {
        "x": torch.randn(2, 4, 8, 8), "hint": torch.rand(2, 3, 64, 64),
        "timesteps": torch.tensor([3.0, 700.0]), "context": torch.randn(2, 7, 64),
    }


def by_diffusers(net, given):
    """The same network as diffusers evaluates it."""
    own = ControlNetModel.from_config(net.config)
    own.load_state_dict(net.state_dict())
    down, middle = own.eval()(
        given["x"], given["timesteps"], given["context"], given["hint"], return_dict=False
    )
    return [*down, middle]


SMALL = {"use_linear_in_transformer": True, "transformer_depth": (0, 0), "transformer_depth_middle": 0}


@pytest.mark.parametrize("change", [{}, DEEPER, {**SMALL, "context_dim": 1}])
@torch.no_grad()
def test_a_network_is_evaluated_as_diffusers_does_it(change):
    net = network(**change)
    found = net(**inputs())
    again = ldm_controlnet.LDMControlNet.from_weights(net.state_dict())(**inputs())
    assert torch.equal(again["middle"][0], found["middle"][0])
    for ours, theirs in zip([*found["output"], *found["middle"]], by_diffusers(net, inputs()), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("change", [{}, {"adm_in_channels": 32, "use_linear_in_transformer": True}])
@pytest.mark.parametrize("layout", ["original", "original, no prefix", "diffusers"])
@torch.no_grad()
def test_every_layout_gives_the_same_network(layout, change):
    net, config = network(**change), {**tiny_sd1.UNET, **change}
    weights = net.state_dict() if layout == "diffusers" else original_weights(
        net, "" if "no prefix" in layout else "control_model.", config
    )
    assert ldm_controlnet.is_controlnet(weights)
    loaded = ldm_controlnet.LDMControlNet.from_weights(weights)
    given = inputs()
    if "adm_in_channels" in change:
        given["y"] = torch.randn(2, 32)
    expected, found = net(**given), loaded(**given)
    assert torch.equal(found["middle"][0], expected["middle"][0])
    assert all(map(torch.equal, found["output"], expected["output"])) and len(found["output"]) == 4
    if "y" in given:
        assert not torch.allclose(loaded(**{**given, "y": None})["middle"][0], found["middle"][0], atol=1e-3)


def is_close(found, expected, share=1e-5):
    """Whether latents differ by no more than this share of the largest value."""
    return float((found - expected).abs().max()) <= share * float(expected.abs().max())


def words(seed):
    return [[torch.randn(1, 7, 64, generator=torch.Generator().manual_seed(seed)), {}]]


@pytest.fixture(scope="module")
def model():
    without = {"output_vae": False, "output_clip": False}
    return comfy.sd.load_state_dict_guess_config(tiny_sd1.checkpoint(), **without)[0]


def picture(seed=0, side=40):
    return torch.rand(1, side, side, 3, generator=torch.Generator().manual_seed(seed))


def sample(model, positive, negative, batch=2, steps=3):
    latent = torch.zeros(batch, 4, 8, 8)
    noise = comfy.sample.prepare_noise(latent, 42)
    return comfy.sample.sample(
        model, noise, steps, 4.0, "euler", "normal", positive, negative, latent, disable_pbar=True
    )


def applied(net, strength=1.0, start=0.0, end=1.0, image=None, sides=None):
    node = core_controlnet.ControlNetApplyAdvanced()
    image = picture() if image is None else image
    return node.apply_controlnet(*(sides or (words(1), words(2))), net, image, strength, start, end)


@pytest.mark.slow
def test_strength_and_range_say_how_much_and_when_a_picture_counts(model, file):
    net = comfy.controlnet.load_controlnet(str(file))
    plain = sample(model, words(1), words(2))
    assert torch.equal(sample(model, *applied(net, 0.0)), plain)
    whole = sample(model, *applied(net))
    assert not is_close(whole, plain, 1e-4)
    assert is_close(sample(model, *applied(net, start=1.0)), plain), "never its turn"
    first_half = sample(model, *applied(net, end=0.5))
    assert not is_close(first_half, plain, 1e-4) and not is_close(first_half, whole, 1e-4)
    tiny = sample(model, *applied(net, 1e-6))
    assert is_close(tiny, plain)


def test_a_run_leaves_the_model_and_the_network_as_they_were(model, file):
    net = comfy.controlnet.load_controlnet(str(file))
    before = {key: value.clone() for key, value in net.control_model.state_dict().items()}
    plain = sample(model, words(1), words(2))
    positive, negative = applied(net)
    once, again = (sample(model, positive, negative) for _ in range(2))
    assert torch.equal(once, again) and torch.equal(sample(model, words(1), words(2)), plain)
    control = positive[0][1]["control"]
    assert control.cond_hint is None and control.model_sampling_current is None
    assert net.cond_hint_original is None
    assert all(torch.equal(before[key], value) for key, value in net.control_model.state_dict().items())


def test_both_sides_have_the_same_control_and_run_in_one_batch(model, file, monkeypatch):
    net, batches = comfy.controlnet.load_controlnet(str(file)), []
    positive, negative = applied(net)
    assert positive[0][1]["control"] is negative[0][1]["control"]
    forward = net.control_model.forward

    def counting(x, **given):
        batches.append(x.shape[0])
        return forward(x=x, **given)

    monkeypatch.setattr(net.control_model, "forward", counting)
    sample(model, positive, negative)
    assert batches == [4, 4, 4]


def test_two_controls_add_up(model, file):
    net = comfy.controlnet.load_controlnet(str(file))
    half = applied(net, 0.5)
    twice = applied(net, 0.5, sides=half)
    assert is_close(sample(model, *twice), sample(model, *applied(net, 1.0)))


def test_the_older_node_controls_the_negative_side_too(model, file):
    net = comfy.controlnet.load_controlnet(str(file))
    (positive,) = core_controlnet.ControlNetApply().apply_controlnet(words(1), net, picture(), 1.0)
    assert is_close(sample(model, positive, words(2)), sample(model, *applied(net)))
    assert core_controlnet.ControlNetApply().apply_controlnet(words(1), net, picture(), 0)[0][0][1] == {}


def test_each_latent_of_a_batch_has_its_picture(model, file):
    net = comfy.controlnet.load_controlnet(str(file))
    pictures = torch.cat([picture(1), picture(2)])
    both = sample(model, *applied(net, image=pictures))
    alone = [sample(model, *applied(net, image=pictures[[index]])) for index in range(2)]
    assert is_close(both[0], alone[0][0]) and is_close(both[1], alone[1][1])


def test_pictures_are_repeated_or_left_out_for_a_batch():
    pictures = torch.arange(3.0).reshape(3, 1, 1, 1)
    order = [float(value) for value in comfy.controlnet.broadcast_image_to(pictures, 8, 2)]
    assert order == [0, 1, 2, 0] * 2
    assert [float(value) for value in comfy.controlnet.broadcast_image_to(pictures, 4, 2)] == [0, 1] * 2
    assert comfy.controlnet.broadcast_image_to(pictures[:1], 8, 2).shape[0] == 1


@pytest.mark.parametrize(("kind", "factors"), [("CONSTANT", (2.0, 2.0, 2.0)), ("LINEAR_UP", (8.0, 4.0, 2.0))])
def test_results_are_weighted_once_and_added_to_those_before(kind, factors):
    control = comfy.controlnet.ControlBase().set_cond_hint(None, 2.0)
    control.strength_type = comfy.controlnet.StrengthType[kind]
    one = torch.ones(1, 1, 2, 2)
    merged = control.control_merge(
        {"output": [one.clone() for _ in factors]}, {"output": [None, one], "middle": [one]}, None
    )
    assert [float(result.mean()) for result in merged["output"]] == [factors[0], factors[1] + 1, factors[2]]
    assert float(merged["middle"][0].mean()) == 1 and merged["input"] == []
    twice = control.control_merge({"output": [None, one, one]}, None, torch.float16)["output"]
    assert twice[0] is None and [float(result.mean()) for result in twice[1:]] == list(factors[1:])
    assert twice[1].dtype is torch.float16 and float(one.mean()) == 1


def test_a_file_in_half_precision_computes_in_single_on_a_cpu(model, tmp_path, file):
    net = comfy.controlnet.load_controlnet(str(file))
    weights, path = original_weights(network()), tmp_path / "half.safetensors"
    save_file({key: tensor.half() for key, tensor in weights.items()}, path)
    half = comfy.controlnet.load_controlnet(str(path))
    assert is_close(sample(model, *applied(half)), sample(model, *applied(net)), 2e-3)


def test_the_mean_over_the_picture_is_asked_for_by_the_files_name(tmp_path, model):
    save_file(original_weights(network()), tmp_path / "control_shuffle.safetensors")
    pooled = comfy.controlnet.load_controlnet(str(tmp_path / "control_shuffle.safetensors"))
    assert pooled.global_average_pooling and pooled.copy().global_average_pooling
    merged = pooled.control_merge({"output": [torch.arange(4.0).reshape(1, 1, 2, 2)]}, None, None)
    assert merged["output"][0].unique().tolist() == [1.5]
