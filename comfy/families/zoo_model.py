# ruff: noqa: B006 - defaults like upstream's; they are only read
"""A transformer of diffusers as the network of a MODEL: what every such family needs."""

from __future__ import annotations

import torch
from diffusers.models.normalization import RMSNorm

import comfy.patcher_extension
from comfy import lora_names, scaled_weights
from comfy.errors import ModelFileError
from comfy.families.base import StateDict, build_empty, load_exactly
from comfy.families.pack_attention import packs_attention
from comfy.families.zoo_layers import ZooLayers


class ZooTransformer:
    """Mixed in before a model class of diffusers:

        class Net(ZooTransformer, SomeTransformer2DModel):
            title = "Some Model"

            def __init__(self, <the names of unet_config>, dtype=None, **_unused):
                super().__init__(<the names of diffusers>)
                self.finish(dtype, ZooLayers({...}))

            def predict(self, x, timestep, context, transformer_options={}, **kwargs):
                ...

    `Net.empty` is what `BaseModel` builds. `predict` gives what the network predicts for latents x, sigmas or
    timesteps (B,) as the prediction type has them, and a context (B, tokens, width).
    """

    title = "transformer"
    file_layers = ZooLayers({})  # networks have a list of their own called `layers`
    # Set here and by ModelPatcher; diffusers' own properties could not be.
    dtype = None
    device = None

    @classmethod
    def empty(cls, device=None, operations=None, **unet_config):
        """Without memory for weights; `load_weights` brings them."""
        return build_empty(lambda: cls(**unet_config))

    def finish(self, dtype, layers: ZooLayers) -> None:
        """The end of `__init__`: the dtype that weights are kept in, and the table of the file's layers."""
        self.dtype = dtype
        self.file_layers = layers
        for part in self.modules():
            part.__class__ = _Norm if type(part) is RMSNorm else type(part)

    def _rows(self) -> dict[str, int]:
        return {key: tensor.shape[0] for key, tensor in self.state_dict().items() if tensor.ndim}

    def lora_names(self) -> lora_names.Names:
        """Which weights the layers of LoRA files are."""
        return self.file_layers.lora_names(self._rows())

    def checkpoint_weights(self, weights: StateDict) -> dict:
        """This module's weights by the names of its files."""
        return self.file_layers.to_file(weights)

    def load_weights(self, weights: StateDict) -> None:
        """Take the weights of a file, as they are named there without their prefix, or as the zoo names them.

        Raises:
            ModelFileError: a weight is missing (named as in the file), unknown or of a wrong shape.
        """
        layers = ZooLayers({}) if self.file_layers.is_zoo_layout(weights) else self.file_layers
        missing = layers.missing(weights, self.state_dict())
        if missing:
            raise ModelFileError(
                f"The diffusion model ({self.title}) in this file lacks weights ({len(missing)}): "
                f"{', '.join(missing[:4])}{', ...' if len(missing) > 4 else ''}. "
                "The file is damaged or of an unsupported variant."
            )
        renamed = layers.to_zoo(weights, self._rows())
        scaled_weights.make_room(self, renamed)
        load_exactly(self, renamed, what=f"diffusion model ({self.title})")

    def predict(self, x, timestep, context, **kwargs):
        raise NotImplementedError

    def forward(self, x, timestep, context, *args, transformer_options={}, **kwargs):
        """`predict`, through the wrappers that packs registered."""
        wrappers = comfy.patcher_extension.get_all_wrappers(
            comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, transformer_options
        )
        executor = comfy.patcher_extension.WrapperExecutor.new_class_executor(self.predict, self, wrappers)
        with packs_attention(transformer_options):
            return executor.execute(
                x, timestep, context, *args, transformer_options=transformer_options, **kwargs
            )


def run_patches(kind: str, told: dict) -> dict:
    """`told` as the patches of this kind leave it: they may give back other "img" and "txt"."""
    for patch in told["transformer_options"].get("patches", {}).get(kind, ()):
        out = patch(dict(told))
        told = {**told, **{side: out[side] for side in ("img", "txt") if side in out}}
    return told


class _Norm(RMSNorm):
    """diffusers casts what passes to the dtype of the weight, which may be fp8; here the weight is cast."""

    def forward(self, x):
        weight = None if self.weight is None else self.weight.to(x.dtype)
        return torch.nn.functional.rms_norm(x, tuple(self.dim), weight, self.eps)
