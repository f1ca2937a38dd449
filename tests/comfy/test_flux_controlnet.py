"""ControlNets of Flux.1, beside diffusers' own."""

import pytest
import torch
from diffusers import FluxControlNetModel

import comfy.controlnet
import comfy.ops
import comfy.sample
import comfy.sd
import comfy.vae
from comfy.families import flux_controlnet, flux_forward, flux_model
from comfy_extras.nodes_controlnet import (
    ControlNetApplySD3,
    ControlNetInpaintingAliMamaApply,
    SetUnionControlNetType,
)
from tests.comfy import tiny_control, tiny_flux, tiny_sd1
from tests.comfy.test_controlnet import applied, is_close, picture

H, W = 6, 8  # of the latents


def inputs(hint_channels=16, hint_sides=(H, W)):
    torch.manual_seed(1)
    return {
        "x": torch.randn(2, 16, H, W), "hint": torch.rand(2, hint_channels, *hint_sides),
        "timesteps": torch.tensor([0.3, 0.9]), "context": torch.randn(2, 5, tiny_flux.CONTEXT),
        "y": torch.randn(2, tiny_flux.POOLED), "guidance": torch.full((2,), 3.5),
    }  # fmt: skip


def by_diffusers(net, given, hint=None, mode=None):
    """The zoo's own evaluation: ([per double block], [per single block])."""
    pack = flux_forward.to_patches
    double, single = net(
        hidden_states=pack(given["x"], 2), controlnet_cond=pack(given["hint"], 2) if hint is None else hint,
        controlnet_mode=None if mode is None else torch.full((2, 1), mode),
        encoder_hidden_states=given["context"], pooled_projections=given["y"], timestep=given["timesteps"],
        img_ids=flux_forward.position_ids(H, W, 2, "cpu"), txt_ids=torch.zeros(5, 3),
        guidance=given["guidance"], return_dict=False,
    )  # fmt: skip
    return double, single


