# ruff: noqa: B006 - defaults like upstream's; they are only read
"""The UNet of latent diffusion (SD1, SD2, SDXL): from the checkpoint layout to diffusers' module.

A variant is data: `UNetShape` names the hyper-parameters, `shape_of` reads them off the weights. The wrapper
takes what ComfyUI's samplers pass (x, timesteps, context, y, control, transformer_options).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

from diffusers import UNet2DConditionModel

import comfy.patcher_extension
from comfy import lora_names
from comfy.families.base import StateDict, build_empty, count_indices, load_exactly
from comfy.families.ldm_forward import install_attention, predict


@dataclass(frozen=True)
class UNetShape:
    """Hyper-parameters of a UNet, with the names that ComfyUI's `unet_config` gives them."""

    in_channels: int
    out_channels: int
    model_channels: int
    channel_mult: tuple[int, ...]
    num_res_blocks: tuple[int, ...]  # per level
    transformer_depth: tuple[int, ...]  # per level; 0 where it has no attention
    transformer_depth_middle: int
    context_dim: int
    use_linear_in_transformer: bool
    adm_in_channels: int | None

    def as_unet_config(self) -> dict:
        return asdict(self)


def _depth(weights: StateDict, block: str) -> int:
    return count_indices(weights, block + "transformer_blocks.{}.")


def _level_is_done(weights: StateDict, block: int, prefix: str) -> bool:
    return f"{prefix}input_blocks.{block}.0.op.weight" in weights


