"""SDXL, base and refiner: two text encoders, vector conditioning, equal to transformers and diffusers."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

import comfy.families
import comfy.sd
import comfy.sd1_clip
import comfy.sdxl_clip
import comfy.supported_models
import comfy.utils
import folder_paths
from comfy.errors import ModelFileError, UnknownArchitecture
from comfy.families import ldm_unet
from comfy.model_base import ModelType
from comfy_extras import core_loaders
from comfy_extras.nodes_clip_sdxl import CLIPTextEncodeSDXL, CLIPTextEncodeSDXLRefiner
from tests.comfy import tiny_sd1, tiny_sdxl

TEXT_L, TEXT_G = "conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."
REFINER_G = "conditioner.embedders.0.model."


@pytest.fixture(scope="module")
def references():
    """transformers' models: (L, bigG)."""
    torch.manual_seed(1)
    return tiny_sdxl.text_encoder(64, open_clip=False), tiny_sdxl.text_encoder(96)


def clip_l_weights(model):
    return {key: t for key, t in model.state_dict().items() if key.startswith("text_model.")}


@pytest.fixture(scope="module")
def weights(references):
    l, g = references  # noqa: E741 - the encoder's name
    return tiny_sdxl.checkpoint(
        tiny_sdxl.BASE, {TEXT_L: clip_l_weights(l), TEXT_G: tiny_sdxl.in_open_clip(g)}
    )


@pytest.fixture(scope="module")
def loaded(weights):
    return comfy.sd.load_state_dict_guess_config(dict(weights))


@pytest.fixture(scope="module")
def refiner_text():
    torch.manual_seed(3)
    return tiny_sdxl.text_encoder(128)


@pytest.fixture(scope="module")
def refiner(refiner_text):
    text = {REFINER_G: tiny_sdxl.in_open_clip(refiner_text)}
    return tiny_sdxl.checkpoint(tiny_sdxl.REFINER, text, seed=4)


def zoos_unet(weights, **sizes):
    """diffusers' own UNet with its own conversion and its own embedding of the sizes."""
    unet = UNet2DConditionModel(
        layers_per_block=1, use_linear_projection=True, addition_embed_type="text_time",
        addition_time_embed_dim=256, **sizes,
    ).eval()  # fmt: skip
    unet.load_state_dict(convert_ldm_unet_checkpoint(dict(weights), config=dict(unet.config)))
    return unet


ZOOS_BASE = {
    "block_out_channels": (64, 128), "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"), "attention_head_dim": (1, 2),
    "transformer_layers_per_block": (1, 2), "cross_attention_dim": 192,
    "projection_class_embeddings_input_dim": 96 + 6 * 256,
}  # fmt: skip
ZOOS_REFINER = {
    "block_out_channels": (64, 128, 128), "attention_head_dim": (1, 2, 2),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 1, 2), "cross_attention_dim": 128,
    "projection_class_embeddings_input_dim": 128 + 5 * 256,
}  # fmt: skip


def denoise(model, x, sigma, cond, **known):
    """`apply_model` with what the samplers make of a conditioning."""
    given = {"cross_attn": cond, "device": x.device, "noise": x, **known}
    conds = {name: value.cond for name, value in model.extra_conds(**given).items()}
    with torch.no_grad():
        return model.apply_model(x, torch.tensor([sigma]), **conds)


def expected_noise(unet, model, x, sigma, cond, pooled, numbers):
    t = model.model_sampling.timestep(torch.tensor([sigma])).float()
    added = {"text_embeds": pooled, "time_ids": torch.tensor([numbers], dtype=torch.float32)}
    with torch.no_grad():
        return unet(
            x / (1 + sigma**2) ** 0.5, t, encoder_hidden_states=cond, added_cond_kwargs=added
        ).sample


@pytest.mark.parametrize(
    ("known", "numbers"),
    [
        ({"width": 320, "height": 200}, [200, 320, 0, 0, 200, 320]),
        (
            {"width": 9, "height": 8, "crop_w": 7, "crop_h": 6, "target_width": 5, "target_height": 4},
            [8, 9, 6, 7, 4, 5],
        ),
    ],
)
def test_the_base_predicts_what_the_zoos_unet_predicts_for_the_same_sizes(weights, loaded, known, numbers):
    model = loaded[0].model
    x, cond, pooled = torch.randn(1, 4, 8, 10), torch.randn(1, 77, 192), torch.randn(1, 96)
    unet = zoos_unet(weights, **ZOOS_BASE)
    noise = expected_noise(unet, model, x, 2.0, cond, pooled, numbers)
    torch.testing.assert_close(denoise(model, x, 2.0, cond, pooled_output=pooled, **known), x - 2 * noise)


