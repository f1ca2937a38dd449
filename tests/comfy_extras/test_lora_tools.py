"""LoRAs beside the layers give what they give in the weights, and a difference of models is a LoRA again."""

import pytest
import safetensors.torch
import torch

import comfy.model_management
import comfy.sample
import comfy.sd
import folder_paths
from comfy_extras import nodes_lora_extract
from comfy_extras.nodes_lora_debug import LoraLoaderBypass, LoraLoaderBypassModelOnly
from comfy_extras.nodes_lora_extract import LoraSave, extract_lora
from comfy_extras.nodes_model_merging import CLIPSubtract, ModelSubtract
from tests.comfy import tiny_flux, tiny_sd1


@pytest.fixture(scope="module")
def loaded():
    return comfy.sd.load_state_dict_guess_config(tiny_sd1.checkpoint())[:2]


@pytest.fixture
def folders(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path))
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "loras", ([str(tmp_path)], {".safetensors"}))
    return tmp_path


def denoised(model, text=None, channels=4, context=64):
    """One evaluation of the network as the sampler calls it."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, channels, 8, 8, generator=generator)
    text = torch.randn(1, 7, context, generator=generator) if text is None else text
    return comfy.sample.sample(
        model, x, 1, 1.0, "euler", "normal", [[text, {}]], [[text, {}]], torch.zeros_like(x), seed=0
    )


def rand(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))) * 0.3


ATTENTION, CONVOLUTION = (
    "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q",
    "lora_unet_down_blocks_0_resnets_0_conv1",
)
TEXT = "lora_te_text_model_encoder_layers_0_mlp_fc1"
KINDS = {
    "linear": {f"{ATTENTION}.lora_up.weight": rand(32, 3), f"{ATTENTION}.lora_down.weight": rand(3, 32),
               f"{ATTENTION}.alpha": torch.tensor(1.5)},
    "convolution": {f"{CONVOLUTION}.lora_up.weight": rand(32, 2, 1, 1),
                    f"{CONVOLUTION}.lora_down.weight": rand(2, 32, 3, 3)},
    "LoHa": {f"{ATTENTION}.hada_w1_a": rand(32, 2), f"{ATTENTION}.hada_w1_b": rand(2, 32),
             f"{ATTENTION}.hada_w2_a": rand(32, 2), f"{ATTENTION}.hada_w2_b": rand(2, 32)},
    "DoRA": {f"{ATTENTION}.lora_up.weight": rand(32, 3), f"{ATTENTION}.lora_down.weight": rand(3, 32),
             f"{ATTENTION}.dora_scale": rand(32, 1).abs() + 1},
    "whole": {f"{CONVOLUTION}.diff": rand(32, 32, 3, 3), f"{CONVOLUTION}.diff_b": rand(32)},
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_lora_beside_the_layers_gives_what_it_gives_in_the_weights(loaded, folders, kind):
    model = loaded[0]
    safetensors.torch.save_file(KINDS[kind], folders / f"{kind}.safetensors")
    plain = denoised(model)
    expected = denoised(comfy.sd.load_lora_for_models(model, None, KINDS[kind], 0.7, 0)[0])
    (beside,) = LoraLoaderBypassModelOnly().load_lora_model_only(model, f"{kind}.safetensors", 0.7)
    torch.testing.assert_close(denoised(beside), expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(plain, expected, atol=1e-3)
    assert torch.equal(denoised(model), plain)  # nothing is left in the network
    torch.testing.assert_close(denoised(beside), expected, rtol=1e-4, atol=1e-4)


def test_two_loras_beside_the_layers_add_up(loaded):
    model = loaded[0]
    expected = model
    for kind, strength in (("linear", 0.5), ("convolution", -0.4)):
        expected = comfy.sd.load_lora_for_models(expected, None, KINDS[kind], strength, 0)[0]
    beside = model
    for kind, strength in (("linear", 0.5), ("convolution", -0.4)):
        beside = comfy.sd.load_bypass_lora_for_models(beside, None, KINDS[kind], strength, 0)[0]
    torch.testing.assert_close(denoised(beside), denoised(expected), rtol=1e-4, atol=1e-4)


def test_a_lora_beside_the_layers_of_a_text_encoder(loaded, folders):
    model, clip = loaded
    lora = {f"{TEXT}.lora_up.weight": rand(128, 2), f"{TEXT}.lora_down.weight": rand(2, 64)}
    safetensors.torch.save_file(lora, folders / "text.safetensors")
    _, beside = LoraLoaderBypass().load_lora(model, clip, "text.safetensors", 0.0, 0.9)
    expected = comfy.sd.load_lora_for_models(None, clip, lora, 0, 0.9)[1].encode("a red circle")
    torch.testing.assert_close(beside.encode("a red circle"), expected, rtol=1e-2, atol=2e-3)  # fp16
    assert LoraLoaderBypass().load_lora(model, clip, "text.safetensors", 0, 0) == (model, clip)


# --- extraction ---


@pytest.fixture
def unclamped(monkeypatch):
    """Without the cut of large values, which costs small matrices much."""
    monkeypatch.setattr(nodes_lora_extract, "CLAMP_QUANTILE", 1.0)


@pytest.mark.parametrize("shape", [(12, 20), (12, 20, 3, 3), (12, 20, 1, 1)])
def test_a_difference_of_low_rank_is_found_again(shape, unclamped):
    flat = (shape[0], torch.Size(shape).numel() // shape[0])
    diff = (rand(flat[0], 2) @ rand(2, flat[1])).reshape(shape)
    up, down = extract_lora(diff, 4)
    assert up.shape == (12, 4, 1, 1)[: len(shape)] and down.shape == (4, *shape[1:])
    product = (up.flatten(1) @ down.flatten(1)).reshape(shape)
    torch.testing.assert_close(product, diff, rtol=1e-4, atol=1e-4)


def test_the_largest_hundredth_of_values_is_cut_off():
    diff = rand(64, 64) @ rand(64, 64)
    up, down = extract_lora(diff, 64)
    u, s, v = torch.linalg.svd(diff)
    bound = torch.quantile(torch.cat([(u * s).flatten(), v.flatten()]), 0.99)
    assert max(up.abs().max(), down.abs().max()) == pytest.approx(float(bound), rel=1e-4)


def test_a_full_rank_difference_is_approximated_by_its_largest_part(unclamped):
    u, _, v = torch.linalg.svd(rand(16, 16))
    diff = (u * torch.tensor([8.0, 4.0] + [0.01] * 14)) @ v
    errors = []
    for rank in (1, 2):
        up, down = extract_lora(diff, rank)
        assert up.shape == (16, rank) and down.shape == (rank, 16)
        errors.append(float((up @ down - diff).norm()))
    assert errors == pytest.approx([4.0, 0.01 * 14**0.5], rel=0.01)  # what was left out (Eckart-Young)


@pytest.mark.parametrize("lora_type", ["standard", "full_diff"])
def test_a_saved_difference_turns_one_model_into_the_other(loaded, folders, lora_type, unclamped):
    """Models that differ by a LoRA: what is extracted and loaded gives the same picture."""
    model, clip = loaded
    text_lora = {f"{TEXT}.lora_up.weight": rand(128, 2), f"{TEXT}.lora_down.weight": rand(2, 64)}
    lora = {**KINDS["linear"], **KINDS["convolution"], **text_lora}
    changed, changed_clip = comfy.sd.load_lora_for_models(model, clip, lora, 1.0, 1.0)
    (difference,) = ModelSubtract().merge(changed, model, 1.0)
    (text_difference,) = CLIPSubtract().merge(changed_clip, clip, 1.0)
    LoraSave.execute("mine/extracted", 8, lora_type, True, difference, text_difference)
    tensors = safetensors.torch.load_file(folders / "mine" / "extracted_00001_.safetensors")
    assert all(key.startswith(("diffusion_model.", "text_encoders.clip_l.")) for key in tensors)
    assert all(tensor.dtype == torch.float16 for tensor in tensors.values())
    found, found_clip = comfy.sd.load_lora_for_models(model, clip, tensors, 1.0, 1.0)
    plain, expected = denoised(model), denoised(changed)
    assert (denoised(found) - expected).norm() < 0.2 * (plain - expected).norm()
    texts = [one.encode("a red circle") for one in (clip, changed_clip, found_clip)]
    assert (texts[2] - texts[1]).norm() < 0.2 * (texts[0] - texts[1]).norm()


def test_fused_weights_are_saved_as_the_file_has_them(folders):
    first, second = (
        comfy.sd.load_diffusion_model_state_dict(tiny_flux.transformer("", seed=seed)) for seed in (1, 2)
    )
    (difference,) = ModelSubtract().merge(second, first, 1.0)
    LoraSave.execute("flux", 4, "full_diff", False, difference)
    tensors = safetensors.torch.load_file(folders / "flux_00001_.safetensors")
    name = "double_blocks.0.img_attn.qkv"
    wanted = [tiny_flux.transformer("", seed=seed)[f"{name}.weight"] for seed in (1, 2)]
    torch.testing.assert_close(
        tensors[f"diffusion_model.{name}.diff"].float(), wanted[1] - wanted[0], rtol=1e-2, atol=1e-2
    )
    assert not any(key.endswith(".diff_b") for key in tensors)


def test_equal_models_have_no_difference_to_save(loaded, folders):
    (difference,) = ModelSubtract().merge(loaded[0], loaded[0], 1.0)
    with pytest.raises(ValueError, match="The models are equal: there is no difference to save"):
        LoraSave.execute("none", 8, "standard", True, difference)
    assert LoraSave.execute("none", 8, "standard", True).args == ()
