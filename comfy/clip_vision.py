"""CLIP vision: what a picture is of, as vectors. Used by IP-Adapter, unCLIP, Redux and video models."""

from __future__ import annotations

import torch

import comfy.families
import comfy.model_management
import comfy.model_patcher
import comfy.utils
from comfy.errors import ModelFileError, UnknownArchitecture
from comfy.families import clip_image
from comfy.mapped_memory import cast_weights
from comfy_depot import hooks as depot

CHANNELS = 3


class Output:
    """What a picture gives; fields by name, as attributes or in brackets.

    Attributes:
        last_hidden_state: (B, tokens, width); of SigLIP normalised.
        penultimate_hidden_states: the same after the last layer but one.
        all_hidden_states: (B, layers, tokens, width); SigLIP alone.
        image_embeds: (B, projection), or what stands for it in SigLIP: its last states.
        mm_projected: tokens for a language model (LLaVA), or None.
    """

    def __getitem__(self, key: str):
        return getattr(self, key)

    def __setitem__(self, key: str, item) -> None:
        setattr(self, key, item)


def clip_preprocess(
    image, size=224, mean=clip_image.CLIP_MEAN, std=clip_image.CLIP_STD, crop=True
) -> torch.Tensor:
    """Pixel values (B, 3, size, size) of pictures (B, H, W, C) in 0..1.

    With `crop`, the shorter side is scaled to `size` and the middle cut out; without, both sides are scaled.
    Values are rounded to 8 bits, as pictures in files are.
    """
    pixels = image[..., :CHANNELS].movedim(-1, 1)
    height, width = pixels.shape[2:]
    if (height, width) != (size, size):
        scale = size / min(height, width)
        scaled = (round(scale * height), round(scale * width)) if crop else (size, size)
        pixels = torch.nn.functional.interpolate(pixels, size=scaled, mode="bicubic", antialias=True)
        top, left = (pixels.shape[2] - size) // 2, (pixels.shape[3] - size) // 2
        pixels = pixels[:, :, top : top + size, left : left + size]
    pixels = (pixels * 255.0).clamp(0, 255).round() / 255.0
    mean, std = (torch.tensor(numbers).to(pixels).reshape(-1, 1, 1) for numbers in (mean, std))
    return (pixels - mean) / std


class ClipVisionModel:
    """A vision model with its preprocessing. Weights are kept in half precision and cast when they are used.

    `model(pixel_values=..., intermediate_output=-2)` is the network itself, for packs that prepare pixels.
    """

    def __init__(self, weights: dict[str, torch.Tensor]):
        management = comfy.model_management
        self.load_device = management.text_encoder_device()
        self.dtype = management.text_encoder_dtype(self.load_device)
        own = clip_image.own_weights(weights)
        cast_weights(own, list(own), self.dtype)
        self.model = clip_image.VisionNetwork.from_weights(own).eval()
        self.image_size = self.model.shape.image_size
        self.image_mean, self.image_std = (list(numbers) for numbers in self.model.shape.mean_and_deviation)
        self.return_all_hidden_states = self.model.shape.kind == "siglip"
        self.patcher = comfy.model_patcher.ModelPatcher(
            self.model,
            load_device=self.load_device,
            offload_device=management.text_encoder_offload_device(),
        )

    def load_sd(self, sd):
        return self.model.load_state_dict(sd, strict=False)

    def get_sd(self) -> dict:
        return self.model.state_dict()

    def encode_image(self, image, crop=True) -> Output:
        """The vectors of pictures (B, H, W, C) in 0..1."""
        comfy.model_management.load_model_gpu(self.patcher)
        preparing = {"size": self.image_size, "mean": self.image_mean, "std": self.image_std, "crop": crop}
        pixel_values = clip_preprocess(image.to(self.load_device), **preparing).float()
        wanted = "all" if self.return_all_hidden_states else -2
        last, chosen, embeds, projected = self.model(pixel_values=pixel_values, intermediate_output=wanted)
        device, out = comfy.model_management.intermediate_device(), Output()
        out.last_hidden_state, out.image_embeds = last.to(device), embeds.to(device)
        if self.return_all_hidden_states:
            out.all_hidden_states = chosen.to(device)
            chosen = chosen[:, -2]
        out.penultimate_hidden_states = chosen.to(device)
        out.mm_projected = projected
        return out


def load_clipvision_from_sd(sd, prefix="", convert_keys=False) -> ClipVisionModel | None:
    """The vision model in a state dict, out of which its weights are taken; None where there is none.

    `prefix` stands before its names, in OpenCLIP's layout or transformers', as checkpoints have it.

    Raises:
        ModelFileError: there is one, but incomplete or of an unsupported variant.
    """
    if convert_keys and clip_image.is_open_clip(sd, prefix):
        weights = clip_image.from_open_clip(sd, prefix)
    else:
        weights = {key[len(prefix) :]: tensor for key, tensor in sd.items() if key.startswith(prefix)}
    if not clip_image.is_vision_model(weights):
        return None
    model = ClipVisionModel(weights)
    for key in [key for key in sd if key.startswith(prefix)]:
        del sd[key]
    return model


@depot.keeps_resident("ckpt_path")
def load(ckpt_path) -> ClipVisionModel:
    """The vision model of a file, in OpenCLIP's layout or transformers'.

    Raises:
        UnknownArchitecture: the file holds none; the message says what it holds and what to choose.
        ModelFileError: it is incomplete or of an unsupported variant.
    """
    weights = comfy.utils.load_torch_file(ckpt_path)
    for prefix in ("visual.", ""):  # a file of OpenCLIP's vision model alone has no prefix
        if clip_image.is_open_clip(weights, prefix):
            return _loaded(weights, ckpt_path, prefix=prefix, convert_keys=True)
    return _loaded(weights, ckpt_path)


def _loaded(weights, path, **how) -> ClipVisionModel:
    try:
        model = load_clipvision_from_sd(dict(weights), **how)
    except ModelFileError as error:
        raise ModelFileError(f"'{path}': {error}") from error
    if model is None:
        raise UnknownArchitecture(
            f"'{path}' holds no CLIP vision model that is known here. {comfy.families.told_of_file(weights)} "
            "Choose a CLIP vision model from models/clip_vision: ViT-L, ViT-H, ViT-bigG or SigLIP "
            "(sigclip_vision_patch14_384)."
        )
    return model
