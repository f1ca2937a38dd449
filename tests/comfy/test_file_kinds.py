"""A file in the wrong folder: every loader says what it is and where it belongs."""

import pytest
import torch

import comfy.lora_file
import comfy.sd
import comfy.upscalers
import comfy.utils
from comfy import file_kinds
from comfy.errors import ModelFileError, UnknownArchitecture
from comfy.families import kind_of_file
from tests.comfy import tiny_flux

SAMPLES = {
    "lora_unet_down_blocks_0_attn.lora_up.weight": "a LoRA",
    "transformer.single_transformer_blocks.0.attn.to_k.lora_A.weight": "a LoRA",
    "control_model.zero_convs.0.0.weight": "a ControlNet",
    "controlnet_cond_embedding.conv_in.weight": "a ControlNet",
    "adapter.body.0.resnets.0.block1.weight": "a T2I-Adapter",
    "ip_adapter.1.to_k_ip.weight": "an IP-Adapter",
    "redux_up.weight": "a style model",
    "vision_model.encoder.layers.0.mlp.fc1.weight": "a CLIP vision model",
    "text_model.embeddings.token_embedding.weight": "a text encoder",
    "encoder.block.0.layer.0.SelfAttention.q.weight": "a text encoder",
    "model.embed_tokens.weight": "a text encoder",
    "emb_params": "a textual inversion embedding",
    "model.1.sub.0.RDB1.conv1.0.weight": "an upscale model",
    "taesd_decoder.1.weight": "a tiny autoencoder",
    "decoder.conv_in.weight": "a VAE alone",
}


@pytest.mark.parametrize(("key", "title"), SAMPLES.items())
def test_one_name_tells_the_kind(key, title):
    kind = file_kinds.kind_of([key])
    assert kind is not None and kind.title == title
    where = f"put it into models/{kind.folder} and load it with {kind.node}."
    assert str(kind) == f"It looks like {title}: {where}"


def test_other_names_tell_nothing():
    assert file_kinds.kind_of([]) is None
    assert file_kinds.kind_of(["decoder.conv_in.weight", "something"]) is None
    assert file_kinds.kind_of(["my_emb_params", "preconv_first.weight"]) is None


def test_the_demo_files():
    whole = comfy.utils.load_torch_file("tests/data/demo_shapes.safetensors")
    assert kind_of_file(whole) is file_kinds.CHECKPOINT
    alone = {key: tensor for key, tensor in whole.items() if key.startswith("model.diffusion_model.")}
    assert kind_of_file(alone) is file_kinds.DIFFUSION_MODEL
    assert kind_of_file(comfy.utils.load_torch_file("tests/data/demo_green.safetensors")).title == "a LoRA"
    assert kind_of_file(tiny_flux.transformer()) is file_kinds.DIFFUSION_MODEL


def file_of(tmp_path, weights):
    path = tmp_path / "wrong.safetensors"
    comfy.utils.save_torch_file({key: tensor.contiguous() for key, tensor in weights.items()}, str(path))
    return str(path)


@pytest.mark.parametrize(
    ("load", "error"),
    [
        (comfy.sd.load_checkpoint_guess_config, UnknownArchitecture),
        (comfy.sd.load_diffusion_model, UnknownArchitecture),
        (lambda path: comfy.sd.load_clip([path]), UnknownArchitecture),
        (lambda path: comfy.sd.VAE(sd=comfy.utils.load_torch_file(path)), ModelFileError),
        (comfy.upscalers.load_upscale_model, UnknownArchitecture),
    ],
    ids=["checkpoint", "diffusion model", "text encoder", "VAE", "upscale model"],
)
def test_a_style_model_is_named_by_every_other_loader(tmp_path, load, error):
    path = file_of(tmp_path, {"redux_up.weight": torch.zeros(2, 2)})
    with pytest.raises(error, match="It looks like a style model: put it into models/style_models"):
        load(path)


@pytest.mark.parametrize("load", [lambda p: comfy.sd.load_clip([p]), comfy.upscalers.load_upscale_model])
def test_a_checkpoint_is_named(load):
    with pytest.raises(UnknownArchitecture, match="looks like a whole checkpoint: put it into models/checkp"):
        load("tests/data/demo_shapes.safetensors")


def test_a_checkpoint_among_the_loras_is_named(tmp_path):
    model = comfy.sd.load_checkpoint_guess_config("tests/data/demo_shapes.safetensors")[0]
    with pytest.raises(ModelFileError, match="No key is one of a LoRA. It looks like a whole checkpoint"):
        comfy.lora_file.load_lora_file("tests/data/demo_shapes.safetensors", model, None, 1.0, 0)