@pytest.mark.parametrize(
    ("known", "numbers"),
    [
        ({"prompt_type": "positive", "width": 64, "height": 48}, [48, 64, 0, 0, 6.0]),
        ({"prompt_type": "negative", "width": 64, "height": 48}, [48, 64, 0, 0, 2.5]),
        ({"prompt_type": "negative", "aesthetic_score": 7.5, "crop_w": 3}, [768, 768, 0, 3, 7.5]),
    ],
)
def test_the_refiner_knows_size_crop_and_score(refiner, known, numbers):
    model = comfy.sd.load_state_dict_guess_config(dict(refiner), output_vae=False, output_clip=False)[0].model
    assert type(model).__name__ == "SDXLRefiner"
    x, cond, pooled = torch.randn(1, 4, 6, 8), torch.randn(1, 77, 128), torch.randn(1, 128)
    unet = zoos_unet(refiner, **ZOOS_REFINER)
    noise = expected_noise(unet, model, x, 0.5, cond, pooled, numbers)
    torch.testing.assert_close(denoise(model, x, 0.5, cond, pooled_output=pooled, **known), x - noise / 2)


@pytest.mark.parametrize("pooled", [None, torch.zeros(1, 64)])
def test_a_prompt_of_another_text_encoder_is_refused_with_the_reason(loaded, pooled):
    with pytest.raises(ValueError, match="pooled output of 96 numbers, and this .* has (none|one of 64)"):
        loaded[0].model.encode_adm(pooled_output=pooled)


def test_a_prompt_is_both_encoders_layers_but_one_side_by_side(loaded, references):
    clip = loaded[1]
    ids = [tiny_sdxl.tokens_of(clip, name, "a red cat") for name in ("l", "g")]
    assert ids[0][0, 5:].tolist() == [49407] * 72 and ids[1][0, 5:].tolist() == [0] * 72
    with torch.no_grad():
        l, g = (model(own, output_hidden_states=True) for model, own in zip(references, ids, strict=True))  # noqa: E741
        cond, pooled = clip.encode_from_tokens(clip.tokenize("a red cat"), return_pooled=True)
    torch.testing.assert_close(cond, torch.cat((l.hidden_states[-2], g.hidden_states[-2]), dim=-1))
    torch.testing.assert_close(pooled, g.text_embeds)


def test_weights_in_a_prompt_move_both_encoders_away_from_the_empty_prompt(loaded, references):
    clip = loaded[1]
    text = "a (red:1.5) cat"
    expected = []
    for name, model in zip(("l", "g"), references, strict=True):
        (pairs,) = clip.tokenize(text)[name]
        with torch.no_grad():
            plain, empty = (
                model(tiny_sdxl.tokens_of(clip, name, words), output_hidden_states=True).hidden_states[-2][0]
                for words in (text, "")
            )
        factor = torch.tensor([[weight] for _, weight in pairs])
        expected.append(empty + (plain - empty) * factor)
    torch.testing.assert_close(clip.encode(text)[0], torch.cat(expected, dim=-1))


def test_the_refiners_prompt_is_bigg_alone(refiner, refiner_text):
    clip = comfy.sd.load_state_dict_guess_config(dict(refiner), output_model=False, output_vae=False)[1]
    assert type(clip.cond_stage_model).__name__ == "SDXLRefinerClipModel"
    with torch.no_grad():
        out = refiner_text(tiny_sdxl.tokens_of(clip, "g", "a cat"), output_hidden_states=True)
    cond, pooled = clip.encode_from_tokens(clip.tokenize("a cat"), return_pooled=True)
    torch.testing.assert_close(cond, out.hidden_states[-2])
    torch.testing.assert_close(pooled, out.text_embeds)


