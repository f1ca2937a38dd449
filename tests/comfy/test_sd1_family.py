"""SD1.x: recognised by its weights, configured by their shapes, equal to the zoo's own modules."""

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint

import comfy.families
import comfy.model_detection
import comfy.sd
import comfy.supported_models
import comfy.utils
from comfy.errors import ModelFileError, UnknownArchitecture
from comfy.families import ldm_unet, ldm_vae, sd1
from tests.comfy import tiny_sd1


@pytest.fixture(scope="module")
def weights():
    return tiny_sd1.checkpoint()


@pytest.fixture(scope="module")
def loaded(weights):
    return comfy.sd.load_state_dict_guess_config(dict(weights))


def below(weights, prefix):
    return {key[len(prefix) :]: tensor for key, tensor in weights.items() if key.startswith(prefix)}


def test_the_model_predicts_what_the_zoos_unet_predicts(weights, loaded):
    """The reference goes through diffusers' own converter of single files, not through ours."""
    reference = UNet2DConditionModel(
        block_out_channels=(32, 64), down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), layers_per_block=1, attention_head_dim=8,
        cross_attention_dim=64,
    ).eval()  # fmt: skip
    converted = convert_ldm_unet_checkpoint(dict(weights), config=dict(reference.config))
    reference.load_state_dict(converted)
    x, context, t = torch.randn(2, 4, 10, 12), torch.randn(2, 77, 64), torch.tensor([3.0, 800.0])
    with torch.no_grad():
        expected = reference(x, t, encoder_hidden_states=context).sample
        got = loaded[0].model.diffusion_model(x, t, context=context)
    torch.testing.assert_close(got, expected)


def test_the_model_denoises_by_subtracting_what_it_predicts(loaded):
    model = loaded[0].model
    x, context, sigma = 5 * torch.randn(1, 4, 8, 8), torch.randn(1, 77, 64), torch.tensor([2.0])
    with torch.no_grad():
        noise = model.diffusion_model(
            x / 5**0.5, model.model_sampling.timestep(sigma).float(), context=context
        )
        torch.testing.assert_close(model.apply_model(x, sigma, c_crossattn=context), x - 2.0 * noise)


def test_the_vae_is_the_zoos(weights, loaded):
    reference = AutoencoderKL(
        block_out_channels=(32, 32, 64), layers_per_block=1, down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
    ).eval()  # fmt: skip
    reference.load_state_dict(convert_ldm_vae_checkpoint(dict(weights), config=dict(reference.config)))
    image, latent = torch.rand(1, 16, 24, 3), torch.randn(1, 4, 3, 5)
    with torch.no_grad():
        mean = reference.encode(image.movedim(-1, 1) * 2 - 1).latent_dist.mean
        picture = ((reference.decode(latent).sample + 1) / 2).clamp(0, 1).movedim(1, -1)
        torch.testing.assert_close(loaded[2].encode(image), mean)
        torch.testing.assert_close(loaded[2].decode(latent), picture)


@pytest.mark.parametrize(
    "change",
    [
        {"channel_mult": (1, 2, 4), "num_res_blocks": (2, 2, 2), "transformer_depth": (1, 1, 0)},
        {"channel_mult": (1, 3), "num_res_blocks": (1, 2), "transformer_depth": (0, 1)},
        {"context_dim": 96, "model_channels": 64},
        {"in_channels": 9},
    ],
)
def test_any_size_is_read_off_the_shapes(change):
    config = {**tiny_sd1.UNET, **change}
    weights = tiny_sd1.unet_weights(tiny_sd1.tiny_unet(**change), config)
    shape = ldm_unet.shape_of(dict(sorted(weights.items())), "model.diffusion_model.")
    assert shape.as_unet_config() == config
    model = comfy.sd.load_diffusion_model_state_dict(weights)
    assert model.model.concat_keys == (("mask", "masked_image") if config["in_channels"] == 9 else ())