@torch.no_grad()
def test_diffusers_layout_is_evaluated_as_diffusers_does_it():
    zoo = tiny_control.flux_controlnet(num_layers=3)
    net = flux_controlnet.FluxControlNet.from_weights(zoo.state_dict())
    found, (double, single) = net(**inputs()), by_diffusers(zoo, inputs())
    assert len(found["input"]) == 19 and len(found["output"]) == 38
    for block, result in enumerate(found["input"]):
        assert is_close(result, double[block // 7]), "neighbours share one"
    assert all(is_close(result, single[0]) for result in found["output"])


@pytest.mark.parametrize("guidance", [True, False])
@torch.no_grad()
def test_a_union_is_told_the_type_as_diffusers_tells_it(guidance):
    zoo = tiny_control.flux_controlnet(num_mode=4, num_single_layers=0, guidance_embeds=guidance)
    net, given = flux_controlnet.FluxControlNet.from_weights(zoo.state_dict()), inputs()
    found = net(**given, control_type=[2])
    given["guidance"] = given["guidance"] if guidance else None
    double, _ = by_diffusers(zoo, given, mode=2)
    assert is_close(found["input"][0], double[0]) and is_close(found["input"][10], double[1])
    assert found["output"] == [] and not is_close(net(**inputs())["input"][0], double[0], 1e-3)
    with pytest.raises(ValueError, match="has 4 types of pictures, and was asked for number 4.*auto"):
        net(**inputs(), control_type=[4])


def xlabs_by_diffusers(weights, given):
    names = flux_model.layers(2, 0, True)
    renamed = flux_model.zoo_weights(
        {key: tensor for key, tensor in weights.items() if "hint_block" not in key}, names, tiny_flux.WIDTH
    )
    for number in range(8):
        layer = ("conv_in", *(f"blocks.{n}" for n in range(6)), "conv_out")[number]
        for leaf in ("weight", "bias"):
            renamed[f"input_hint_block.{layer}.{leaf}"] = weights[f"input_hint_block.{2 * number}.{leaf}"]
            renamed[f"controlnet_x_embedder.{leaf}"] = weights[f"pos_embed_input.{leaf}"]
            renamed.pop(f"pos_embed_input.{leaf}", None)
    zoo = tiny_control.flux_controlnet(num_single_layers=0, patch_size=2, conditioning_embedding_channels=16)
    zoo.load_state_dict(renamed)
    return by_diffusers(zoo, given, given["hint"] * 2 - 1)[0], renamed


@torch.no_grad()
def test_xlabs_layout_is_evaluated_as_diffusers_does_it():
    weights, given = tiny_control.xlabs_file(), inputs(3, (8 * H, 8 * W))
    double, renamed = xlabs_by_diffusers(weights, given)
    for layout in (weights, renamed):
        assert flux_controlnet.is_flux_controlnet(layout)
        found = flux_controlnet.FluxControlNet.from_weights(layout)(**given)
        assert len(found["input"]) == 19 and found["output"] == []
        for block, result in enumerate(found["input"]):
            assert is_close(result, double[block % 2]), "they go round"


@torch.no_grad()
def test_mistolines_layout_has_its_own_encoder_and_a_silu_behind_each_result():
    weights, given = tiny_control.mist_file(), inputs(3, (8 * H, 8 * W))
    found = flux_controlnet.FluxControlNet.from_weights(weights)(**given)["input"]
    features = given["hint"] * 2 - 1
    for number in range(10):
        kernel, stride = (
            weights[f"input_cond_block.encoder.{2 * number}.weight"],
            2 if number in (3, 5, 7) else 1,
        )
        bias = weights[f"input_cond_block.encoder.{2 * number}.bias"]
        features = features if number == 0 else torch.nn.functional.silu(features)
        features = torch.nn.functional.conv2d(features, kernel, bias, stride, kernel.shape[-1] // 2)
    zoo = tiny_control.flux_controlnet(num_single_layers=0)
    own = {key: tensor for key, tensor in weights.items() if "cond_block" not in key}
    names = flux_model.layers(2, 0, True)
    renamed = flux_model.zoo_weights(own, names, tiny_flux.WIDTH)
    zoo.load_state_dict({
        key.replace(".linear.", ".").replace("pos_embed_input", "controlnet_x_embedder")
        if "controlnet_" in key or "pos_embed" in key else key: tensor
        for key, tensor in renamed.items()
    })  # fmt: skip
    double, _ = by_diffusers(zoo, given, flux_forward.to_patches(features, 2))
    assert is_close(found[0], torch.nn.functional.silu(double[0]))
    assert is_close(found[3], torch.nn.functional.silu(double[1]))


# --- sampling ---


@pytest.fixture(scope="module")
def model():
    return comfy.sd.load_diffusion_model_state_dict(tiny_flux.transformer())


@pytest.fixture(scope="module")
def vae():
    return comfy.vae.VAE(sd=tiny_flux.vae_weights(tiny_flux.vae()))


def words(seed):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(1, 5, tiny_flux.CONTEXT, generator=generator)
    return [[tokens, {"pooled_output": torch.randn(1, tiny_flux.POOLED, generator=generator)}]]


def sample(model, positive, negative, batch=1):
    latent = torch.zeros(batch, 16, H, W)
    noise = comfy.sample.prepare_noise(latent, 42)
    return comfy.sample.sample(
        model, noise, 2, 2.0, "euler", "simple", positive, negative, latent, disable_pbar=True
    )


def loaded(net):
    return comfy.controlnet.load_controlnet_state_dict(net if isinstance(net, dict) else net.state_dict())


def test_a_picture_is_seen_through_the_vae(model, vae):
    net = loaded(tiny_control.flux_controlnet())
    seen = []
    net.control_model.register_forward_pre_hook(lambda _, args, given: seen.append(given), with_kwargs=True)
    plain = sample(model, words(1), words(2))
    image = picture(side=8 * W)
    node = ControlNetApplySD3.execute(words(1), words(2), net, image, 1.0, 0.0, 1.0, vae=vae)
    through_node = sample(model, *node.args)
    scaled = comfy.utils.common_upscale(image.movedim(-1, 1), 8 * W, 8 * H, "nearest-exact", "center")
    expected = (vae.encode(scaled.movedim(1, -1)) - 0.1159) * 0.3611
    assert torch.allclose(seen[0]["hint"], expected, atol=1e-5)
    assert seen[0]["y"].shape[1] == tiny_flux.POOLED and float(seen[0]["guidance"][0]) == 3.5
    assert not is_close(through_node, plain, 1e-3)
    sides = applied_with(vae, net, image)
    assert torch.equal(sample(model, *sides), through_node), "both nodes do the same"


def applied_with(vae, net, image, strength=1.0):
    from comfy_extras.core_controlnet import ControlNetApplyAdvanced

    apply = ControlNetApplyAdvanced().apply_controlnet
    return apply(words(1), words(2), net, image, strength, 0.0, 1.0, vae=vae)


def test_a_picture_is_taken_as_it_is_in_xlabs_layout(model):
    net = loaded(tiny_control.xlabs_file())
    sides = applied(net, sides=(words(1), words(2)))
    assert not is_close(sample(model, *sides, batch=2), sample(model, words(1), words(2), batch=2), 1e-3)


def test_a_union_follows_the_node(model, vae):
    net = loaded(tiny_control.flux_controlnet(num_mode=4))
    results = [
        sample(model, *applied_with(vae, SetUnionControlNetType.execute(net, kind).args[0], picture()))
        for kind in ("auto", "openpose", "depth")
    ]
    assert not is_close(results[0], results[1], 1e-3) and not is_close(results[1], results[2], 1e-3)


def test_an_inpainting_network_sees_the_picture_without_the_hole_and_the_mask(model, vae):
    zoo = tiny_control.flux_controlnet()
    zoo.controlnet_x_embedder = tiny_sd1.randomise(torch.nn.Linear(68, tiny_flux.WIDTH))
    net = loaded(zoo)
    assert net.concat_mask and not loaded(tiny_control.flux_controlnet()).concat_mask
    seen = []
    net.control_model.register_forward_pre_hook(
        lambda _, args, given: seen.append(given["hint"]), with_kwargs=True
    )
    image, mask = picture(side=8 * W)[:, : 8 * H], torch.zeros(1, 8 * H, 8 * W)
    mask[:, :, : 4 * W] = 1.0
    apply = ControlNetInpaintingAliMamaApply.execute
    holed = sample(model, *apply(words(1), words(2), net, vae, image, mask, 1.0, 0.0, 1.0).args)
    expected = (vae.encode(image * (1 - mask[..., None])) - 0.1159) * 0.3611
    assert torch.allclose(seen[0][:, :16], expected, atol=1e-5)
    kept = torch.ones(H, W)
    kept[:, : W // 2] = 0.0
    assert torch.equal(seen[0][0, 16], kept)
    seen.clear()
    whole = sample(model, *applied_with(vae, net, image))
    assert torch.equal(seen[0][0, 16], torch.ones(H, W)) and not is_close(whole, holed, 1e-3)
    unmasked = loaded(tiny_control.flux_controlnet())
    sides = apply(words(1), words(2), unmasked, vae, image, mask, 1.0, 0.0, 1.0).args
    assert torch.equal(sides[0][0][1]["control"].cond_hint_original, image.movedim(-1, 1)), "no mask is asked"


def test_a_missing_vae_and_one_of_another_family_are_named(model):
    net = loaded(tiny_control.flux_controlnet())
    with pytest.raises(
        ValueError, match="looks at the picture through a VAE, and none is connected. Connect"
    ):
        sample(model, *applied(net, sides=(words(1), words(2))))
    wrong = comfy.vae.VAE(sd={
        key.removeprefix("first_stage_model."): tensor
        for key, tensor in tiny_sd1.vae_weights(tiny_sd1.tiny_vae()).items()
    })  # fmt: skip
    with pytest.raises(ValueError, match="needs latents of 16 channels, and the connected VAE makes 4"):
        sample(model, *applied_with(wrong, net, picture()))


@torch.no_grad()
def test_a_file_in_half_precision_computes_in_single_on_a_cpu():
    zoo = tiny_control.flux_controlnet(num_mode=4)
    half = loaded({key: tensor.half() for key, tensor in zoo.state_dict().items()})
    assert half.control_model.dtype is torch.float32
    given = {**inputs(), "control_type": [1]}
    expected = loaded(zoo).control_model(**given)["input"][0]
    assert is_close(half.control_model(**given)["input"][0], expected, 5e-3)
    cast = comfy.ops.cast_on_use(flux_controlnet.FluxControlNet.from_weights(zoo.half().state_dict()))
    assert is_close(cast(**given)["input"][0], expected, 5e-3)


def test_the_zoo_has_no_other_weights():
    assert isinstance(loaded(tiny_control.flux_controlnet()).control_model, FluxControlNetModel)
