"""Z-Image: recognised by its weights, configured by their shapes, equal to the zoo's own modules."""

import pytest
import tokenizers
import torch
from diffusers import ZImageTransformer2DModel
from diffusers.loaders.single_file_utils import convert_z_image_transformer_checkpoint_to_diffusers
from transformers import Qwen3Config, Qwen3Model

import comfy.families
import comfy.sample
import comfy.sd
import comfy.supported_models
import comfy.utils
import folder_paths
import nodes
from comfy import tokenizer_files
from comfy.errors import ModelFileError, UnknownArchitecture
from comfy.model_base import ModelType
from comfy_extras import core_loaders, nodes_model_advanced, nodes_sd3
from tests.comfy import tiny_flux
from tests.comfy.tiny_sd1 import randomise

PREFIX = "model.diffusion_model."
WIDTH, HEAD, CONTEXT = 96, 32, 64
TEXT = {"vocab_size": 300, "hidden_size": CONTEXT, "intermediate_size": 96, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}  # fmt: skip


def _layer(weights, name, rows, columns, bias=False):
    weights[f"{name}.weight"] = torch.randn(rows, columns) * columns**-0.5
    if bias:
        weights[f"{name}.bias"] = 0.1 * torch.randn(rows)


def _norms(weights, width, *names):
    for name in names:
        weights[f"{name}.weight"] = 1 + 0.1 * torch.randn(width)


