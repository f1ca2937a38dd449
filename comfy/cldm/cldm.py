"""ControlNet (Zhang et al. 2023) with the names of its files' weights, union ControlNets among them.

ControlNets that run here are those of `comfy.controlnet`; this is the network for packs that build one.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

import comfy.ldm.modules.attention
import comfy.ops
from comfy.cldm.control_types import UNION_CONTROLNET_TYPES
from comfy.ldm.modules.diffusionmodules.openaimodel import TimestepEmbedSequential, Trunk, UNetModel
from comfy.ldm.modules.diffusionmodules.util import timestep_embedding

HINT_CHANNELS = ((16, 1), (16, 1), (32, 2), (32, 1), (96, 2), (96, 1), (256, 2))  # and the stride of each
UNION_WIDTH, UNION_HEADS, UNION_EMBEDDING = 320, 8, 256


class OptimizedAttention(nn.Module):
    """Self-attention with one matrix for q, k and v."""

    def __init__(self, c, nhead, dropout=0.0, dtype=None, device=None, operations=None):
        super().__init__()
        self.heads, self.c = nhead, c
        self.in_proj = operations.Linear(c, c * 3, bias=True, dtype=dtype, device=device)
        self.out_proj = operations.Linear(c, c, bias=True, dtype=dtype, device=device)

    def forward(self, x):
        parts = self.in_proj(x).chunk(3, dim=-1)
        return self.out_proj(comfy.ldm.modules.attention.optimized_attention(*parts, self.heads))


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x)."""

    def forward(self, x):
        return x * torch.sigmoid(1.702 * x)