def shape_of(weights: StateDict, prefix: str) -> UNetShape:
    """Read the hyper-parameters off the shapes of the weights below `prefix`."""
    first = weights[prefix + "input_blocks.0.0.weight"]  # (model_channels, in_channels, 3, 3)
    model_channels = first.shape[0]
    multipliers: list[int] = []
    res_blocks: list[int] = []
    depths: list[int] = []
    blocks = count_indices(weights, prefix + "input_blocks.{}.")
    new_level = True
    for block in range(1, blocks):
        if _level_is_done(weights, block, prefix):
            new_level = True
            continue
        name = f"{prefix}input_blocks.{block}."
        if new_level:
            multipliers.append(weights[name + "0.out_layers.3.weight"].shape[0] // model_channels)
            res_blocks.append(0)
            depths.append(_depth(weights, name + "1."))
            new_level = False
        res_blocks[-1] += 1
    middle = prefix + "middle_block.1."
    projection = weights[middle + "proj_in.weight"]
    label = weights.get(prefix + "label_emb.0.0.weight")
    return UNetShape(
        in_channels=first.shape[1],
        out_channels=weights[prefix + "out.2.weight"].shape[0],
        model_channels=model_channels,
        channel_mult=tuple(multipliers),
        num_res_blocks=tuple(res_blocks),
        transformer_depth=tuple(depths),
        transformer_depth_middle=_depth(weights, middle),
        context_dim=weights[middle + "transformer_blocks.0.attn2.to_k.weight"].shape[1],
        use_linear_in_transformer=projection.ndim == 2,
        adm_in_channels=None if label is None else label.shape[1],
    )


_RESNET = {
    "in_layers.0": "norm1", "in_layers.2": "conv1", "emb_layers.1": "time_emb_proj", "out_layers.0": "norm2",
    "out_layers.3": "conv2", "skip_connection": "conv_shortcut",
}  # fmt: skip
_ENDS = {
    "time_embed.0": "time_embedding.linear_1", "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1", "label_emb.0.2": "add_embedding.linear_2",
    "input_blocks.0.0": "conv_in", "out.0": "conv_norm_out", "out.2": "conv_out",
    "middle_block.0": "mid_block.resnets.0", "middle_block.1": "mid_block.attentions.0",
    "middle_block.2": "mid_block.resnets.1",
}  # fmt: skip


def module_names(shape: UNetShape) -> dict[str, str]:
    """Block of the checkpoint -> block of the zoo's module; inside a block the names follow `_RESNET`."""
    names = dict(_ENDS)
    levels = len(shape.channel_mult)
    block = 1
    for level, count in enumerate(shape.num_res_blocks):
        for index in range(count):
            names[f"input_blocks.{block}.0"] = f"down_blocks.{level}.resnets.{index}"
            names[f"input_blocks.{block}.1"] = f"down_blocks.{level}.attentions.{index}"
            block += 1
        if level < levels - 1:
            names[f"input_blocks.{block}.0.op"] = f"down_blocks.{level}.downsamplers.0.conv"
            block += 1
    block = 0
    for level in range(levels):
        mirrored = levels - 1 - level
        has_attention = shape.transformer_depth[mirrored] > 0
        for index in range(shape.num_res_blocks[mirrored] + 1):
            names[f"output_blocks.{block}.0"] = f"up_blocks.{level}.resnets.{index}"
            names[f"output_blocks.{block}.1"] = f"up_blocks.{level}.attentions.{index}"
            last = index == shape.num_res_blocks[mirrored]
            if last and level < levels - 1:
                place = 2 if has_attention else 1
                names[f"output_blocks.{block}.{place}.conv"] = f"up_blocks.{level}.upsamplers.0.conv"
            block += 1
    return names


def zoo_name(key: str, names: dict[str, str]) -> str:
    """One key of the checkpoint under the zoo's name; unknown keys stay as they are."""
    parts = key.split(".")
    for length in (4, 3, 2):  # the longest block name that fits
        block, rest = ".".join(parts[:length]), ".".join(parts[length:])
        if block in names:
            for old, new in _RESNET.items():
                if rest.startswith(old + "."):
                    rest = new + rest[len(old) :]
                    break
            return f"{names[block]}.{rest}"
    return key


def checkpoint_names(keys: Iterable[str], unet_config: dict) -> dict[str, str]:
    """The zoo's name of each weight -> its name in a checkpoint."""
    return names_in_checkpoints(keys, module_names(_shape_from(unet_config)))


def names_in_checkpoints(keys: Iterable[str], modules: dict[str, str]) -> dict[str, str]:
    """`checkpoint_names` from what `module_names` gives."""
    blocks = {new: old for old, new in modules.items()}
    inside = {new: old for old, new in _RESNET.items()}
    names = {}
    for key in keys:
        parts = key.split(".")
        length = next((n for n in (5, 4, 3, 2, 1) if ".".join(parts[:n]) in blocks), 0)
        if not length:  # no part of a UNet, and refused by that name
            names[key] = key
            continue
        block, rest = ".".join(parts[:length]), parts[length:]
        if ".resnets." in block:
            rest[0] = inside.get(rest[0], rest[0])
        names[key] = ".".join([blocks[block], *rest])
    return names


def from_zoo_layout(weights: StateDict) -> StateDict:
    """A UNet's own file in diffusers' layout under the names of a checkpoint; other weights as they are."""
    if "down_blocks.0.resnets.0.norm1.weight" not in weights:
        return weights
    levels = [f"down_blocks.{level}." for level in range(count_indices(weights, "down_blocks.{}."))]
    shape = UNetShape(
        channel_mult=(1,) * len(levels),
        num_res_blocks=tuple(count_indices(weights, level + "resnets.{}.") for level in levels),
        transformer_depth=tuple(_depth(weights, level + "attentions.0.") for level in levels),
        # What names do not depend on:
        in_channels=0, out_channels=0, model_channels=0, transformer_depth_middle=0, context_dim=0,
        use_linear_in_transformer=False, adm_in_channels=None,
    )  # fmt: skip
    names = checkpoint_names(weights, shape.as_unet_config())
    return {names[key]: tensor for key, tensor in weights.items()}


class LDMUNet(UNet2DConditionModel):
    """diffusers' UNet built from ComfyUI's `unet_config` and called with ComfyUI's arguments."""

    def __init__(
        self,
        in_channels,
        model_channels,
        out_channels,
        num_res_blocks,
        channel_mult,
        transformer_depth,
        context_dim,
        num_heads=8,
        num_head_channels=-1,
        transformer_depth_middle=1,
        use_linear_in_transformer=False,
        adm_in_channels=None,
        dtype=None,
        device=None,
        operations=None,
        **_unused,
    ):
        widths = tuple(model_channels * factor for factor in channel_mult)
        attended = [depth > 0 for depth in transformer_depth]
        layers = [max(1, depth) for depth in transformer_depth]
        if not attended[-1]:  # the zoo makes the middle as deep as the last level
            layers[-1] = transformer_depth_middle
        # diffusers calls the number of heads `attention_head_dim` here.
        heads = num_heads if num_head_channels == -1 else tuple(w // num_head_channels for w in widths)
        super().__init__(
            in_channels=in_channels,
            out_channels=out_channels,
            block_out_channels=widths,
            layers_per_block=tuple(num_res_blocks),
            down_block_types=tuple("CrossAttnDownBlock2D" if on else "DownBlock2D" for on in attended),
            up_block_types=tuple("CrossAttnUpBlock2D" if on else "UpBlock2D" for on in reversed(attended)),
            transformer_layers_per_block=tuple(layers),
            cross_attention_dim=context_dim,
            attention_head_dim=heads,
            use_linear_projection=use_linear_in_transformer,
            # The vector conditioning `y`; its sizes are embedded by `comfy.model_base`.
            addition_embed_type="text_time" if adm_in_channels else None,
            addition_time_embed_dim=256 if adm_in_channels else None,
            projection_class_embeddings_input_dim=adm_in_channels,
            flip_sin_to_cos=True,
            freq_shift=0,
        )
        self.key_names = module_names(_shape_from(locals()))
        install_attention(self)

    @classmethod
    def empty(cls, device=None, **unet_config) -> LDMUNet:
        """Without memory for weights; `load_weights` brings them."""
        return build_empty(lambda: cls(**unet_config))

    def lora_names(self) -> lora_names.Names:
        """Layers of LoRA files: in the checkpoint's names and in diffusers'."""
        return lora_names.of_unet(names_in_checkpoints(self.state_dict(), self.key_names))

    def load_weights(self, weights: StateDict) -> None:
        """Take the weights of a checkpoint, as they are named there without their prefix."""
        renamed = {zoo_name(key, self.key_names): tensor for key, tensor in weights.items()}
        load_exactly(self, renamed, what="diffusion model (UNet)")

    def forward(
        self,
        x,
        timesteps=None,
        context=None,
        y=None,
        control=None,
        transformer_options={},
        **kwargs,
    ):
        """The network's prediction for x (B, C, H, W) at timesteps (B,)."""
        wrappers = comfy.patcher_extension.get_all_wrappers(
            comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, transformer_options
        )
        executor = comfy.patcher_extension.WrapperExecutor.new_class_executor(self._predict, self, wrappers)
        return executor.execute(x, timesteps, context, y, control, transformer_options, **kwargs)

    def _predict(self, x, timesteps, context, y=None, control=None, transformer_options=None, **kwargs):
        return predict(self, x, timesteps, context, y, control, transformer_options)


def _shape_from(config: dict) -> UNetShape:
    names = UNetShape.__dataclass_fields__
    return UNetShape(**{name: config[name] for name in names})
