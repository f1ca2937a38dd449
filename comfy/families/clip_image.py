"""The image half of CLIP, OpenCLIP and SigLIP: transformers' layers, of any size that the weights have.

`VisionShape` names the hyper-parameters, `shape_of` reads them off the weights. Widths, activations and
preprocessing that leave no trace in shapes are those of the published models.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

import comfy.ops
from comfy.errors import ModelFileError
from comfy.families import open_clip_text
from comfy.families.base import StateDict, build_empty, count_indices, load_exactly

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
SIGLIP_MEAN = SIGLIP_STD = (0.5, 0.5, 0.5)
HEAD_WIDTH = 64
MOST_HEADS = 16  # wider models have wider heads: ViT-H 80, bigG 104, SigLIP so400m 72 channels
LEAST_LAYERS_OF_OPEN_CLIP = 31  # ViT-H has 32, bigG 48; they use the exact GELU, OpenAI's models a quick one
# Pictures that are no whole number of patches: (patch, patches per side) -> pixels per side.
ODD_SIZES = {(14, 27): 384}

_PARTS = ("vision_model.", "visual_projection.", "multi_modal_projector.")
_UNUSED = ("vision_model.embeddings.position_ids", "vision_model.head.")
_BLOCKS = "transformer.resblocks."
_LAYERS = "vision_model.encoder.layers."
_ENDS = {
    "class_embedding": "vision_model.embeddings.class_embedding",
    "conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "ln_pre.weight": "vision_model.pre_layrnorm.weight", "ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "ln_post.weight": "vision_model.post_layernorm.weight",
    "ln_post.bias": "vision_model.post_layernorm.bias",
}  # fmt: skip
PATCHES = "vision_model.embeddings.patch_embedding.weight"
POSITIONS = "vision_model.embeddings.position_embedding.weight"
CLASS = "vision_model.embeddings.class_embedding"


@dataclass(frozen=True)
class VisionShape:
    """Hyper-parameters of a vision model."""

    kind: str  # "clip" or "siglip"
    width: int
    mlp_width: int
    layers: int
    patch: int  # pixels per side
    patches: int  # per side of the picture
    projection: int | None  # width of the picture's embedding; None: as wide as the model
    language: int | None  # width of the language model that LLaVA's projector leads to

    @property
    def image_size(self) -> int:
        """Pixels per side of the pictures that it takes."""
        return ODD_SIZES.get((self.patch, self.patches), self.patch * self.patches)

    @property
    def heads(self) -> int:
        return max(1, min(MOST_HEADS, self.width // HEAD_WIDTH))

    @property
    def activation(self) -> str:
        if self.kind == "siglip":
            return "gelu_pytorch_tanh"
        return "gelu" if self.layers >= LEAST_LAYERS_OF_OPEN_CLIP else "quick_gelu"

    @property
    def mean_and_deviation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Of the pixels' channels, as it was trained."""
        return (SIGLIP_MEAN, SIGLIP_STD) if self.kind == "siglip" else (CLIP_MEAN, CLIP_STD)


def is_open_clip(weights: StateDict, prefix: str = "visual.") -> bool:
    """Is there a vision model in OpenCLIP's layout below `prefix`?"""
    return f"{prefix}{_BLOCKS}0.attn.in_proj_weight" in weights


def is_vision_model(weights: StateDict) -> bool:
    """Is there a vision model under transformers' names?"""
    return PATCHES in weights and POSITIONS in weights and weights[PATCHES].ndim == 4


def from_open_clip(weights: StateDict, prefix: str = "visual.") -> dict[str, torch.Tensor]:
    """OpenCLIP's vision weights below `prefix` under transformers' names, as views."""
    out = {}
    for key, tensor in weights.items():
        if not key.startswith(prefix):
            continue
        name = key[len(prefix) :]
        if name == "proj":  # (width, width of the result)
            out["visual_projection.weight"] = tensor.T
        elif name.startswith(_BLOCKS):
            out.update(open_clip_text.layer_weights(name[len(_BLOCKS) :], tensor, _LAYERS))
        else:
            out[_ENDS.get(name, "vision_model." + name)] = tensor
    return out


def own_weights(weights: StateDict) -> dict[str, torch.Tensor]:
    """Of a file under transformers' names, what is the vision model's: some files hold a text encoder too."""
    return {
        key: tensor
        for key, tensor in weights.items()
        if key.startswith(_PARTS) and not key.startswith(_UNUSED)
    }