class ResBlockUnionControlnet(nn.Module):
    """A transformer block over the kinds of control."""

    def __init__(self, dim, nhead, dtype=None, device=None, operations=None):
        super().__init__()
        kind = {"dtype": dtype, "device": device}
        self.attn = OptimizedAttention(dim, nhead, operations=operations, **kind)
        self.ln_1 = operations.LayerNorm(dim, **kind)
        first, last = operations.Linear(dim, dim * 4, **kind), operations.Linear(dim * 4, dim, **kind)
        self.mlp = nn.Sequential(OrderedDict(c_fc=first, gelu=QuickGELU(), c_proj=last))
        self.ln_2 = operations.LayerNorm(dim, **kind)

    def attention(self, x):
        return self.attn(x)

    def forward(self, x):
        x = x + self.attention(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class ControlAddEmbedding(nn.Module):
    """Which of the kinds of control there are, as a vector."""

    def __init__(self, in_dim, out_dim, num_control_type, dtype=None, device=None, operations=None):
        super().__init__()
        self.in_dim, self.num_control_type = in_dim, num_control_type
        self.linear_1 = operations.Linear(in_dim * num_control_type, out_dim, dtype=dtype, device=device)
        self.linear_2 = operations.Linear(out_dim, out_dim, dtype=dtype, device=device)

    def forward(self, control_type, dtype, device):
        marks = torch.zeros(self.num_control_type, device=device)
        marks[control_type] = 1.0
        told = timestep_embedding(marks, self.in_dim).to(dtype).reshape(1, -1)
        return self.linear_2(nn.functional.silu(self.linear_1(told)))


class ControlledUnetModel(UNetModel):
    """A UNet; control is an argument of every one."""


class ControlNet(Trunk):
    """The way down of a UNet with a hint added; each output passes a convolution that began as zeros."""

    def __init__(
        self, image_size, in_channels, model_channels, hint_channels, num_res_blocks, dropout=0,
        channel_mult=(1, 2, 4, 8), conv_resample=True, dims=2, num_classes=None, use_checkpoint=False,
        dtype=torch.float32, num_heads=-1, num_head_channels=-1, num_heads_upsample=-1,
        use_scale_shift_norm=False, resblock_updown=False, use_new_attention_order=False,
        use_spatial_transformer=False, transformer_depth=1, context_dim=None, n_embed=None, legacy=True,
        disable_self_attentions=None, num_attention_blocks=None, disable_middle_self_attn=False,
        use_linear_in_transformer=False, adm_in_channels=None, transformer_depth_middle=None,
        transformer_depth_output=None, attn_precision=None, union_controlnet_num_control_type=None,
        device=None, operations=comfy.ops.disable_weight_init, **kwargs,
    ):  # fmt: skip
        if not use_spatial_transformer or context_dim is None:
            raise ValueError("ControlNet needs use_spatial_transformer and a context_dim.")
        given = {**locals(), "use_temporal_resblock": False, "use_temporal_attention": False}
        super().__init__(given)
        widths = self._builder.widths
        del self._builder
        options = {"operations": operations, **self._kind}
        self.zero_convs = nn.ModuleList(self.make_zero_conv(width, **options) for width in widths)
        self.input_hint_block = self._hint_block(operations, hint_channels)
        self.middle_block_out = self.make_zero_conv(widths[-1], **options)
        self.task_embedding = self.control_add_embedding = None
        if union_controlnet_num_control_type is not None:
            self._add_union(union_controlnet_num_control_type, options)

    def _hint_block(self, operations, channels: int):
        layers = []
        for width, stride in HINT_CHANNELS:
            conv = operations.conv_nd(self.dims, channels, width, 3, padding=1, stride=stride, **self._kind)
            layers += [conv, nn.SiLU()]
            channels = width
        last = operations.conv_nd(self.dims, channels, self.model_channels, 3, padding=1, **self._kind)
        return TimestepEmbedSequential(*layers, last)

    def _add_union(self, kinds: int, options: dict) -> None:
        self.num_control_type = kinds
        self.task_embedding = nn.Parameter(torch.empty(kinds, UNION_WIDTH, **self._kind))
        self.transformer_layes = nn.Sequential(ResBlockUnionControlnet(UNION_WIDTH, UNION_HEADS, **options))
        self.spatial_ch_projs = options["operations"].Linear(UNION_WIDTH, UNION_WIDTH, **self._kind)
        width = self.model_channels * 4
        self.control_add_embedding = ControlAddEmbedding(UNION_EMBEDDING, width, kinds, **options)

    def make_zero_conv(self, channels, operations=None, dtype=None, device=None):
        conv = operations.conv_nd(self.dims, channels, channels, 1, padding=0, dtype=dtype, device=device)
        return TimestepEmbedSequential(conv)

    def union_controlnet_merge(self, hint, control_type, emb, context):
        """The hint of the first kind of control, changed by what attention over the kinds makes of it."""
        features = self.input_hint_block(hint[0], emb, context)
        task = self.task_embedding[control_type[0]].to(features)
        tokens = self.transformer_layes((features.mean(dim=(2, 3)) + task).unsqueeze(1))
        return features + self.spatial_ch_projs(tokens[:, 0])[..., None, None]

    def _union(self, hint, emb, context, control_type):
        """(embedding with the kinds of control in it, the hint; None where no kind is given)."""
        largest = max(control_type, default=0)
        if largest >= self.num_control_type:
            names = {number: name for name, number in UNION_CONTROLNET_TYPES.items()}
            raise ValueError(
                f"This ControlNet knows {self.num_control_type} kinds of control, and "
                f"{names.get(largest)} is number {largest}. Use the union ControlNet called "
                "ProMax, or another kind."
            )
        emb = emb + self.control_add_embedding(control_type, emb.dtype, emb.device)
        if not control_type:
            return emb, None
        return emb, self.union_controlnet_merge(
            hint if hint.ndim == 5 else hint[None], control_type, emb, context
        )

    def forward(self, x, hint, timesteps, context, y=None, **kwargs):
        """{"middle": [tensor], "output": a tensor per input block} for latents x and a hint in pixels."""
        emb = self.time_embed(timestep_embedding(timesteps, self.model_channels).to(x.dtype))
        guided = None
        if self.control_add_embedding is not None:
            emb, guided = self._union(hint, emb, context, kwargs.get("control_type", []))
        if guided is None:
            guided = self.input_hint_block(hint, emb, context)
        if self.num_classes is not None:
            if y is None:
                raise ValueError(
                    "This ControlNet needs vector conditioning (y): it is one for SDXL, and the model is not."
                )
            emb = emb + self.label_emb(y)
        outputs, h = [], x
        for index, (block, zero_conv) in enumerate(zip(self.input_blocks, self.zero_convs)):
            h = block(h, emb, context)
            h = h if index else h + guided
            outputs.append(zero_conv(h, emb, context))
        h = self.middle_block(h, emb, context)
        return {"middle": [self.middle_block_out(h, emb, context)], "output": outputs}
