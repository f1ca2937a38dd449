"""Guidance along frames, pictures as prompts, devices by name, and models in diffusers' folders."""

import json
from types import SimpleNamespace

import pytest
import safetensors.torch
import torch

import comfy.sd
import folder_paths
import nodes
from comfy_extras import nodes_multigpu
from comfy_extras import nodes_video_model as video
from tests.comfy import tiny_sd1
from tests.comfy.toy_model import toy_model


@pytest.mark.parametrize(
    ("node", "scales"),
    [
        (video.VideoLinearCFGGuidance, [1.0, 2.0, 3.0, 4.0, 5.0]),
        (video.VideoTriangleCFGGuidance, [1.0, 3.0, 5.0, 3.0, 1.0]),
    ],
)
def test_guidance_grows_along_the_frames(node, scales):
    (model,) = node().patch(toy_model(), 1.0)
    guide = model.model_options["sampler_cfg_function"]
    cond, uncond = torch.full((5, 4, 2, 2), 3.0), torch.ones(5, 4, 2, 2)
    out = guide({"cond": cond, "uncond": uncond, "cond_scale": 5.0})
    torch.testing.assert_close(out[:, 0, 0, 0], 1 + 2 * torch.tensor(scales))


def test_a_picture_is_the_prompt_of_a_video():
    vision = SimpleNamespace(encode_image=lambda image: SimpleNamespace(image_embeds=torch.ones(1, 7)))
    vae = SimpleNamespace(encode=lambda pixels: torch.nn.functional.avg_pool2d(pixels.movedim(-1, 1), 8))
    image = torch.rand(1, 32, 48, 4)
    positive, negative, latent = video.SVD_img2vid_Conditioning().encode(
        vision, image, vae, 48, 32, 14, 127, 6, 0.0
    )
    assert latent["samples"].shape == (14, 4, 4, 6)
    ((tokens, known),), ((empty, unknown),) = positive, negative
    assert tokens.shape == (1, 1, 7) and not empty.any() and not unknown["concat_latent_image"].any()
    assert (known["motion_bucket_id"], known["fps"], known["augmentation_level"]) == (127, 6, 0.0)
    torch.testing.assert_close(known["concat_latent_image"], vae.encode(image[..., :3]))
    noisy = video.SVD_img2vid_Conditioning().encode(vision, image, vae, 48, 32, 14, 127, 6, 1.0)[0]
    assert not torch.allclose(noisy[0][1]["concat_latent_image"], known["concat_latent_image"])


def test_an_area_of_a_video_has_a_time():
    append = video.ConditioningSetAreaPercentageVideo().append
    ((_, extras),) = append([[torch.ones(1), {}]], 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 2.0)[0]
    assert extras["area"] == ("percentage", 0.3, 0.2, 0.1, 0.6, 0.5, 0.4) and extras["strength"] == 2.0


def test_a_prompt_is_scaled_with_its_pooled_part():
    multiply = nodes.NODE_CLASS_MAPPINGS["ConditioningMultiply"]().multiply
    given = [[torch.ones(1, 2), {"pooled_output": torch.ones(3)}], [torch.ones(1, 2), {"strength": 1.0}]]
    (out,) = multiply(given, -2.0)
    assert [entry[0].tolist() for entry in out] == [[[-2, -2]], [[-2, -2]]]
    assert out[0][1]["pooled_output"].tolist() == [-2, -2, -2] and out[1][1] == {"strength": 1.0}
    assert given[0][1]["pooled_output"].tolist() == [1, 1, 1]


# --- devices ---


def test_a_model_goes_to_the_cpu_and_back_to_where_it_was():
    model = toy_model(load_device=torch.device("meta"))
    (there,) = nodes_multigpu.SelectModelDevice.execute(model, "cpu").args
    assert there.load_device == torch.device("cpu") and model.load_device == torch.device("meta")
    (back,) = nodes_multigpu.SelectModelDevice.execute(there, "default").args
    assert back.load_device == torch.device("meta") and back.is_clone(model)