def test_the_shape_of_a_full_size_unet_is_that_of_sd15():
    config = {**tiny_sd1.UNET, "model_channels": 320, "channel_mult": (1, 2, 4, 4),
    "num_res_blocks": (2,) * 4,
              "transformer_depth": (1, 1, 1, 0), "context_dim": 768}  # fmt: skip
    empty = ldm_unet.LDMUNet.empty(**config)
    names = ldm_unet.checkpoint_names(empty.state_dict(), config)
    assert len(names) == 686
    assert {names["mid_block.attentions.0.proj_in.weight"], names["up_blocks.2.upsamplers.0.conv.bias"]} == {
        "middle_block.1.proj_in.weight", "output_blocks.8.2.conv.bias"}  # fmt: skip
    weights = {names[key]: tensor for key, tensor in empty.state_dict().items()}
    found = comfy.model_detection.model_config_from_unet(weights, "")
    assert isinstance(found, comfy.supported_models.SD15)
    assert comfy.supported_models.SD15.matches({**found.unet_config, "use_temporal_attention": False})


def test_weights_are_not_copied_on_the_way_from_the_file(tmp_path, weights):
    path = tmp_path / "a.safetensors"
    comfy.utils.save_torch_file(weights, path)
    mapped = comfy.utils.load_torch_file(path)
    start = {key: tensor.data_ptr() for key, tensor in mapped.items()}
    model, _, vae, _ = comfy.sd.load_state_dict_guess_config(mapped)
    assert model.model.diffusion_model.conv_in.weight.data_ptr() == start[
        "model.diffusion_model.input_blocks.0.0.weight"]  # fmt: skip
    attention = vae.first_stage_model.encoder.mid_block.attentions[0]
    assert attention.to_q.weight.data_ptr() == start["first_stage_model.encoder.mid.attn_1.q.weight"]


def test_half_precision_files_compute_in_fp32_on_the_cpu(weights):
    model, clip, vae, _ = comfy.sd.load_state_dict_guess_config({k: t.half() for k, t in weights.items()})
    assert model.model_dtype() is torch.float32 and vae.vae_dtype is torch.float32
    assert clip.cond_stage_model.clip_l.transformer.get_input_embeddings().weight.dtype is torch.float16
    assert clip.encode("a cat").dtype is torch.float32


def test_weights_kept_in_half_precision_are_cast_when_they_are_used(weights, loaded):
    options = {"dtype": torch.float16}
    model = comfy.sd.load_state_dict_guess_config(dict(weights), model_options=options)[0].model
    assert model.get_dtype() is torch.float16 and model.manual_cast_dtype is torch.float32
    x, context, sigma = torch.randn(1, 4, 8, 8), torch.randn(1, 77, 64), torch.tensor([2.0])
    with torch.no_grad():
        out = model.apply_model(x, sigma, c_crossattn=context)
        expected = loaded[0].model.apply_model(x, sigma, c_crossattn=context)
    assert out.dtype is torch.float32
    torch.testing.assert_close(out, expected, atol=2e-2, rtol=1e-2)


def test_old_names_of_the_text_encoder_and_matrices_in_the_vae_load_too(weights, loaded):
    old = {}
    for key, tensor in weights.items():
        if ".attn_1." in key and tensor.ndim == 4:
            tensor = tensor[:, :, 0, 0]
        old[key.replace("transformer.text_model.", "transformer.")] = tensor
    old["cond_stage_model.transformer.embeddings.position_ids"] = torch.arange(77).unsqueeze(0)
    old["cond_stage_model.logit_scale"] = torch.ones(())
    old["alphas_cumprod"] = torch.ones(1000)
    _, clip, vae, _ = comfy.sd.load_state_dict_guess_config(old)
    torch.testing.assert_close(clip.encode("a cat"), loaded[1].encode("a cat"))
    latent = torch.randn(1, 4, 3, 3)
    torch.testing.assert_close(vae.decode(latent), loaded[2].decode(latent))


def test_a_vae_file_in_the_zoos_layout_loads(weights, loaded):
    vae = comfy.sd.VAE(sd=loaded[2].get_sd())
    latent = torch.randn(1, 4, 3, 3)
    torch.testing.assert_close(vae.decode(latent), loaded[2].decode(latent))


def test_a_saved_checkpoint_has_the_same_weights_with_the_patches_in_them(tmp_path, weights):
    model, clip, vae, _ = comfy.sd.load_state_dict_guess_config(dict(weights))
    clone = model.clone()
    clone.add_patches({"diffusion_model.conv_in.bias": (torch.ones(32),)})
    comfy.sd.save_checkpoint(str(tmp_path / "out.safetensors"), clone, clip, vae, metadata={"a": "b"})
    saved, metadata = comfy.utils.load_torch_file(tmp_path / "out.safetensors", return_metadata=True)
    patched = "model.diffusion_model.input_blocks.0.0.bias"
    assert set(saved) == set(weights) and metadata == {"a": "b"}
    torch.testing.assert_close(saved.pop(patched), weights[patched] + 1)
    for key, tensor in saved.items():
        torch.testing.assert_close(tensor.float(), weights[key], msg=key)


