"""Merged weights are the linear combinations that the nodes promise, and what is saved loads again."""

import json

import pytest
import torch

import comfy.cli_args
import comfy.model_management
import comfy.sd
import comfy.utils
import folder_paths
import nodes
from comfy_extras import nodes_model_merging as merging
from comfy_extras import nodes_model_merging_model_specific as model_specific
from tests.comfy import tiny_flux, tiny_sd1
from tests.comfy.test_taesd import author_files, tiny_autoencoder


@pytest.fixture(scope="module")
def pair():
    """Two checkpoints of one architecture, as (MODEL, CLIP, VAE)."""
    return [comfy.sd.load_state_dict_guess_config(tiny_sd1.checkpoint(seed))[:3] for seed in (1, 2)]


@pytest.fixture
def output(tmp_path, monkeypatch):
    """The output folder of the test."""
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path))
    return tmp_path


def weights_of(part):
    """All weights of a MODEL's network or a CLIP, with the patches in them, as copies."""
    patcher = getattr(part, "patcher", part)
    comfy.model_management.load_models_gpu([patcher], force_patch_weights=True)
    weights = patcher.model.state_dict().items()
    return {key: tensor.clone() for key, tensor in weights if not key.startswith("model_sampling.")}


def assert_combination(merged, first, second, combine):
    """Every weight of `merged` is `combine(key, a, b)`, computed in float32."""
    a, b, found = weights_of(first), weights_of(second), weights_of(merged)
    for key, tensor in found.items():
        expected = combine(key, a[key].float(), b[key].float()).to(tensor.dtype)
        assert torch.equal(tensor, expected), key
    assert any(not torch.equal(found[key], a[key]) for key in found)


COMBINATIONS = {
    "MergeSimple": ({"ratio": 0.3}, lambda key, a, b: a * 0.3 + (1.0 - 0.3) * b),
    "MergeSubtract": ({"multiplier": 0.7}, lambda key, a, b: a * 0.7 + -0.7 * b),
    "MergeAdd": ({}, lambda key, a, b: a + b),
}


@pytest.mark.parametrize("name", COMBINATIONS)
@pytest.mark.parametrize("kind", ["Model", "CLIP"])
def test_a_merge_is_its_linear_combination_bit_for_bit(pair, kind, name):
    node = merging.NODE_CLASS_MAPPINGS[kind + name]
    options, combine = COMBINATIONS[name]
    first, second = (parts[0 if kind == "Model" else 1] for parts in pair)
    assert list(node.INPUT_TYPES()["required"]) == [f"{kind.lower()}1", f"{kind.lower()}2", *options]
    (merged,) = node().merge(first, second, **options)
    assert_combination(merged, first, second, combine)


def test_blocks_are_mixed_by_their_place_in_a_checkpoint(pair):
    (first, *_), (second, *_) = pair
    ratios = {"input": 0.25, "middle": 0.5, "out": 0.75}
    (merged,) = merging.ModelMergeBlocks().merge(first, second, **ratios)
    parts = {"down_blocks": 0.25, "conv_in": 0.25, "mid_block": 0.5, "up_blocks": 0.75, "conv_out": 0.75,
             "conv_norm_out": 0.75, "time_embedding": 0.25}  # fmt: skip

    def combine(key, a, b):
        ratio = parts[key.split(".")[1]]
        return a * ratio + (1.0 - ratio) * b

    assert_combination(merged, first, second, combine)


def test_the_longest_fitting_knob_decides(pair):
    (first, *_), (second, *_) = pair
    knobs = {"time_embed.": 1.0, "input_blocks.": 0.5, "input_blocks.0.": 0.0}
    (merged,) = merging.ModelMergeBlocks().merge(first, second, **knobs)
    ratios = {"conv_in": 0.0, "down_blocks": 0.5}

    def combine(key, a, b):
        ratio = ratios.get(key.split(".")[1], 1.0)
        return a * ratio + (1.0 - ratio) * b

    assert_combination(merged, first, second, combine)


