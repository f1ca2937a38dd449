# ruff: noqa: B006 - defaults like upstream's
"""The UNet of latent diffusion with the names of weights that checkpoints have (Rombach et al. 2022).

`apply_control`, `forward_timestep_embed` and `timestep_embedding` are looked up here when they are used.
"""

from __future__ import annotations

import logging

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import nn

import comfy.ops
import comfy.patcher_extension
from comfy.ldm.modules.attention import SpatialTransformer, SpatialVideoTransformer
from comfy.ldm.modules.diffusionmodules.util import AlphaBlender, avg_pool_nd, checkpoint, timestep_embedding
from comfy.ldm.util import default, exists

ops = comfy.ops.disable_weight_init


class TimestepBlock(nn.Module):
    """A layer that is told the time besides what it changes."""

    def forward(self, x, emb):
        raise NotImplementedError(f"{type(self).__name__} does not say how it uses the embedding of time.")


def forward_timestep_embed(
    ts, x, emb, context=None, transformer_options={}, output_shape=None, time_context=None,
    num_video_frames=None, image_only_indicator=None,
):  # fmt: skip
    """x through the layers of `ts`, each given what it takes.

    A "forward_timestep_embed_patch" (class, function) takes the place of layers of that class.
    """
    patches = transformer_options.get("patches", {}).get("forward_timestep_embed_patch", ())
    video = (time_context, num_video_frames, image_only_indicator)
    for layer in ts:
        function = next((function for kind, function in patches if isinstance(layer, kind)), None)
        if function is not None:
            x = function(layer, x, emb, context, transformer_options, output_shape, *video)
        elif isinstance(layer, VideoResBlock):
            x = layer(x, emb, num_video_frames, image_only_indicator)
        elif isinstance(layer, TimestepBlock):
            x = layer(x, emb)
        elif isinstance(layer, SpatialTransformer):
            frames = video if isinstance(layer, SpatialVideoTransformer) else ()
            x = layer(x, context, *frames, transformer_options)
            if "transformer_index" in transformer_options:
                transformer_options["transformer_index"] += 1
        elif isinstance(layer, Upsample):
            x = layer(x, output_shape=output_shape)
        else:
            x = layer(x)
    return x


class TimestepEmbedSequential(nn.Sequential, TimestepBlock):
    """Layers one after the other; those that take the time are given it."""

    def forward(self, *args, **kwargs):
        return forward_timestep_embed(self, *args, **kwargs)


class Upsample(nn.Module):
    """Twice the height and width, by nearest neighbour, then a convolution where asked for."""

    def __init__(
        self,
        channels,
        use_conv,
        dims=2,
        out_channels=None,
        padding=1,
        dtype=None,
        device=None,
        operations=ops,
    ):
        super().__init__()
        self.channels, self.out_channels = channels, out_channels or channels
        self.use_conv, self.dims = use_conv, dims
        if use_conv:
            self.conv = operations.conv_nd(
                dims, channels, self.out_channels, 3, padding=padding, dtype=dtype, device=device
            )

    def forward(self, x, output_shape=None):
        """`output_shape` is that of what comes next, whose sides need not be even."""
        size = [side * 2 for side in x.shape[2:]]
        if self.dims == 3:
            size[0] = x.shape[2]  # frames stay
        if output_shape is not None:
            size[-2:] = output_shape[-2:]
        x = F.interpolate(x, size=size, mode="nearest")
        return self.conv(x) if self.use_conv else x


class Downsample(nn.Module):
    """Half the height and width, by a convolution with stride or by averages."""

    def __init__(
        self,
        channels,
        use_conv,
        dims=2,
        out_channels=None,
        padding=1,
        dtype=None,
        device=None,
        operations=ops,
    ):
        super().__init__()
        self.channels, self.out_channels = channels, out_channels or channels
        self.use_conv, self.dims = use_conv, dims
        stride = (1, 2, 2) if dims == 3 else 2
        if use_conv:
            self.op = operations.conv_nd(
                dims,
                channels,
                self.out_channels,
                3,
                stride=stride,
                padding=padding,
                dtype=dtype,
                device=device,
            )
        elif self.out_channels == channels:
            self.op = avg_pool_nd(dims, kernel_size=stride, stride=stride)
        else:
            raise ValueError(
                f"Downsample without a convolution keeps its {channels} channels; set use_conv to get "
                f"{self.out_channels}."
            )

    def forward(self, x):
        return self.op(x)


