"""The models and workflows of residency.py: 20 workflows over four checkpoints, LoRAs and other models.

All have the 686 tensors of SD1.5's UNet, its VAE and its text encoder, for the number of tensors is what a
switch costs; weights are random. Two sizes of them:

    narrow   a tenth of the width: computing is milliseconds, so that what a switch adds can be seen. Upstream
             ComfyUI cannot load it: it tells families apart by their full widths
    wide     SD1.5's width on all levels of the UNet (637 MB in fp16), with its text encoder and VAE

and `large`, two checkpoints of SD1.5's full size (2.1 GB) alone.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

Prompt = dict[str, Any]
Workflow = Callable[[int], Prompt]
"""seed -> prompt"""

SIDE = 32
"""Pixels of the pictures."""
NARROW, WIDE, LARGE_SET = "narrow", "wide", "large"
SETS = (NARROW, WIDE, LARGE_SET)
CHECKPOINTS = tuple(f"switch_{letter}.safetensors" for letter in "abcd")
LORAS = tuple(f"switch_{number}.safetensors" for number in (1, 2, 3))
VAES = ("switch_vae_1.safetensors", "switch_vae_2.safetensors")
TEXT, CONTROL, UPSCALER = "switch_text.safetensors", "switch_control.safetensors", "switch_2x.safetensors"
LARGE = ("switch_large_a.safetensors", "switch_large_b.safetensors")
PINS = tuple(f"{folder}/switch_*" for folder in
             ("checkpoints", "loras", "vae", "text_encoders", "controlnet", "upscale_models"))
RANK = 8
NARROW_UNET = {"model_channels": 32, "context_dim": 64}
VAE_PREFIX, TEXT_PREFIX = "first_stage_model.", "cond_stage_model.transformer."


# --- files ---


def files_in(models: Path) -> list[Path]:
    """The files of the set that are below a folder of models."""
    return sorted(models.glob("*/switch_*.safetensors"))


def write(models: Path, which: str) -> None:
    """One of `SETS` into a folder of models."""
    if which == LARGE_SET:
        _write_large(models)
        return
    import parity_control
    import parity_upstream

    is_narrow = which == NARROW
    unet = {**parity_upstream.SD1_UNET, **(NARROW_UNET if is_narrow else {"channel_mult": (1, 1, 1, 1)})}
    shapes = {**parity_control.unet_shapes(unet, {}), **_vae_shapes(32 if is_narrow else 128),
              **_text_shapes(NARROW_UNET["context_dim"] if is_narrow else 768)}
    _write_checkpoints(models, _random(shapes, seed=0))
    for number, name in enumerate(LORAS):
        _save(models / "loras" / name, _lora(shapes, seed=10 + number))
    control = parity_control.controlnet_shapes(unet)
    _save(models / "controlnet" / CONTROL, _random(control, seed=1))
    _save(models / "upscale_models" / UPSCALER, _compact_upscaler())


def _write_checkpoints(models: Path, first: dict[str, Any]) -> None:
    """Four that differ in all weights, and VAEs and a text encoder of their own."""
    for number, name in enumerate(CHECKPOINTS):
        _save(models / "checkpoints" / name, {key: w * (1 + 0.01 * number) for key, w in first.items()})
    for number, name in enumerate(VAES):
        _save(models / "vae" / name, {key.removeprefix(VAE_PREFIX): w * (0.99 - 0.01 * number)
                                      for key, w in first.items() if key.startswith(VAE_PREFIX)})
    _save(models / "text_encoders" / TEXT, {key.removeprefix(TEXT_PREFIX): w * 0.99
                                            for key, w in first.items() if key.startswith(TEXT_PREFIX)})


def _write_large(models: Path) -> None:
    """Two checkpoints of SD1.5's full size, 4.3 GB."""
    import parity_upstream
    import safetensors.torch

    place = models / "checkpoints"
    place.mkdir(parents=True, exist_ok=True)
    parity_upstream.write_in_own_process(place / LARGE[0], tiny=False, dtype_name="float16")
    weights = safetensors.torch.load_file(place / LARGE[0])
    _save(place / LARGE[1], {name: weight * 1.001 for name, weight in weights.items()})


def _vae_shapes(width: int) -> dict[str, tuple[int, ...]]:
    from comfy.families import ldm_vae
    from comfy.families.base import build_empty

    shape = ldm_vae.VAEShape((width, 2 * width, 4 * width, 4 * width), layers_per_block=2, latent_channels=4)
    weights = ldm_vae.checkpoint_weights(build_empty(lambda: ldm_vae.LDMVAE(shape)).state_dict())
    return {VAE_PREFIX + key: tuple(tensor.shape) for key, tensor in weights.items()}