def test_clip_skip_and_unprojected_pooling_reach_both_encoders(loaded, references):
    skipping = loaded[1].clone()
    skipping.clip_layer(-3)
    ids = [tiny_sdxl.tokens_of(skipping, name, "a cat") for name in ("l", "g")]
    with torch.no_grad():
        l, g = (model(own, output_hidden_states=True) for model, own in zip(references, ids, strict=True))  # noqa: E741
        plain = references[1].text_model(ids[1]).pooler_output
    torch.testing.assert_close(
        skipping.encode("a cat"), torch.cat((l.hidden_states[-3], g.hidden_states[-3]), dim=-1)
    )
    pooled = skipping.encode_from_tokens(skipping.tokenize("a cat"), return_pooled="unprojected")[1]
    torch.testing.assert_close(pooled, plain)


def test_the_prompt_nodes_give_each_encoder_its_text_and_pad_the_shorter_one(loaded):
    clip = loaded[1]
    sizes = {"width": 1, "height": 2, "crop_w": 3, "crop_h": 4, "target_width": 5, "target_height": 6}
    (((cond, known),),) = CLIPTextEncodeSDXL.execute(clip, text_g="cat " * 100, text_l="a dog", **sizes).args
    assert cond.shape == (1, 154, 192) and {name: known[name] for name in sizes} == sizes
    dog, cats = clip.encode("a dog"), clip.encode("cat " * 100)
    torch.testing.assert_close(cond[:, :77, :64], dog[..., :64])
    torch.testing.assert_close(cond[..., 64:], cats[..., 64:])
    torch.testing.assert_close(cond[:, 77:, :64], clip.encode("")[..., :64])
    (((cond, known),),) = CLIPTextEncodeSDXLRefiner.execute(clip, 4.0, 640, 480, "a dog").args
    assert (known["aesthetic_score"], known["width"], known["height"]) == (4.0, 640, 480)
    torch.testing.assert_close(cond, dog)


# --- what a file is ---

