"""One evaluation of diffusers' UNet, block by block, with the places where packs put their patches.

The blocks are numbered as in the original UNet: ("input", 0...), ("middle", 0), ("output", 0...). Patches
come in `transformer_options`: lists under "patches", replacements of attention under "patches_replace".
"""

from __future__ import annotations

import torch

import comfy.ldm.modules.attention


class PatchableAttention:
    """An attention processor of diffusers; `kind` is attn1 (self) or attn2 (cross)."""

    def __init__(self, kind: str, index: int):
        self.kind = kind
        self.index = index

    def __call__(
        self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None,
        transformer_options=None,
    ):  # fmt: skip
        options = transformer_options or {}
        patches = options.get("patches", {})
        extra = self._extra(options, attn)
        x = hidden_states  # (B, tokens, channels)
        context = x if encoder_hidden_states is None else encoder_hidden_states
        value = context
        for patch in patches.get(f"{self.kind}_patch", ()):
            x, context, value = patch(x, context, value, extra)
        q, k, v = attn.to_q(x), attn.to_k(context), attn.to_v(value)
        replacement = self._replacement(options)
        if replacement is None:
            out = attention(q, k, v, attn.heads, options)
        else:
            out = replacement(q, k, v, extra)
        out = attn.to_out[0](out)
        for patch in patches.get(f"{self.kind}_output_patch", ()):
            out = patch(out, extra)
        return out

    def _extra(self, options: dict, attn) -> dict:
        """What a patch is told: the options but the patches, and the shape of this attention."""
        extra = {key: value for key, value in options.items() if key not in ("patches", "patches_replace")}
        extra.update(n_heads=attn.heads, dim_head=attn.inner_dim // attn.heads, attn_precision=None)
        extra["block_index"] = self.index
        return extra

    def _replacement(self, options: dict):
        """The function for this block: for this transformer inside of it first, then for the whole block."""
        found = options.get("patches_replace", {}).get(self.kind)
        block = options.get("block")
        if not found or block is None:
            return None
        return found.get((*block, self.index), found.get(tuple(block)))


def attention(q, k, v, heads: int, options: dict | None = None) -> torch.Tensor:
    """(B, tokens, heads * d) each, and so is the result; the function is the one that packs may replace."""
    return comfy.ldm.modules.attention.optimized_attention(q, k, v, heads, transformer_options=options)


def install_attention(unet: torch.nn.Module) -> None:
    """Let every attention of the UNet ask for patches."""
    for part in unet.modules():
        for index, block in enumerate(getattr(part, "transformer_blocks", ())):
            block.attn1.set_processor(PatchableAttention("attn1", index))
            block.attn2.set_processor(PatchableAttention("attn2", index))
            block.fuser = _MiddlePatches(index)


class _MiddlePatches(torch.nn.Module):
    """Stands where a block of diffusers has GLIGEN's attention: after attn1, before attn2."""

    def __init__(self, index: int):
        super().__init__()
        self.index = index

    def forward(self, x, options: dict):
        for patch in options["patches"]["middle_patch"]:
            x = patch(x, {**options, "block_index": self.index})
        return x


class _Walk:
    """The state of one evaluation: the options that tell patches where they are, and what control is left."""

    def __init__(self, x, emb, context, control, options: dict):
        self.options = {**options, "original_shape": list(x.shape), "transformer_index": 0}
        self.patches = options.get("patches", {})
        self.control = {name: list(tensors) for name, tensors in (control or {}).items()}
        self.emb = emb
        self.context = context
        self.skips: list[torch.Tensor] = []

    def enter(self, kind: str, number: int) -> None:
        self.options["block"] = (kind, number)

    def controlled(self, h, name: str):
        """Add the last tensor of that name that is left."""
        left = self.control.get(name)
        added = left.pop() if left else None
        return h if added is None else (h + added).to(h.dtype)  # control may be of another precision

    def layer(self, h, block, index: int):
        """A resnet and, where the level has one, its attention."""
        h = block.resnets[index](h, self.emb)
        if getattr(block, "attentions", None) is None:
            return h
        return self.attend(h, block.attentions[index])

    def attend(self, h, transformer):
        self.options["activations_shape"] = list(h.shape)
        told = {"transformer_options": self.options}
        if self.patches.get("middle_patch"):
            told["gligen"] = {"objs": {**self.options, "patches": self.patches}}
        h = transformer(
            h, encoder_hidden_states=self.context, cross_attention_kwargs=told, return_dict=False
        )[0]
        self.options["transformer_index"] += 1
        return h

    def keep(self, h):
        """End of an input block: its result is kept for the output side."""
        h = self.controlled(h, "input")
        for patch in self.patches.get("input_block_patch", ()):
            h = patch(h, self.options)
        self.skips.append(h)
        for patch in self.patches.get("input_block_patch_after_skip", ()):
            h = patch(h, self.options)
        return h

    def joined(self, h):
        """Begin of an output block: together with what its mirror block kept."""
        skip = self.controlled(self.skips.pop(), "output")
        for patch in self.patches.get("output_block_patch", ()):
            h, skip = patch(h, skip, self.options)
        return torch.cat([h, skip], dim=1)


def predict(unet, x, timesteps, context, y=None, control=None, transformer_options=None):
    """The output of the UNet for x (B, C, H, W) at timesteps (B,) with context (B, tokens, width)."""
    options = transformer_options or {}
    emb = unet.time_embedding(unet.time_proj(timesteps).to(x.dtype))
    if y is not None:
        emb = emb + unet.add_embedding(y)
    for patch in options.get("patches", {}).get("emb_patch", ()):
        emb = patch(emb, unet.config.block_out_channels[0], options)
    walk = _Walk(x, emb, context, control, options)
    h = _down(unet, walk, x)
    walk.enter("middle", 0)
    middle = unet.mid_block
    h = middle.resnets[1](walk.attend(middle.resnets[0](h, emb), middle.attentions[0]), emb)
    h = walk.controlled(h, "middle")
    h = _up(unet, walk, h)
    return unet.conv_out(unet.conv_act(unet.conv_norm_out(h)))


def _down(unet, walk: _Walk, x):
    walk.enter("input", 0)
    h = walk.keep(unet.conv_in(x))
    number = 1
    for block in unet.down_blocks:
        for index in range(len(block.resnets)):
            walk.enter("input", number)
            h = walk.keep(walk.layer(h, block, index))
            number += 1
        if block.downsamplers is not None:
            walk.enter("input", number)
            h = walk.keep(block.downsamplers[0](h))
            number += 1
    return h


def _up(unet, walk: _Walk, h):
    number = 0
    for block in unet.up_blocks:
        for index in range(len(block.resnets)):
            walk.enter("output", number)
            h = walk.layer(walk.joined(h), block, index)
            number += 1
        if block.upsamplers is not None:  # to the size of what comes next: sides need not be even
            h = block.upsamplers[0](h, walk.skips[-1].shape[2:])
    return h