class ResBlock(TimestepBlock):
    """Two convolutions around a residual connection; the time is added, or scales, between them."""

    def __init__(
        self, channels, emb_channels, dropout, out_channels=None, use_conv=False, use_scale_shift_norm=False,
        dims=2, use_checkpoint=False, up=False, down=False, kernel_size=3, exchange_temb_dims=False,
        skip_t_emb=False, dtype=None, device=None, operations=ops,
    ):  # fmt: skip
        super().__init__()
        kind = {"dtype": dtype, "device": device}
        out = out_channels or channels
        padding = [side // 2 for side in kernel_size] if isinstance(kernel_size, list) else kernel_size // 2
        self.channels, self.emb_channels, self.out_channels = channels, emb_channels, out
        self.dropout, self.use_conv, self.use_checkpoint = dropout, use_conv, use_checkpoint
        self.use_scale_shift_norm, self.skip_t_emb = use_scale_shift_norm, skip_t_emb
        self.exchange_temb_dims = exchange_temb_dims and not skip_t_emb
        self.updown = up or down

        def conv(width_in, size=kernel_size, pad=padding):
            return operations.conv_nd(dims, width_in, out, size, padding=pad, **kind)

        self.in_layers = nn.Sequential(operations.GroupNorm(32, channels, **kind), nn.SiLU(), conv(channels))
        if self.updown:
            change = Upsample if up else Downsample
            self.h_upd, self.x_upd = (change(channels, False, dims, **kind) for _ in range(2))
        else:
            self.h_upd = self.x_upd = nn.Identity()
        self.emb_layers = None
        if not skip_t_emb:
            width = 2 * out if use_scale_shift_norm else out
            self.emb_layers = nn.Sequential(nn.SiLU(), operations.Linear(emb_channels, width, **kind))
        self.out_layers = nn.Sequential(
            operations.GroupNorm(32, out, **kind), nn.SiLU(), nn.Dropout(p=dropout), conv(out)
        )
        if out == channels:
            self.skip_connection = nn.Identity()
        else:
            self.skip_connection = conv(channels) if use_conv else conv(channels, 1, 0)

    def forward(self, x, emb):
        """x (B, C, ...) with the embedding of its time emb (B, emb_channels)."""
        return checkpoint(self._forward, (x, emb), self.parameters(), self.use_checkpoint)

    def _forward(self, x, emb):
        if self.updown:
            h = self.in_layers[-1](self.h_upd(self.in_layers[:-1](x)))
            x = self.x_upd(x)
        else:
            h = self.in_layers(x)
        return self.skip_connection(x) + self._timed(h, emb)

    def _timed(self, h, emb):
        """The second half of the layers, which is told the time."""
        if self.skip_t_emb:
            return self.out_layers(h)
        told = self.emb_layers(emb).to(h.dtype)
        told = told.reshape(*told.shape, *([1] * (h.ndim - told.ndim)))
        if self.use_scale_shift_norm:
            scale, shift = told.chunk(2, dim=1)
            return self.out_layers[1:](self.out_layers[0](h) * (1 + scale) + shift)
        return self.out_layers(h + (told.movedim(1, 2) if self.exchange_temb_dims else told))


class VideoResBlock(ResBlock):
    """A ResBlock per frame, then one over frames, mixed in; x is (B * frames, C, H, W)."""

    def __init__(
        self, channels: int, emb_channels: int, dropout: float, video_kernel_size=3,
        merge_strategy: str = "fixed", merge_factor: float = 0.5, out_channels=None, use_conv: bool = False,
        use_scale_shift_norm: bool = False, dims: int = 2, use_checkpoint: bool = False, up: bool = False,
        down: bool = False, dtype=None, device=None, operations=ops,
    ):  # fmt: skip
        common = {
            "use_checkpoint": use_checkpoint,
            "dtype": dtype,
            "device": device,
            "operations": operations,
        }
        super().__init__(
            channels, emb_channels, dropout, out_channels=out_channels, use_conv=use_conv,
            use_scale_shift_norm=use_scale_shift_norm, dims=dims, up=up, down=down, **common,
        )  # fmt: skip
        width = default(out_channels, channels)
        self.time_stack = ResBlock(
            width, emb_channels, dropout, dims=3, out_channels=width, kernel_size=video_kernel_size,
            exchange_temb_dims=True, **common,
        )  # fmt: skip
        self.time_mixer = AlphaBlender(merge_factor, merge_strategy, rearrange_pattern="b t -> b 1 t 1 1")

    def forward(self, x, emb, num_video_frames: int, image_only_indicator=None):
        x = super().forward(x, emb)
        clips = x.unflatten(0, (-1, num_video_frames)).transpose(1, 2)  # (B, C, frames, H, W)
        over_frames = self.time_stack(clips, emb.unflatten(0, (-1, num_video_frames)))
        mixed = self.time_mixer(clips, over_frames, image_only_indicator=image_only_indicator)
        return mixed.transpose(1, 2).flatten(0, 1)


class Timestep(nn.Module):
    """Sinusoids of a time."""

    def __init__(self, dim):
        super().__init__()
        self.dim = dim

    def forward(self, t):
        return timestep_embedding(t, self.dim)


def apply_control(h, control, name):
    """h plus the last tensor that is left in `control[name]`; one of another shape is left out."""
    left = (control or {}).get(name)
    added = left.pop() if left else None
    if added is None or h is None:
        return h
    try:
        return h + added
    except RuntimeError:
        logging.warning("Control of shape %s does not fit activations of %s.", added.shape, h.shape)
        return h


class Trunk(nn.Module):
    """What a UNet and the control of one have in common: the way down, and the middle.

    `given` are the arguments of the constructor, with the names that `UNetModel` has.
    """

    def __init__(self, given: dict):
        super().__init__()
        num_res_blocks, channel_mult = given["num_res_blocks"], given["channel_mult"]
        if given["num_heads"] == -1 and given["num_head_channels"] == -1:
            raise ValueError(f"{type(self).__name__} needs num_heads or num_head_channels.")
        if given["context_dim"] is not None and not given["use_spatial_transformer"]:
            raise ValueError(f"{type(self).__name__} takes a context_dim only with use_spatial_transformer.")
        levels = len(channel_mult)
        blocks = [num_res_blocks] * levels if isinstance(num_res_blocks, int) else list(num_res_blocks)
        if len(blocks) != levels:
            raise ValueError(
                f"{type(self).__name__}: num_res_blocks has {len(blocks)} entries, channel_mult {levels}; "
                "give as many."
            )
        for name in (
            "in_channels", "model_channels", "dropout", "channel_mult", "conv_resample", "num_classes",
            "dims", "use_checkpoint", "dtype", "num_heads", "num_head_channels", "num_heads_upsample",
        ):  # fmt: skip
            setattr(self, name, given[name])
        if self.num_heads_upsample == -1:
            self.num_heads_upsample = self.num_heads
        self.num_res_blocks, self.predict_codebook_ids = blocks, given["n_embed"] is not None
        self.use_temporal_resblocks = given["use_temporal_resblock"]
        self._kind = {"dtype": self.dtype, "device": given["device"]}
        operations, width = given["operations"], self.model_channels * 4
        self.time_embed = self._embedding(operations, self.model_channels, width)
        if self.num_classes is not None:
            self.label_emb = self._labels(operations, given["adm_in_channels"], width)
        self._builder = _Builder(self, given)
        self._builder.build_down()

    def _embedding(self, operations, width_in: int, width: int):
        return nn.Sequential(
            operations.Linear(width_in, width, **self._kind),
            nn.SiLU(),
            operations.Linear(width, width, **self._kind),
        )

    def _labels(self, operations, adm_in_channels, width: int):
        """The embedding of a class number, of one number, or ("sequential") of a vector."""
        if isinstance(self.num_classes, int):
            return nn.Embedding(self.num_classes, width, **self._kind)
        if self.num_classes == "continuous":
            return nn.Linear(1, width)
        if self.num_classes == "sequential" and adm_in_channels is not None:
            return nn.Sequential(self._embedding(operations, adm_in_channels, width))
        raise ValueError(
            f"{type(self).__name__}: num_classes is a number, 'continuous', or 'sequential' with "
            f"adm_in_channels, not {self.num_classes!r} with {adm_in_channels}."
        )


class UNetModel(Trunk):
    """Residual blocks and transformers down to small sides, and up again with what was kept.

    `transformer_depth` and `transformer_depth_output` have an entry per residual block, in the order in which
    the blocks are numbered, the second read from its end; a number is the same for all.
    `transformer_depth_middle` -1 is a middle without transformer, -2 none.
    """

    def __init__(
        self, image_size, in_channels, model_channels, out_channels, num_res_blocks, dropout=0,
        channel_mult=(1, 2, 4, 8), conv_resample=True, dims=2, num_classes=None, use_checkpoint=False,
        dtype=torch.float32, num_heads=-1, num_head_channels=-1, num_heads_upsample=-1,
        use_scale_shift_norm=False, resblock_updown=False, use_new_attention_order=False,
        use_spatial_transformer=False, transformer_depth=1, context_dim=None, n_embed=None, legacy=True,
        disable_self_attentions=None, num_attention_blocks=None, disable_middle_self_attn=False,
        use_linear_in_transformer=False, adm_in_channels=None, transformer_depth_middle=None,
        transformer_depth_output=None, use_temporal_resblock=False, use_temporal_attention=False,
        time_context_dim=None, extra_ff_mix_layer=False, use_spatial_context=False, merge_strategy=None,
        merge_factor=0.0, video_kernel_size=None, disable_temporal_crossattention=False,
        max_ddpm_temb_period=10000, attn_precision=None, heatmap_head=False, device=None, operations=ops,
    ):  # fmt: skip
        if heatmap_head:
            raise NotImplementedError("UNetModel: the head for heatmaps of poses is not supported here.")
        super().__init__(locals())
        self.out_channels, self.default_num_video_frames = out_channels, None
        self._builder.build_up()
        del self._builder
        width = model_channels * channel_mult[0]
        self.out = nn.Sequential(
            operations.GroupNorm(32, width, **self._kind),
            nn.SiLU(),
            operations.conv_nd(dims, model_channels, out_channels, 3, padding=1, **self._kind),
        )
        if self.predict_codebook_ids:
            self.id_predictor = nn.Sequential(
                operations.GroupNorm(32, width, **self._kind),
                operations.conv_nd(dims, model_channels, n_embed, 1, **self._kind),
            )

    def forward(
        self, x, timesteps=None, context=None, y=None, control=None, transformer_options={}, **kwargs
    ):
        """The prediction for x (B, C, H, W) at times (B,), given a context (B, tokens, width) and y."""
        wrappers = comfy.patcher_extension.get_all_wrappers(
            comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, transformer_options
        )
        executor = comfy.patcher_extension.WrapperExecutor.new_class_executor(self._forward, self, wrappers)
        return executor.execute(x, timesteps, context, y, control, transformer_options, **kwargs)

    def _forward(
        self, x, timesteps=None, context=None, y=None, control=None, transformer_options={}, **kwargs
    ):
        if (y is None) != (self.num_classes is None):
            have = "needs" if y is None else "takes no"
            raise ValueError(f"This UNet {have} vector conditioning (y).")
        options = transformer_options
        options.update(original_shape=list(x.shape), transformer_index=0)
        patches = options.get("patches", {})
        emb = self.time_embed(timestep_embedding(timesteps, self.model_channels).to(x.dtype))
        for patch in patches.get("emb_patch", ()):
            emb = patch(emb, self.model_channels, options)
        if self.num_classes is not None:
            emb = emb + self.label_emb(y)
        run = _Run(emb, context, control, options, kwargs, self.default_num_video_frames)
        h = run.down(self.input_blocks, x)
        h = run.middle(self.middle_block, h, x=x, y=y, timesteps=timesteps)
        h = run.up(self.output_blocks, h).to(x.dtype)
        return self.id_predictor(h) if self.predict_codebook_ids else self.out(h)


class _Run:
    """One evaluation of a UNet: what its blocks are told, and what they keep for the other side."""

    def __init__(self, emb, context, control, options: dict, kwargs: dict, frames):
        self.emb, self.context, self.control, self.options = emb, context, control, options
        self.patches = options.get("patches", {})
        self.video = {
            "time_context": kwargs.get("time_context"),
            "num_video_frames": kwargs.get("num_video_frames", frames),
            "image_only_indicator": kwargs.get("image_only_indicator"),
        }
        self.kept: list = []

    def block(self, kind: str, number: int, layers, h, output_shape=None):
        self.options["block"] = (kind, number)
        return forward_timestep_embed(
            layers, h, self.emb, self.context, self.options, output_shape, **self.video
        )

    def down(self, blocks, h):
        for number, layers in enumerate(blocks):
            h = apply_control(self.block("input", number, layers, h), self.control, "input")
            for patch in self.patches.get("input_block_patch", ()):
                h = patch(h, self.options)
            self.kept.append(h)
            for patch in self.patches.get("input_block_patch_after_skip", ()):
                h = patch(h, self.options)
        return h

    def middle(self, layers, h, **told):
        self.options["block"] = ("middle", 0)
        if layers is not None:
            h = self.block("middle", 0, layers, h)
        h = apply_control(h, self.control, "middle")
        told.update(emb=self.emb, context=self.context, transformer_options=self.options)
        for patch in self.patches.get("middle_block_after_patch", ()):
            h = patch({"h": h, **told})["h"]
        return h

    def up(self, blocks, h):
        for number, layers in enumerate(blocks):
            self.options["block"] = ("output", number)
            skip = apply_control(self.kept.pop(), self.control, "output")
            for patch in self.patches.get("output_block_patch", ()):
                h, skip = patch(h, skip, self.options)
            if skip is not None:
                h = torch.cat([h, skip], dim=1)
            size = self.kept[-1].shape if self.kept else None
            h = self.block("output", number, layers, h, size)
        return h


class _Builder:
    """Builds the blocks of a UNet from the arguments of its constructor."""

    def __init__(self, unet: Trunk, given: dict):
        self.unet, self.given = unet, given
        self.channels, self.heads = unet.model_channels, unet.num_heads

    def _depths(self, name: str) -> list[int]:
        found = self.given[name]
        if found is None:
            found = 1
        extra = 1 if name.endswith("output") else 0
        blocks = sum(self.unet.num_res_blocks) + extra * len(self.unet.num_res_blocks)
        return [found] * blocks if isinstance(found, int) else list(found)

    def build_down(self) -> None:
        unet, given = self.unet, self.given
        first = given["operations"].conv_nd(
            given["dims"], unet.in_channels, unet.model_channels, 3, padding=1, **unet._kind
        )
        unet.input_blocks = nn.ModuleList([TimestepEmbedSequential(first)])
        self.widths = [unet.model_channels]
        self._down(self._depths("transformer_depth"))
        self._middle()

    def build_up(self) -> None:
        self.unet.output_blocks = nn.ModuleList()
        self._up(self._depths("transformer_depth_output"))

    def _down(self, depths: list[int]) -> None:
        unet, last = self.unet, len(self.unet.channel_mult) - 1
        for level, factor in enumerate(unet.channel_mult):
            for index in range(unet.num_res_blocks[level]):
                layers = [self._resnet(self.channels, factor * unet.model_channels)]
                layers += self._transformer(depths.pop(0), level, index)
                self._add(unet.input_blocks, layers)
            if level != last:
                self._add(unet.input_blocks, [self._resample(down=True)])

    def _add(self, blocks, layers: list) -> None:
        blocks.append(TimestepEmbedSequential(*layers))
        self.widths.append(self.channels)

    def _middle(self) -> None:
        depth, unet = self.given["transformer_depth_middle"], self.unet
        depth = 1 if depth is None else depth
        unet.middle_block = None
        if depth < -1:
            return
        layers = [self._resnet(self.channels, self.channels)]
        if depth >= 0:
            layers.append(self._attention(depth, self.given["disable_middle_self_attn"]))
            layers.append(self._resnet(self.channels, self.channels))
        unet.middle_block = TimestepEmbedSequential(*layers)

    def _up(self, depths: list[int]) -> None:
        unet = self.unet
        for level in reversed(range(len(unet.channel_mult))):
            for index in range(unet.num_res_blocks[level] + 1):
                width = unet.model_channels * unet.channel_mult[level]
                layers = [self._resnet(self.channels + self.widths.pop(), width)]
                layers += self._transformer(depths.pop(), level, index)
                if level and index == unet.num_res_blocks[level]:
                    layers.append(self._resample(up=True))
                unet.output_blocks.append(TimestepEmbedSequential(*layers))

    def _resnet(self, width_in: int, width_out: int, **updown):
        given, unet = self.given, self.unet
        options = {
            "channels": width_in, "out_channels": width_out, "emb_channels": unet.model_channels * 4,
            "operations": given["operations"], **updown, **unet._kind,
            **{name: given[name] for name in ("dropout", "dims", "use_checkpoint", "use_scale_shift_norm")},
        }  # fmt: skip
        self.channels = width_out
        if not unet.use_temporal_resblocks:
            return ResBlock(**options)
        video = ("merge_factor", "merge_strategy", "video_kernel_size")
        return VideoResBlock(**options, **{name: given[name] for name in video})

    def _resample(self, **updown):
        if self.given["resblock_updown"]:
            return self._resnet(self.channels, self.channels, **updown)
        change = Upsample if "up" in updown else Downsample
        return change(
            self.channels, self.unet.conv_resample, dims=self.given["dims"], out_channels=self.channels,
            operations=self.given["operations"], **self.unet._kind,
        )  # fmt: skip

    def _transformer(self, depth: int, level: int, index: int) -> list:
        given = self.given
        counts, disabled = given["num_attention_blocks"], given["disable_self_attentions"]
        if depth <= 0 or (exists(counts) and index >= counts[level]):
            return []
        return [self._attention(depth, disabled[level] if exists(disabled) else False)]

    def _attention(self, depth: int, disable_self_attn: bool):
        given, unet = self.given, self.unet
        if unet.num_head_channels != -1:
            self.heads = self.channels // unet.num_head_channels
        width = unet.num_head_channels
        if width == -1 or (given["legacy"] and given["use_spatial_transformer"]):
            width = self.channels // self.heads
        options = {
            "depth": depth, "disable_self_attn": disable_self_attn, "operations": given["operations"],
            "context_dim": given["context_dim"], "use_linear": given["use_linear_in_transformer"],
            "attn_precision": given["attn_precision"], **unet._kind,
        }  # fmt: skip
        if not given["use_temporal_attention"]:
            return SpatialTransformer(
                self.channels, self.heads, width, use_checkpoint=given["use_checkpoint"], **options
            )
        video = (
            "time_context_dim", "use_spatial_context", "merge_strategy", "merge_factor", "dropout",
            "disable_temporal_crossattention",
        )  # fmt: skip
        return SpatialVideoTransformer(
            self.channels, self.heads, width, ff_in=given["extra_ff_mix_layer"],
            checkpoint=given["use_checkpoint"], max_time_embed_period=given["max_ddpm_temb_period"],
            **options, **{name: given[name] for name in video},
        )  # fmt: skip


__all__ = [
    "AlphaBlender",
    "Downsample",
    "ResBlock",
    "SpatialTransformer",
    "SpatialVideoTransformer",
    "Timestep",
    "TimestepBlock",
    "TimestepEmbedSequential",
    "UNetModel",
    "Upsample",
    "VideoResBlock",
    "apply_control",
    "avg_pool_nd",
    "checkpoint",
    "default",
    "exists",
    "forward_timestep_embed",
    "timestep_embedding",
]