FULL = {
    "SDXL": (
        {"model_channels": 320, "channel_mult": (1, 2, 4), "num_res_blocks": (2,) * 3,
         "transformer_depth": (0, 2, 10), "transformer_depth_middle": 10, "context_dim": 2048,
         "adm_in_channels": 2816}, 1680,
    ),
    "SDXLRefiner": (
        {"model_channels": 384, "channel_mult": (1, 2, 4, 4), "num_res_blocks": (2,) * 4,
         "transformer_depth": (0, 4, 4, 0), "transformer_depth_middle": 4, "context_dim": 1280,
         "adm_in_channels": 2560}, 1220,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FULL)
def test_the_shape_of_a_full_size_unet_is_that_of_base_and_refiner(name):
    sizes, tensors = FULL[name]
    config = {**tiny_sd1.UNET, **sizes, "use_linear_in_transformer": True}
    empty = ldm_unet.LDMUNet.empty(**config, **tiny_sdxl.HEADS)
    names = ldm_unet.checkpoint_names(empty.state_dict(), config)
    assert len(set(names.values())) == tensors
    weights = {names[key]: tensor for key, tensor in empty.state_dict().items()}
    family, prefix = comfy.families.recognise(weights)
    found = family.config(weights, prefix)
    assert (family.name, type(found).__name__) == ("Stable Diffusion XL", name)
    config_class = getattr(comfy.supported_models, name)
    assert config_class.matches({**found.unet_config, "use_temporal_attention": False})


def test_an_inpainting_model_takes_nine_channels_and_another_number_is_refused():
    model = comfy.sd.load_diffusion_model_state_dict(
        tiny_sdxl.unet_weights({**tiny_sdxl.BASE, "in_channels": 9})
    )
    assert model.model.concat_keys == ("mask", "masked_image")
    edited = tiny_sdxl.unet_weights({**tiny_sdxl.BASE, "in_channels": 8})
    assert comfy.families.recognise(edited) is None


def test_a_vector_on_a_unet_with_attention_in_its_first_level_is_not_sdxl():
    config = {**tiny_sdxl.SD2, "adm_in_channels": 2048}
    family, _ = comfy.families.recognise(tiny_sdxl.unet_weights(config))
    assert family.name == "Stable Diffusion 2.1 unCLIP"


SAYS = {
    "eps": ({}, ModelType.EPS, 14.6146),
    "v": ({"v_pred": []}, ModelType.V_PREDICTION, 14.6146),
    "v to pure noise": ({"v_pred": [], "ztsnr": []}, ModelType.V_PREDICTION, 4518.76),
    "edm v": (
        {"edm_vpred.sigma_max": 120.0, "edm_vpred.sigma_min": 0.002}, ModelType.V_PREDICTION_EDM, 120.0
    ),
    "edm": ({"edm_mean": [0.0], "edm_std": [1.0]}, ModelType.EDM, 80.0),
}  # fmt: skip


@pytest.mark.parametrize("case", SAYS)
def test_tensors_beside_the_weights_say_what_is_predicted_and_are_saved_again(tmp_path, weights, case):
    says, expected, sigma_max = SAYS[case]
    beside = {key: torch.tensor(value) for key, value in says.items()}
    unet = {key.removeprefix("model.diffusion_model."): t for key, t in weights.items() if "diffusion" in key}
    patcher = comfy.sd.load_diffusion_model_state_dict({**unet, **beside})
    assert patcher.model.model_type is expected
    assert float(patcher.model.model_sampling.sigma_max) == pytest.approx(sigma_max, rel=1e-4)
    comfy.sd.save_checkpoint(str(tmp_path / "out.safetensors"), patcher)
    saved = comfy.utils.load_torch_file(tmp_path / "out.safetensors")
    assert {key for key in saved if "diffusion" not in key} == set(says)
    again = comfy.sd.load_diffusion_model_state_dict(saved).model
    assert again.model_type is expected
    assert torch.equal(again.model_sampling.sigmas, patcher.model.model_sampling.sigmas)


def test_latents_are_scaled_by_the_published_factors(loaded, weights):
    latent = torch.randn(1, 4, 2, 2)
    model = loaded[0].model
    torch.testing.assert_close(model.process_latent_in(latent), latent * 0.13025)
    assert len(model.latent_format.latent_rgb_factors) == 4
    beside = {"edm_mean": torch.zeros(1), "edm_std": torch.ones(1)}
    given = {**weights, **beside}
    playground = comfy.sd.load_state_dict_guess_config(given, output_vae=False, output_clip=False)[0].model
    first = playground.process_latent_in(torch.full((1, 4, 1, 1), 8.4927 - 1.6574))[0, 0].item()
    assert first == pytest.approx(0.5)
    torch.testing.assert_close(playground.process_latent_out(playground.process_latent_in(latent)), latent)


# --- files ---


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (TEXT_G + "text_projection", "bigG.*text_projection.weight"),
        (TEXT_G + "transformer.resblocks.3.mlp.c_fc.bias", "text encoder.*layers.3.mlp.fc1.bias"),
        (TEXT_L + "text_model.final_layer_norm.bias", "text encoder.*final_layer_norm.bias"),
        (TEXT_G + "token_embedding.weight", "text encoder.*lacks.*token_embedding.weight"),
        ("model.diffusion_model.label_emb.0.2.bias", "UNet.*add_embedding.linear_2.bias"),
    ],
)
def test_a_damaged_checkpoint_is_refused_with_the_weight_that_is_missing(weights, key, message):
    damaged = {name: tensor for name, tensor in weights.items() if name != key}
    with pytest.raises(ModelFileError, match=message):
        comfy.sd.load_state_dict_guess_config(damaged)


def test_a_checkpoint_with_one_of_its_text_encoders_is_refused_and_with_none_has_no_clip(weights):
    half = {key: tensor for key, tensor in weights.items() if not key.startswith(TEXT_L)}
    with pytest.raises(ModelFileError, match="text encoder.*lacks weights"):
        comfy.sd.load_state_dict_guess_config(half, output_model=False, output_vae=False)
    none = {key: tensor for key, tensor in weights.items() if not key.startswith("conditioner.")}
    assert comfy.sd.load_state_dict_guess_config(none, output_model=False, output_vae=False)[1] is None


@pytest.mark.parametrize("which", ["base", "refiner"])
def test_a_saved_checkpoint_is_the_file_that_was_loaded(tmp_path, weights, refiner, which):
    given = weights if which == "base" else refiner
    model, clip, vae, _ = comfy.sd.load_state_dict_guess_config(dict(given))
    comfy.sd.save_checkpoint(str(tmp_path / "out.safetensors"), model, clip, vae)
    saved = comfy.utils.load_torch_file(tmp_path / "out.safetensors")
    assert set(saved) == set(given)
    for key, tensor in saved.items():
        torch.testing.assert_close(tensor.float(), given[key], msg=key)
    again = comfy.sd.load_state_dict_guess_config(saved)
    torch.testing.assert_close(again[1].encode("a cat"), clip.encode("a cat"))


