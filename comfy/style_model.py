"""Style models: from the tokens of a picture (CLIP vision) to tokens that are put behind those of a prompt.

Flux Redux takes SigLIP's, the T2I style adapter for SD1 those of CLIP ViT-L. Any size loads.
"""

from __future__ import annotations

import torch

import comfy.families
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.utils
from comfy.errors import ModelFileError, UnknownArchitecture
from comfy.families.base import StateDict, build_empty, count_indices, load_exactly
from comfy_depot import hooks as depot

STYLE_HEAD_WIDTH = 128  # channels per head of the style adapter


class ReduxImageEncoder(torch.nn.Module):
    """Flux Redux: two layers on each token."""

    def __init__(self, redux_dim: int = 1152, txt_in_features: int = 4096, device=None, dtype=None):
        super().__init__()
        linear = comfy.ops.manual_cast.Linear
        self.redux_dim = redux_dim
        self.redux_up = linear(redux_dim, 3 * txt_in_features, device=device, dtype=dtype)
        self.redux_down = linear(3 * txt_in_features, txt_in_features, device=device, dtype=dtype)

    @classmethod
    def from_weights(cls, weights: StateDict) -> ReduxImageEncoder:
        up, down = (weights.get(f"redux_{side}.weight") for side in ("up", "down"))
        sizes = (
            {} if up is None or down is None else {"redux_dim": up.shape[1], "txt_in_features": down.shape[0]}
        )
        model = build_empty(lambda: cls(**sizes))
        load_exactly(model, weights, what="style model (Redux)")
        return model

    @property
    def width(self) -> int:
        """Of the tokens that it takes."""
        return self.redux_dim

    def forward(self, sigclip_embeds):
        """(B, tokens, width of the vision model) -> (B, tokens, width of the text encoder)."""
        return self.redux_down(torch.nn.functional.silu(self.redux_up(sigclip_embeds)))


class _AdapterLayer(torch.nn.Module):
    """A transformer layer with names as in OpenCLIP."""

    def __init__(self, width: int):
        super().__init__()
        self.attn = torch.nn.MultiheadAttention(width, max(1, width // STYLE_HEAD_WIDTH), batch_first=True)
        self.ln_1, self.ln_2 = torch.nn.LayerNorm(width), torch.nn.LayerNorm(width)
        parts = {"c_fc": torch.nn.Linear(width, 4 * width), "c_proj": torch.nn.Linear(4 * width, width)}
        self.mlp = torch.nn.ModuleDict(parts)

    def forward(self, x):
        """(B, tokens, width), and so is the result."""
        normed = self.ln_1(x)
        x = x + self.attn(normed, normed, normed, need_weights=False)[0]
        inside = self.mlp["c_fc"](self.ln_2(x))
        return x + self.mlp["c_proj"](inside * torch.sigmoid(1.702 * inside))  # the quick GELU


class StyleAdapter(torch.nn.Module):
    """The T2I style adapter: tokens of its own that look at the picture's (Mou et al. 2023)."""

    def __init__(self, width=1024, context_dim=768, n_layers=3, num_token=8):
        super().__init__()
        self.transformer_layes = torch.nn.Sequential(*[_AdapterLayer(width) for _ in range(n_layers)])
        self.style_embedding = torch.nn.Parameter(torch.empty(1, num_token, width))
        self.ln_pre, self.ln_post = torch.nn.LayerNorm(width), torch.nn.LayerNorm(width)
        self.proj = torch.nn.Parameter(torch.empty(width, context_dim))

    @classmethod
    def from_weights(cls, weights: StateDict) -> StyleAdapter:
        _, tokens, width = weights["style_embedding"].shape
        sizes = {"width": width, "num_token": tokens}
        if "proj" in weights:
            sizes["context_dim"] = weights["proj"].shape[1]
        layers = count_indices(weights, "transformer_layes.{}.")
        model = build_empty(lambda: cls(**sizes, n_layers=layers))
        load_exactly(model, {key: t.float() for key, t in weights.items()}, what="style adapter")
        return model

    @property
    def width(self) -> int:
        """Of the tokens that it takes."""
        return self.style_embedding.shape[-1]

    def forward(self, x):
        """(B, tokens, width of the vision model) -> (B, own tokens, width of the text encoder)."""
        x = x.to(self.proj)
        own = self.style_embedding.expand(len(x), -1, -1)
        x = self.transformer_layes(self.ln_pre(torch.cat([x, own], dim=1)))
        return self.ln_post(x[:, -own.shape[1] :]) @ self.proj


class StyleModel:
    """What nodes pass around as STYLE_MODEL. It works where conditioning rests between nodes."""

    def __init__(self, model, device=None):
        self.model = model
        self.load_device = comfy.model_management.intermediate_device() if device is None else device
        self.patcher = comfy.model_patcher.ModelPatcher(model, self.load_device, self.load_device)

    def get_cond(self, input):  # noqa: A002 (upstream's parameter name)
        """The tokens (B, tokens, width) for an `Output` of CLIP vision.

        Raises:
            ValueError: the picture was encoded by a model of another width.
        """
        states = input.last_hidden_state
        wanted = getattr(self.model, "width", states.shape[-1])
        if states.shape[-1] != wanted:
            raise ValueError(
                f"This style model takes tokens of {wanted} numbers, and this picture was encoded as "
                f"{states.shape[-1]}. Encode it with the CLIP vision model that it is for: SigLIP "
                "(sigclip_vision_patch14_384) for Flux Redux, CLIP ViT-L for the style adapter of SD1."
            )
        comfy.model_management.load_model_gpu(self.patcher)
        return self.model(states.to(self.load_device)).to(states.device)


@depot.keeps_resident("ckpt_path")
def load(ckpt_path) -> StyleModel:
    """The style model of a file.

    Raises:
        UnknownArchitecture: the file holds none; the message says what it holds and what to choose.
        ModelFileError: it is incomplete or of an unsupported variant.
    """
    weights = comfy.utils.load_torch_file(ckpt_path, safe_load=True)
    if "style_embedding" in weights:
        make = StyleAdapter.from_weights
    elif any(key.startswith("redux_") for key in weights):
        make = ReduxImageEncoder.from_weights
    else:
        raise UnknownArchitecture(
            f"'{ckpt_path}' holds no style model. {comfy.families.told_of_file(weights)} Choose a style "
            "model from models/style_models: flux1-redux-dev for Flux, t2iadapter_style_sd14v1 for SD1."
        )
    try:
        return StyleModel(make(weights))
    except ModelFileError as error:
        raise ModelFileError(f"'{ckpt_path}': {error}") from error