def test_blocks_of_flux_are_mixed_by_their_names_in_the_file_also_where_these_are_fused():
    first, second = (
        comfy.sd.load_diffusion_model_state_dict(tiny_flux.transformer("", seed=seed)) for seed in (1, 2)
    )
    node = model_specific.NODE_CLASS_MAPPINGS["ModelMergeFlux1"]
    knobs = [name for name in node.INPUT_TYPES()["required"] if not name.startswith("model")]
    ratios = {**dict.fromkeys(knobs, 1.0), "double_blocks.1.": 0.25, "single_blocks.0.": 0.5, "img_in.": 0.0}
    (merged,) = node().merge(first, second, **ratios)
    parts = {"transformer_blocks.1.": 0.25, "single_transformer_blocks.0.": 0.5, "x_embedder.": 0.0}

    def combine(key, a, b):
        fitting = [ratio for begin, ratio in parts.items() if key.startswith(f"diffusion_model.{begin}")]
        ratio = fitting[0] if fitting else 1.0
        return a * ratio + (1.0 - ratio) * b

    assert_combination(merged, first, second, combine)


@pytest.mark.parametrize(("name", "count", "first", "last"), [
    ("SD1", 30, "time_embed.", "out."), ("SDXL", 24, "time_embed.", "out."),
    ("Flux1", 63, "img_in.", "final_layer."), ("WAN2_1", 46, "patch_embedding.", "head."),
    ("QwenImage", 66, "pos_embeds.", "proj_out."), ("Cosmos14B", 42, "pos_embedder.", "final_layer."),
])  # fmt: skip
def test_a_node_for_a_family_has_a_knob_for_each_block(name, count, first, last):
    knobs = list(model_specific.NODE_CLASS_MAPPINGS[f"ModelMerge{name}"].INPUT_TYPES()["required"])
    assert knobs[:3] == ["model1", "model2", first] and knobs[-1] == last and len(knobs) == count + 2


def test_the_difference_of_two_models_is_added_to_a_third(pair):
    (first, *_), (second, *_) = pair
    (difference,) = merging.ModelSubtract().merge(second, first, 1.0)
    (total,) = merging.ModelAdd().merge(first, difference)
    found, wanted = weights_of(total), weights_of(second)
    for key, tensor in found.items():
        torch.testing.assert_close(tensor, wanted[key], rtol=1e-5, atol=1e-6)


def test_models_of_other_architectures_are_refused(pair):
    (first, clip, _), _ = pair
    with pytest.raises(ValueError, match="no weights in common"):
        merging._merged(first, clip.get_key_patches(), lambda key: (1.0, 1.0))


def test_weights_of_other_shapes_stay_and_are_named(pair, caplog):
    inpaint, *_ = comfy.sd.load_state_dict_guess_config(tiny_sd1.checkpoint(3, in_channels=9))
    before = weights_of(inpaint)
    (merged,) = merging.ModelMergeSimple().merge(inpaint, pair[0][0], 0.5)
    found = weights_of(merged)
    assert torch.equal(found["diffusion_model.conv_in.weight"], before["diffusion_model.conv_in.weight"])
    assert not torch.equal(found["diffusion_model.conv_in.bias"], before["diffusion_model.conv_in.bias"])
    assert "conv_in.weight stays as it is: the models have (32, 9, 3, 3) and (32, 4, 3, 3)" in caplog.text


# --- saving -------------------------------------------------------------------------------------------


def picture(model, clip, vae):
    """What the parts make of one prompt and seed."""
    text = clip.encode_from_tokens_scheduled(clip.tokenize("a red circle"))
    latent = {"samples": torch.zeros(1, 4, 8, 8)}
    (sampled,) = nodes.common_ksampler(model, 5, 2, 4.0, "euler", "normal", text, text, latent)
    return vae.decode(sampled["samples"])


def saved_files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.safetensors"))