@pytest.mark.parametrize("config", [tiny_sd1.UNET, tiny_sdxl.SD2, tiny_sdxl.BASE, tiny_sdxl.REFINER])
def test_a_unet_in_the_zoos_layout_is_loaded_like_one_in_the_original_layout(config):
    unet = tiny_sd1.tiny_unet(**{**config, **({} if config is tiny_sd1.UNET else tiny_sdxl.HEADS)})
    original = {key.removeprefix("model.diffusion_model."): tensor
                for key, tensor in tiny_sd1.unet_weights(unet, config).items()}  # fmt: skip
    renamed = ldm_unet.from_zoo_layout(unet.state_dict())
    assert renamed.keys() == original.keys()
    assert all(torch.equal(tensor, original[key]) for key, tensor in renamed.items())
    loaded = comfy.sd.load_diffusion_model_state_dict(dict(unet.state_dict())).model.diffusion_model
    assert torch.equal(loaded.conv_out.weight, unet.conv_out.weight)
    with pytest.raises(ModelFileError, match="unknown weights \\(1\\): ema.decay"):
        comfy.sd.load_diffusion_model_state_dict({**unet.state_dict(), "ema.decay": torch.zeros(1)})


def test_both_text_encoders_load_from_their_own_files_in_any_order(tmp_path, loaded, references):
    l, g = references  # noqa: E741 - the encoder's name
    old = dict(g.state_dict())
    old["text_projection"] = old.pop("text_projection.weight").T.contiguous()
    files = {"l": l.state_dict(), "g": g.state_dict(), "open": tiny_sdxl.in_open_clip(g), "old": old}
    for name, own in files.items():
        comfy.utils.save_torch_file(dict(own), tmp_path / f"{name}.safetensors")
    expected = loaded[1].encode_from_tokens(loaded[1].tokenize("a cat"), return_pooled=True)
    for names in (("l", "g"), ("open", "l"), ("l", "old")):
        clip = comfy.sd.load_clip([str(tmp_path / f"{name}.safetensors") for name in names])
        assert type(clip.cond_stage_model) is comfy.sdxl_clip.SDXLClipModel
        got = clip.encode_from_tokens(clip.tokenize("a cat"), return_pooled=True)
        torch.testing.assert_close(got, expected)


def test_the_node_for_two_files_loads_what_its_menu_calls_sdxl(tmp_path, references, monkeypatch):
    place = ([str(tmp_path)], {".safetensors"})
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "text_encoders", place)
    for name, model in zip("lg", references):
        comfy.utils.save_torch_file(dict(model.state_dict()), tmp_path / f"{name}.safetensors")
    clip = core_loaders.DualCLIPLoader().load_clip("l.safetensors", "g.safetensors", "sdxl")[0]
    assert type(clip.cond_stage_model) is comfy.sdxl_clip.SDXLClipModel


def test_one_file_is_clip_l_or_bigg_by_its_depth(references):
    torch.manual_seed(5)
    clip = comfy.sd.load_text_encoder_state_dicts([dict(references[0].state_dict())])
    assert type(clip.cond_stage_model) is comfy.sd1_clip.SD1ClipModel
    clip = comfy.sd.load_text_encoder_state_dicts([dict(tiny_sdxl.text_encoder(96, layers=32).state_dict())])
    assert type(clip.cond_stage_model) is comfy.sdxl_clip.SDXLRefinerClipModel


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([{"a": torch.zeros(1)}], "no text encoders of the type 'stable_diffusion'.*1 tensors, such as 'a'"),
        ([{}], "0 tensors"),
        ([{"text_model.encoder.layers.0.x": torch.zeros(1)}] * 2, "no text encoders"),
    ],
)
def test_files_that_are_no_text_encoders_are_refused_with_what_they_hold(files, message):
    with pytest.raises(UnknownArchitecture, match=message):
        comfy.sd.load_text_encoder_state_dicts(files)
    with pytest.raises(UnknownArchitecture, match="of the type 'wan'"):
        comfy.sd.load_text_encoder_state_dicts(files, clip_type=comfy.sd.CLIPType.WAN)
