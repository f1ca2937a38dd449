"""The networks of comfy.ldm take checkpoints by their own names and compute what the zoo's compute."""

import pytest
import torch

import comfy.ops
import comfy.sd
from comfy.families import ldm_unet
from comfy.ldm.flux.model import Flux, invert_slices
from comfy.ldm.models.autoencoder import AutoencoderKL
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from tests.comfy import tiny_flux, tiny_sd1

OPS = comfy.ops.disable_weight_init


def below(weights, prefix):
    return {key[len(prefix) :]: t for key, t in weights.items() if key.startswith(prefix)}


@pytest.fixture(scope="module")
def sd1():
    return tiny_sd1.checkpoint(), comfy.sd.load_state_dict_guess_config(tiny_sd1.checkpoint())


def unet(weights, **changes):
    net = UNetModel(
        image_size=32, in_channels=4, model_channels=32, out_channels=4, num_res_blocks=[1, 1],
        channel_mult=(1, 2), num_heads=8, use_spatial_transformer=True, transformer_depth=[1, 0],
        transformer_depth_output=[1, 1, 0, 0], transformer_depth_middle=1, context_dim=64, legacy=False,
        **changes,
    )  # fmt: skip
    net.load_state_dict(below(weights, "model.diffusion_model."), strict=True)
    return net.eval()


@pytest.mark.slow
def test_the_unet_takes_a_checkpoint_and_predicts_what_the_running_model_predicts(sd1):
    weights, loaded = sd1
    x, t, context = torch.randn(2, 4, 8, 12), torch.tensor([3.0, 900.0]), torch.randn(2, 77, 64)
    with torch.no_grad():
        expected = loaded[0].model.diffusion_model(x, t, context=context)
        got = unet(weights)(x, t, context)
    torch.testing.assert_close(got, expected, atol=2e-5, rtol=1e-4)


def test_patches_and_control_of_the_unet_are_where_those_of_the_running_model_are(sd1):
    weights, loaded = sd1
    x, t, context = torch.randn(1, 4, 8, 8), torch.tensor([9.0]), torch.randn(1, 77, 64)

    def options():
        return {
            "patches": {
                "input_block_patch": [lambda h, o: h * (1 + o["block"][1])],
                "output_block_patch": [lambda h, skip, o: (h * 0.5, skip * (1 + o["block"][1]))],
                "attn2_patch": [lambda n, c, v, o: (n, c * 0.9, v * o["dim_head"])],
                "attn1_output_patch": [lambda n, o: n * (1 + o["block_index"])],
            },
            "patches_replace": {"attn1": {("middle", 0): lambda q, k, v, o: v}},
        }

    def control():
        return {"input": [torch.ones(1, 32, 8, 8)], "middle": [torch.ones(1, 64, 4, 4)],
                "output": [None, torch.ones(1, 64, 4, 4)]}  # fmt: skip

    with torch.no_grad():
        expected = loaded[0].model.diffusion_model(
            x, t, context=context, control=control(), transformer_options=options()
        )
        got = unet(weights)(x, t, context, control=control(), transformer_options=options())
        plain = unet(weights)(x, t, context)
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(got, plain)


def test_the_names_of_a_full_size_unets_weights_are_those_of_the_family():
    config = {"model_channels": 320, "in_channels": 4, "out_channels": 4, "context_dim": 768}
    with torch.device("meta"):
        net = UNetModel(
            image_size=32, num_res_blocks=2, channel_mult=(1, 2, 4, 4), num_heads=8, legacy=False,
            use_spatial_transformer=True, transformer_depth=[1, 1, 1, 1, 1, 1, 0, 0],
            transformer_depth_output=[1] * 9 + [0] * 3, transformer_depth_middle=1, **config,
        )  # fmt: skip
        shape = dict(
            config, channel_mult=(1, 2, 4, 4), num_res_blocks=(2, 2, 2, 2), transformer_depth=(1, 1, 1, 0),
            transformer_depth_middle=1, use_linear_in_transformer=False, adm_in_channels=None,
        )  # fmt: skip
        zoo = ldm_unet.LDMUNet(**shape)
    names = ldm_unet.checkpoint_names(zoo.state_dict(), shape)
    expected = {names[key]: tensor.shape for key, tensor in zoo.state_dict().items()}
    assert {key: tensor.shape for key, tensor in net.state_dict().items()} == expected