def _block(weights, block, width, head, modulated):
    _layer(weights, f"{block}.attention.qkv", 3 * width, width)
    _layer(weights, f"{block}.attention.out", width, width)
    _norms(weights, head, f"{block}.attention.q_norm", f"{block}.attention.k_norm")
    names = ("attention_norm1", "attention_norm2", "ffn_norm1", "ffn_norm2")
    _norms(weights, width, *(f"{block}.{name}" for name in names))
    for name in ("w1", "w3"):
        _layer(weights, f"{block}.feed_forward.{name}", width * 8 // 3, width)
    _layer(weights, f"{block}.feed_forward.w2", width, width * 8 // 3)
    if modulated:
        _layer(weights, f"{block}.adaLN_modulation.0", 4 * width, min(width, 256), bias=True)


def transformer(prefix=PREFIX, *, width=WIDTH, head=HEAD, refiners=1, layers=2):
    """All weights of a transformer, by the names of ComfyUI's file."""
    torch.manual_seed(0)
    weights, time_width = {}, min(width, 256)
    _layer(weights, "x_embedder", width, 64, bias=True)
    _layer(weights, "t_embedder.mlp.0", 1024, 256, bias=True)
    _layer(weights, "t_embedder.mlp.2", time_width, 1024, bias=True)
    _norms(weights, CONTEXT, "cap_embedder.0")
    _layer(weights, "cap_embedder.1", width, CONTEXT, bias=True)
    for kind, count in (("noise_refiner", refiners), ("context_refiner", refiners), ("layers", layers)):
        for index in range(count):
            _block(weights, f"{kind}.{index}", width, head, modulated=kind != "context_refiner")
    _layer(weights, "final_layer.linear", 64, width, bias=True)
    _layer(weights, "final_layer.adaLN_modulation.1", width, time_width, bias=True)
    weights["x_pad_token"], weights["cap_pad_token"] = torch.randn(1, width), torch.randn(1, width)
    return {prefix + key: tensor for key, tensor in weights.items()}


def in_zoo_layout(weights, prefix=""):
    converted = convert_z_image_transformer_checkpoint_to_diffusers(dict(weights))
    return {prefix + key: tensor for key, tensor in converted.items()}


def reference(weights):
    """diffusers' model; where it differs, ComfyUI decides: the norms of q and k have torch's own epsilon."""
    model = ZImageTransformer2DModel(
        dim=WIDTH, n_heads=WIDTH // HEAD, n_kv_heads=WIDTH // HEAD, n_layers=2, n_refiner_layers=1,
        cap_feat_dim=CONTEXT, axes_dims=[8, 12, 12],
    ).eval()  # fmt: skip
    model.load_state_dict(in_zoo_layout(weights))
    for block in (*model.noise_refiner, *model.context_refiner, *model.layers):
        block.attention.norm_q.eps = block.attention.norm_k.eps = torch.finfo(torch.float32).eps
    return model


def velocity(zoo, x, t, context):
    """As diffusers' pipeline evaluates: time counts upwards, and the sign is turned round."""
    with torch.no_grad():
        out = zoo(list(x.unsqueeze(2)), 1 - t, list(context)).sample
    return -torch.stack(out).squeeze(2)


def inputs(height=8, width=6, batch=2, tokens=21):
    generator = torch.Generator().manual_seed(5)
    shapes = ((batch, 16, height, width), (batch, tokens, CONTEXT))
    return [torch.randn(shape, generator=generator) for shape in shapes]


def run(model, x, context, **more):
    with torch.no_grad():
        return model.diffusion_model(x, torch.full((len(x),), 0.7), context=context, **more)


def load(weights, **options):
    return comfy.sd.load_diffusion_model_state_dict(dict(weights), model_options=options)


@pytest.fixture(scope="module")
def weights():
    return transformer()


@pytest.fixture(scope="module")
def model(weights):
    return load(weights).model


@pytest.fixture(scope="module")
def zoo(weights):
    return reference(weights)


@pytest.fixture(scope="module")
def qwen():
    torch.manual_seed(1)
    model = randomise(Qwen3Model(Qwen3Config(**TEXT)))
    for parameter in model.parameters():  # text encoders are kept in half precision
        parameter.data = parameter.data.bfloat16().float()
    return model


@pytest.fixture(scope="module")
def qwen_file(qwen):
    return {f"model.{key}": tensor.bfloat16() for key, tensor in qwen.state_dict().items()}


@pytest.fixture(scope="module", autouse=True)
def vocabulary(tmp_path_factory):
    characters = {character: i for i, character in enumerate([*map(chr, range(32, 127)), "\n"])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(characters, []))
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    path = tmp_path_factory.mktemp("tokenizers") / "tokenizer.json"
    tokenizer.save(str(path))
    tokenizer_files.find_with(lambda name: str(path))
    yield tokenizer
    tokenizer_files.find_with(None)


# --- the network ---


@pytest.mark.parametrize("layout", [dict, in_zoo_layout])
@pytest.mark.parametrize("prefix", [PREFIX, ""])
@pytest.mark.parametrize(("size", "tokens"), [((8, 6), 21), ((8, 16), 32)])
def test_the_model_predicts_what_the_zoos_transformer_predicts(weights, zoo, layout, prefix, size, tokens):
    bare = layout({key.removeprefix(PREFIX): tensor for key, tensor in weights.items()})
    model = load({prefix + key: tensor for key, tensor in bare.items()}).model
    x, context = inputs(*size, tokens=tokens)
    t = torch.tensor([0.9, 0.123456])
    with torch.no_grad():
        got = model.diffusion_model(x, t, context=context)
    torch.testing.assert_close(got, velocity(zoo, x, t, context), atol=1e-5, rtol=1e-4)


def test_sides_that_are_no_multiples_of_a_patch_are_continued_from_the_other_side(model):
    x, context = inputs(7, 5)
    wrapped = torch.cat([x, x[:, :, :1]], dim=2)
    wrapped = torch.cat([wrapped, wrapped[..., :1]], dim=3)
    torch.testing.assert_close(run(model, x, context), run(model, wrapped, context)[:, :, :7, :5])


def test_any_size_is_read_off_the_shapes():
    model = load(transformer(width=128, head=64, refiners=2, layers=3)).model
    config = model.model_config.unet_config
    numbers = {"dim": 128, "n_heads": 2, "n_layers": 3, "n_refiner_layers": 2, "cap_feat_dim": CONTEXT,
               "in_channels": 16, "axes_dims": [16, 24, 24]}  # fmt: skip
    assert {name: config[name] for name in numbers} == numbers
    assert run(model, *inputs()).isfinite().all()
    assert comfy.supported_models.ZImage.matches({"image_model": "lumina2", "dim": 3840})


def test_noise_levels_have_a_shift_of_3_and_time_is_the_noise_level(model):
    t = torch.arange(1, 1001) / 1000
    assert model.model_type is ModelType.FLOW
    torch.testing.assert_close(model.model_sampling.sigmas, 3 * t / (1 + 2 * t))
    assert model.model_sampling.timestep(torch.tensor([0.25])) == 0.25


def test_positions_are_stretched_and_moved_as_asked(weights, model):
    options = {"scale_y": 2.0, "scale_x": 3.0, "shift_y": 1.0, "shift_x": 2.0, "shift_t": 9.0}
    x, context = inputs()
    zoo = reference(weights)
    table = zoo.rope_embedder

    def moved(ids):
        is_picture = (ids[:, :1] == 33).int()  # the text fills 1 to 32; what fills up stays at 0
        return table(ids + is_picture * (ids * torch.tensor([0, 1, 2]) + torch.tensor([0, 1, 2])).int())

    zoo.rope_embedder = moved
    got = run(model, x, context, transformer_options={"rope_options": options})
    expected = velocity(zoo, x, torch.tensor([0.7, 0.7]), context)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)


def test_a_hidden_token_changes_no_other_token_of_the_text(model):
    x, context = inputs(batch=1)
    other, mask, seen = context.clone(), torch.ones(1, 21, dtype=torch.long), []
    other[:, 4], mask[:, 4] = 0, 0
    options = {"patches": {"noise_refiner": [lambda told: seen.append(told["txt"]) or {}]}}
    pairs = ((context, mask), (other, mask), (context, None), (context, mask * 0 + 1))
    for tokens, given in pairs:
        run(model, x, tokens, attention_mask=given, transformer_options=options)
    kept = [i for i in range(32) if i != 4]
    assert torch.equal(seen[0][:, kept], seen[1][:, kept])
    assert not torch.allclose(seen[0][:, kept], seen[2][:, kept])
    assert torch.equal(seen[2], seen[3]), "what fills up is not hidden"


def test_patches_see_and_change_the_tokens_behind_each_block(model):
    x, context = inputs(7, 6)
    seen = []

    def look(told):
        options = told["transformer_options"]
        assert told["x"].shape == (2, 16, 8, 6) and told["pe"].shape == (1, 32, 1, 16, 2, 2)
        assert told["img"].shape == told["img_input"].shape == told["txt"].shape == (2, 32, WIDTH)
        seen.append((told.get("block_type"), told["block_index"], options.get("block_index")))
        return told

    given = {"patches": {"double_block": [look], "noise_refiner": [look]}}
    plain = run(model, x, context)
    torch.testing.assert_close(run(model, x, context, transformer_options=given), plain)
    assert seen == [("noise_refiner", 0, None), (None, 0, 0), (None, 1, 1)] and set(given) == {"patches"}
    for kind, side in (("double_block", "img"), ("double_block", "txt"), ("noise_refiner", "img")):
        changed = {"patches": {kind: [lambda told, side=side: {side: told[side] * 0}]}}
        assert not torch.allclose(run(model, x, context, transformer_options=changed), plain)


# --- sampling ---


def test_a_sampled_latent_is_that_of_the_zoos_transformer_walked_by_euler(weights, zoo):
    noise = inputs()[0]
    sides = {name: inputs(batch=1, tokens=tokens)[1] for name, tokens in (("good", 20), ("bad", 45))}
    good, bad = ([[side, {"attention_mask": torch.ones(side.shape[:2])}]] for side in sides.values())
    empty = torch.zeros_like(noise)
    got = comfy.sample.sample(load(weights), noise, 3, 2.5, "euler", "simple", good, bad, empty)
    t = torch.tensor([1.0, 0.667, 0.334])  # every third of the 1,000 levels, from the last
    sigmas, x = torch.cat([3 * t / (1 + 2 * t), torch.zeros(1)]), noise
    for now, after in zip(sigmas[:-1], sigmas[1:]):
        v = {name: velocity(zoo, x, now.expand(2), side.expand(2, -1, -1)) for name, side in sides.items()}
        x = x + (v["bad"] + 2.5 * (v["good"] - v["bad"])) * (after - now)
    torch.testing.assert_close(got, x / 0.3611 + 0.1159, atol=1e-4, rtol=1e-4)


def test_a_mask_that_hides_nothing_is_none(model):
    context = inputs()[1]
    masks = torch.ones(2, 21), torch.ones(2, 21).tril(), None
    conds = [model.extra_conds(device="cpu", cross_attn=context, attention_mask=mask) for mask in masks]
    assert ["attention_mask" in given for given in conds] == [False, True, False]


def test_a_prompt_of_another_text_encoder_is_refused(model):
    with pytest.raises(ValueError, match="ZImage needs prompts of 64 .* has 96. Encode .* Qwen3-4B"):
        model.extra_conds(device="cpu", cross_attn=torch.zeros(1, 7, 96))


# --- files ---


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn])
def test_files_in_less_precision_load_and_compute_in_fp32_on_the_cpu(weights, dtype):
    stored = {key: tensor.to(dtype) for key, tensor in weights.items()}
    loaded, expected = load(stored).model, load({key: t.float() for key, t in stored.items()}).model
    kept = {parameter.dtype for parameter in loaded.diffusion_model.parameters()}
    assert kept == {dtype if dtype.itemsize == 1 else torch.float32}
    torch.testing.assert_close(run(loaded, *inputs()), run(expected, *inputs()))


