"""A library of tiny model files of random weights, one of every kind, where the loaders find them."""

import tokenizers
import torch
from transformers import Qwen3Config, Qwen3Model

import comfy.utils
import folder_paths
from comfy import tokenizer_files
from tests.comfy import (
    test_style_model,
    test_taesd,
    test_upscalers,
    test_z_image_family,
    tiny_control,
    tiny_flux,
    tiny_sd1,
    tiny_sdxl,
    tiny_vision,
)

VECTORS = 48  # numbers of a picture's vector


def _sd2(**changes):
    text = {"cond_stage_model.model.": tiny_sdxl.in_open_clip(tiny_sdxl.text_encoder(128))}
    return tiny_sdxl.checkpoint({**tiny_sdxl.SD2, **changes}, text)


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


def _refiner():
    text = {"conditioner.embedders.0.model.": tiny_sdxl.in_open_clip(tiny_sdxl.text_encoder(128))}
    return tiny_sdxl.checkpoint(tiny_sdxl.REFINER, text)


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


def _flux_controlnet_of_a_hole():
    zoo = tiny_control.flux_controlnet()
    zoo.controlnet_x_embedder = tiny_sd1.randomise(torch.nn.Linear(68, tiny_flux.WIDTH))
    return zoo.state_dict()


FILES = {
    "checkpoints/sd1": tiny_sd1.checkpoint,
    "checkpoints/other": lambda: tiny_sd1.checkpoint(5),
    "checkpoints/inpaint": lambda: tiny_sd1.checkpoint(in_channels=9),
    "checkpoints/levels": lambda: tiny_sd1.checkpoint(**tiny_control.SD_LEVELS),
    "checkpoints/sd2": _sd2,
    "checkpoints/v": lambda: {**_sd2(), "v_pred": torch.tensor([])},
    "checkpoints/unclip": _unclip,
    "checkpoints/sdxl": _sdxl,
    "checkpoints/refiner": _refiner,
    "embeddings/style": lambda: {"clip_l": torch.randn(2, 64, generator=torch.Generator().manual_seed(3))},
    "diffusion_models/scaled": lambda: tiny_flux.quantise(tiny_flux.transformer(""))[0],
    "diffusion_models/flux": lambda: tiny_flux.transformer(""),
    "diffusion_models/fill": lambda: tiny_flux.transformer("", in_channels=96),
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
    "controlnet/hole": _flux_controlnet_of_a_hole,
    "controlnet/xlabs": tiny_control.xlabs_file,
    "controlnet/mist": tiny_control.mist_file,
    "controlnet/t2i": lambda: tiny_control.original_adapter(tiny_control.adapter("full_adapter")),
    "clip_vision/clip": lambda: tiny_vision.in_open_clip(tiny_vision.clip()),
    "clip_vision/siglip": lambda: tiny_vision.siglip_weights(tiny_vision.siglip()),
    "style_models/redux": lambda: test_style_model.redux(128, tiny_flux.CONTEXT),
    "style_models/adapter": lambda: test_style_model.adapter(128, 64),
    "upscale_models/esrgan": lambda: test_upscalers.small_rrdbnet(2).state_dict(),
}


def _write_vocabularies(folder) -> None:
    tiny_flux.write_tokenizer(folder / "t5.json")
    characters = {character: i for i, character in enumerate([*map(chr, range(32, 127)), "\n"])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(characters, []))
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    tokenizer.save(str(folder / "qwen.json"))


class Library:
    """Inside of `with`, the loaders look into `folder`, where files are written when they are asked for."""

    def __init__(self, folder):
        self.folder = folder

    def provide(self, *names) -> None:
        """Write the entries of `FILES` with these names, such as `sd1.safetensors`, that are not there."""
        for place, weights in FILES.items():
            path = self.folder / f"{place}.safetensors"
            if path.name in names and not path.exists():
                comfy.utils.save_torch_file(weights(), path)
        folder_paths.filename_list_cache.clear()

    def __enter__(self):
        kinds = {place.split("/")[0] for place in FILES} | {"vae_approx"}
        for kind in kinds:
            (self.folder / kind).mkdir(parents=True)
        self.provide("style.safetensors")
        test_taesd.author_files(test_taesd.tiny_autoencoder(), self.folder / "vae_approx")
        _write_vocabularies(self.folder)
        tokenizer_files.find_with(
            lambda name: str(self.folder / ("t5.json" if name.startswith("t5") else "qwen.json"))
        )
        known = folder_paths.folder_names_and_paths
        self.before = {kind: known[kind] for kind in kinds}
        known.update({kind: ([str(self.folder / kind)], {".safetensors"}) for kind in kinds})
        folder_paths.filename_list_cache.clear()
        return self

    def __exit__(self, *_exception):
        tokenizer_files.find_with(None)
        folder_paths.folder_names_and_paths.update(self.before)
        folder_paths.filename_list_cache.clear()
