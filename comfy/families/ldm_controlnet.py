"""ControlNet for the UNet of latent diffusion (arXiv:2302.05543), on the zoo's blocks.

Two layouts of names are read: that of the original repository (`control_model.input_blocks.0.0.weight`,
`zero_convs.0.0.weight`) and that of diffusers (`controlnet_down_blocks.0.weight`). Of the UNet's
hyper-parameters any load.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import ControlNetModel
from diffusers.models.embeddings import TimestepEmbedding

from comfy.control_fit import Fit
from comfy.families.base import StateDict, build_empty, count_indices, load_exactly
from comfy.families.ldm_unet import UNetShape, module_names, shape_of, zoo_name

ORIGINAL_PREFIX = "control_model."
HINT = "controlnet_cond_embedding."
HEAD_WIDTH = 64
NO_TEXT = 1


@dataclass(frozen=True)
class ControlNetShape:
    """Hyper-parameters: those of the encoder, and of the layers that take the picture in."""

    unet: UNetShape
    hint_channels: int
    hint_widths: tuple[int, ...]


def _zoo_shape(weights: StateDict) -> UNetShape:
    """The encoder's shape, from weights under diffusers' names."""
    levels = count_indices(weights, "down_blocks.{}.")
    blocks = [f"down_blocks.{level}." for level in range(levels)]
    first = weights["conv_in.weight"]
    model_channels = first.shape[0]
    middle = "mid_block.attentions.0."
    label = weights.get("add_embedding.linear_1.weight")
    text = weights.get(middle + "transformer_blocks.0.attn2.to_k.weight")  # small ones see no text
    depths = [count_indices(weights, block + "attentions.0.transformer_blocks.{}.") for block in blocks]
    return UNetShape(
        in_channels=first.shape[1],
        out_channels=first.shape[1],
        model_channels=model_channels,
        channel_mult=tuple(
            weights[block + "resnets.0.conv1.weight"].shape[0] // model_channels for block in blocks
        ),
        num_res_blocks=tuple(count_indices(weights, block + "resnets.{}.") for block in blocks),
        transformer_depth=tuple(depths),
        transformer_depth_middle=count_indices(weights, middle + "transformer_blocks.{}."),
        context_dim=NO_TEXT if text is None else text.shape[1],
        use_linear_in_transformer=weights[middle + "proj_in.weight"].ndim == 2,
        adm_in_channels=None if label is None else label.shape[1],
    )


def hint_layer(number: int, last: int) -> str:
    """Layer `number` of the original's input_hint_block; every second one has weights."""
    if number in (0, last):
        return "conv_in" if number == 0 else "conv_out"
    return f"blocks.{number // 2 - 1}"


def _from_original(weights: StateDict) -> dict[str, torch.Tensor]:
    """The weights under diffusers' names."""
    # `shape_of` reads the output layer, which a ControlNet has not: its first layer has as many channels.
    first = weights["input_blocks.0.0.weight"]
    shape = shape_of({**weights, "out.2.weight": first.movedim(0, 1)}, "")
    return renamed(weights, module_names(shape))


def renamed(weights: StateDict, names: dict[str, str]) -> dict[str, torch.Tensor]:
    """Weights of the original under diffusers' names; `names` are those of the UNet's blocks."""
    last = max(int(key.split(".")[1]) for key in weights if key.startswith("input_hint_block."))
    out = {}
    for key, tensor in weights.items():
        block, dot, kind = key.rpartition(".")
        if block.startswith("input_hint_block."):
            block = HINT + hint_layer(int(block.split(".")[1]), last)
        elif block.startswith("zero_convs."):
            block = f"controlnet_down_blocks.{block.split('.')[1]}"
        elif block == "middle_block_out.0":
            block = "controlnet_mid_block"
        else:
            block, dot, kind = zoo_name(key, names), "", ""
        out[block + dot + kind] = tensor
    return out


def is_controlnet(weights: StateDict) -> bool:
    """Whether these are weights of a ControlNet in one of the two layouts."""
    return HINT + "conv_in.weight" in weights or any(
        prefix + "zero_convs.0.0.weight" in weights for prefix in ("", ORIGINAL_PREFIX)
    )


def zoo_weights(weights: StateDict) -> dict[str, torch.Tensor]:
    """The weights of either layout under diffusers' names."""
    inside = {
        key[len(ORIGINAL_PREFIX) :]: tensor
        for key, tensor in weights.items()
        if key.startswith(ORIGINAL_PREFIX)
    } or dict(weights)
    return _from_original(inside) if "zero_convs.0.0.weight" in inside else inside