def test_a_merged_checkpoint_that_was_saved_gives_the_same_picture(pair, output):
    (model1, clip1, vae), (model2, clip2, _) = pair
    (model,) = merging.ModelMergeSimple().merge(model1, model2, 0.5)
    (clip,) = merging.CLIPMergeSimple().merge(clip1, clip2, 0.5)
    workflow = {"workflow": {"id": "w"}}
    for _ in range(2):
        merging.CheckpointSave().save(model, clip, vae, "checkpoints/mix", {"1": {}}, workflow)
    names = ["checkpoints/mix_00001_.safetensors", "checkpoints/mix_00002_.safetensors"]
    assert saved_files(output) == names
    path = str(output / names[0])
    expected = picture(model, clip, vae)
    assert expected.std() > 0.01
    assert torch.equal(picture(*comfy.sd.load_checkpoint_guess_config(path)[:3]), expected)
    assert not torch.equal(picture(model1, clip1, vae), expected)
    _, metadata = comfy.utils.load_torch_file(path, return_metadata=True)
    assert json.loads(metadata["prompt"]) == {"1": {}} and json.loads(metadata["workflow"]) == {"id": "w"}
    assert metadata["modelspec.predict_key"] == "epsilon"


def test_no_workflow_is_written_where_metadata_is_off(pair, output, monkeypatch):
    monkeypatch.setattr(comfy.cli_args.args, "disable_metadata", True)
    merging.ModelSave().save(pair[0][0], "m", {"1": {}}, {"workflow": {}})
    _, metadata = comfy.utils.load_torch_file(output / "m_00001_.safetensors", return_metadata=True)
    assert set(metadata) == {"modelspec.predict_key"}


def test_each_part_is_saved_to_a_file_of_its_own_that_loads(pair, output):
    model, clip, vae = pair[0]
    before = weights_of(model)
    merging.ModelSave().save(model, "unet", None, None)
    merging.CLIPSave().save(clip, "clip", {"1": {}}, None)
    merging.VAESave().save(vae, "vae", {"1": {}}, None)
    assert saved_files(output) == [
        "clip_clip_l_00001_.safetensors", "unet_00001_.safetensors", "vae_00001_.safetensors"
    ]  # fmt: skip
    again = comfy.sd.load_diffusion_model(str(output / "unet_00001_.safetensors"))
    assert all(torch.equal(tensor, before[key]) for key, tensor in weights_of(again).items())
    text = comfy.utils.load_torch_file(output / "clip_clip_l_00001_.safetensors")
    assert "text_model.encoder.layers.0.mlp.fc1.weight" in text
    weights, metadata = comfy.utils.load_torch_file(output / "vae_00001_.safetensors", return_metadata=True)
    assert "encoder.down.0.block.0.norm1.weight" in weights and metadata == {"prompt": '{"1": {}}'}
    latent = torch.randn(1, 4, 3, 3)
    assert torch.equal(comfy.sd.VAE(sd=weights).decode(latent), vae.decode(latent))


def test_a_tiny_autoencoder_can_be_saved_and_loaded_too(output):
    sd = comfy.taesd.taesd.weights_of("taesdxl", *author_files(tiny_autoencoder(), output))
    vae = comfy.sd.VAE(sd=sd)
    merging.VAESave().save(vae, "vae")
    again = comfy.sd.VAE(sd=comfy.utils.load_torch_file(output / "vae_00001_.safetensors"))
    latent = torch.randn(1, 4, 2, 2)
    assert torch.equal(again.decode(latent), vae.decode(latent))


def test_text_encoders_are_told_apart_and_share_vocabularies():
    weights = {"clip_l.transformer.text_model.a": 1, "t5xxl.transformer.b": 2, "clip_l.logit_scale": 3}
    weights["spm"] = 4
    assert merging._text_encoders(weights) == {
        "clip_l": {"text_model.a": 1, "logit_scale": 3, "spm": 4}, "t5xxl": {"b": 2, "spm": 4}
    }  # fmt: skip


@pytest.mark.parametrize("name", ["CheckpointSave", "CLIPSave", "VAESave", "ModelSave"])
def test_a_saver_asks_for_its_parts_and_the_workflow(name):
    inputs = merging.NODE_CLASS_MAPPINGS[name].INPUT_TYPES()
    assert list(inputs["required"])[-1] == "filename_prefix"
    assert inputs["hidden"] == {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}