def test_a_device_that_is_not_here_is_passed_over(caplog):
    model = toy_model()
    (same,) = nodes_multigpu.SelectModelDevice.execute(model, "gpu:7").args
    assert same.load_device == model.load_device
    assert "there is no device 'gpu:7' here" in caplog.text
    assert nodes_multigpu.SelectModelDevice.validate_inputs("gpu:7") is True
    assert nodes_multigpu.MultiGPU_WorkUnits.execute(model, 2).args[0].is_clone(model)


def test_text_encoders_and_vaes_work_on_the_device_that_was_chosen():
    _, clip, vae = comfy.sd.load_state_dict_guess_config(tiny_sd1.checkpoint())[:3]
    (chosen,) = nodes_multigpu.SelectCLIPDevice.execute(clip, "cpu").args
    assert chosen.patcher is not clip.patcher and chosen.patcher.load_device.type == "cpu"
    assert torch.equal(chosen.encode("a cat"), clip.encode("a cat"))
    (chosen,) = nodes_multigpu.SelectVAEDevice.execute(vae, "default").args
    assert chosen.device == chosen.patcher.load_device == vae.device
    assert torch.equal(chosen.decode(torch.ones(1, 4, 4, 4)), vae.decode(torch.ones(1, 4, 4, 4)))


# --- loaders ---


@pytest.fixture
def folders(tmp_path, monkeypatch):
    for kind, endings in (
        ("diffusers", {"folder"}),
        ("checkpoints", {".safetensors"}),
        ("configs", {".yaml"}),
    ):
        (tmp_path / kind).mkdir()
        monkeypatch.setitem(folder_paths.folder_names_and_paths, kind, ([str(tmp_path / kind)], endings))
    return tmp_path


def test_a_folder_of_diffusers_is_the_checkpoint_that_it_was_made_of(folders):
    unet, vae, text = tiny_sd1.tiny_unet(), tiny_sd1.tiny_vae(), tiny_sd1.tiny_text_encoder()
    root = folders / "diffusers" / "mine" / "tiny"
    parts = {"unet": (unet, "diffusion_pytorch_model"), "vae": (vae, "diffusion_pytorch_model"),
             "text_encoder": (text, "model")}  # fmt: skip
    for part, (module, name) in parts.items():
        (root / part).mkdir(parents=True)
        begin = "text_model." if part == "text_encoder" else ""  # as folders of before transformers 5
        weights = {begin + key.removeprefix(begin): w for key, w in module.state_dict().items()}
        safetensors.torch.save_file(weights, root / part / f"{name}.safetensors")
    (root / "model_index.json").write_text(json.dumps({}))
    node = nodes.NODE_CLASS_MAPPINGS["DiffusersLoader"]
    assert node.INPUT_TYPES()["required"]["model_path"] == (["mine/tiny"],)
    model, clip, loaded_vae = node().load_checkpoint("mine/tiny")
    for key, tensor in unet.state_dict().items():
        assert torch.equal(model.model.diffusion_model.state_dict()[key], tensor)
    latent = torch.randn(1, 4, 4, 4)
    torch.testing.assert_close(loaded_vae.first_stage_model.decode(latent), vae.decode(latent))
    assert clip.encode("a cat").shape == (1, 77, 64)
    (root / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="vae' has no file of weights. Known names are"):
        node().load_checkpoint("mine/tiny")
    with pytest.raises(ValueError, match="'other' is no model in models/diffusers. There are: mine/tiny"):
        node().load_checkpoint("other")


def test_a_config_file_is_not_needed_to_know_a_checkpoint(folders):
    safetensors.torch.save_file(tiny_sd1.checkpoint(), folders / "checkpoints" / "a.safetensors")
    (folders / "configs" / "v1.yaml").write_text("model: {}")
    node = nodes.NODE_CLASS_MAPPINGS["CheckpointLoader"]
    model, clip, vae = node().load_checkpoint("v1.yaml", "a.safetensors")
    assert type(model.model.model_config).__name__ == "SD15" and clip is not None and vae is not None
