"""One evaluation of Flux.1's transformer, block by block, with the places where packs put their patches.

`transformer_options["patches_replace"]["dit"]` replaces blocks by ("double_block", i) or ("single_block", i);
lists of "post_input" patches change the tokens before the first block; control adds to the picture's tokens.
"""

from __future__ import annotations

import torch


def to_patches(x: torch.Tensor, size: int) -> torch.Tensor:
    """(B, C, H, W) -> (B, H/size * W/size, C * size * size); sides that do not fit are continued from the
    other side."""
    height, width = x.shape[-2:]
    x = torch.nn.functional.pad(x, (0, -width % size, 0, -height % size), mode="circular")
    x = x.unflatten(3, (-1, size)).unflatten(2, (-1, size))  # (B, C, h, size, w, size)
    return x.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def from_patches(tokens: torch.Tensor, height: int, width: int, size: int) -> torch.Tensor:
    """The opposite, cut to height x width."""
    rows, columns = -(-height // size), -(-width // size)
    x = tokens.unflatten(2, (-1, size, size)).unflatten(1, (rows, columns))  # (B, h, w, C, size, size)
    return x.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)[:, :, :height, :width]


def position_ids(height: int, width: int, size: int, device, *, index=0, top=0, left=0) -> torch.Tensor:
    """(tokens, 3): index, row and column of each patch; `top` and `left` in latent pixels."""
    rows = torch.arange(-(-height // size), device=device, dtype=torch.float32) + (top + size // 2) // size
    columns = torch.arange(-(-width // size), device=device, dtype=torch.float32) + (left + size // 2) // size
    return torch.cartesian_prod(torch.tensor([float(index)], device=device), rows, columns)


def scaled_ids(ids: torch.Tensor, rope_options: dict | None) -> torch.Tensor:
    """Positions stretched and moved as `rope_options` asks: scale_y, scale_x, shift_t, shift_y, shift_x."""
    if rope_options is None:
        return ids
    scale = [1.0, rope_options.get("scale_y", 1.0), rope_options.get("scale_x", 1.0)]
    shift = [rope_options.get(name, 0.0) for name in ("shift_t", "shift_y", "shift_x")]
    return ids * ids.new_tensor(scale) + ids.new_tensor(shift)


class _Walk:
    """The state of one evaluation: what patches are told, and what control adds."""

    def __init__(self, vec, rope, mask, control, options: dict):
        self.vec, self.rope, self.mask = vec, rope, mask
        self.control = control or {}
        self.options = options
        self.replaced = options.get("patches_replace", {}).get("dit", {})

    def told(self, kind: str, index: int, total: int, **tokens) -> dict:
        self.options.update(total_blocks=total, block_type=kind, block_index=index)
        common = {"vec": self.vec, "pe": self.rope, "attn_mask": self.mask}
        return {**tokens, **common, "transformer_options": self.options}

    def run(self, kind: str, index: int, told: dict, original):
        """A block, or what stands in its place."""
        replacement = self.replaced.get((f"{kind}_block", index))
        return original(told) if replacement is None else replacement(told, {"original_block": original})

    def controlled(self, img, name: str, index: int, start: int = 0):
        """Add the residual of this block, if any, to the picture's tokens, which begin at `start`."""
        added = self.control.get(name) or ()
        added = added[index] if index < len(added) else None
        if added is None:
            return img
        room = img.shape[1] - start - added.shape[1]  # reference pictures get nothing
        return img + torch.nn.functional.pad(added.to(img), (0, 0, start, room))


def _double(block):
    def run(told: dict) -> dict:
        attention = {} if told.get("attn_mask") is None else {"attention_mask": told["attn_mask"]}
        txt, img = block(
            hidden_states=told["img"], encoder_hidden_states=told["txt"], temb=told["vec"],
            image_rotary_emb=told["pe"], joint_attention_kwargs=attention,
        )  # fmt: skip
        return {"img": img, "txt": txt}

    return run


def _single(block):
    def run(told: dict) -> dict:
        x = told["img"]
        normed, gate = block.norm(x, emb=told["vec"])
        attended = block.attn(
            hidden_states=normed, image_rotary_emb=told["pe"], attention_mask=told.get("attn_mask")
        )
        both = torch.cat([attended, block.act_mlp(block.proj_mlp(normed))], dim=2)
        x = x + gate.unsqueeze(1) * block.proj_out(both)
        return {"img": x.clip(-65504, 65504) if x.dtype == torch.float16 else x}

    return run


def modulation(model, timestep, y, guidance, dtype) -> torch.Tensor:
    """The vector (B, hidden) that steers every block; times are embedded in fp32."""
    embed = model.time_text_embed
    vec = embed.timestep_embedder(embed.time_proj(timestep.float() * 1000).to(dtype))
    if guidance is not None and hasattr(embed, "guidance_embedder"):
        vec = vec + embed.guidance_embedder(embed.time_proj(guidance.float() * 1000).to(dtype))
    width = model.config.pooled_projection_dim
    if y is None:
        y = torch.zeros(len(timestep), width, device=timestep.device)
    return vec + embed.text_embedder(y[:, :width].to(dtype))


def _tokens(model, x, ref_latents, method: str, options: dict):
    """(tokens of the picture and, behind them, of the reference pictures; their positions)."""
    if ref_latents and method == "index_timestep_zero":
        raise ValueError(
            "Flux.1 was not taught reference pictures at time zero (index_timestep_zero, which Qwen-Image "
            "Edit has). Choose another method in FluxKontextMultiReferenceLatentMethod, such as index."
        )
    size = model.patch_size
    ids = scaled_ids(position_ids(*x.shape[-2:], size, x.device), options.get("rope_options"))
    tokens, positions = [to_patches(x, size)], [ids]
    bottom = right = 0
    for index, ref in enumerate(ref_latents or (), start=1):
        height, width = ref.shape[-2:]
        if method == "index":
            place = {"index": index}
        elif method == "uxo":  # along the diagonal, beyond the picture
            rows, columns = (-(-side // size) * size for side in x.shape[-2:])
            place = {"top": rows + bottom, "left": columns + right}
            bottom, right = bottom + height, right + width
        else:  # beside or below those before, whichever keeps the whole the more square
            beside = height + bottom > width + right
            place = {"index": 1, "left": right} if beside else {"index": 1, "top": bottom}
            bottom = max(bottom, height + place.get("top", 0))
            right = max(right, width + place.get("left", 0))
        tokens.append(to_patches(ref, size))
        positions.append(position_ids(height, width, size, x.device, **place))
    return torch.cat(tokens, dim=1), torch.cat(positions)


def _for_all_heads(mask, txt, img):
    """A mask (B, tokens, tokens) as attention adds it; reference pictures, which it knows not, are seen."""
    if mask is None or mask.ndim != 3:
        return mask
    unknown = max(0, txt.shape[1] + img.shape[1] - mask.shape[-1])
    return torch.nn.functional.pad(mask, (0, unknown, 0, unknown)).unsqueeze(1).to(img.dtype)


def predict(
    model, x, timestep, context, y=None, guidance=None, *, ref_latents=None, control=None, options=None,
    attention_mask=None, ref_latents_method="offset", **_unused,
):  # fmt: skip
    """The velocity for latents x (B, C, H, W); see `FluxModel.forward`."""
    options = dict(options or {})
    img, ids = _tokens(model, x, ref_latents, ref_latents_method, options)
    img, txt = model.x_embedder(img), model.context_embedder(context)
    vec = modulation(model, timestep, y, guidance, img.dtype)
    text_ids = ids.new_zeros(txt.shape[1], 3)
    for patch in options.get("patches", {}).get("post_input", ()):
        out = patch({"img": img, "txt": txt, "img_ids": ids.unsqueeze(0), "txt_ids": text_ids.unsqueeze(0)})
        img, txt = out["img"], out["txt"]
        ids, text_ids = out["img_ids"][0], out["txt_ids"][0]
    rope = model.pos_embed(torch.cat((text_ids, ids)))
    walk = _Walk(vec, rope, _for_all_heads(attention_mask, txt, img), control, options)
    for index, block in enumerate(model.transformer_blocks):
        told = walk.told("double", index, len(model.transformer_blocks), img=img, txt=txt)
        out = walk.run("double", index, told, _double(block))
        img, txt = walk.controlled(out["img"], "input", index), out["txt"]
    text_length = txt.shape[1]
    img = torch.cat((txt, img), dim=1)
    for index, block in enumerate(model.single_transformer_blocks):
        told = walk.told("single", index, len(model.single_transformer_blocks), img=img)
        img = walk.run("single", index, told, _single(block))["img"]
        img = walk.controlled(img, "output", index, start=text_length)
    out = model.proj_out(model.norm_out(img[:, text_length:], vec))
    height, width = x.shape[-2:]
    count = -(-height // model.patch_size) * -(-width // model.patch_size)
    return from_patches(out[:, :count], height, width, model.patch_size)
