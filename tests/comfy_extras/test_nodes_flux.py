"""Flux from nodes: the files of its parts are loaded, encoded and sampled as a workflow does it."""

import pytest
import torch

import comfy.sd
import comfy.utils
import folder_paths
import nodes
from comfy import tokenizer_files
from comfy_extras import core_loaders, nodes_custom_sampler, nodes_edit_model, nodes_flux, nodes_sd3
from tests.comfy import tiny_flux


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """A models folder with the four files of a tiny Flux."""
    root = tmp_path_factory.mktemp("models")
    files = {
        "diffusion_models/flux.safetensors": tiny_flux.transformer(""),
        "text_encoders/clip_l.safetensors": tiny_flux.clip_weights(tiny_flux.clip_l()),
        "text_encoders/t5xxl.safetensors": tiny_flux.t5_weights(tiny_flux.t5()),
        "vae/ae.safetensors": tiny_flux.vae_weights(tiny_flux.vae()),
    }
    for name, weights in files.items():
        (root / name).parent.mkdir(exist_ok=True)
        comfy.utils.save_torch_file(weights, root / name)
    tiny_flux.write_tokenizer(root / "tokenizer.json")
    return root


@pytest.fixture(autouse=True)
def folders(library, monkeypatch):
    table = {name: ([str(library / name)], {".safetensors"})
             for name in ("diffusion_models", "text_encoders", "vae")}  # fmt: skip
    for name, place in table.items():
        monkeypatch.setitem(folder_paths.folder_names_and_paths, name, place)
    folder_paths.filename_list_cache.clear()
    tokenizer_files.find_with(lambda name: str(library / "tokenizer.json"))
    yield
    tokenizer_files.find_with(None)
    folder_paths.filename_list_cache.clear()


def load_clip(**options):
    return core_loaders.DualCLIPLoader().load_clip(
        "t5xxl.safetensors", "clip_l.safetensors", "flux", **options
    )[0]


def test_a_picture_is_made_from_the_four_files():
    model = core_loaders.UNETLoader().load_unet("flux.safetensors", "default")[0]
    prompt = nodes.CLIPTextEncode().encode(load_clip(), "a red cat")[0]
    prompt = nodes_flux.FluxGuidance().append(prompt, 2.0)[0]
    latent = nodes_sd3.EmptySD3LatentImage().generate(64, 48, 2)[0]
    assert latent["samples"].shape == (2, 16, 6, 8)
    guider = nodes_custom_sampler.BasicGuider().get_guider(model, prompt)[0]
    sigmas = nodes_custom_sampler.BasicScheduler().get_sigmas(model, "simple", 2, 1.0)[0]
    sampler = nodes_custom_sampler.KSamplerSelect().get_sampler("euler")[0]
    noise = nodes_custom_sampler.RandomNoise().get_noise(7)[0]
    out, _ = nodes_custom_sampler.SamplerCustomAdvanced().sample(noise, guider, sampler, sigmas, latent)
    vae = nodes.VAELoader().load_vae("ae.safetensors")[0]
    assert nodes.VAEDecode().decode(vae, out)[0].shape == (2, 48, 64, 3)
    plain = nodes.common_ksampler(model, 7, 2, 1.0, "euler", "simple", prompt, prompt, latent)[0]
    torch.testing.assert_close(plain["samples"], out["samples"])


def test_four_channels_of_an_empty_latent_become_sixteen():
    model = core_loaders.UNETLoader().load_unet("flux.safetensors", "default")[0]
    prompt = nodes_flux.CLIPTextEncodeFlux().encode(load_clip(), "a", "a", 1.0)[0]
    empty = {"samples": torch.zeros(1, 4, 4, 4)}
    out = nodes.common_ksampler(model, 1, 1, 1.0, "euler", "simple", prompt, prompt, empty)[0]
    assert out["samples"].shape == (1, 16, 4, 4)


