"""Flux.1: recognised by its weights, configured by their shapes, equal to the zoo's own modules."""

import math
from types import SimpleNamespace

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxFillPipeline,
    FluxPipeline,
    FluxTransformer2DModel,
)
from diffusers.loaders.single_file_utils import (
    convert_flux_transformer_checkpoint_to_diffusers,
    convert_ldm_vae_checkpoint,
)

import comfy.families
import comfy.sample
import comfy.sd
import comfy.supported_models
import comfy.utils
from comfy import tokenizer_files
from comfy.errors import ModelFileError
from comfy.model_base import ModelType
from tests.comfy import tiny_flux

CONVERTERS_WIDTH = 3072  # diffusers' converter cuts the single blocks for this width only


@pytest.fixture(scope="module")
def weights():
    return tiny_flux.transformer()


@pytest.fixture(scope="module")
def model(weights):
    return comfy.sd.load_diffusion_model_state_dict(dict(weights)).model


@pytest.fixture(scope="module", autouse=True)
def vocabulary(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizers") / "tokenizer.json"
    tiny_flux.write_tokenizer(path)
    tokenizer_files.find_with(lambda name: str(path))
    yield path
    tokenizer_files.find_with(None)


@pytest.fixture(scope="module")
def encoders():
    return tiny_flux.clip_l(), tiny_flux.t5()


@pytest.fixture(scope="module")
def text_files(encoders):
    return [tiny_flux.clip_weights(encoders[0]), tiny_flux.t5_weights(encoders[1])]


def load_clip(files):
    return comfy.sd.load_text_encoder_state_dicts(files, clip_type=comfy.sd.CLIPType.FLUX)


def converted(weights):
    """Through diffusers' converter. Its fixed width is met by repeating rows, which are taken out again."""
    ratio = CONVERTERS_WIDTH // tiny_flux.WIDTH
    wide = {key: tensor.repeat_interleave(ratio, dim=0) if ".linear1." in key else tensor
            for key, tensor in weights.items()}  # fmt: skip
    parts = ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")
    return {
        key: tensor[::ratio]
        if key.startswith("single") and any(f".{part}." in key for part in parts)
        else tensor
        for key, tensor in convert_flux_transformer_checkpoint_to_diffusers(wide).items()
    }


def reference(weights, guidance=True, in_channels=64):
    model = FluxTransformer2DModel(
        in_channels=in_channels, out_channels=64, num_layers=2, num_single_layers=2,
        attention_head_dim=tiny_flux.HEAD, num_attention_heads=tiny_flux.HEADS,
        joint_attention_dim=tiny_flux.CONTEXT,
        pooled_projection_dim=tiny_flux.POOLED, guidance_embeds=guidance, axes_dims_rope=(4, 14, 14),
    ).eval()  # fmt: skip
    model.load_state_dict(converted(weights))
    return model


def packed_prediction(model, x, t, context, y, guidance):
    """One evaluation as diffusers' pipeline makes it."""
    batch, channels, height, width = x.shape
    pack, unpack = FluxPipeline._pack_latents, FluxPipeline._unpack_latents
    out = model(
        hidden_states=pack(x, batch, channels, height, width), timestep=t, encoder_hidden_states=context,
        pooled_projections=y, guidance=guidance, txt_ids=torch.zeros(context.shape[1], 3),
        img_ids=FluxPipeline._prepare_latent_image_ids(batch, height // 2, width // 2, "cpu", x.dtype),
    ).sample  # fmt: skip
    return unpack(out, height * 8, width * 8, 8)


def inputs(height=8, width=6, batch=2, seed=5):
    generator = torch.Generator().manual_seed(seed)
    shapes = ((batch, 16, height, width), (batch, 7, tiny_flux.CONTEXT), (batch, tiny_flux.POOLED))
    return [torch.randn(shape, generator=generator) for shape in shapes]


def run(model, x, context, y, **more):
    with torch.no_grad():
        return model.diffusion_model(x, torch.full((len(x),), 0.7), context=context, y=y, **more)


@pytest.mark.parametrize("guided", [True, False])
@pytest.mark.parametrize("prefix", ["model.diffusion_model.", ""])
def test_the_model_predicts_what_the_zoos_transformer_predicts(guided, prefix):
    weights = tiny_flux.transformer(prefix, guidance=guided)
    model = comfy.sd.load_diffusion_model_state_dict(dict(weights)).model
    x, context, y = inputs()
    t, guidance = torch.tensor([0.9, 0.123456]), torch.tensor([3.5, 3.5]) if guided else None
    with torch.no_grad():
        expected = packed_prediction(reference(weights, guided), x, t, context, y, guidance)
        got = model.diffusion_model(x, t, context=context, y=y, guidance=guidance)
    torch.testing.assert_close(got, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("guided", [True, False])
def test_diffusers_layout_is_the_same_model(guided):
    weights = tiny_flux.transformer("", guidance=guided)
    own = comfy.sd.load_diffusion_model_state_dict(dict(weights)).model
    zoo = comfy.sd.load_diffusion_model_state_dict(converted(weights)).model
    assert type(zoo.model_config) is type(own.model_config)
    assert zoo.model_config.unet_config == own.model_config.unet_config
    x, context, y = inputs()
    guidance = {"guidance": torch.tensor([3.5, 3.5])} if guided else {}
    assert torch.equal(run(zoo, x, context, y, **guidance), run(own, x, context, y, **guidance))
    saved = zoo.state_dict_for_saving()
    assert saved.keys() == own.state_dict_for_saving().keys()
    assert all(torch.equal(saved[f"model.diffusion_model.{key}"], tensor) for key, tensor in weights.items())


def test_a_damaged_file_in_diffusers_layout_is_refused_by_its_own_names():
    weights = converted(tiny_flux.transformer(""))
    del weights["transformer_blocks.1.attn.to_k.bias"]
    with pytest.raises(ModelFileError, match=r"lacks weights \(1\): transformer_blocks.1.attn.to_k.bias"):
        comfy.sd.load_diffusion_model_state_dict(weights)


def test_a_control_model_in_diffusers_layout_is_no_flux():
    weights = {**converted(tiny_flux.transformer("")), "controlnet_x_embedder.weight": torch.zeros(1, 1)}
    assert comfy.families.recognise(weights) is None


def test_dev_has_guidance_and_a_shift_and_schnell_neither(weights, model):
    schnell = comfy.sd.load_diffusion_model_state_dict(tiny_flux.transformer(guidance=False)).model
    assert type(model.model_config) is comfy.supported_models.Flux
    assert type(schnell.model_config) is comfy.supported_models.FluxSchnell
    assert model.model_type is ModelType.FLUX and schnell.model_type is ModelType.FLOW
    assert model.model_sampling.shift == 1.15 and schnell.model_sampling.shift == 1.0
    sigma = torch.tensor([0.25])
    assert schnell.model_sampling.timestep(sigma) == model.model_sampling.timestep(sigma) == sigma


def test_noise_levels_are_shifted_as_the_flow_matching_scheduler_shifts_them(model):
    t = torch.arange(1, 10001) / 10000
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    expected = scheduler._time_shift_exponential(1.15, 1.0, t)
    torch.testing.assert_close(model.model_sampling.sigmas, expected.float())
    assert model.model_sampling.percent_to_sigma(0.5) == pytest.approx(math.e**1.15 / (math.e**1.15 + 1))


@pytest.mark.parametrize(
    ("size", "axes"),
    [
        ({"depth": 3, "single": 1, "heads": 2, "head": 128}, (16, 56, 56)),
        ({"depth": 1, "single": 4, "heads": 5}, (4, 14, 14)),
        ({"in_channels": 96}, (4, 14, 14)),
    ],
)
def test_any_size_is_read_off_the_shapes(size, axes):
    model = comfy.sd.load_diffusion_model_state_dict(tiny_flux.transformer(**size)).model
    config = model.model_config.unet_config
    assert config["depth"] == size.get("depth", 2) and config["depth_single_blocks"] == size.get("single", 2)
    assert config["num_heads"] == size.get("heads", 4) and config["axes_dim"] == axes
    assert config["in_channels"] == size.get("in_channels", 16) and config["out_channels"] == 16
    assert config["vec_in_dim"] == tiny_flux.POOLED and config["context_in_dim"] == tiny_flux.CONTEXT


@pytest.mark.parametrize(
    "change",
    [
        lambda w: w.pop("vector_in.in_layer.weight"),
        lambda w: w.pop("single_blocks.0.linear1.bias"),
        lambda w: w.update({"single_blocks.0.linear1.weight": torch.zeros(9 * 128, 128)}),
        lambda w: w.update({"distilled_guidance_layer.norms.0.scale": torch.zeros(1)}),
    ],
)
def test_relatives_of_this_layout_are_not_taken_for_flux(change):
    weights = tiny_flux.transformer("")
    assert comfy.families.recognise(weights)[0].name == "Flux.1"
    change(weights)
    assert comfy.families.recognise(weights) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("double_blocks.1.txt_mlp.2.bias"), r"lacks weights \(1\): double_blocks.1.txt_mlp"),
        (lambda w: w.pop("single_blocks.1.norm.key_norm.scale"), "lacks .*single_blocks.1.norm.key_norm"),
        (lambda w: w.update({"strange.weight": torch.zeros(1)}), "unknown weights .*strange.weight"),
        (lambda w: w.update({"txt_in.bias": torch.zeros(3)}), "wrongly shaped .*context_embedder.bias"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_refused_with_the_weight_that_is_wrong(change, message):
    weights = tiny_flux.transformer("")
    change(weights)
    with pytest.raises(ModelFileError, match=message):
        comfy.sd.load_diffusion_model_state_dict(weights)


def test_fused_layers_become_views_of_the_file(tmp_path, weights):
    comfy.utils.save_torch_file(weights, tmp_path / "a.safetensors")
    mapped = comfy.utils.load_torch_file(tmp_path / "a.safetensors")
    start = {key: tensor.data_ptr() for key, tensor in mapped.items()}
    network = comfy.sd.load_diffusion_model_state_dict(mapped).model.diffusion_model
    fused = start["model.diffusion_model.double_blocks.1.img_attn.qkv.weight"]
    rows = 128 * 128 * 4  # bytes
    attention = network.transformer_blocks[1].attn
    assert attention.to_q.weight.data_ptr() == fused and attention.to_v.weight.data_ptr() == fused + 2 * rows
    assert network.single_transformer_blocks[0].proj_mlp.weight.data_ptr() == start[
        "model.diffusion_model.single_blocks.0.linear1.weight"] + 3 * rows  # fmt: skip


def test_sides_that_are_no_multiples_of_a_patch_are_continued_from_the_other_side(model):
    x, context, y = inputs(7, 5)
    wrapped = torch.cat([x, x[:, :, :1]], dim=2)
    wrapped = torch.cat([wrapped, wrapped[..., :1]], dim=3)
    expected = run(model, wrapped, context, y)[:, :, :7, :5]
    torch.testing.assert_close(run(model, x, context, y), expected)


def test_a_model_denoises_by_subtracting_the_velocity(model):
    x, context, y = inputs(batch=1)
    guidance = torch.tensor([2.0])
    with torch.no_grad():
        got = model.apply_model(x, torch.tensor([0.7]), c_crossattn=context, y=y, guidance=guidance)
    torch.testing.assert_close(got, x - 0.7 * run(model, x, context, y, guidance=guidance))


def test_guidance_is_3_5_unless_set_and_can_be_left_out(model):
    noise = torch.zeros(1, 16, 4, 4)

    def conds(**given):
        tokens, pooled = torch.zeros(1, 7, 96), torch.zeros(1, 64)
        return model.extra_conds(noise=noise, device="cpu", cross_attn=tokens, pooled_output=pooled, **given)

    assert conds()["guidance"].cond.tolist() == [3.5]
    assert conds(guidance=2)["guidance"].cond.tolist() == [2.0]
    assert "guidance" not in conds(guidance=None)
    assert conds()["y"].cond.shape == (1, 64) and "c_concat" not in conds()
    x, context, y = inputs()
    without = run(model, x, context, y)
    assert not torch.allclose(run(model, x, context, y, guidance=torch.tensor([3.5])), without)
    assert torch.equal(run(model, x, context, None), run(model, x, context, torch.zeros_like(y)))


def test_a_prompt_of_another_text_encoder_is_refused_with_the_one_that_is_needed(model):
    said = "Flux needs prompts of 96 numbers .* has 768. Encode the prompt with CLIP-L and T5-XXL"
    with pytest.raises(ValueError, match=said):
        model.extra_conds(cross_attn=torch.zeros(1, 3, 768), noise=torch.zeros(1, 16, 2, 2), device="cpu")


def test_a_sampled_latent_is_that_of_the_zoos_transformer_walked_by_euler(weights):
    patcher = comfy.sd.load_diffusion_model_state_dict(dict(weights))
    zoo, (_, context, y) = reference(weights), inputs(batch=1)
    noise = torch.randn(1, 16, 8, 6, generator=torch.Generator().manual_seed(1))
    conditioning = [[context, {"pooled_output": y, "guidance": 2.5}]]
    empty = torch.zeros_like(noise)
    got = comfy.sample.sample(
        patcher, noise, 3, 1.0, "euler", "simple", conditioning, conditioning, empty, disable_pbar=True
    )
    t = torch.tensor([1.0, 6667 / 10000, 3334 / 10000])  # every third of the 10,000 levels, from the last
    sigmas = torch.cat([math.e**1.15 / (math.e**1.15 + 1 / t - 1), torch.zeros(1)])
    x = noise
    with torch.no_grad():
        for now, after in zip(sigmas[:-1], sigmas[1:]):
            v = packed_prediction(zoo, x, now.reshape(1), context, y, torch.tensor([2.5]))
            x = x + v * (after - now)
    torch.testing.assert_close(got, x / 0.3611 + 0.1159, atol=1e-4, rtol=1e-4)


# --- Fill and Kontext ---


def test_fill_gets_the_masked_picture_and_the_mask_as_the_zoos_pipeline_gives_them():
    weights = tiny_flux.transformer(in_channels=96)
    model = comfy.sd.load_diffusion_model_state_dict(dict(weights)).model
    assert type(model.model_config) is comfy.supported_models.FluxInpaint
    x, context, y = inputs()
    picture, mask = torch.randn(1, 16, 8, 6), (torch.rand(1, 1, 64, 48) > 0.5).float()
    concat = model.extra_conds(
        noise=x, device="cpu", concat_latent_image=picture, concat_mask=mask, cross_attn=context,
        pooled_output=y,
    )["c_concat"].cond  # fmt: skip
    numbers = SimpleNamespace(shift_factor=0.1159, scaling_factor=0.3611)
    pipeline = SimpleNamespace(
        vae_scale_factor=8, vae=SimpleNamespace(config=numbers), _pack_latents=FluxPipeline._pack_latents
    )
    packed = FluxFillPipeline.prepare_mask_latents(
        pipeline, mask, picture, 2, 16, 1, 64, 48, torch.float32, "cpu", None
    )
    expected_tokens = torch.cat([FluxPipeline._pack_latents(x, 2, 16, 8, 6), packed[1], packed[0]], dim=2)
    with torch.no_grad():
        expected = reference(weights, in_channels=384)(
            hidden_states=expected_tokens, timestep=torch.full((2,), 0.7), encoder_hidden_states=context,
            pooled_projections=y, guidance=torch.full((2,), 30.0), txt_ids=torch.zeros(7, 3),
            img_ids=FluxPipeline._prepare_latent_image_ids(2, 4, 3, "cpu", x.dtype),
        ).sample  # fmt: skip
    got = run(model, torch.cat([x, concat], dim=1), context, y, guidance=torch.full((2,), 30.0))
    expected = FluxPipeline._unpack_latents(expected, 64, 48, 8)
    torch.testing.assert_close(got, expected, atol=2e-5, rtol=1e-4)


def test_without_a_mask_everything_is_painted_and_control_variants_get_a_picture_alone():
    fill, control = (
        comfy.sd.load_diffusion_model_state_dict(tiny_flux.transformer(in_channels=channels)).model
        for channels in (96, 32)
    )
    noise = torch.randn(2, 16, 4, 4)
    plain = fill.extra_conds(noise=noise, device="cpu")["c_concat"].cond
    assert plain.shape == (2, 80, 4, 4) and torch.equal(plain[:, 16:], torch.ones(2, 64, 4, 4))
    picture = torch.randn(1, 16, 8, 8)
    got = control.extra_conds(noise=noise, device="cpu", concat_latent_image=picture)["c_concat"].cond
    assert got.shape == (2, 16, 4, 4)
    assert run(control, torch.cat([noise, got], dim=1), *inputs()[1:]).shape == noise.shape


def test_a_reference_picture_stands_behind_the_picture_with_index_1(weights, model):
    x, context, y = inputs()
    picture = torch.randn(2, 16, 4, 10)
    conds = model.extra_conds(
        noise=x, device="cpu", reference_latents=[picture], reference_latents_method="offset"
    )
    given = conds["ref_latents"].cond
    torch.testing.assert_close(given[0], (picture - 0.1159) * 0.3611)
    make_ids, pack = FluxPipeline._prepare_latent_image_ids, FluxPipeline._pack_latents
    ids = make_ids(1, 2, 5, "cpu", x.dtype)
    ids[:, 0] = 1
    tokens = torch.cat([pack(x, 2, 16, 8, 6), pack(given[0], 2, 16, 4, 10)], dim=1)
    with torch.no_grad():
        expected = reference(weights)(
            hidden_states=tokens, timestep=torch.full((2,), 0.7), encoder_hidden_states=context,
            pooled_projections=y, guidance=torch.full((2,), 2.5), txt_ids=torch.zeros(7, 3),
            img_ids=torch.cat([make_ids(1, 4, 3, "cpu", x.dtype), ids]),
        ).sample[:, :12]  # fmt: skip
    expected = FluxPipeline._unpack_latents(expected, 64, 48, 8)
    got = run(model, x, context, y, guidance=torch.full((2,), 2.5), ref_latents=given)
    torch.testing.assert_close(got, expected, atol=2e-5, rtol=1e-4)
    assert model.extra_conds_shapes(reference_latents=[picture, picture]) == {"ref_latents": [1, 16, 80]}


@pytest.mark.parametrize(
    ("method", "corners"),
    [
        ("offset", [(0, 0, 0), (1, 0, 0), (1, 4, 0), (1, 0, 5)]),
        ("index", [(0, 0, 0), (1, 0, 0), (2, 0, 0), (3, 0, 0)]),
        ("uxo", [(0, 0, 0), (0, 4, 3), (0, 8, 6), (0, 10, 11)]),
    ],
)
def test_several_reference_pictures_are_laid_out_by_the_method(model, method, corners):
    seen = []

    def look(told):
        seen.append(told["img_ids"][0])
        return told

    references = [torch.randn(2, 16, *size) for size in ((8, 6), (4, 10), (2, 2))]
    options = {"patches": {"post_input": [look]}}
    x, context, y = inputs()
    more = {"ref_latents": references, "ref_latents_method": method}
    assert run(model, x, context, y, transformer_options=options, **more).shape == x.shape
    firsts = [seen[0][start].tolist() for start in (0, 12, 24, 34)]
    assert firsts == [list(map(float, corner)) for corner in corners]


def test_reference_pictures_at_time_zero_are_refused(model):
    x, context, y = inputs()
    told = {"ref_latents": [torch.zeros(2, 16, 2, 2)], "ref_latents_method": "index_timestep_zero"}
    with pytest.raises(ValueError, match="index_timestep_zero.*Choose another method"):
        run(model, x, context, y, **told)


# --- precision ---


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.float8_e5m2])
def test_files_in_less_precision_load_and_compute_in_fp32_on_the_cpu(weights, dtype):
    stored = {key: tensor.to(dtype) for key, tensor in weights.items()}
    loaded = comfy.sd.load_diffusion_model_state_dict(dict(stored)).model
    expected = comfy.sd.load_diffusion_model_state_dict({k: t.float() for k, t in stored.items()}).model
    weight = loaded.diffusion_model.x_embedder.weight
    assert weight.dtype is (dtype if dtype.itemsize == 1 else torch.float32)
    assert loaded.get_dtype_inference() is torch.float32
    torch.testing.assert_close(run(loaded, *inputs()), run(expected, *inputs()))


def test_a_file_can_be_kept_in_fp8_on_request(weights):
    options = {"dtype": torch.float8_e4m3fn, "fp8_optimizations": True}
    model = comfy.sd.load_diffusion_model_state_dict(dict(weights), model_options=options).model
    assert model.get_dtype() is torch.float8_e4m3fn
    assert {p.dtype for p in model.diffusion_model.parameters()} == {torch.float8_e4m3fn}
    assert run(model, *inputs()).isfinite().all()


@pytest.mark.parametrize("newer_names", [False, True])
def test_scaled_fp8_weights_are_scaled_when_they_are_used(weights, newer_names):
    stored, meant = tiny_flux.quantise(weights, "model.diffusion_model.scaled_fp8")
    if newer_names:
        stored.pop("model.diffusion_model.scaled_fp8")
        stored = {key.replace("scale_weight", "weight_scale"): tensor for key, tensor in stored.items()}
        stored["model.diffusion_model.img_in.comfy_quant"] = torch.zeros(3, dtype=torch.uint8)
    model = comfy.sd.load_diffusion_model_state_dict(dict(stored)).model
    expected = comfy.sd.load_diffusion_model_state_dict(dict(meant)).model
    attention = model.diffusion_model.transformer_blocks[0].attn
    assert attention.to_k.weight.dtype is torch.float8_e4m3fn and attention.to_k.bias.dtype is torch.float32
    torch.testing.assert_close(run(model, *inputs()), run(expected, *inputs()))


def test_a_patch_of_a_scaled_weight_changes_what_it_means(weights):
    key = "model.diffusion_model.img_in.weight"
    stored, meant = tiny_flux.quantise(weights, "model.diffusion_model.scaled_fp8")
    patcher = comfy.sd.load_diffusion_model_state_dict(dict(stored))
    patcher.add_patches({"diffusion_model.x_embedder.weight": (-0.5 * meant[key],)})
    patcher.patch_model()
    layer = patcher.model.diffusion_model.x_embedder
    value = layer.weight.float() * layer.scale_weight
    torch.testing.assert_close(value, 0.5 * meant[key], atol=1e-4, rtol=0.07)
    patcher.unpatch_model()
    assert torch.equal(layer.weight.float(), stored[key].float())


# --- patches, control, saving ---


def test_control_is_added_to_the_pictures_tokens(weights, model):
    x, context, y = inputs()
    double, single = [torch.randn(2, 12, 128) for _ in range(2)]
    with torch.no_grad():
        pack = FluxPipeline._pack_latents(x, 2, 16, 8, 6)
        expected = reference(weights)(
            hidden_states=pack, timestep=torch.full((2,), 0.7), encoder_hidden_states=context,
            pooled_projections=y, guidance=torch.full((2,), 3.5), txt_ids=torch.zeros(7, 3),
            img_ids=FluxPipeline._prepare_latent_image_ids(2, 4, 3, "cpu", x.dtype),
            controlnet_block_samples=[double, double * 0],
            controlnet_single_block_samples=[single * 0, single],
        ).sample  # fmt: skip
    control = {"input": [double], "output": [None, single]}
    got = run(model, x, context, y, guidance=torch.full((2,), 3.5), control=control)
    expected = FluxPipeline._unpack_latents(expected, 64, 48, 8)
    torch.testing.assert_close(got, expected, atol=2e-5, rtol=1e-4)


def test_blocks_can_be_replaced_and_learn_where_they_are(model):
    seen = []

    def same(told, extra):
        options = told["transformer_options"]
        seen.append((options["block_type"], options["block_index"], options["total_blocks"]))
        return extra["original_block"](told)

    def first(told):
        return {**told, "img": told["img"] * 1}

    places = [("double_block", 1), ("single_block", 0)]
    options = {"patches_replace": {"dit": dict.fromkeys(places, same)}, "patches": {"post_input": [first]}}
    assert torch.equal(run(model, *inputs(), transformer_options=options), run(model, *inputs()))
    assert seen == [("double", 1, 2), ("single", 0, 2)] and set(options) == {"patches_replace", "patches"}
    zero = {"patches": {"post_input": [lambda told: {**told, "img": told["img"] * 0}]}}
    assert not torch.allclose(run(model, *inputs(), transformer_options=zero), run(model, *inputs()))


def test_a_wrapper_around_the_network_is_called(model):
    options = {"wrappers": {"diffusion_model": {"pack": [lambda executor, *a, **k: executor(*a, **k) * 0]}}}
    assert not run(model, *inputs(), transformer_options=options).any()


@pytest.mark.parametrize("scaled", [False, True])
def test_a_saved_model_has_the_names_and_weights_of_its_file(tmp_path, weights, scaled):
    given = tiny_flux.quantise(weights, "model.diffusion_model.scaled_fp8")[0] if scaled else weights
    patcher = comfy.sd.load_diffusion_model_state_dict(dict(given))
    comfy.sd.save_checkpoint(str(tmp_path / "out.safetensors"), patcher)
    saved = comfy.utils.load_torch_file(tmp_path / "out.safetensors")
    assert set(saved) == set(given)
    for key, tensor in saved.items():
        if not (scaled and key.endswith("scaled_fp8")):
            torch.testing.assert_close(tensor.float(), given[key].float(), msg=key)


@pytest.mark.parametrize("form", ["diffusion_model.{}.lora_A.weight", "lora_unet_{}.lora_down.weight"])
@pytest.mark.parametrize(
    "layer",
    ["double_blocks.1.img_attn.qkv", "single_blocks.0.linear1", "double_blocks.0.txt_mlp.0", "img_in",
     "final_layer.adaLN_modulation.1"],
)  # fmt: skip
def test_a_lora_of_a_layer_of_the_file_changes_that_layer(tmp_path, weights, layer, form):
    key = f"model.diffusion_model.{layer}.weight"
    rows, columns = weights[key].shape
    chance = torch.Generator().manual_seed(3)
    down, up = torch.randn(2, columns, generator=chance), torch.randn(rows, 2, generator=chance)
    name = form.format(layer if form.startswith("diff") else layer.replace(".", "_"))
    lora = {name: down, name.replace("lora_A", "lora_B").replace("down", "up"): up}
    patcher, _ = comfy.sd.load_lora_for_models(
        comfy.sd.load_diffusion_model_state_dict(dict(weights)), None, lora, 0.5, 0.0
    )
    comfy.sd.save_checkpoint(str(tmp_path / "out.safetensors"), patcher)
    saved = comfy.utils.load_torch_file(tmp_path / "out.safetensors")
    torch.testing.assert_close(saved[key], weights[key] + 0.5 * up @ down, atol=1e-5, rtol=1e-5)
    changed = [other for other in weights if not torch.equal(saved[other], weights[other].to(saved[other]))]
    assert changed == [key]


# --- text encoders and the autoencoder ---


def test_the_text_encoders_are_the_zoos(encoders, text_files):
    clip = load_clip(text_files[::-1])
    tokens = clip.tokenize("a red cat in the rain")
    numbers = [token for token, _ in tokens["t5xxl"][0]]
    assert len(numbers) == 256 and numbers[:7] == [3, 4, 5, 6, 7, 8, 1] and set(numbers[7:]) == {0}
    with torch.no_grad():
        states = encoders[1](torch.tensor([numbers])).last_hidden_state
        pooled = encoders[0](torch.tensor([[token for token, _ in tokens["l"][0]]])).pooler_output
    cond, got = clip.encode_from_tokens(tokens, return_pooled=True)
    torch.testing.assert_close(cond, states, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(got, pooled, atol=1e-5, rtol=1e-4)


def test_weights_of_words_move_them_from_the_empty_prompt(text_files):
    clip = load_clip(text_files)
    plain, heavy, empty = (clip.encode(text) for text in ("red cat", "(red cat:1.5)", ""))
    expected = plain.clone()
    expected[:, :2] = (plain - empty)[:, :2] * 1.5 + empty[:, :2]
    torch.testing.assert_close(heavy, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("dtype", "kept"),
    [(torch.float32, torch.float16), (torch.bfloat16, torch.bfloat16), (torch.float8_e4m3fn,) * 2],
)
def test_t5_keeps_the_precision_of_its_file_and_computes_in_fp32(text_files, dtype, kept):
    stored = {key: tensor.to(dtype) for key, tensor in text_files[1].items()}
    clip = load_clip([text_files[0], stored])
    assert {p.dtype for p in clip.cond_stage_model.t5xxl.parameters()} == {kept}
    meant = {key: tensor.float() for key, tensor in stored.items()}
    expected = load_clip([text_files[0], meant]).encode("a red cat")
    torch.testing.assert_close(clip.encode("a red cat"), expected, atol=1e-4, rtol=1e-3)


def test_a_scaled_fp8_t5_is_scaled_when_it_is_used(text_files):
    stored, meant = tiny_flux.quantise(text_files[1])
    stored = {key: t.half() if t.dtype is torch.float32 and t.ndim else t for key, t in stored.items()}
    clip = load_clip([text_files[0], stored])
    layer = clip.cond_stage_model.t5xxl.transformer.encoder.block[1].layer[0].SelfAttention.k
    assert layer.weight.dtype is torch.float8_e4m3fn and layer.scale_weight.dtype is torch.float32
    expected = load_clip([text_files[0], meant]).encode("a red cat")
    torch.testing.assert_close(clip.encode("a red cat"), expected, atol=2e-3, rtol=2e-2)


def test_two_files_of_the_same_encoder_are_refused(text_files):
    with pytest.raises(ModelFileError, match="T5-XXL is not among the 2"):
        load_clip([text_files[0], text_files[0]])
    with pytest.raises(ModelFileError, match="CLIP-L and T5-XXL is not among the 1"):
        load_clip([{"x": torch.zeros(1)}])
    with pytest.raises(ModelFileError, match="of the type 'mochi' .known types: flux"):
        comfy.sd.load_text_encoder_state_dicts([], clip_type=comfy.sd.CLIPType.MOCHI)
    damaged = {key: t for key, t in text_files[1].items() if "block.1.layer.1.DenseReluDense.wo" not in key}
    with pytest.raises(ModelFileError, match=r"\(T5\).*lacks weights.*block.1.layer.1.DenseReluDense.wo"):
        load_clip([text_files[0], damaged])


def test_without_a_way_to_vocabularies_the_error_says_so(vocabulary):
    tokenizer_files.find_with(None)
    try:
        with pytest.raises(FileNotFoundError, match="'t5/tokenizer.json' is needed"):
            tokenizer_files.tokenizer_file("t5/tokenizer.json")
    finally:
        tokenizer_files.find_with(lambda name: str(vocabulary))


def test_packs_find_the_names_that_they_import():
    from comfy.text_encoders.flux import FluxClipModel, FluxTokenizer, flux_clip
    from comfy.text_encoders.sd3_clip import T5XXLModel

    tokens = FluxTokenizer().tokenize_with_weights("a cat", return_word_ids=True)
    assert [len(chunk) for chunks in tokens.values() for chunk in chunks] == [77, 256]
    with torch.device("meta"):
        full = flux_clip(dtype_t5=torch.float8_e4m3fn)(dtype=torch.float16)
    assert isinstance(full, FluxClipModel) and isinstance(full.t5xxl, T5XXLModel)
    assert full.dtypes == {torch.float16, torch.float8_e4m3fn}
    assert full.t5xxl.transformer.shared.weight.shape == (32128, 4096) and full.t5xxl.num_layers == 24


def test_one_file_with_all_parts_gives_all_parts(weights, text_files):
    everything = {
        **weights,
        **{f"text_encoders.clip_l.transformer.{key}": tensor for key, tensor in text_files[0].items()},
        **{f"text_encoders.t5xxl.transformer.{key}": tensor for key, tensor in text_files[1].items()},
        "text_encoders.clip_l.logit_scale": torch.ones(()),
        **tiny_flux.vae_weights(tiny_flux.vae(), "vae."),
    }
    model, clip, vae, _ = comfy.sd.load_state_dict_guess_config(everything)
    assert type(model.model).__name__ == "Flux" and vae.latent_channels == 16
    torch.testing.assert_close(clip.encode("a red cat"), load_clip(text_files).encode("a red cat"))
    alone = comfy.sd.load_state_dict_guess_config(dict(weights))
    assert alone[1] is None


def test_the_autoencoder_without_quant_convolutions_is_the_zoos():
    weights = tiny_flux.vae_weights(tiny_flux.vae())
    zoo = AutoencoderKL(
        block_out_channels=(32, 32, 64, 64), layers_per_block=1, latent_channels=16, use_quant_conv=False,
        use_post_quant_conv=False, down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    ).eval()  # fmt: skip
    prefixed = {f"first_stage_model.{key}": tensor for key, tensor in weights.items()}
    zoo.load_state_dict(convert_ldm_vae_checkpoint(prefixed, config=dict(zoo.config)))
    vae, image, latent = comfy.sd.VAE(sd=weights), torch.rand(1, 16, 24, 3), torch.randn(1, 16, 3, 5)
    with torch.no_grad():
        mean = zoo.encode(image.movedim(-1, 1) * 2 - 1).latent_dist.mean
        picture = ((zoo.decode(latent).sample + 1) / 2).clamp(0, 1).movedim(1, -1)
    torch.testing.assert_close(vae.encode(image), mean)
    torch.testing.assert_close(vae.decode(latent), picture)


def test_latents_are_shifted_and_scaled_by_the_published_numbers(model):
    assert model.process_latent_in(torch.ones(1)).item() == pytest.approx((1 - 0.1159) * 0.3611)
    assert model.process_latent_out(model.process_latent_in(torch.ones(1))).item() == pytest.approx(1.0)
    assert len(model.latent_format.latent_rgb_factors) == model.latent_format.latent_channels == 16
