"""Small modules that node packs import: what they compute, and what those say that cannot be real."""

import pytest
import torch

import comfy.ldm.lumina.model
import comfy.ldm.wan.model
import comfy.model_base
import comfy.ops
import comfy.quant_ops
import comfy.supported_models
import comfy.utils
from comfy import (
    absent_families,
    diffusers_convert,
    diffusers_load,
    latent_formats,
    memory_management,
    multigpu,
)
from comfy.cldm.cldm import ControlNet
from comfy.errors import FamilyAbsent, ModelFileError, UnknownArchitecture
from comfy.families import ldm_unet
from comfy.float import stochastic_rounding
from comfy.ldm.cosmos.predict2 import Attention
from comfy.ldm.flux.layers import EmbedND
from comfy.ldm.lightricks import symmetric_patchifier
from comfy.ldm.lightricks.model import apply_rotary_emb, interleaved_freqs_cis, split_freqs_cis
from comfy.ldm.modules.diffusionmodules.mmdit import JointBlock
from comfy.ldm.wan.model import WanI2VCrossAttention, WanSelfAttention, WanT2VCrossAttention
from comfy.model_detection import convert_config
from comfy.nested_tensor import NestedTensor, cat_nested
from comfy_extras.chainner_models import model_loading

OPS = {"operations": comfy.ops.disable_weight_init}


def drawn(module):
    for weight in module.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    return module.eval().requires_grad_(False)


# --- absent families ---


@pytest.mark.parametrize(
    "name", ["WAN21", "WAN21_Vace", "Anima", "SD3", "QwenImage", "Chroma", "SDXL_instructpix2pix"]
)
def test_a_class_of_an_absent_family_can_be_named_and_says_so_when_it_is_built(name):
    found = getattr(comfy.model_base, name)
    assert issubclass(found, comfy.model_base.BaseModel) and getattr(comfy.model_base, name) is found
    with pytest.raises(FamilyAbsent, match=f"comfy.model_base.{name} is of a model family that does not run"):
        found(None)


def test_absent_classes_are_subclasses_of_what_they_are_one_of():
    assert issubclass(comfy.model_base.WAN21_Vace, comfy.model_base.WAN21)
    assert issubclass(comfy.model_base.SDXL_instructpix2pix, comfy.model_base.SDXL)
    assert issubclass(comfy.supported_models.WAN21_I2V, comfy.supported_models.WAN21_T2V)
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        comfy.model_base.Nothing  # noqa: B018


def test_configs_of_absent_families_have_their_numbers_and_build_nothing():
    config = comfy.supported_models.WAN21_I2V({"dim": 64})
    assert comfy.supported_models.WAN21_I2V.unet_config["model_type"] == "i2v"
    assert isinstance(config.latent_format, latent_formats.Wan21) and config.sampling_settings == {
        "shift": 8.0
    }
    with pytest.raises(FamilyAbsent, match="comfy.supported_models.WAN21_I2V"):
        config.get_model({})
    assert not set(absent_families.CONFIGS) & {kind.__name__ for kind in comfy.supported_models.models}


@pytest.mark.parametrize(
    ("module", "name"),
    [("wan.model", "WanModel"), ("lightricks.model", "LTXVModel"), ("anima.model", "Anima"),
     ("lumina.model", "NextDiT"), ("chroma.model", "Chroma"),
     ("qwen_image.model", "QwenImageTransformer2DModel"),
     ("modules.diffusionmodules.mmdit", "MMDiT")],
)  # fmt: skip
def test_networks_of_absent_families_say_so(module, name):
    import importlib

    found = getattr(importlib.import_module(f"comfy.ldm.{module}"), name)
    with pytest.raises(FamilyAbsent, match=rf"comfy\.ldm\.{module}\.{name} .* docs/models.md"):
        found()


# --- latents ---


def test_every_format_gives_back_what_it_took():
    formats = [kind for kind in vars(latent_formats).values()
               if isinstance(kind, type) and issubclass(kind, latent_formats.LatentFormat)]  # fmt: skip
    assert len(formats) > 40
    for kind in formats:
        if kind.__name__ in ("_PerChannel", "Trellis2SLAT"):  # numbers stand in subclasses
            continue
        made = kind()
        latent = torch.randn(1, made.latent_channels, *(3, 4, 6)[3 - made.latent_dimensions :])
        if kind.__name__.endswith("SLAT"):
            latent = torch.randn(5, 32)
        if kind is latent_formats.HunyuanImage21Refiner:
            latent = torch.randn(1, 32, 3, 4, 6)
        torch.testing.assert_close(made.process_out(made.process_in(latent)), latent, atol=1e-5, rtol=1e-4)
        if made.latent_rgb_factors is not None and made.latent_rgb_factors_reshape is None:
            assert all(len(row) == 3 for row in made.latent_rgb_factors)