def test_parts_that_are_not_asked_for_or_not_there_are_none(weights, caplog):
    unet = {key: t for key, t in weights.items() if key.startswith("model.")}
    model, clip, vae, vision = comfy.sd.load_state_dict_guess_config(unet)
    assert model is not None and clip is None and vision is None
    assert "no VAE" in caplog.text and "no text encoder" in caplog.text
    with pytest.raises(RuntimeError, match="There is no VAE"):
        vae.decode(torch.zeros(1, 4, 2, 2))
    nothing = {"output_vae": False, "output_clip": False, "output_model": False}
    assert comfy.sd.load_state_dict_guess_config(dict(weights), **nothing) == (None, None, None, None)


def test_a_diffusion_model_alone_loads_from_its_own_file(tmp_path, weights):
    comfy.utils.save_torch_file(below(weights, "model.diffusion_model."), tmp_path / "unet.safetensors")
    model = comfy.sd.load_diffusion_model(str(tmp_path / "unet.safetensors"))
    assert type(model.model.model_config).__name__ == "SD15"
    assert len(comfy.sd.load_checkpoint(state_dict=dict(weights))) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a.lora_up.weight": torch.zeros(1)}, "looks like a LoRA"),
        ({"encoder.conv_in.weight": torch.zeros(1), "decoder.x": torch.zeros(1)}, "looks like a VAE"),
        ({"something": torch.zeros(1)}, "It resembles none of them. It holds 1 tensors: 'something'"),
        (
            {f"model.diffusion_model.{key}": torch.zeros(1) for key in sd1.FAMILY.keys[:4]},
            "nearest to Stable Diffusion 1.x",
        ),
    ],
)
def test_an_unknown_architecture_is_named_with_what_comes_nearest(tmp_path, content, message):
    path = tmp_path / "strange.safetensors"
    comfy.utils.save_torch_file(content, path)
    for load in (comfy.sd.load_checkpoint_guess_config, comfy.sd.load_diffusion_model):
        with pytest.raises(UnknownArchitecture, match=message) as caught:
            load(str(path))
        assert str(path) in str(caught.value)
    with pytest.raises(UnknownArchitecture):
        comfy.sd.load_checkpoint(ckpt_path=str(path))


def test_a_unet_with_linear_projections_or_a_vector_condition_is_not_sd1(weights):
    linear = {**weights, "model.diffusion_model.middle_block.1.proj_in.weight": torch.zeros(64, 64)}
    assert comfy.families.recognise(linear)[0].name == "Stable Diffusion 2.x"
    assert comfy.families.recognise({**weights, "model.diffusion_model.label_emb.0.0.weight": weights[
        "model.diffusion_model.time_embed.0.weight"]}) is None  # fmt: skip
    assert comfy.model_detection.unet_prefix_from_state_dict(weights) == "model.diffusion_model."
    assert comfy.model_detection.unet_prefix_from_state_dict({"a": 1}) == "model."
    del linear["model.diffusion_model.out.2.weight"]
    assert comfy.model_detection.detect_unet_config(linear, "model.diffusion_model.") is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda w: w.pop("model.diffusion_model.out.0.bias"),
            "UNet.*lacks weights \\(1\\): conv_norm_out.bias",
        ),
        (
            lambda w: w.update({"first_stage_model.extra": torch.zeros(1)}),
            "VAE.*unknown weights \\(1\\): extra",
        ),
        (
            lambda w: w.update({"model.diffusion_model.out.0.bias": torch.zeros(3)}),
            "wrongly shaped weights \\(1\\): conv_norm_out.bias",
        ),
        (
            lambda w: w.pop("cond_stage_model.transformer.text_model.final_layer_norm.bias"),
            "text encoder.*lacks",
        ),
    ],
)
def test_a_damaged_checkpoint_is_refused_with_the_weight_that_is_wrong(weights, change, message):
    damaged = dict(weights)
    change(damaged)
    with pytest.raises(ModelFileError, match=message):
        comfy.sd.load_state_dict_guess_config(damaged)