def test_scaled_fp8_weights_are_scaled_when_they_are_used(weights):
    stored, meant = tiny_flux.quantise(weights, PREFIX + "scaled_fp8")
    for name in ("x_pad_token", "cap_pad_token"):
        assert stored[PREFIX + name].dtype is torch.float32
    loaded = load(stored).model
    assert loaded.diffusion_model.layers[1].attention.to_v.weight.dtype is torch.float8_e4m3fn
    torch.testing.assert_close(run(loaded, *inputs()), run(load(meant).model, *inputs()))


LORAS = {
    "attention.qkv": ["diffusion_model.{}.lora_A.weight", "lora_unet_{}.lora_down.weight"],
    "attention.to_k": ["diffusion_model.{}.lora_A.weight", "transformer.{}.lora_A.weight"],
    "feed_forward.w2": ["diffusion_model.{}.lora_A.weight", "lycoris_{}.lora_down.weight"],
}


@pytest.mark.parametrize(("layer", "form"), [(layer, form) for layer in LORAS for form in LORAS[layer]])
def test_a_lora_of_a_layer_of_either_layout_changes_that_layer(tmp_path, weights, layer, form):
    first = WIDTH if layer == "attention.to_k" else 0
    key = f"{PREFIX}layers.1.{layer.replace('to_k', 'qkv')}.weight"
    columns, rows = weights[key].shape[1], WIDTH if "to_k" in layer else len(weights[key])
    down, up = torch.randn(2, columns), torch.randn(rows, 2)
    name = f"layers.1.{layer}"
    name = form.format(name if "lora_A" in form else name.replace(".", "_"))
    lora = {name: down, name.replace("lora_A", "lora_B").replace("down", "up"): up}
    patcher, _ = comfy.sd.load_lora_for_models(load(weights), None, lora, 0.5, 0.0)
    comfy.sd.save_checkpoint(str(tmp_path / "out.safetensors"), patcher)
    saved = comfy.utils.load_torch_file(tmp_path / "out.safetensors")
    expected = weights[key].clone()
    expected[first : first + rows] += 0.5 * up @ down
    torch.testing.assert_close(saved[key], expected, atol=1e-5, rtol=1e-5)
    assert [other for other in weights if not torch.equal(saved[other], weights[other])] == [key]


