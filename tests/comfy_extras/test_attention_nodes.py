"""Hypernetworks, guidance inside of attention, compiled networks, and scales of noise."""

from types import SimpleNamespace

import pytest
import torch

import comfy.guidance
import comfy.hypernetwork
import comfy.sample
import comfy.sd
import folder_paths
from comfy.errors import ModelFileError
from comfy_extras import nodes_torch_compile
from comfy_extras.absent_families import FamilyAbsent
from comfy_extras.nodes_flux import FluxKVCache
from comfy_extras.nodes_hypernetwork import HypernetworkLoader
from comfy_extras.nodes_model_advanced import ModelAttentionBackend, ModelNoiseScale
from comfy_extras.nodes_nag import NAGuidance
from comfy_extras.nodes_torch_compile import TorchCompileModel
from tests.comfy import tiny_flux, tiny_sd1
from tests.comfy.toy_model import toy_model


@pytest.fixture(scope="module")
def model():
    return comfy.sd.load_state_dict_guess_config(tiny_sd1.checkpoint(), output_vae=False, output_clip=False)[
        0
    ]


def sampled(model, cfg=1.0, sides=(1, 2)):
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    prompts = [[[torch.randn(1, 7, 64, generator=torch.Generator().manual_seed(seed)), {}]] for seed in sides]
    return comfy.sample.sample(model, x, 1, cfg, "euler", "normal", *prompts, torch.zeros_like(x), seed=0)


# --- hypernetworks ---


def linear(out_width, in_width, seed):
    generator = torch.Generator().manual_seed(seed)
    return {"weight": torch.randn(out_width, in_width, generator=generator) * 0.3,
            "bias": torch.randn(out_width, generator=generator)}  # fmt: skip


def network(width, seed, *, norm=False):
    layers = [linear(2 * width, width, seed), linear(width, 2 * width, seed + 1)]
    if norm:
        layers.insert(1, {"weight": torch.rand(2 * width) + 0.5, "bias": torch.rand(2 * width)})
    return {f"linear.{i}.{leaf}": tensor for i, layer in enumerate(layers) for leaf, tensor in layer.items()}


@pytest.mark.parametrize(
    ("options", "activation", "at_the_end"),
    [
        ({}, torch.nn.Identity(), False),
        ({"activation_func": "relu"}, torch.nn.ReLU(), False),
        ({"activation_func": "mish", "activate_output": True, "use_dropout": True}, torch.nn.Mish(), True),
        ({"activation_func": "swish", "is_layer_norm": True}, torch.nn.Hardswish(), False),
    ],
)
def test_a_hypernetwork_adds_what_its_layers_say(options, activation, at_the_end):
    norm = options.get("is_layer_norm", False)
    pair = [network(6, seed, norm=norm) for seed in (1, 3)]
    patch = comfy.hypernetwork.from_state_dict({6: pair, **options}, "x").with_strength(0.5)
    q, k, v = (torch.randn(2, 5, 6) for _ in range(3))
    found = patch(q, k, v, {})
    assert found[0] is q
    for x, out, weights in ((k, found[1], pair[0]), (v, found[2], pair[1])):
        parts = [
            {leaf: weights[f"linear.{i}.{leaf}"] for leaf in ("weight", "bias")} for i in range(2 + norm)
        ]
        inside = activation(torch.nn.functional.linear(x, **parts[0]))
        if norm:
            inside = torch.nn.functional.layer_norm(inside, (12,), **parts[1])
        change = torch.nn.functional.linear(inside, **parts[-1])
        torch.testing.assert_close(out, x + 0.5 * (activation(change) if at_the_end else change))
    assert patch(q, torch.ones(1, 1, 7), v, {})[1].shape[-1] == 7  # no network for this width