def test_weights_that_are_no_vae_are_refused():
    with pytest.raises(ModelFileError, match="no VAE that is known here: 1 tensors, such as x"):
        comfy.sd.VAE(sd={"x": torch.zeros(1)})


def test_residuals_of_a_controlnet_are_added_as_the_zoo_adds_them(loaded):
    unet = loaded[0].model.diffusion_model
    x, t, context = torch.randn(1, 4, 8, 8), torch.tensor([5.0]), torch.randn(1, 77, 64)
    skips = [torch.randn(1, 32, 8, 8), torch.randn(1, 32, 8, 8), torch.randn(1, 32, 4, 4), None]
    middle = torch.randn(1, 64, 4, 4)
    with torch.no_grad():
        expected = UNet2DConditionModel.forward(
            unet, x, t, encoder_hidden_states=context, mid_block_additional_residual=middle,
            down_block_additional_residuals=tuple(torch.zeros(()) if s is None else s for s in skips),
        ).sample  # fmt: skip
        control = {"output": skips, "middle": [middle]}
        torch.testing.assert_close(unet(x, t, context=context, control=control), expected)
        assert len(control["output"]) == 4 and len(control["middle"]) == 1  # they are the sampler's, not ours


NAMES_OF_BLOCKS = [("input", i) for i in range(4)] + [("middle", 0)] + [("output", i) for i in range(4)]


def run_unet(loaded, options, control=None):
    generator = torch.Generator().manual_seed(7)
    x, context = torch.randn(1, 4, 9, 7, generator=generator), torch.randn(1, 77, 64, generator=generator)
    unet = loaded[0].model.diffusion_model
    with torch.no_grad():
        return unet(x, torch.tensor([5.0]), context=context, control=control, transformer_options=options)


def test_uneven_sides_come_out_as_they_went_in(loaded):
    assert run_unet(loaded, {}).shape == (1, 4, 9, 7)


def test_patches_that_change_nothing_leave_the_result_and_learn_where_they_are(loaded):
    told = []

    def attention(n, context, value, extra):
        told.append((extra["block"], extra["block_index"], extra["n_heads"], extra["dim_head"]))
        return n, context, value

    def block(h, options):
        told.append(options["block"])
        return h

    options = {
        "patches": {
            "attn1_patch": [attention],
            "attn2_output_patch": [lambda n, extra: n],
            "input_block_patch": [block],
            "input_block_patch_after_skip": [lambda h, options: h],
            "output_block_patch": [lambda h, skip, options: (block(h, options), skip)],
            "emb_patch": [lambda emb, model_channels, options: emb * (model_channels == 32)],
        }
    }
    assert torch.equal(run_unet(loaded, options), run_unet(loaded, {}))
    attended = [("input", 1), ("middle", 0), ("output", 2), ("output", 3)]
    widths = [4, 8, 4, 4]  # the middle has 64 channels, 8 heads everywhere
    expected = [(block, 0, 8, width) for block, width in zip(attended, widths, strict=True)]
    assert [entry for entry in told if len(entry) == 4] == expected
    assert [entry for entry in told if len(entry) == 2] == [b for b in NAMES_OF_BLOCKS if b[0] != "middle"]


@pytest.mark.parametrize(
    "patches",
    [
        {"attn1_patch": [lambda n, c, v, extra: (n, c, v * 0)]},
        {"attn1_output_patch": [lambda n, extra: n * 0]},
        {"attn2_patch": [lambda n, c, v, extra: (n, c * 0, v)]},
        {"attn2_output_patch": [lambda n, extra: n * 0]},
        {"emb_patch": [lambda emb, channels, options: emb * 0]},
        {"input_block_patch": [lambda h, options: h * 0]},
        {"input_block_patch_after_skip": [lambda h, options: h * 0]},
        {"output_block_patch": [lambda h, skip, options: (h * 0, skip)]},
    ],
)
def test_each_kind_of_patch_changes_the_result(loaded, patches):
    assert not torch.allclose(run_unet(loaded, {"patches": patches}), run_unet(loaded, {}))


