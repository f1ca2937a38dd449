"""ControlNets of Flux.1, on the zoo's FluxControlNetModel.

Three layouts are read:

    diffusers    InstantX, Shakker (union), AliMama (inpaint): the picture goes through the VAE
    XLabs        names of the original Flux, `pos_embed_input`, `input_hint_block`: takes the picture itself
    MistoLine    like XLabs', with `input_cond_block.encoder`, and a SiLU behind each result
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from diffusers import FluxControlNetModel

import comfy.latent_formats
from comfy.control_fit import Fit
from comfy.families import flux_model
from comfy.families.base import StateDict, build_empty, count_indices, load_exactly
from comfy.families.flux_forward import modulation, position_ids, to_patches
from comfy.families.ldm_controlnet import hint_layer

PATCH = flux_model.PATCH
# The blocks of the Flux.1 that is controlled; results are repeated for them.
MAIN_DOUBLE, MAIN_SINGLE = 19, 38
MIST_WIDTH = 16
MIST_KERNELS = (3, 1, 3, 3, 3, 3, 3, 3, 1, 3)
MIST_STRIDES = (1, 1, 1, 2, 1, 2, 1, 2, 1, 1)
HINT_WIDTH = 16


@dataclass(frozen=True)
class FluxControlShape:
    """Hyper-parameters; `layout` says what the picture goes through."""

    layout: str  # "latent", "xlabs" or "mist"
    in_channels: int  # of a token, as for the others below
    hint_channels: int
    width: int
    head_width: int
    depth: int
    depth_single: int
    text_width: int
    vector_width: int
    has_guidance: bool
    modes: int | None


def is_flux_controlnet(weights: StateDict) -> bool:
    """Whether these are weights of a ControlNet of Flux in one of the three layouts."""
    own = any(f"controlnet_blocks.0.{name}" in weights for name in ("weight", "linear.weight"))
    original = (
        "double_blocks.0.img_attn.norm.key_norm.scale" in weights and "pos_embed_input.weight" in weights
    )
    zoo = (
        "controlnet_x_embedder.weight",
        "x_embedder.weight",
        "time_text_embed.text_embedder.linear_1.weight",
    )
    return own and (original or all(key in weights for key in zoo))


def layout_of(weights: StateDict) -> str:
    """Of these weights, under the names of their file."""
    if "double_blocks.0.img_attn.norm.key_norm.scale" not in weights:
        return "xlabs" if "input_hint_block.conv_in.weight" in weights else "latent"
    return "mist" if "controlnet_blocks.0.linear.weight" in weights else "xlabs"


def zoo_weights(weights: StateDict) -> dict[str, torch.Tensor]:
    """The weights of any layout under the zoo's names."""
    if "x_embedder.weight" in weights:
        return dict(weights)
    depths = [count_indices(weights, f"{kind}_blocks.{{}}.") for kind in ("double", "single")]
    names = flux_model.layers(depths[0], depths[1], "guidance_in.in_layer.weight" in weights)
    out = {}
    for key, tensor in flux_model.zoo_weights(weights, names, weights["img_in.weight"].shape[0]).items():
        layer, _, leaf = key.rpartition(".")
        layer = layer.replace("pos_embed_input", "controlnet_x_embedder")
        layer = layer.replace("single_controlnet_blocks.", "controlnet_single_blocks.")
        if layer.startswith("input_hint_block."):
            layer = "input_hint_block." + hint_layer(int(layer.split(".")[1]), 14)
        elif layer.startswith("controlnet_") and layer.endswith(".linear"):
            layer = layer[: -len("linear")] + "0"
        elif layer.startswith("input_cond_block.encoder."):
            layer = layer.replace("input_cond_block.encoder", "input_hint_block")
        out[f"{layer}.{leaf}"] = tensor
    return out


def shape_of(weights: StateDict, layout: str) -> FluxControlShape:
    """The hyper-parameters, from weights under the zoo's names."""
    width, in_channels = weights["x_embedder.weight"].shape
    modes = weights.get("controlnet_mode_embedder.weight")
    return FluxControlShape(
        layout=layout,
        in_channels=in_channels,
        hint_channels=weights["controlnet_x_embedder.weight"].shape[1],
        width=width,
        head_width=weights["transformer_blocks.0.attn.norm_q.weight"].shape[0],
        depth=count_indices(weights, "transformer_blocks.{}."),
        depth_single=count_indices(weights, "single_transformer_blocks.{}."),
        text_width=weights["context_embedder.weight"].shape[1],
        vector_width=weights["time_text_embed.text_embedder.linear_1.weight"].shape[1],
        has_guidance="time_text_embed.guidance_embedder.linear_1.weight" in weights,
        modes=None if modes is None else modes.shape[0],
    )