def test_wans_latents_are_normalised_per_channel():
    latent = torch.zeros(1, 16, 1, 1, 1)
    made = latent_formats.Wan21().process_in(latent).flatten()
    assert made[0].item() == pytest.approx(0.7571 / 2.8184, abs=1e-4)


def test_nested_tensors_compute_each_and_join():
    nested = NestedTensor([torch.ones(1, 2), torch.full((1, 3, 4), 2.0)])
    twice = nested * 2 + nested - 1.0
    assert [t.flatten()[0].item() for t in twice.unbind()] == [2.0, 5.0]
    assert twice.shape == (1, 2) and twice.ndim == 3 and nested.is_nested
    assert [t.shape for t in cat_nested([nested, nested], dim=0).tensors] == [(2, 2), (2, 3, 4)]


# --- numbers ---


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
@pytest.mark.parametrize("value", [0.3, -1.7, 0.0013, 100.0])
def test_rounding_by_lot_gives_the_neighbours_and_keeps_the_mean(dtype, value):
    got = stochastic_rounding(torch.full((20000,), value), dtype, seed=1).float()
    down = torch.tensor([value]).to(dtype)
    near = (
        (down.view(torch.uint8).int() + torch.arange(-1, 2)).clamp(0, 255).to(torch.uint8).view(dtype).float()
    )
    assert len(got.unique()) <= 2 and set(got.unique().tolist()) <= set(near.tolist())
    assert got.mean().item() == pytest.approx(value, rel=0.01)
    assert torch.equal(got, stochastic_rounding(torch.full((20000,), value), dtype, seed=1).float())


def test_rounding_stays_within_the_format_and_keeps_what_it_has():
    exact = torch.tensor([0.0, 1.0, -448.0, 0.5, 2.0**-9])
    assert torch.equal(stochastic_rounding(exact, torch.float8_e4m3fn).float(), exact)
    assert stochastic_rounding(torch.tensor([1e6]), torch.float8_e4m3fn).float().item() == 448.0
    assert stochastic_rounding(exact, torch.bfloat16).dtype == torch.bfloat16


def test_work_is_shared_by_speed_in_whole_numbers():
    options = {"multigpu_options": {"a": {"relative_speed": 1.0}, "b": {"relative_speed": 3.0}},
               "multigpu_clones": {"a": None, "b": None}}  # fmt: skip
    shared = multigpu.load_balance_devices(options, 5, return_idle_time=True)
    assert shared.work_per_device == {"a": 1, "b": 4} and shared.idle_time == pytest.approx(1 / 3)
    with pytest.raises(NotImplementedError, match="run a worker on each"):
        multigpu.create_multigpu_deepclones(None, 2)


def test_tensors_lie_one_after_the_other_in_a_buffer():
    buffer = torch.zeros(4096, dtype=torch.uint8)
    first, nothing, second = memory_management.interpret_gathered_like(
        [torch.ones(3), None, torch.ones(2, 2)], buffer
    )
    second.fill_(1.0)
    assert nothing is None and first.eq(0).all() and buffer[1024:1040].view(torch.float32).eq(1).all()
    with pytest.raises(ValueError, match="needs at least 40000"):
        memory_management.interpret_gathered_like([torch.ones(10000)], buffer)
    with pytest.raises(ValueError, match="one row of bytes"):
        memory_management.interpret_gathered_like([], torch.ones(3))


# --- names of weights ---


def test_names_of_diffusers_are_those_that_the_family_knows():
    shape = ldm_unet.UNetShape(4, 4, 32, (1, 2), (2, 2), (1, 0), 1, 64, False, None)
    with torch.device("meta"):
        zoo = ldm_unet.LDMUNet(**shape.as_unet_config())
    expected = ldm_unet.checkpoint_names(zoo.state_dict(), shape.as_unet_config())
    got = comfy.utils.unet_to_diffusers(shape.as_unet_config())
    assert {key: got[key] for key in expected} == expected
    assert comfy.utils.unet_to_diffusers({"image_model": "flux"}) == {}


def test_old_scales_are_named_as_newer_files_name_them():
    old = {"scaled_fp8": torch.zeros(2), "a.weight": torch.ones(1), "a.scale_weight": torch.ones(1),
           "a.scale_input": torch.ones(1)}  # fmt: skip
    new, _ = comfy.utils.convert_old_quants(old)
    assert set(new) == {"a.weight", "a.weight_scale", "a.comfy_quant"}
    assert (
        bytes(new["a.comfy_quant"].tolist())
        == b'{"format": "float8_e4m3fn", "full_precision_matrix_mult": true}'
    )