def test_the_autoencoder_takes_a_checkpoint_and_computes_what_the_running_one_computes():
    torch.manual_seed(3)
    vae = tiny_sd1.tiny_vae()
    weights = below(tiny_sd1.vae_weights(vae), "first_stage_model.")
    config = {"ch": 32, "out_ch": 3, "ch_mult": (1, 1, 2), "num_res_blocks": 1, "attn_resolutions": [],
                  "in_channels": 3,
                  "resolution": 32, "z_channels": 4, "double_z": True}  # fmt: skip
    net = AutoencoderKL(embed_dim=4, ddconfig=config).eval()
    weights = {key: t.reshape(net.state_dict()[key].shape) for key, t in weights.items()}
    net.load_state_dict(weights, strict=True)
    picture = torch.rand(1, 3, 16, 24) * 2 - 1
    with torch.no_grad():
        latent = net.encode(picture)
        torch.testing.assert_close(latent, vae.encode(picture), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(net.decode(latent), vae.decode(latent), atol=1e-5, rtol=1e-4)


def flux(weights, **changes):
    net = Flux(
        in_channels=16, out_channels=16, vec_in_dim=tiny_flux.POOLED, context_in_dim=tiny_flux.CONTEXT,
        hidden_size=tiny_flux.WIDTH, mlp_ratio=4.0, num_heads=tiny_flux.HEADS, depth=2, depth_single_blocks=2,
        axes_dim=[4, 14, 14], theta=10000, patch_size=2, qkv_bias=True, guidance_embed=True, txt_ids_dims=[],
        dtype=torch.float32, operations=OPS, **changes,
    )  # fmt: skip
    renamed = {key.replace("_norm.scale", "_norm.weight"): t for key, t in weights.items()}
    net.load_state_dict(renamed, strict=True)
    return net.eval()


@pytest.mark.parametrize("method", [None, "offset", "index", "uxo"])
def test_flux_takes_a_file_and_predicts_what_the_running_model_predicts(method):
    weights = tiny_flux.transformer("")
    model = comfy.sd.load_diffusion_model_state_dict(dict(weights)).model.diffusion_model
    x, context, y = (
        torch.randn(2, 16, 7, 6),
        torch.randn(2, 5, tiny_flux.CONTEXT),
        torch.randn(2, tiny_flux.POOLED),
    )
    refs = {}
    if method:
        references = [torch.randn(2, 16, 6, 6), torch.randn(2, 16, 4, 8)]
        refs = {"ref_latents": references, "ref_latents_method": method}
    seen = []
    options = {
        "patches_replace": {
            "dit": {
                ("double_block", 1): lambda given, more: (
                    seen.append(sorted(given)) or more["original_block"](given)
                ),
                ("single_block", 0): lambda given, more: {"img": more["original_block"](given)["img"] * 0.5},
            }
        }
    }
    arguments = {"context": context, "y": y, "guidance": torch.tensor([3.0, 4.0]), **refs}
    with torch.no_grad():
        times = torch.tensor([0.2, 0.9])
        expected = model(x, times, transformer_options=options, **arguments)
        got = flux(weights)(x, times, transformer_options=options, **arguments)
    torch.testing.assert_close(got, expected, atol=3e-5, rtol=1e-4)
    assert seen[0] == seen[1]  # both tell a replacement the same


def test_the_parts_that_no_slice_covers_are_found():
    assert invert_slices([[8, 10], [3, 5]], 12) == [(0, 3), (5, 8), (10, 12)]
    assert invert_slices([[0, 5], [4, 12]], 12) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_heads": -1}, "num_heads or num_head_channels"),
        ({"num_res_blocks": [1]}, "num_res_blocks has 1 entries, channel_mult 2"),
        ({"use_spatial_transformer": False}, "only with use_spatial_transformer"),
        ({"num_classes": "sequential"}, "'sequential' with adm_in_channels"),
    ],
)
def test_numbers_that_make_no_unet_are_refused(changes, message):
    given = {
        "image_size": 32, "in_channels": 4, "model_channels": 32, "out_channels": 4, "num_res_blocks": 1,
        "num_heads": 4,
        "channel_mult": (1, 2), "context_dim": 8, "use_spatial_transformer": True,
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        UNetModel(**{**given, **changes})


def test_flux_refuses_heads_that_do_not_fit_and_pictures_in_place_of_tokens():
    with pytest.raises(ValueError, match="axes_dim"):
        Flux(
            in_channels=4, out_channels=4, vec_in_dim=8, context_in_dim=8, hidden_size=32, mlp_ratio=4.0,
            num_heads=2, depth=1, depth_single_blocks=1, axes_dim=[4, 4, 4], theta=10000, patch_size=2,
            qkv_bias=True, guidance_embed=False, txt_ids_dims=[], operations=OPS,
        )  # fmt: skip
    net = flux(tiny_flux.transformer(""))
    picture = torch.randn(1, 16, 4, 4)
    with pytest.raises(ValueError, match="tokens"):
        net.forward_orig(picture, None, picture, None, torch.tensor([0.5]), None)