def _mist_encoder() -> torch.nn.Sequential:
    """From the picture to features of an eighth of its sides."""
    layers: list[torch.nn.Module] = []
    for kernel, stride in zip(MIST_KERNELS, MIST_STRIDES):
        width = MIST_WIDTH if layers else 3
        layers += [torch.nn.Conv2d(width, MIST_WIDTH, kernel, stride, padding=kernel // 2), torch.nn.SiLU()]
    return torch.nn.Sequential(*layers[:-1])


class FluxControlNet(FluxControlNetModel):
    """A few of Flux's blocks, asked with Flux's own input and with the picture."""

    device = None  # set by ModelPatcher

    def __init__(self, shape: FluxControlShape):
        super().__init__(
            in_channels=shape.in_channels,
            num_layers=shape.depth,
            num_single_layers=shape.depth_single,
            attention_head_dim=shape.head_width,
            num_attention_heads=shape.width // shape.head_width,
            joint_attention_dim=shape.text_width,
            pooled_projection_dim=shape.vector_width,
            guidance_embeds=shape.has_guidance,
            axes_dims_rope=flux_model.axes_of(shape.head_width),
            num_mode=shape.modes,
            conditioning_embedding_channels=HINT_WIDTH if shape.layout == "xlabs" else None,
        )
        self.shape = shape
        self.controlnet_x_embedder = torch.nn.Linear(shape.hint_channels, shape.width)
        if shape.layout == "mist":
            self.input_hint_block = _mist_encoder()
            for blocks in (self.controlnet_blocks, self.controlnet_single_blocks):
                for index, linear in enumerate(blocks):
                    blocks[index] = torch.nn.Sequential(linear, torch.nn.SiLU())

    @classmethod
    def from_weights(cls, weights: StateDict) -> FluxControlNet:
        """Built for these weights, of any layout, and holding them."""
        layout, weights = layout_of(weights), zoo_weights(weights)
        with warnings.catch_warnings():  # the zoo warns of a class that it uses itself
            warnings.simplefilter("ignore", FutureWarning)
            net = build_empty(lambda: cls(shape_of(weights, layout)))
        load_exactly(net, weights, what="ControlNet of Flux")
        return net

    @property
    def takes_latent(self) -> bool:
        return self.shape.layout == "latent"

    def fit(self) -> Fit:
        """The Flux models that this belongs to."""
        shape = self.shape
        return Fit.of_flux(
            latent=shape.in_channels // PATCH**2, width=shape.width, text=shape.text_width,
            vector=shape.vector_width,
        )  # fmt: skip

    def control_settings(self) -> dict:
        """What `comfy.controlnet.ControlNet` must know of this network."""
        settings: dict = {"extra_conds": ("y", "guidance")}
        if self.takes_latent:
            has_mask = self.shape.hint_channels > self.shape.in_channels
            settings.update(
                compression_ratio=1, latent_format=comfy.latent_formats.Flux(), concat_mask=has_mask
            )
        return settings

    def _repeated(self, results: list[torch.Tensor], total: int) -> list[torch.Tensor]:
        """One per block of the model: neighbours share one where latents are taken, else they go round."""
        if not results:
            return []
        times = -(-total // len(results))
        if self.takes_latent:
            return [result for result in results for _ in range(times)][:total]
        return (results * times)[:total]

    def _modes(self, txt, control_type) -> torch.Tensor:
        """The tokens of the types, to be put before those of the prompt: (B, types, width)."""
        unknown = [kind for kind in control_type if not 0 <= kind < self.shape.modes]
        if unknown:
            raise ValueError(
                f"This union ControlNet of Flux has {self.shape.modes} types of pictures, and was asked for "
                f"number {unknown[0]}. Choose another type in SetUnionControlNetType, or auto."
            )
        numbers = torch.tensor(list(control_type), device=txt.device)
        return self.controlnet_mode_embedder(numbers).to(txt).unsqueeze(0).expand(txt.shape[0], -1, -1)

    def forward(self, x, hint, timesteps, context, y=None, guidance=None, control_type=(), **_unused):
        """What Flux is to add to the picture's tokens: {"input": one per double block, "output": single}.

        Args:
            x: (B, C, H, W), the noisy latents; timesteps: (B,), 1 to 0; context: (B, tokens, width).
            hint: latents (B, C, H, W), for inpainting and a mask behind them; or (B, 3, 8H, 8W) in 0..1.
        """
        height, width = x.shape[-2:]
        if self.input_hint_block is not None:
            hint = self.input_hint_block(hint * 2.0 - 1.0)
        img = self.x_embedder(to_patches(x, PATCH)) + self.controlnet_x_embedder(to_patches(hint, PATCH))
        vec = modulation(self, timesteps, y, guidance, img.dtype)
        txt = self.context_embedder(context)
        if self.union and control_type:
            txt = torch.cat([self._modes(txt, control_type), txt], dim=1)
        ids = position_ids(height, width, PATCH, x.device)
        rope = self.pos_embed(torch.cat((ids.new_zeros(txt.shape[1], 3), ids)))
        told = {"temb": vec, "image_rotary_emb": rope}
        double, single = [], []
        for block, last in zip(self.transformer_blocks, self.controlnet_blocks, strict=True):
            txt, img = block(hidden_states=img, encoder_hidden_states=txt, **told)
            double.append(last(img))
        for block, last in zip(self.single_transformer_blocks, self.controlnet_single_blocks, strict=True):
            txt, img = block(hidden_states=img, encoder_hidden_states=txt, **told)
            single.append(last(img))
        return {
            "input": self._repeated(double, MAIN_DOUBLE), "output": self._repeated(single, MAIN_SINGLE),
        }  # fmt: skip