def test_a_configuration_file_says_where_transformers_stand():
    given = {
        "num_res_blocks": 2,
        "channel_mult": [1, 2, 4],
        "attention_resolutions": [4, 2],
        "transformer_depth": 1,
    }
    config = convert_config(given)
    assert config["transformer_depth"] == [0, 0, 1, 1, 1, 1] and config["transformer_depth_middle"] == 1
    assert config["transformer_depth_output"] == [0] * 3 + [1] * 6 and config["num_res_blocks"] == [2, 2, 2]


def test_weights_of_diffusers_get_the_names_of_checkpoints():
    weights = {"encoder.mid_block.attentions.0.to_q.weight": torch.ones(2, 2),
               "decoder.up_blocks.0.resnets.1.conv_shortcut.bias": torch.ones(2)}  # fmt: skip
    converted = diffusers_convert.convert_vae_state_dict(weights)
    assert converted["encoder.mid.attn_1.q.weight"].shape == (2, 2, 1, 1)
    assert "decoder.up.3.block.1.nin_shortcut.bias" in converted
    layer = "transformer.text_model.encoder.layers.3.self_attn"
    parts = {f"{layer}.{name}_proj.weight": torch.full((2, 2), float(i)) for i, name in enumerate("qkv")}
    joined = diffusers_convert.convert_text_enc_state_dict_v20(parts)[
        "transformer.resblocks.3.attn.in_proj_weight"
    ]
    assert joined[:, 0].tolist() == [0, 0, 1, 1, 2, 2]
    del parts[f"{layer}.k_proj.weight"]
    with pytest.raises(ModelFileError, match="lacks .*k_proj.weight"):
        diffusers_convert.convert_text_enc_state_dict_v20(parts)


def test_a_folder_without_a_part_and_weights_of_no_upscaler_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="unet"):
        diffusers_load.load_diffusers(str(tmp_path))
    with pytest.raises(UnknownArchitecture, match="no upscale architecture"):
        model_loading.load_state_dict({"a": torch.ones(1)})


def test_quantised_tensors_need_their_package():
    if comfy.quant_ops._CK_AVAILABLE:
        pytest.skip("comfy-kitchen is installed")
    assert not isinstance(torch.ones(1), comfy.quant_ops.QuantizedTensor)
    with pytest.raises(ImportError, match="needs the package comfy-kitchen"):
        comfy.quant_ops.QuantizedTensor()
    with pytest.raises(ImportError, match="needs the package comfy-kitchen"):
        comfy.quant_ops.register_layout_op()


# --- layers ---


def attend(q, k, v, heads):
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    weights = torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, dim=-1)
    return (weights @ v).transpose(1, 2).flatten(2)


def test_wans_attention_to_text_and_picture_is_the_sum_of_both():
    layer = drawn(WanI2VCrossAttention(16, 2, operation_settings=OPS))
    x, context = torch.randn(1, 6, 16), torch.randn(1, 7, 16)
    picture, text = context[:, :3], context[:, 3:]
    q = layer.norm_q(layer.q(x))
    parts = attend(q, layer.norm_k(layer.k(text)), layer.v(text), 2)
    parts = parts + attend(q, layer.norm_k_img(layer.k_img(picture)), layer.v_img(picture), 2)
    torch.testing.assert_close(layer(x, context, 3), layer.o(parts))
    plain = drawn(WanT2VCrossAttention(16, 2, operation_settings=OPS))
    assert set(plain.state_dict()) == {f"{n}.{leaf}" for n in "qkvo" for leaf in ("weight", "bias")} | {
        "norm_q.weight", "norm_k.weight"
    }  # fmt: skip
    with pytest.raises(ValueError, match="cannot be shared"):
        WanSelfAttention(15, 2, operation_settings=OPS)