def test_a_hypernetwork_file_changes_the_picture_of_its_clone_alone(model, tmp_path, monkeypatch):
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "hypernetworks", ([str(tmp_path)], {".pt"}))
    torch.save({64: [network(64, 1), network(64, 3)], "activation_func": "relu"}, tmp_path / "one.pt")
    plain = sampled(model)
    changed = HypernetworkLoader.execute(model, "one.pt", 0.5).args[0]
    assert not torch.allclose(sampled(changed), plain, atol=1e-3)
    assert torch.equal(sampled(HypernetworkLoader.execute(model, "one.pt", 0.0).args[0]), plain)
    assert torch.equal(sampled(model), plain)
    half = changed.clone().model_options["transformer_options"]["patches"]["attn2_patch"][0].to(torch.float64)
    assert half.strength == 0.5 and half.networks[64][0][0]["weight"].dtype == torch.float64


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({64: [network(64, 1)] * 2, "activation_func": "odd"}, "activation 'odd'. Known are: linear, relu"),
        ({"weight": torch.ones(2)}, "'x' is no hypernetwork: it has no networks for widths"),
        ({64: [{"linear.0.weight": torch.ones(2, 2)}] * 2}, "The hypernetwork 'x' is damaged: KeyError"),
    ],
)
def test_files_that_are_no_hypernetwork_are_refused(content, message):
    with pytest.raises(ModelFileError, match=message):
        comfy.hypernetwork.from_state_dict(content, "x")


# --- NAG ---


def test_guided_attention_is_no_longer_than_allowed():
    positive, negative = torch.randn(2, 3, 8), torch.randn(2, 3, 8)
    out = comfy.guidance.normalised_attention(positive, negative, 5.0, 1.5, 1.0)
    away = 5 * positive - 4 * negative
    longer = away.abs().sum(-1) / positive.abs().sum(-1)
    torch.testing.assert_close(out.abs().sum(-1) / positive.abs().sum(-1), longer.clamp(max=1.5))
    torch.testing.assert_close(torch.nn.functional.cosine_similarity(out, away, dim=-1), torch.ones(2, 3))
    half = comfy.guidance.normalised_attention(positive, negative, 5.0, 1.5, 0.5)
    torch.testing.assert_close(half, (out + positive) / 2)


def test_the_negative_prompt_counts_at_scale_one(model):
    guided = NAGuidance.execute(model, 5.0, 0.5, 1.5).args[0]
    one, other = (sampled(guided, sides=(1, negative)) for negative in (2, 3))
    assert not torch.allclose(one, other, atol=1e-4)
    assert torch.equal(sampled(model, sides=(1, 2)), sampled(model, sides=(1, 3)))
    without = NAGuidance.execute(model, 5.0, 0.0, 1.5).args[0]  # no share of it
    torch.testing.assert_close(sampled(without), sampled(model), rtol=1e-4, atol=1e-4)


def test_networks_without_the_patch_are_refused():
    flux = comfy.sd.load_diffusion_model_state_dict(tiny_flux.transformer(""))
    with pytest.raises(ValueError, match="Flux has no place for patches of self-attention here"):
        NAGuidance.execute(flux, 5.0, 0.5, 1.5)


def test_a_cache_for_reference_pictures_names_the_family_that_it_needs():
    with pytest.raises(FamilyAbsent, match="FluxKVCache needs Flux.2"):
        FluxKVCache.execute(toy_model())


# --- the rest ---


def test_flow_models_get_noise_of_another_strength(model):
    flux = comfy.sd.load_diffusion_model_state_dict(tiny_flux.transformer(""))
    (scaled,) = ModelNoiseScale().patch(flux, 2.5)
    noise, latent, sigma = torch.ones(1, 1), torch.full((1, 1), 3.0), torch.tensor(0.4)
    for patcher, strength in ((flux, 1.0), (scaled, 2.5)):
        mixed = patcher.get_model_object("model_sampling").noise_scaling(sigma, noise, latent)
        torch.testing.assert_close(mixed, torch.tensor([[0.4 * strength + 0.6 * 3.0]]))
    with pytest.raises(ValueError, match="SD15 is no rectified flow|BaseModel is no rectified flow"):
        ModelNoiseScale().patch(model, 2.0)


def test_an_attention_that_is_not_here_is_logged(model, caplog):
    assert ModelAttentionBackend().patch(model, "comfy kitchen attention")[0].is_clone(model)
    assert "There is no attention 'comfy kitchen attention' here" in caplog.text
    assert ModelAttentionBackend.VALIDATE_INPUTS("comfy kitchen attention") is True


@pytest.mark.slow
def test_a_compiled_model_is_compiled_with_the_backend(model):
    compiled = TorchCompileModel.execute(model, "inductor").args[0]
    assert compiled.model_options["torch_compile_kwargs"]["backend"] == "inductor"
    assert "torch_compile_kwargs" not in model.model_options


def test_compiled_code_is_not_made_anew_for_options_of_packs():
    guards = [SimpleNamespace(name=name) for name in ("L['x']", "L['transformer_options']['sigmas']")]
    assert nodes_torch_compile._not_on_options(guards) == [True, False]