@pytest.mark.parametrize("place", [("middle", 0), ("middle", 0, 0)])
def test_an_attention_is_replaced_in_its_block_only(loaded, place):
    from comfy.families.ldm_forward import attention

    seen = []

    def same(q, k, v, extra):
        seen.append(extra["block"])
        return attention(q, k, v, extra["n_heads"])

    options = {"patches_replace": {"attn2": {place: same}}}
    assert torch.equal(run_unet(loaded, options), run_unet(loaded, {}))
    assert seen == [("middle", 0)]
    zero = {"patches_replace": {"attn2": {place: lambda q, k, v, extra: q * 0}}}
    assert not torch.allclose(run_unet(loaded, zero), run_unet(loaded, {}))


def test_an_adapter_adds_to_the_input_blocks_last_tensor_first(loaded):
    added = torch.randn(1, 32, 9, 7)
    first = run_unet(loaded, {"patches": {"input_block_patch": [
        lambda h, options: h + added if options["block"] == ("input", 0) else h]}})  # fmt: skip
    torch.testing.assert_close(run_unet(loaded, {}, control={"input": [None, None, None, added]}), first)


def test_a_wrapper_around_the_network_is_called(loaded):
    seen = []

    def wrapper(executor, *args, **kwargs):
        seen.append(type(executor.class_obj).__name__)
        return executor(*args, **kwargs) * 0

    options = {"wrappers": {"diffusion_model": {"pack": [wrapper]}}}
    x = torch.randn(1, 4, 8, 8)
    with torch.no_grad():
        out = loaded[0].model.apply_model(
            x, torch.tensor([2.0]), c_crossattn=torch.zeros(1, 77, 64), transformer_options=options
        )
    assert seen == ["LDMUNet"] and torch.equal(out, x)


def test_an_inpainting_model_gets_the_mask_and_the_masked_image_besides_the_noise():
    weights = tiny_sd1.unet_weights(tiny_sd1.tiny_unet(in_channels=9), {**tiny_sd1.UNET, "in_channels": 9})
    model = comfy.sd.load_diffusion_model_state_dict(weights).model
    noise = torch.randn(2, 4, 8, 8)
    plain = model.extra_conds(noise=noise, device=noise.device)["c_concat"].cond
    assert plain.shape == (2, 5, 8, 8) and torch.equal(plain[:, :1], torch.ones(2, 1, 8, 8))
    assert plain[0, 1:, 0, 0].tolist() == pytest.approx([0.8223, -0.6876, 0.6364, 0.1380])
    image, mask = torch.randn(1, 4, 16, 16), torch.zeros(1, 1, 64, 64)
    given = model.extra_conds(noise=noise, device=noise.device, concat_latent_image=image, concat_mask=mask)
    assert torch.equal(given["c_concat"].cond[:, :1], torch.zeros(2, 1, 8, 8))
    out = model.apply_model(
        noise, torch.tensor([2.0, 2.0]), c_concat=plain, c_crossattn=torch.zeros(2, 77, 64)
    )
    assert out.shape == noise.shape


def test_the_memory_of_a_run_is_estimated_from_its_area(loaded):
    assert loaded[0].memory_required([2, 4, 64, 64]) == 2 * loaded[0].memory_required([1, 4, 64, 64]) > 0


def test_latents_are_scaled_by_the_published_factor(loaded):
    model = loaded[0].model
    assert model.process_latent_in(torch.ones(1)).item() == pytest.approx(0.18215)
    assert model.process_latent_out(model.process_latent_in(torch.ones(1))).item() == pytest.approx(1.0)
    assert len(model.latent_format.latent_rgb_factors) == model.latent_format.latent_channels


def test_a_config_class_that_says_nothing_is_told_so():
    from comfy.supported_models_base import BASE

    empty = BASE({"in_channels": 4})
    with pytest.raises(NotImplementedError, match="how its model is built"):
        empty.get_model({})
    with pytest.raises(NotImplementedError, match="how its VAE is built"):
        empty.make_vae({})


def test_attention_matrices_of_the_vae_become_convolutions_again_when_saved():
    vae = tiny_sd1.tiny_vae()
    saved = ldm_vae.checkpoint_weights(vae.state_dict())
    assert saved["decoder.mid.attn_1.q.weight"].shape == (64, 64, 1, 1)
    assert saved["encoder.down.2.block.0.nin_shortcut.weight"].shape == (64, 32, 1, 1)
