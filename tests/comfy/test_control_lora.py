"""Control models whose file holds only what differs from the UNet: Control-LoRAs, and whole differences."""

import pytest
import torch
from safetensors.torch import save_file

import comfy.controlnet
import comfy.model_management
import comfy.sd
from comfy.control_fit import ControlMismatch
from comfy.errors import ModelFileError, UnknownArchitecture
from comfy.families import control_lora
from comfy_extras import core_controlnet
from tests.comfy import test_controlnet, tiny_control, tiny_flux, tiny_sd1
from tests.comfy.test_controlnet import applied, is_close, words


def sample(model, positive, negative):
    return test_controlnet.sample(model, positive, negative, batch=1, steps=1)


@pytest.fixture(scope="module")
def model():
    without = {"output_vae": False, "output_clip": False}
    return comfy.sd.load_state_dict_guess_config(tiny_sd1.checkpoint(), **without)[0]


@pytest.fixture(scope="module")
def files(model):
    """(a Control-LoRA on this model's UNet, the same as a whole ControlNet)"""
    return tiny_control.control_lora_file(tiny_control.controlnet(), model.model.diffusion_model)


def whole_of(files):
    return comfy.controlnet.load_controlnet_state_dict(files[1])


def test_a_control_lora_is_the_controlnet_that_it_means(model, files, tmp_path):
    save_file(files[0], tmp_path / "lora.safetensors")
    control = comfy.controlnet.load_controlnet(str(tmp_path / "lora.safetensors"))
    assert isinstance(control, comfy.controlnet.ControlLora) and control.get_models() == []
    expected = sample(model, *applied(whole_of(files)))
    assert is_close(sample(model, *applied(control)), expected)
    assert not is_close(expected, sample(model, words(1), words(2)), 1e-3)
    half = sample(model, *applied(control, 0.5, sides=applied(control, 0.5)))
    assert is_close(half, expected), "two add up"
    assert control.inference_memory_requirements(torch.float32) > 0


def test_it_shares_the_unets_weights_and_lets_go_of_them_after_the_run(model, files):
    unet = model.model.diffusion_model
    config = model.model.model_config.unet_config
    net = control_lora.network(files[0], unet, config, dtype=torch.float32, device="cpu")
    shared = "down_blocks.0.resnets.0.conv1.weight"
    assert net.state_dict()[shared].data_ptr() == unet.state_dict()[shared].data_ptr()
    sides = applied(comfy.controlnet.load_controlnet_state_dict(files[0]))
    sample(model, *sides)
    assert sides[0][0][1]["control"].control_model is None


def test_a_lora_on_the_unet_counts_in_its_control_too(model, files):
    changed = model.clone()
    key = "diffusion_model.down_blocks.0.resnets.0.conv1.weight"
    changed.add_patches({key: (0.2 * torch.randn(32, 32, 3, 3, generator=torch.Generator().manual_seed(1)),)})
    control = comfy.controlnet.load_controlnet_state_dict(files[0])
    found = sample(changed, *applied(control))
    without = sample(changed, *applied(whole_of(files)))  # of the unchanged UNet
    comfy.model_management.unload_all_models()
    assert not is_close(found, without, 1e-3)


def test_what_does_not_fit_the_unet_is_named(model, files):
    flux = comfy.sd.load_diffusion_model_state_dict(tiny_flux.transformer())
    control = comfy.controlnet.load_controlnet_state_dict(files[0])
    with pytest.raises(
        ControlMismatch, match="is a Control-LoRA, which needs a UNet, .* sampled .Flux. has none"
    ):
        control.pre_run(flux.model, lambda percent: percent)
    wider = {**files[0], "middle_block.1.proj_in.up": torch.zeros(8, 2, 1, 1)}
    with pytest.raises(
        ModelFileError, match="does not fit the UNet .* 'mid_block.attentions.0.proj_in'.*family"
    ):
        comfy.controlnet.load_controlnet_state_dict(wider).pre_run(model.model, lambda percent: percent)
    lacking = {key: tensor for key, tensor in files[0].items() if "zero_convs.1.0" not in key}
    with pytest.raises(ModelFileError, match="Control-LoRA with this UNet's weights .*lacks weights"):
        comfy.controlnet.load_controlnet_state_dict(lacking).pre_run(model.model, lambda percent: percent)


# --- whole differences ---


@pytest.fixture
def difference(model, files, tmp_path):
    """A file of differences to this model, in the folder that the loader looks into."""
    base = model.model.diffusion_model.state_dict()
    weights = {key: tensor - base[key] if key in base else tensor for key, tensor in files[1].items()}
    named = tiny_control.original_controlnet(tiny_control._Holder(weights))
    path = tmp_path / "difference.safetensors"
    save_file({**named, "difference": torch.zeros(1)}, path)
    return str(path)


def load_with_node(monkeypatch, model, path):
    monkeypatch.setattr(core_controlnet.folder_paths, "get_full_path_or_raise", lambda folder, name: path)
    return core_controlnet.DiffControlNetLoader().load_controlnet(model, "difference.safetensors")[0]


def test_a_difference_is_put_on_the_model_that_is_connected(model, files, difference, monkeypatch):
    net = load_with_node(monkeypatch, model, difference)
    assert is_close(sample(model, *applied(net)), sample(model, *applied(whole_of(files))))


def test_a_whole_controlnet_is_loaded_by_that_node_as_it_is(model, files, tmp_path, monkeypatch):
    save_file(files[1], tmp_path / "whole.safetensors")
    net = load_with_node(monkeypatch, model, str(tmp_path / "whole.safetensors"))
    assert torch.equal(sample(model, *applied(net)), sample(model, *applied(whole_of(files))))


def test_a_difference_without_its_model_or_to_another_is_refused(difference):
    with pytest.raises(UnknownArchitecture, match="difference of a ControlNet .* DiffControlNetLoader"):
        comfy.controlnet.load_controlnet(difference)
    weights = tiny_sd1.checkpoint(model_channels=64)
    other = comfy.sd.load_state_dict_guess_config(weights, output_vae=False, output_clip=False)[0]
    with pytest.raises(UnknownArchitecture, match="base model of other sizes than this one .*conv_in.weight"):
        comfy.controlnet.load_controlnet(difference, other)