def shape_of(weights: StateDict) -> VisionShape:
    """Read the hyper-parameters off the shapes of weights under transformers' names.

    Raises:
        ModelFileError: a weight that tells a size is missing, or the patches make no square.
    """
    first_mlp = _LAYERS + "0.mlp.fc1.weight"
    missing = [key for key in (PATCHES, POSITIONS, first_mlp) if key not in weights]
    if missing:
        raise ModelFileError(
            f"The vision model (CLIP vision) in this file lacks the weight {missing[0]}. "
            "The file is damaged or of an unsupported variant. Download it again."
        )
    positions, width = weights[POSITIONS].shape
    kind = "clip" if CLASS in weights else "siglip"
    count = positions - 1 if kind == "clip" else positions
    patches = math.isqrt(count)
    if patches**2 != count:
        raise ModelFileError(
            f"The vision model (CLIP vision) in this file has places for {count} patches, which make no "
            "square picture. Choose a CLIP or SigLIP vision model for square pictures."
        )
    projection = weights.get("visual_projection.weight")
    language = weights.get("multi_modal_projector.linear_1.weight")
    return VisionShape(
        kind=kind,
        width=width,
        mlp_width=weights[first_mlp].shape[0],
        layers=count_indices(weights, _LAYERS + "{}."),
        patch=weights[PATCHES].shape[-1],
        patches=patches,
        projection=None if projection is None else projection.shape[0],
        language=None if language is None else language.shape[0],
    )


def _vision_transformer(shape: VisionShape) -> torch.nn.Module:
    # Imported here: most workflows load no vision model.
    from transformers import (
        CLIPVisionConfig,
        CLIPVisionModelWithProjection,
        SiglipVisionConfig,
        SiglipVisionModel,
    )

    common = {
        "hidden_size": shape.width, "intermediate_size": shape.mlp_width, "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads, "image_size": shape.image_size, "patch_size": shape.patch,
        "hidden_act": shape.activation,
    }  # fmt: skip
    if shape.kind == "clip":
        return CLIPVisionModelWithProjection(CLIPVisionConfig(**common)).vision_model
    model = SiglipVisionModel(SiglipVisionConfig(**common, vision_use_head=False))
    return getattr(model, "vision_model", model)  # transformers 4 has one level more


class LanguageProjector(torch.nn.Module):
    """LLaVA's way from patches to a language model's tokens: two layers, without the class token."""

    def __init__(self, width: int, out_width: int):
        super().__init__()
        self.linear_1 = torch.nn.Linear(width, out_width)
        self.linear_2 = torch.nn.Linear(out_width, out_width)

    def forward(self, states):
        """(B, 1 + patches, width) -> (B, patches, width of the language model)."""
        return self.linear_2(torch.nn.functional.gelu(self.linear_1(states[:, 1:])))


class VisionNetwork(torch.nn.Module):
    """Named as in files: `vision_model`, and `visual_projection` and `multi_modal_projector` where there."""

    def __init__(self, shape: VisionShape):
        super().__init__()
        self.shape = shape
        self.vision_model = _vision_transformer(shape)
        self.visual_projection: torch.nn.Module | None = None
        self.multi_modal_projector: torch.nn.Module | None = None
        if shape.projection is not None:
            self.visual_projection = torch.nn.Linear(shape.width, shape.projection, bias=False)
        if shape.language is not None:
            self.multi_modal_projector = LanguageProjector(shape.width, shape.language)
        comfy.ops.cast_on_use(self)

    @classmethod
    def from_weights(cls, weights: StateDict) -> VisionNetwork:
        """With these weights, named as `own_weights` gives them.

        Raises:
            ModelFileError: some are missing, unknown or of a wrong shape.
        """
        network = build_empty(lambda: cls(shape_of(weights)))
        load_exactly(network, weights, what="vision model (CLIP vision)")
        embeddings = network.vision_model.embeddings
        # Not part of a file, so a model built without memory has none yet.
        embeddings.position_ids = torch.arange(embeddings.position_embedding.num_embeddings).unsqueeze(0)
        return network

    def _embedded(self, pixel_values):
        embeddings = self.vision_model.embeddings
        x = embeddings.patch_embedding(pixel_values).flatten(2).transpose(1, 2)
        if self.shape.kind == "clip":
            first = embeddings.class_embedding.to(x).expand(len(x), 1, -1)
            x = torch.cat([first, x], dim=1)
        x = x + embeddings.position_embedding.weight.to(x)
        return self.vision_model.pre_layrnorm(x) if self.shape.kind == "clip" else x

    def forward(self, pixel_values, attention_mask=None, intermediate_output=None):
        """(last states, chosen states or None, embedding, projected or None) of pixels (B, 3, size, size).

        `intermediate_output` counts layers from the end when negative; "all" gives (B, layers, ...).
        SigLIP's last states are normalised, and are its embedding.
        """
        x, states = self._embedded(pixel_values), []
        for layer in self.vision_model.encoder.layers:
            x = layer(x, None)
            states.append(x)
        chosen = None
        if intermediate_output is not None:
            is_all = intermediate_output == "all"
            chosen = torch.stack(states, dim=1) if is_all else states[intermediate_output]
        if self.shape.kind == "siglip":
            x = pooled = self.vision_model.post_layernorm(x)
        else:
            pooled = self.vision_model.post_layernorm(x[:, 0])
        embedding = pooled if self.visual_projection is None else self.visual_projection(pooled)
        projected = None
        if self.multi_modal_projector is not None and chosen is not None:
            projected = self.multi_modal_projector(chosen)
        return x, chosen, embedding, projected
