"""SD2: recognised by its weights, its OpenCLIP text encoder unfused, equal to transformers and diffusers."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

import comfy.families
import comfy.sd
import comfy.supported_models
import comfy.utils
from comfy.errors import ModelFileError, UnknownArchitecture
from comfy.families import ldm_unet
from comfy.model_base import ModelType
from tests.comfy import tiny_sd1, tiny_sdxl

TEXT = "cond_stage_model.model."
LAST_BIAS = "model.diffusion_model.output_blocks.3.1.transformer_blocks.0.norm1.bias"


@pytest.fixture(scope="module")
def reference():
    torch.manual_seed(1)
    return tiny_sdxl.text_encoder(128)


@pytest.fixture(scope="module")
def weights(reference):
    text = {TEXT: {**tiny_sdxl.in_open_clip(reference), "logit_scale": torch.ones(())}}
    made = tiny_sdxl.checkpoint(tiny_sdxl.SD2, text)
    made[LAST_BIAS] = torch.zeros_like(made[LAST_BIAS])
    return made


@pytest.fixture(scope="module")
def loaded(weights):
    return comfy.sd.load_state_dict_guess_config(dict(weights))


def test_the_model_predicts_what_the_zoos_unet_predicts(weights, loaded):
    """64 channels per head, and matrices into and out of attention."""
    reference = UNet2DConditionModel(
        block_out_channels=(64, 128), down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), layers_per_block=1, attention_head_dim=(1, 2),
        cross_attention_dim=128, use_linear_projection=True,
    ).eval()  # fmt: skip
    reference.load_state_dict(convert_ldm_unet_checkpoint(dict(weights), config=dict(reference.config)))
    x, context, t = torch.randn(2, 4, 10, 12), torch.randn(2, 77, 128), torch.tensor([3.0, 800.0])
    with torch.no_grad():
        expected = reference(x, t, encoder_hidden_states=context).sample
        torch.testing.assert_close(loaded[0].model.diffusion_model(x, t, context=context), expected)


def test_a_prompt_is_the_last_layer_but_one_normalised(loaded, reference):
    clip = loaded[1]
    tokens = tiny_sdxl.tokens_of(clip, "h", "a red cat")
    assert tokens[0, 5:].tolist() == [0] * 72  # padded with zeros, not with the end
    with torch.no_grad():
        out = reference(tokens, output_hidden_states=True)
        expected = reference.text_model.final_layer_norm(out.hidden_states[-2])
        cond, pooled = clip.encode_from_tokens(clip.tokenize("a red cat"), return_pooled=True)
    torch.testing.assert_close(cond, expected)
    torch.testing.assert_close(pooled, out.text_embeds)


def test_the_original_layout_of_generative_models_loads_too(weights, loaded):
    renamed = {key.replace(TEXT, "conditioner.embedders.0.model."): t for key, t in weights.items()}
    clip = comfy.sd.load_state_dict_guess_config(renamed, output_model=False, output_vae=False)[1]
    torch.testing.assert_close(clip.encode("a cat"), loaded[1].encode("a cat"))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda w: None, ModelType.EPS),
        (lambda w: w.update({LAST_BIAS: torch.linspace(-0.2, 0.2, 64)}), ModelType.V_PREDICTION),
        (lambda w: w.update({LAST_BIAS: torch.linspace(-0.1, 0.1, 64)}), ModelType.EPS),
        (lambda w: w.update(v_pred=torch.tensor([])), ModelType.V_PREDICTION),
    ],
)
def test_velocity_prediction_is_told_by_a_key_or_by_a_bias(weights, change, expected):
    changed = dict(weights)
    change(changed)
    model = comfy.sd.load_state_dict_guess_config(changed, output_vae=False, output_clip=False)[0].model
    assert model.model_type is expected
    x, sigma, context = torch.randn(1, 4, 8, 8), torch.tensor([2.0]), torch.randn(1, 77, 128)
    with torch.no_grad():
        t = model.model_sampling.timestep(sigma).float()
        raw = model.diffusion_model(x / 5**0.5, t, context=context)
        got = model.apply_model(x, sigma, c_crossattn=context)
    velocity = x / 5 - raw * 2 / 5**0.5
    torch.testing.assert_close(got, velocity if expected is ModelType.V_PREDICTION else x - 2 * raw)


def test_inpainting_models_predict_noise_and_take_nine_channels():
    config = {**tiny_sdxl.SD2, "in_channels": 9}
    weights = tiny_sdxl.unet_weights(config)
    weights[LAST_BIAS] = torch.linspace(-0.2, 0.2, 64)
    model = comfy.sd.load_diffusion_model_state_dict(weights).model
    assert model.concat_keys == ("mask", "masked_image") and model.model_type is ModelType.EPS


def test_the_shape_of_a_full_size_unet_is_that_of_sd2():
    config = {
        **tiny_sd1.UNET, "model_channels": 320, "channel_mult": (1, 2, 4, 4), "num_res_blocks": (2,) * 4,
        "transformer_depth": (1, 1, 1, 0), "context_dim": 1024, "use_linear_in_transformer": True,
    }  # fmt: skip
    empty = ldm_unet.LDMUNet.empty(**config, **tiny_sdxl.HEADS)
    names = ldm_unet.checkpoint_names(empty.state_dict(), config)
    weights = {names[key]: tensor for key, tensor in empty.state_dict().items()}
    family, prefix = comfy.families.recognise(weights)
    found = comfy.families.ldm_unet.shape_of(weights, prefix).as_unet_config()
    assert (family.name, prefix, found) == ("Stable Diffusion 2.x", "", config)
    assert comfy.supported_models.SD20.matches({**found, "use_temporal_attention": False})


@pytest.mark.parametrize("channels", [5, 7, 8])
def test_variants_with_other_inputs_are_refused(tmp_path, channels):
    """The depth model, the upscaler and those edited by instruction would only fail later."""
    weights = tiny_sdxl.unet_weights({**tiny_sdxl.SD2, "in_channels": channels})
    comfy.utils.save_torch_file(weights, tmp_path / "depth.safetensors")
    with pytest.raises(UnknownArchitecture, match="of another variant or incomplete"):
        comfy.sd.load_checkpoint_guess_config(str(tmp_path / "depth.safetensors"))


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (TEXT + "transformer.resblocks.1.attn.in_proj_weight", "text encoder.*self_attn.q_proj.weight"),
        (TEXT + "positional_embedding", "text encoder.*position_embedding.weight"),
        ("model.diffusion_model.out.0.bias", "UNet.*conv_norm_out.bias"),
    ],
)
def test_a_damaged_checkpoint_is_refused_with_the_weight_that_is_missing(weights, key, message):
    damaged = {name: tensor for name, tensor in weights.items() if name != key}
    with pytest.raises(ModelFileError, match=message):
        comfy.sd.load_state_dict_guess_config(damaged)


def test_a_saved_checkpoint_is_the_file_that_was_loaded(tmp_path, weights):
    given = {**weights, "v_pred": torch.tensor([])}
    model, clip, vae, _ = comfy.sd.load_state_dict_guess_config(dict(given))
    comfy.sd.save_checkpoint(str(tmp_path / "out.safetensors"), model, clip, vae)
    saved = comfy.utils.load_torch_file(tmp_path / "out.safetensors")
    assert set(saved) == set(given) - {TEXT + "logit_scale"}
    for key, tensor in saved.items():
        torch.testing.assert_close(tensor.float(), given[key], msg=key)
    again = comfy.sd.load_state_dict_guess_config(saved)
    assert again[0].model.model_type is ModelType.V_PREDICTION
    torch.testing.assert_close(again[1].encode("a cat"), clip.encode("a cat"))


def test_a_text_encoder_loads_from_its_own_file_in_either_layout():
    """What a file is for follows from the depth: 24 layers are ViT-H."""
    torch.manual_seed(2)
    model = tiny_sdxl.text_encoder(128, layers=24)
    clips = [
        comfy.sd.load_text_encoder_state_dicts([dict(layout)])
        for layout in (tiny_sdxl.in_open_clip(model), model.state_dict())
    ]
    assert type(clips[0].cond_stage_model).__name__ == "SD2ClipModel"
    torch.testing.assert_close(clips[0].encode("a cat"), clips[1].encode("a cat"))
