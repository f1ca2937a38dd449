"""A library of tiny model files of random weights, one of every kind, where the loaders find them."""

import contextlib

import tokenizers
import torch
from transformers import Qwen3Config, Qwen3Model

import folder_paths
from comfy import tokenizer_files
from tests.comfy import test_style_model, test_taesd, test_upscalers, test_z_image_family, tiny_control
from tests.comfy import tiny_flux, tiny_sd1, tiny_sdxl, tiny_vision

VECTORS = 48  # numbers of a picture's vector


def _sd2(**changes):
    made = tiny_sdxl.checkpoint(
        {**tiny_sdxl.SD2, **changes},
        {"cond_stage_model.model.": tiny_sdxl.in_open_clip(tiny_sdxl.text_encoder(128))},
    )
    return made


def _unclip():
    vision = tiny_vision.in_open_clip(tiny_vision.clip(projection=VECTORS))
    return {**_sd2(adm_in_channels=2 * VECTORS), **tiny_sdxl.below("embedder.model.", vision)}


def _sdxl():
    l, g = tiny_sdxl.text_encoder(64, open_clip=False), tiny_sdxl.text_encoder(96)  # noqa: E741
    text_l = {key: tensor for key, tensor in l.state_dict().items() if key.startswith("text_model.")}
    prefixes = ("conditioner.embedders.0.transformer.", "conditioner.embedders.1.model.")
    return tiny_sdxl.checkpoint(
        tiny_sdxl.BASE, dict(zip(prefixes, (text_l, tiny_sdxl.in_open_clip(g)), strict=True))
    )


def _qwen():
    torch.manual_seed(1)
    model = tiny_sd1.randomise(Qwen3Model(Qwen3Config(**test_z_image_family.TEXT)))
    return {f"model.{key}": tensor.bfloat16() for key, tensor in model.state_dict().items()}


def _lora():
    """A LoRA on the attention of SD1's UNet and text encoder."""
    torch.manual_seed(9)
    out = {}
    for layer, width in (
        ("lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q", 32),
        ("lora_te_text_model_encoder_layers_0_self_attn_q_proj", 64),
    ):
        out[f"{layer}.lora_down.weight"] = torch.randn(2, width)
        out[f"{layer}.lora_up.weight"] = torch.randn(width, 2)
    return out


def _control_lora():
    unet = tiny_sd1.tiny_unet()
    return tiny_control.control_lora_file(tiny_control.controlnet(), unet)[0]


FILES = {
    "checkpoints/sd1": tiny_sd1.checkpoint,
    "checkpoints/other": lambda: tiny_sd1.checkpoint(5),
    "checkpoints/inpaint": lambda: tiny_sd1.checkpoint(in_channels=9),
    "checkpoints/levels": lambda: tiny_sd1.checkpoint(**tiny_control.SD_LEVELS),
    "checkpoints/sd2": _sd2,
    "checkpoints/v": lambda: {**_sd2(), "v_pred": torch.tensor([])},
    "checkpoints/unclip": _unclip,
    "checkpoints/sdxl": _sdxl,
    "diffusion_models/flux": lambda: tiny_flux.transformer(""),
    "diffusion_models/z": lambda: test_z_image_family.transformer(""),
    "text_encoders/clip_l": lambda: tiny_flux.clip_weights(tiny_flux.clip_l()),
    "text_encoders/t5": lambda: tiny_flux.t5_weights(tiny_flux.t5()),
    "text_encoders/qwen": _qwen,
    "vae/flux": lambda: tiny_flux.vae_weights(tiny_flux.vae()),
    "loras/style": _lora,
    "controlnet/net": lambda: tiny_control.original_controlnet(tiny_control.controlnet()),
    "controlnet/union": lambda: tiny_control.union_file(tiny_control.union(), "original"),
    "controlnet/lora": _control_lora,
    "controlnet/flux": lambda: tiny_control.flux_controlnet().state_dict(),
    "controlnet/t2i": lambda: tiny_control.original_adapter(tiny_control.adapter("full_adapter")),
    "clip_vision/clip": lambda: tiny_vision.in_open_clip(tiny_vision.clip()),
    "clip_vision/siglip": lambda: tiny_vision.siglip_weights(tiny_vision.siglip()),
    "style_models/redux": lambda: test_style_model.redux(128, tiny_flux.CONTEXT),
    "upscale_models/esrgan": lambda: test_upscalers.small_rrdbnet(2).state_dict(),
}


def _write_vocabularies(folder) -> None:
    tiny_flux.write_tokenizer(folder / "t5.json")
    characters = {character: i for i, character in enumerate([*map(chr, range(32, 127)), "\n"])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(characters, []))
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    tokenizer.save(str(folder / "qwen.json"))


@contextlib.contextmanager
def library(folder):
    """Inside, the loaders list `<name>.safetensors` for every entry of `FILES`, and the tiny autoencoder."""
    import comfy.utils

    for place, weights in FILES.items():
        path = folder / f"{place}.safetensors"
        path.parent.mkdir(exist_ok=True)
        comfy.utils.save_torch_file(weights(), path)
    (folder / "vae_approx").mkdir()
    test_taesd.author_files(test_taesd.tiny_autoencoder(), folder / "vae_approx")
    _write_vocabularies(folder)
    known = folder_paths.folder_names_and_paths
    before = {kind.name: known[kind.name] for kind in folder.iterdir() if kind.name in known}
    for kind in before:
        known[kind] = ([str(folder / kind)], {".safetensors"})
    folder_paths.filename_list_cache.clear()
    tokenizer_files.find_with(lambda name: str(folder / ("t5.json" if name.startswith("t5") else "qwen.json")))
    try:
        yield
    finally:
        tokenizer_files.find_with(None)
        known.update(before)
        folder_paths.filename_list_cache.clear()