@pytest.mark.parametrize(
    ("choice", "dtype"),
    [("default", torch.float32), ("fp8_e4m3fn", torch.float8_e4m3fn), ("fp8_e5m2", torch.float8_e5m2),
     ("fp8_e4m3fn_fast", torch.float8_e4m3fn)],
)  # fmt: skip
def test_weights_are_kept_in_the_chosen_precision(choice, dtype):
    assert core_loaders.UNETLoader().load_unet("flux.safetensors", choice)[0].model_dtype() is dtype


def test_each_text_encoder_gets_its_own_prompt():
    clip = load_clip(device="cpu")
    assert clip.patcher.load_device == clip.patcher.offload_device == torch.device("cpu")
    out = nodes_flux.CLIPTextEncodeFlux().encode(clip, "a red cat", "in the rain", 4.0)[0]
    same = [nodes.CLIPTextEncode().encode(clip, text)[0][0] for text in ("a red cat", "in the rain")]
    torch.testing.assert_close(out[0][1]["pooled_output"], same[0][1]["pooled_output"])
    torch.testing.assert_close(out[0][0], same[1][0])
    assert out[0][1]["guidance"] == 4.0


def test_guidance_is_set_and_left_out_without_changing_the_prompt_before():
    prompt = [[torch.zeros(1, 2, 3), {"guidance": 3.0}]]
    assert nodes_flux.FluxGuidance().append(prompt, 2.0)[0][0][1] == {"guidance": 2.0}
    assert nodes_flux.FluxDisableGuidance().append(prompt)[0][0][1] == {"guidance": None}
    assert prompt[0][1] == {"guidance": 3.0}


def test_what_the_menus_offer_can_be_loaded():
    inputs = core_loaders.UNETLoader.INPUT_TYPES()["required"]
    assert inputs["unet_name"][0] == ["flux.safetensors"]
    assert inputs["weight_dtype"][0] == ["default", "fp8_e4m3fn", "fp8_e4m3fn_fast", "fp8_e5m2"]
    inputs = core_loaders.DualCLIPLoader.INPUT_TYPES()["required"]
    assert inputs["clip_name1"][0] == inputs["clip_name2"][0] == ["clip_l.safetensors", "t5xxl.safetensors"]
    assert all(hasattr(comfy.sd.CLIPType, name.upper()) or name == "sdxl" for name in inputs["type"][0])


@pytest.mark.parametrize(("size", "scaled"), [((50, 100), (1456, 720)), ((64, 64), (1024, 1024))])
def test_a_picture_for_kontext_gets_the_nearest_of_its_sizes(size, scaled):
    out = nodes_flux.FluxKontextImageScale().scale(torch.rand(1, *size, 3))[0]
    assert out.shape == (1, scaled[1], scaled[0], 3)


def test_reference_pictures_add_up_and_change_what_is_sampled():
    model = core_loaders.UNETLoader().load_unet("flux.safetensors", "default")[0]
    prompt = nodes.CLIPTextEncode().encode(load_clip(), "a red cat")[0]
    picture = {"samples": torch.ones(1, 16, 4, 4)}
    one = nodes_edit_model.ReferenceLatent().append(prompt, picture)[0]
    two = nodes_edit_model.ReferenceLatent().append(one, picture)[0]
    two = nodes_flux.FluxKontextMultiReferenceLatentMethod().append(two, "uxo/uno")[0]
    assert len(two[0][1]["reference_latents"]) == 2 and "reference_latents" not in prompt[0][1]
    assert two[0][1]["reference_latents_method"] == "uxo"
    assert nodes_edit_model.ReferenceLatent().append(prompt)[0] is prompt
    empty = {"samples": torch.zeros(2, 16, 4, 4)}
    out = [
        nodes.common_ksampler(model, 1, 1, 1.0, "euler", "simple", side, side, empty)[0]["samples"]
        for side in (prompt, one, two)
    ]
    assert not torch.allclose(out[0], out[1]) and not torch.allclose(out[1], out[2])


def test_every_type_in_the_menus_of_text_encoders_is_one_that_the_loader_knows():
    import comfy.sd
    from comfy_extras import core_loaders

    menus = {*core_loaders.CLIP_TYPES, *core_loaders.DUAL_CLIP_TYPES} - {"sdxl"}
    assert menus <= {kind.name.lower() for kind in comfy.sd.CLIPType}