def _text_shapes(width: int) -> dict[str, tuple[int, ...]]:
    """Of SD1.5's text encoder with another width: heads of 64, an inner layer of four times the width."""
    from comfy.families import clip_text
    from comfy.families.base import build_empty

    config = {**clip_text.CLIP_L, "hidden_size": width, "intermediate_size": 4 * width,
              "num_attention_heads": width // 64}
    weights = build_empty(lambda: clip_text.ClipTextModel(config)).state_dict()
    return {TEXT_PREFIX + key: tuple(tensor.shape) for key, tensor in weights.items()}


def _random(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, Any]:
    """fp16 weights of which each layer keeps the size of what passes through it."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in shapes.items():
        values = torch.randn(shape, generator=generator)
        if len(shape) > 1:
            values *= 0.02 if "embedding" in name else math.prod(shape[1:]) ** -0.5
        else:
            values = 0.1 * values + name.endswith("weight")
        weights[name] = values.half()
    return weights


def _lora(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, Any]:
    """Of all attention layers of the UNet and of the text encoder, under kohya's names."""
    prefixes = {"model.diffusion_model.": "lora_unet_", TEXT_PREFIX: "lora_te_"}
    found = {}
    for key, shape in shapes.items():
        layer = key.removesuffix(".weight")
        if layer == key or len(shape) != 2 or not any(part in layer for part in (".attn", ".self_attn.")):
            continue
        start = next(prefix for prefix in prefixes if key.startswith(prefix))
        name = prefixes[start] + layer.removeprefix(start).replace(".", "_")
        found[f"{name}.lora_up.weight"] = (shape[0], RANK)
        found[f"{name}.lora_down.weight"] = (RANK, shape[1])
    return {name: 0.3 * weight for name, weight in _random(found, seed).items()}


def _compact_upscaler() -> dict[str, Any]:
    from comfy.upscalers.compact import CompactNet

    net = CompactNet(channels=3, features=16, convolutions=4, scale=2)
    return _random({name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}, seed=2)


def _save(path: Path, weights: dict[str, Any]) -> None:
    import safetensors.torch

    path.parent.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file({key: w.contiguous() for key, w in weights.items()}, path)
    print(f"{path.parent.name}/{path.name}: {path.stat().st_size / 1e6:.0f} MB", flush=True)


# --- workflows ---


class Graph:
    """A prompt that is being written. Equal nodes are one node."""

    def __init__(self) -> None:
        self.prompt: Prompt = {}
        self._known: dict[str, str] = {}

    def add(self, class_type: str, **inputs: Any) -> str:
        """A node; returns its id."""
        key = json.dumps([class_type, inputs])
        if key not in self._known:
            self._known[key] = str(len(self.prompt) + 1)
            self.prompt[self._known[key]] = {"class_type": class_type, "inputs": inputs}
        return self._known[key]

    def checkpoint(self, number: int) -> tuple[list, list, list]:
        """(MODEL, CLIP, VAE) of one of the checkpoints."""
        node = self.add("CheckpointLoaderSimple", ckpt_name=CHECKPOINTS[number])
        return [node, 0], [node, 1], [node, 2]

    def lora(self, model: list, clip: list, number: int, strength: float = 0.8) -> tuple[list, list]:
        """(MODEL, CLIP) with a LoRA."""
        node = self.add("LoraLoader", model=model, clip=clip, lora_name=LORAS[number],
                        strength_model=strength, strength_clip=strength)
        return [node, 0], [node, 1]

    def control(self, positive: list, negative: list, vae: list) -> tuple[list, list]:
        """Both sides with the ControlNet and a plain picture."""
        net = self.add("ControlNetLoader", control_net_name=CONTROL)
        hint = self.add("EmptyImage", width=SIDE, height=SIDE, batch_size=1, color=0x808080)
        node = self.add("ControlNetApplyAdvanced", positive=positive, negative=negative, control_net=[net, 0],
                        image=[hint, 0], strength=0.8, start_percent=0.0, end_percent=1.0)
        return [node, 0], [node, 1]

    def finish(self, model: list, clip: list, vae: list, seed: int, *, control: bool = False,
               upscale: bool = False) -> Prompt:
        """Encode a text, sample one step without guidance, decode, show."""
        text = [self.add("CLIPTextEncode", text="a horse", clip=clip), 0]
        positive, negative = self.control(text, text, vae) if control else (text, text)
        latent = self.add("EmptyLatentImage", width=SIDE, height=SIDE, batch_size=1)
        sampled = self.add(
            "KSampler", model=model, positive=positive, negative=negative, latent_image=[latent, 0],
            seed=seed, steps=1, cfg=1.0, sampler_name="euler", scheduler="normal", denoise=1.0,
        )
        image = self.add("VAEDecode", samples=[sampled, 0], vae=vae)
        if upscale:
            loader = self.add("UpscaleModelLoader", model_name=UPSCALER)
            image = self.add("ImageUpscaleWithModel", upscale_model=[loader, 0], image=[image, 0])
        self.add("PreviewImage", images=[image, 0])
        return self.prompt


def _plain(number: int, **more: Any) -> Workflow:
    def build(seed: int) -> Prompt:
        g = Graph()
        return g.finish(*g.checkpoint(number), seed, **more)

    return build


def _with_loras(number: int, *loras: tuple[int, float], **more: Any) -> Workflow:
    def build(seed: int) -> Prompt:
        g = Graph()
        model, clip, vae = g.checkpoint(number)
        for lora, strength in loras:
            model, clip = g.lora(model, clip, lora, strength)
        return g.finish(model, clip, vae, seed, **more)

    return build


def _with_vae(number: int, vae: int) -> Workflow:
    def build(seed: int) -> Prompt:
        g = Graph()
        model, clip, _ = g.checkpoint(number)
        return g.finish(model, clip, [g.add("VAELoader", vae_name=VAES[vae]), 0], seed)

    return build


def _clip_skip(seed: int) -> Prompt:
    g = Graph()
    model, clip, vae = g.checkpoint(1)
    skipping = [g.add("CLIPSetLastLayer", clip=clip, stop_at_clip_layer=-2), 0]
    return g.finish(model, skipping, vae, seed)


def _own_text_encoder(seed: int) -> Prompt:
    g = Graph()
    model, _, vae = g.checkpoint(2)
    clip = [g.add("CLIPLoader", clip_name=TEXT, type="stable_diffusion"), 0]
    return g.finish(model, clip, vae, seed)


def _free_u(seed: int) -> Prompt:
    g = Graph()
    model, clip, vae = g.checkpoint(3)
    return g.finish([g.add("FreeU", model=model, b1=1.1, b2=1.2, s1=0.9, s2=0.2), 0], clip, vae, seed)


def _merge(seed: int) -> Prompt:
    g = Graph()
    model, clip, vae = g.checkpoint(0)
    other = g.checkpoint(1)[0]
    return g.finish([g.add("ModelMergeSimple", model1=model, model2=other, ratio=0.5), 0], clip, vae, seed)


def _parts_of_three(seed: int) -> Prompt:
    g = Graph()
    model, clip, vae = g.checkpoint(3)[0], g.checkpoint(1)[1], g.checkpoint(2)[2]
    return g.finish(model, clip, vae, seed, upscale=True)


WORKFLOWS: dict[str, Workflow] = {
    **{f"checkpoint {'abcd'[number]}": _plain(number) for number in range(4)},
    **{f"LoRA {number + 1}": _with_loras(0, (number, 0.8)) for number in range(3)},
    "LoRA 1, weaker": _with_loras(0, (0, 0.4)),
    "LoRA 1 on b": _with_loras(1, (0, 0.8)),
    "two LoRAs": _with_loras(0, (0, 0.8), (1, 0.5)),
    "two LoRAs on c": _with_loras(2, (2, 0.6), (1, 0.5)),
    "ControlNet": _plain(0, control=True),
    "ControlNet, LoRA 3 on b": _with_loras(1, (2, 0.8), control=True),
    "VAE 1": _with_vae(0, 0),
    "VAE 2 on d": _with_vae(3, 1),
    "CLIP skip on b": _clip_skip,
    "text encoder of its own on c": _own_text_encoder,
    "FreeU on d": _free_u,
    "merge of a and b": _merge,
    "parts of three, upscaled": _parts_of_three,
}


def _large(name: str) -> Workflow:
    def build(seed: int) -> Prompt:
        g = Graph()
        node = g.add("CheckpointLoaderSimple", ckpt_name=name)
        return g.finish([node, 0], [node, 1], [node, 2], seed)

    return build


LARGE_WORKFLOWS: dict[str, Workflow] = {name: _large(name) for name in LARGE}


def workflows_of(which: str) -> dict[str, Workflow]:
    """The workflows of one of `SETS`."""
    return LARGE_WORKFLOWS if which == LARGE_SET else WORKFLOWS
