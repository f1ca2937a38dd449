"""Files that are no control model, or none for the model that is sampled: what the error says."""

import pytest
import torch
from safetensors.torch import save_file

import comfy.controlnet
import comfy.sd
from comfy.control_fit import ControlMismatch, Fit
from comfy.errors import ModelFileError, UnknownArchitecture, UnreadableModelFile
from tests.comfy import tiny_control, tiny_flux, tiny_sd1

FOREIGN = {
    "pos_embed_input.proj.weight": "a ControlNet of SD3, which is not supported yet",
    "after_proj_list.18.bias": "a ControlNet of HunyuanDiT, which is not supported yet",
    "transformer_blocks.0.img_mlp.0.weight": "a ControlNet of Qwen-Image, which is not supported yet",
    "backbone.0.0.weight": "a ControlNet of Stable Cascade, which is not supported yet",
    "lllite_unet_input_blocks_4_1.down.0.weight": "a ControlNet-LLLite, which needs the nodes of a node pack",
    "lora_unet_x.lora_up.weight": "a LoRA: put it into models/loras",
    "image_proj.proj.weight": "an IP-Adapter: put it into models/ipadapter",
    "style_embedding": "a style model: put it into models/style_models",
}


@pytest.mark.parametrize("key", FOREIGN)
def test_a_file_of_another_kind_is_refused_with_what_it_seems_to_be(key, tmp_path):
    save_file({key: torch.zeros(2)}, tmp_path / "foreign.safetensors")
    with pytest.raises(UnknownArchitecture) as caught:
        comfy.controlnet.load_controlnet(str(tmp_path / "foreign.safetensors"))
    said = str(caught.value)
    assert "foreign.safetensors' is no control model that is known here" in said
    assert f"It holds 1 tensors: '{key}'. It looks like {FOREIGN[key]}" in said


def test_the_demo_model_is_refused_as_a_checkpoint():
    with pytest.raises(UnknownArchitecture, match="looks like a whole checkpoint: put it into models/checkp"):
        comfy.controlnet.load_controlnet("tests/data/demo_shapes.safetensors")


def test_an_unknown_file_is_refused_with_a_sample_of_its_tensors(tmp_path):
    save_file({name: torch.zeros(1) for name in "abcde"}, tmp_path / "x.safetensors")
    with pytest.raises(UnknownArchitecture, match="5 tensors: 'a', 'b', 'c', .... Choose another file"):
        comfy.controlnet.load_controlnet(str(tmp_path / "x.safetensors"))


def writers():
    return {
        "ControlNet": tiny_control.controlnet().state_dict(),
        "union ControlNet": tiny_control.union().state_dict(),
        "T2I-Adapter": tiny_control.original_adapter(tiny_control.adapter("full_adapter")),
        "ControlNet of Flux": tiny_control.flux_controlnet().state_dict(),
    }


@pytest.mark.parametrize("kind", writers())
def test_a_truncated_file_and_a_lacking_weight_are_named(kind, tmp_path):
    weights, path = writers()[kind], tmp_path / "damaged.safetensors"
    save_file(weights, path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UnreadableModelFile, match="damaged.safetensors"):
        comfy.controlnet.load_controlnet(str(path))
    last = next(key for key in reversed(weights) if key.endswith(".bias"))
    save_file({key: tensor for key, tensor in weights.items() if key != last}, path)
    with pytest.raises(ModelFileError, match=f"The {kind} in this file lacks weights .1.: "):
        comfy.controlnet.load_controlnet(str(path))


def test_a_file_that_lacks_what_tells_its_sizes_is_named(tmp_path):
    weights = tiny_control.controlnet().state_dict()
    del weights["mid_block.attentions.0.proj_in.weight"]
    save_file(weights, tmp_path / "damaged.safetensors")
    with pytest.raises(ModelFileError, match="damaged.safetensors' lacks the weight 'mid_block.*damaged or"):
        comfy.controlnet.load_controlnet(str(tmp_path / "damaged.safetensors"))


@pytest.fixture(scope="module")
def models():
    without = {"output_vae": False, "output_clip": False}
    unet = comfy.sd.load_state_dict_guess_config(tiny_sd1.checkpoint(), **without)[0]
    return {
        "UNet": unet.model,
        "Flux": comfy.sd.load_diffusion_model_state_dict(tiny_flux.transformer()).model,
    }


def refusal(weights, model, tmp_path):
    save_file(weights, tmp_path / "control.safetensors")
    control = comfy.controlnet.load_controlnet(str(tmp_path / "control.safetensors"))
    with pytest.raises(ControlMismatch) as caught:
        control.copy().pre_run(model, lambda percent: percent)
    return str(caught.value)


def test_a_control_model_of_another_family_says_which_and_what_matched(models, tmp_path):
    said = refusal(tiny_control.controlnet().state_dict(), models["Flux"], tmp_path)
    assert said == (
        "The control model of 'control.safetensors' is for a UNet of another size, but the model that is "
        "sampled is Flux: a UNet there, a Flux here. Equal are: none of their sizes. Choose a control model "
        "for Flux, or a checkpoint of a UNet of another size."
    )
    said = refusal(tiny_control.controlnet(context_dim=48).state_dict(), models["UNet"], tmp_path)
    assert "width of text 48 there, 64 here. Equal are: channels of the latent 4, widths of the" in said
    said = refusal(tiny_control.flux_controlnet().state_dict(), models["UNet"], tmp_path)
    assert "is for Flux, but the model that is sampled is a UNet" in said
    said = refusal(tiny_control.flux_controlnet(in_channels=128).state_dict(), models["Flux"], tmp_path)
    assert "channels of the latent 32 there, 16 here. Equal are: width of the tokens 128" in said
    said = refusal(tiny_control.adapter("full_adapter_xl").state_dict(), models["UNet"], tmp_path)
    assert "widths of the levels (32, 64, 64) there, (32, 64) here; resnets of the levels (2, 2, 2)" in said


@pytest.mark.parametrize(
    ("sizes", "name"),
    [
        ({"text": 768, "widths": (320, 640, 1280, 1280)}, "Stable Diffusion 1.x"),
        ({"text": 1024, "widths": (320, 640, 1280, 1280)}, "Stable Diffusion 2.x"),
        ({"text": 2048, "widths": (320, 640, 1280)}, "SDXL"),
        ({"text": 1280, "widths": (384, 768, 1536, 1536)}, "SDXL's refiner"),
        ({"widths": (320, 640, 1280)}, "SDXL"),
        ({"widths": (320, 640, 1280, 1280)}, "Stable Diffusion 1.x"),
    ],
)
def test_known_sizes_are_called_by_their_names(sizes, name):
    assert Fit.of_unet(layers=(2,), **sizes).name() == name