@pytest.mark.parametrize("layout", [dict, lambda weights: in_zoo_layout(weights, PREFIX)])
def test_a_whole_checkpoint_is_loaded_and_saved_in_comfyuis_layout(tmp_path, weights, qwen_file, layout):
    whole = layout(weights)
    whole.update(tiny_flux.vae_weights(tiny_flux.vae(), "vae."))
    whole.update({f"text_encoders.qwen3_4b.transformer.{key}": t for key, t in qwen_file.items()})
    comfy.utils.save_torch_file(
        {**whole, PREFIX + "norm_final.weight": torch.ones(WIDTH)}, tmp_path / "a.safetensors"
    )
    first = comfy.sd.load_checkpoint_guess_config(str(tmp_path / "a.safetensors"))
    comfy.sd.save_checkpoint(str(tmp_path / "b.safetensors"), *first[:3])
    saved = comfy.utils.load_torch_file(tmp_path / "b.safetensors")
    assert set(saved) == {*weights, *(key for key in whole if not key.startswith(PREFIX))}
    again = comfy.sd.load_checkpoint_guess_config(str(tmp_path / "b.safetensors"))
    assert torch.equal(run(again[0].model, *inputs()), run(first[0].model, *inputs()))
    assert torch.equal(again[1].encode("a cat"), first[1].encode("a cat"))
    latent = torch.randn(1, 16, 3, 5)
    assert torch.equal(again[2].decode(latent), first[2].decode(latent))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("layers.1.attention.qkv.weight"), r"lacks weights \(1\): layers.1.attention.qkv"),
        (lambda w: w.pop("cap_pad_token"), r"\(Z-Image\) .*lacks .*cap_pad_token"),
        (lambda w: w.update({"strange.weight": torch.zeros(1)}), "unknown weights .*strange.weight"),
        (lambda w: w.update({"x_embedder.bias": torch.zeros(3)}), "wrongly shaped .*all_x_embedder.2-1.bias"),
    ],
)
def test_a_damaged_file_is_refused_with_the_weight_that_is_wrong(change, message):
    weights = transformer("")
    change(weights)
    with pytest.raises(ModelFileError, match=message):
        load(weights)