def hint_shape(weights: StateDict) -> tuple[int, tuple[int, ...]]:
    """(channels of the picture, widths of the layers that take it in), from diffusers' names."""
    first = weights[HINT + "conv_in.weight"]
    pairs = count_indices(weights, HINT + "blocks.{}.") // 2
    widths = [first.shape[0]] + [weights[f"{HINT}blocks.{2 * n + 1}.weight"].shape[0] for n in range(pairs)]
    return first.shape[1], tuple(widths)


def controlnet_shape(weights: StateDict) -> ControlNetShape:
    """The hyper-parameters, from weights under diffusers' names."""
    return ControlNetShape(_zoo_shape(weights), *hint_shape(weights))


class LDMControlNet(ControlNetModel):
    """The encoder half of a UNet with a picture added to its input; its results go to the UNet's skips."""

    device = None  # set by ModelPatcher

    def __init__(self, shape: ControlNetShape):
        unet = shape.unet
        widths = tuple(unet.model_channels * factor for factor in unet.channel_mult)
        attended = [depth > 0 for depth in unet.transformer_depth]
        layers = [max(1, depth) for depth in unet.transformer_depth]
        if not attended[-1]:  # the zoo makes the middle as deep as the last level
            layers[-1] = unet.transformer_depth_middle
        is_newer = unet.use_linear_in_transformer  # SD2 and SDXL: heads of a width, not a number of them
        heads = tuple(max(1, width // HEAD_WIDTH) for width in widths) if is_newer else 8
        super().__init__(
            in_channels=unet.in_channels,
            conditioning_channels=shape.hint_channels,
            down_block_types=tuple("CrossAttnDownBlock2D" if on else "DownBlock2D" for on in attended),
            block_out_channels=widths,
            layers_per_block=unet.num_res_blocks[0],
            cross_attention_dim=unet.context_dim,
            transformer_layers_per_block=tuple(layers),
            attention_head_dim=heads,  # diffusers calls the number of heads so
            use_linear_projection=unet.use_linear_in_transformer,
            conditioning_embedding_out_channels=shape.hint_widths,
        )
        if unet.adm_in_channels is not None:
            self.add_embedding = TimestepEmbedding(unet.adm_in_channels, unet.model_channels * 4)
        self.shape = shape

    def fit(self) -> Fit:
        """The UNets that this belongs to."""
        unet = self.shape.unet
        return Fit.of_unet(
            widths=(unet.model_channels * factor for factor in unet.channel_mult), layers=unet.num_res_blocks,
            latent=unet.in_channels, text=None if unet.context_dim == NO_TEXT else unet.context_dim,
            vector=unet.adm_in_channels,
        )  # fmt: skip

    @classmethod
    def from_weights(cls, weights: StateDict) -> LDMControlNet:
        """Built for these weights, of either layout, and holding them."""
        weights = zoo_weights(weights)
        net = build_empty(lambda: cls(controlnet_shape(weights)))
        load_exactly(net, weights, what="ControlNet")
        return net

    def steering(self, timesteps, y, dtype, **_unused) -> torch.Tensor:
        """The vector (B, width) that steers every block."""
        emb = self.time_embedding(self.time_proj(timesteps).to(dtype))
        return emb if y is None or self.add_embedding is None else emb + self.add_embedding(y)

    def picture(self, hint, **_unused) -> torch.Tensor:
        """What the picture adds to the first layer's result: (B, C, H, W)."""
        return self.controlnet_cond_embedding(hint)

    def forward(self, x, hint, timesteps, context, y=None, **more) -> dict[str, list[torch.Tensor]]:
        """What the UNet is to add: {"middle": [one], "output": [one per skip, in the order of input blocks]}.

        Args:
            x: (B, C, H, W), the UNet's input.
            hint: (B, 3, 8H, 8W), the picture that controls, in 0..1.
            timesteps: (B,); context: (B, tokens, width); y: (B, channels) where the UNet has a vector.
        """
        emb = self.steering(timesteps, y, x.dtype, **more)
        h = self.conv_in(x) + self.picture(hint, **more)
        skips = [h]
        for block in self.down_blocks:
            words = {"encoder_hidden_states": context} if getattr(block, "has_cross_attention", False) else {}
            h, passed = block(hidden_states=h, temb=emb, **words)
            skips.extend(passed)
        h = self.mid_block(h, emb, encoder_hidden_states=context)
        controls = [zero(skip) for zero, skip in zip(self.controlnet_down_blocks, skips, strict=True)]
        return {"middle": [self.controlnet_mid_block(h)], "output": controls}