def test_positions_turn_queries_by_angles_so_that_only_distances_count():
    layer = drawn(WanSelfAttention(16, 2, operation_settings=OPS))
    x, embed = torch.randn(1, 5, 16), EmbedND(8, 10000, [8])
    here = embed(torch.arange(5.0).reshape(1, 5, 1)).movedim(1, 2)
    there = embed(torch.arange(5.0).reshape(1, 5, 1) + 40).movedim(1, 2)
    torch.testing.assert_close(layer(x, here), layer(x, there), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(layer(x, here), layer(x, here.flip(1)[:, :1].expand_as(here)))


def test_all_forms_of_rotary_positions_of_ltx_are_one_rotation():
    x, angles = torch.randn(1, 5, 8), torch.randn(1, 5, 1, 4)
    cos, sin = angles.cos(), angles.sin()
    matrices = torch.stack([cos, -sin, sin, cos], dim=-1).unflatten(-1, (2, 2))
    pairs = (
        torch.view_as_complex(x.unflatten(-1, (4, 2)).contiguous())
        * torch.polar(torch.ones_like(cos), angles)[:, :, 0]
    )
    expected = torch.view_as_real(pairs).flatten(-2)
    torch.testing.assert_close(apply_rotary_emb(x, (matrices, False)), expected)
    wide = [t[:, :, 0].repeat_interleave(2, dim=-1) for t in (cos, sin)]
    torch.testing.assert_close(interleaved_freqs_cis(x, *wide), expected)
    torch.testing.assert_close(apply_rotary_emb(x, tuple(wide)), expected)
    halves = x.unflatten(-1, (4, 2)).transpose(-1, -2).flatten(-2)
    expected = expected.unflatten(-1, (4, 2)).transpose(-1, -2).flatten(-2)
    torch.testing.assert_close(apply_rotary_emb(halves, (matrices, True)), expected)
    by_head = [t.transpose(1, 2) for t in (cos, sin)]
    torch.testing.assert_close(split_freqs_cis(halves, *by_head), expected)
    torch.testing.assert_close(apply_rotary_emb(halves, (*by_head, True)), expected)


def test_patches_of_a_clip_become_tokens_and_come_back_with_their_places():
    clip = torch.arange(2 * 3 * 2 * 4 * 6.0).reshape(2, 3, 2, 4, 6)
    patchifier = symmetric_patchifier.SymmetricPatchifier(2)
    tokens, places = patchifier.patchify(clip)
    assert tokens.shape == (2, 12, 12) and places[0, :, 4].tolist() == [0, 2, 2]
    torch.testing.assert_close(tokens[1, 4], clip[1, :, 0, 2:4, 2:4].flatten())
    torch.testing.assert_close(patchifier.unpatchify(tokens, 4, 6, 2, 3), clip)
    pixels = symmetric_patchifier.latent_to_pixel_coords(
        torch.tensor([[[0, 1, 2], [0, 1, 2], [0, 1, 2]]]), (8, 32, 32), True
    )
    assert pixels[0].tolist() == [[0, 1, 9], [0, 32, 64], [0, 32, 64]]


def test_attention_of_cosmos_and_blocks_of_sd3_are_their_formulas():
    layer = drawn(Attention(16, 12, 2, 8, **OPS))
    x, context = torch.randn(1, 5, 16), torch.randn(1, 4, 12)
    norm = lambda t, n: n(t.unflatten(-1, (2, 8))).flatten(2)  # noqa: E731
    q, k = norm(layer.q_proj(x), layer.q_norm), norm(layer.k_proj(context), layer.k_norm)
    torch.testing.assert_close(layer(x, context), layer.output_proj(attend(q, k, layer.v_proj(context), 2)))
    block = drawn(JointBlock(16, 2, pre_only=True, **OPS))
    text, c = torch.randn(1, 3, 16), torch.randn(1, 16)
    nothing, out = block(text, x, c=c)
    mods = block.x_block.adaLN_modulation(c).chunk(6, dim=1)
    told = block.context_block.adaLN_modulation(c).chunk(2, dim=1)
    plain = torch.nn.LayerNorm(16, eps=1e-6, elementwise_affine=False)
    both = [side.attn.qkv(plain(t) * (1 + m[1]) + m[0]) for side, t, m in
            ((block.context_block, text, told), (block.x_block, x, mods))]  # fmt: skip
    attended = attend(*torch.cat(both, dim=1).chunk(3, dim=-1), 2)[:, 3:]
    h = x + mods[2] * block.x_block.attn.proj(attended)
    expected = h + mods[5] * block.x_block.mlp(plain(h) * (1 + mods[4]) + mods[3])
    assert nothing is None
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-4)


def test_a_controlnet_gives_a_tensor_per_input_block_and_zeros_at_first():
    net = drawn(ControlNet(
        image_size=32, in_channels=4, model_channels=32, hint_channels=3, num_res_blocks=1,
        channel_mult=(1, 2), num_heads=4, use_spatial_transformer=True, transformer_depth=[1, 0],
        transformer_depth_middle=1,
        context_dim=8, legacy=False,
    ))  # fmt: skip
    x, hint, context = torch.randn(1, 4, 8, 8), torch.rand(1, 3, 64, 64), torch.randn(1, 5, 8)
    out = net(x, hint, torch.tensor([5.0]), context)
    assert [tuple(t.shape[1:]) for t in out["output"]] == [(32, 8, 8), (32, 8, 8), (32, 4, 4), (64, 4, 4)]
    first = net.input_blocks[0](x, None) + net.input_hint_block(hint, None)
    torch.testing.assert_close(out["output"][0], net.zero_convs[0](first, None))
    with pytest.raises(ValueError, match="needs use_spatial_transformer"):
        ControlNet(32, 4, 32, 3, 1)