@pytest.mark.parametrize(
    "change",
    [
        lambda w: w.update(
            {"layers.0.adaLN_modulation.1.weight": w.pop("layers.0.adaLN_modulation.0.weight")}
        ),
        lambda w: w.update({"layers.0.attention.qkv.weight": torch.zeros(WIDTH * 5 // 3, WIDTH)}),
        lambda w: w.update({"siglip_embedder.1.weight": torch.zeros(WIDTH, 8)}),
        lambda w: w.pop("layers.0.attention.qkv.weight"),
    ],
)
def test_relatives_of_this_layout_are_not_taken_for_z_image(tmp_path, change):
    weights = transformer("")
    assert comfy.families.recognise(weights)[0].name == "Z-Image"
    change(weights)
    assert comfy.families.recognise(weights) is None
    comfy.utils.save_torch_file(weights, tmp_path / "relative.safetensors")
    with pytest.raises(UnknownArchitecture, match="nearest to Z-Image"):
        comfy.sd.load_diffusion_model(str(tmp_path / "relative.safetensors"))


@pytest.mark.parametrize("own", [lambda: tiny_flux.transformer(), transformer])
def test_no_family_takes_the_files_of_another(own):
    weights = own()
    assert len([f for f in comfy.families.families() if f.prefix_in(weights) is not None]) == 1


# --- the text encoder ---


def test_the_text_encoder_is_the_last_layer_but_one_of_the_zoos_language_model(qwen, qwen_file, vocabulary):
    clip = comfy.sd.load_text_encoder_state_dicts([dict(qwen_file)], clip_type=comfy.sd.CLIPType.LUMINA2)
    prompt = "<|im_start|>user\na (red:1.5) cat<|im_end|>\n<|im_start|>assistant\n"
    numbers = vocabulary.encode(prompt).ids
    assert [token for token, _ in clip.tokenize("a (red:1.5) cat")["qwen3_4b"][0]] == numbers
    with torch.no_grad():
        states = qwen(torch.tensor([numbers]), output_hidden_states=True).hidden_states[-2]
    torch.testing.assert_close(clip.encode("a (red:1.5) cat"), states, atol=2e-5, rtol=1e-4)


def test_other_language_models_of_this_type_are_left_to_their_families(qwen_file):
    gemma = {**qwen_file, "model.layers.0.pre_feedforward_layernorm.weight": torch.zeros(CONTEXT)}
    older = {key: tensor for key, tensor in qwen_file.items() if "q_norm" not in key}
    for files in ([gemma], [older]):
        with pytest.raises(UnknownArchitecture, match="no text encoders of the type 'lumina2'"):
            comfy.sd.load_text_encoder_state_dicts(files, clip_type=comfy.sd.CLIPType.LUMINA2)


# --- the usual graph ---


def test_a_picture_is_made_from_the_three_files(tmp_path, monkeypatch, weights, qwen_file):
    files = {"diffusion_models": {key.removeprefix(PREFIX): tensor for key, tensor in weights.items()},
             "text_encoders": qwen_file, "vae": tiny_flux.vae_weights(tiny_flux.vae())}  # fmt: skip
    for folder, own in files.items():
        (tmp_path / folder).mkdir()
        comfy.utils.save_torch_file(own, tmp_path / folder / "z.safetensors")
        place = ([str(tmp_path / folder)], {".safetensors"})
        monkeypatch.setitem(folder_paths.folder_names_and_paths, folder, place)
    folder_paths.filename_list_cache.clear()
    model = core_loaders.UNETLoader().load_unet("z.safetensors", "default")[0]
    model = nodes_model_advanced.ModelSamplingAuraFlow().patch_aura(model, 3.0)[0]
    clip = core_loaders.CLIPLoader().load_clip("z.safetensors", "lumina2")[0]
    prompt = nodes.CLIPTextEncode().encode(clip, "a red cat")[0]
    nothing = nodes.ConditioningZeroOut().zero_out(prompt)[0]
    latent = nodes_sd3.EmptySD3LatentImage().generate(64, 48, 2)[0]
    out = nodes.KSampler().sample(
        model, 7, 3, 1.0, "res_multistep", "simple", prompt, nothing, latent, denoise=1.0
    )[0]
    vae = nodes.VAELoader().load_vae("z.safetensors")[0]
    picture = nodes.VAEDecode().decode(vae, out)[0]
    assert picture.shape == (2, 48, 64, 3) and picture.std() > 0.01
    assert not torch.allclose(out["samples"][0], out["samples"][1])
    folder_paths.filename_list_cache.clear()
