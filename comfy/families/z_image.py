# ruff: noqa: B006 - defaults like upstream's; they are only read
"""Z-Image (Turbo and Base): a rectified flow transformer over one sequence of text and picture, with Qwen3-4B
and Flux's autoencoder.

Files in ComfyUI's layout (q, k and v in one matrix) and in diffusers', with the diffusion model alone or with
all parts (`model.diffusion_model.`, `text_encoders.`, `vae.`), of any size. ComfyUI's evaluation is not quite
diffusers': the text stands before the picture, and the norms of q and k have torch's own epsilon.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import ZImageTransformer2DModel

import comfy.model_base
from comfy.families import llm_text
from comfy.families.base import Family, StateDict, count_indices
from comfy.families.flux_forward import from_patches, position_ids, scaled_ids, to_patches
from comfy.families.rotary import as_matrices, rotations
from comfy.families.zoo_family import FlowConfig
from comfy.families.zoo_layers import ZooLayers, repeated
from comfy.families.zoo_model import ZooTransformer, run_patches
from comfy.supported_models_base import ClipTarget

PATCH = 2  # latent pixels per side of a token
MULTIPLE = 32  # text and picture are filled up to a multiple of so many tokens
TEXT_NAME = "qwen3_4b"
TEXT_PREFIX = f"text_encoders.{TEXT_NAME}.transformer."
TEXT_KEY = "model.layers.0.self_attn.q_norm.weight"
TEMPLATE = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"

_ENDS = {
    "x_embedder": ("all_x_embedder.2-1",),
    "final_layer.linear": ("all_final_layer.2-1.linear",),
    "final_layer.adaLN_modulation.1": ("all_final_layer.2-1.adaLN_modulation.1",),
}
_BLOCK = {
    "attention.qkv": ("attention.to_q", "attention.to_k", "attention.to_v"),
    "attention.out": "attention.to_out.0",
    "attention.q_norm": "attention.norm_q",
    "attention.k_norm": "attention.norm_k",
}


class ZImageNet(ZooTransformer, ZImageTransformer2DModel):
    """diffusers' transformer built from ComfyUI's `unet_config` and called with ComfyUI's arguments."""

    title = "Z-Image"

    def __init__(
        self, in_channels, dim, cap_feat_dim, n_layers, n_refiner_layers, n_heads, axes_dims, rope_theta,
        time_scale, dtype=None, **_unused,
    ):  # fmt: skip
        super().__init__(
            in_channels=in_channels, dim=dim, n_layers=n_layers, n_refiner_layers=n_refiner_layers,
            n_heads=n_heads, n_kv_heads=n_heads, cap_feat_dim=cap_feat_dim, axes_dims=axes_dims,
            rope_theta=rope_theta, t_scale=time_scale,
        )  # fmt: skip
        names = dict(_ENDS)
        for kind in ("noise_refiner", "context_refiner", "layers"):
            blocks = getattr(self, kind)
            names.update(repeated(len(blocks), kind, kind, _BLOCK))
            for block in blocks:
                block.attention.norm_q.eps = block.attention.norm_k.eps = None
        self.finish(dtype, ZooLayers(names))

    def predict(self, x, timestep, context, attention_mask=None, transformer_options={}, **_unused):
        """The velocity (B, C, H, W) for latents x at timestep (B,), 1 to 0; context is (B, tokens, width).

        `attention_mask` (B, tokens) is of the text's own blocks; the tokens that fill up are seen by all.
        The patches of "noise_refiner" and "double_block" see, and may change, what leaves each block.
        """
        options, (height, width) = dict(transformer_options), x.shape[-2:]
        embed = self.t_embedder  # its own forward would cast to the dtype of its weights
        time = embed.timestep_embedding((1 - timestep) * self.t_scale, embed.frequency_embedding_size)
        vec = embed.mlp(time.to(x.dtype))
        x = torch.nn.functional.pad(x, (0, -width % PATCH, 0, -height % PATCH), mode="circular")
        pixels = to_patches(x, PATCH).unflatten(2, (-1, PATCH**2)).transpose(2, 3)  # channels go last
        img = _filled(self.all_x_embedder["2-1"](pixels.flatten(2)), self.x_pad_token)
        txt = _filled(self.cap_embedder(context), self.cap_pad_token)
        length = txt.shape[1]
        if attention_mask is not None:
            room = length - attention_mask.shape[1]
            attention_mask = torch.nn.functional.pad(attention_mask.bool(), (0, room), value=True)

        ids = img.new_zeros(length + img.shape[1], 3, dtype=torch.float32)  # those that fill up keep zeros
        ids[:length, 0] = torch.arange(1, length + 1, device=x.device)
        places = position_ids(height, width, PATCH, x.device, index=length + 1)
        asked = options.get("rope_options")
        ids[length : length + len(places)] = scaled_ids(places, asked and {**asked, "shift_t": 0.0})
        rope = rotations(ids, self.axes_dims, self.rope_theta)
        common = {"vec": vec, "x": x, "transformer_options": options}
        if options.get("patches"):
            common["pe"] = as_matrices(rope[:, length:])

        for block in self.context_refiner:
            txt = block(txt, attention_mask, rope[:, :length])
        start = img
        for index, block in enumerate(self.noise_refiner):
            img = block(img, None, rope[:, length:], vec)
            told = {"img": img, "img_input": start, "txt": txt, "block_type": "noise_refiner"}
            img = run_patches("noise_refiner", {**told, **common, "block_index": index})["img"]
        both = torch.cat((txt, img), dim=1)
        options.update(total_blocks=len(self.layers), block_type="double")
        for index, block in enumerate(self.layers):
            options["block_index"] = index
            both = block(both, None, rope, vec)
            if "double_block" in options.get("patches", {}):
                told = {"img": both[:, length:], "img_input": img, "txt": both[:, :length]}
                told = run_patches("double_block", {**told, **common, "block_index": index})
                both = torch.cat((told["txt"], told["img"]), dim=1)
        out = self.all_final_layer["2-1"](both[:, length : length + len(places)], vec)
        out = out.unflatten(2, (PATCH**2, -1)).transpose(2, 3).flatten(2)
        return -from_patches(out, height, width, PATCH)


def _filled(tokens: torch.Tensor, filling: torch.Tensor) -> torch.Tensor:
    """(B, tokens, width) with `filling` (1, width) behind it, up to the next multiple of tokens."""
    count = -tokens.shape[1] % MULTIPLE
    return torch.cat((tokens, filling.to(tokens).expand(len(tokens), count, -1)), dim=1)


class ZImage(FlowConfig):
    """Names, numbers and conversions of Z-Image, Turbo and Base."""

    network, base_model = ZImageNet, comfy.model_base.Lumina2
    unet_config = {"image_model": "lumina2", "dim": 3840}
    sampling_settings = {"multiplier": 1.0, "shift": 3.0}
    memory_usage_factor = 2.0
    supported_inference_dtypes = [torch.bfloat16, torch.float32]
    context_width = "cap_feat_dim"
    text_encoder = "Qwen3-4B (CLIPLoader, type lumina2)"

    def process_unet_state_dict(self, state_dict):
        return {key: weight for key, weight in state_dict.items() if key != "norm_final.weight"}  # unused

    def clip_target(self, state_dict={}):
        return _clip_target(state_dict, TEXT_PREFIX) if TEXT_PREFIX + TEXT_KEY in state_dict else None


def _clip_target(weights: StateDict, prefix: str) -> ClipTarget:
    return llm_text.target(
        weights, prefix, llm_text.QWEN3, name=TEXT_NAME, template=TEMPLATE, layer="hidden", layer_idx=-2
    )


def text_encoders(files: Sequence[StateDict]) -> ClipTarget | None:
    """For the weights of a Qwen3 file; Gemma's, of the same type, have no such norm or more of them."""
    for weights in files:
        if TEXT_KEY in weights and "model.layers.0.pre_feedforward_layernorm.weight" not in weights:
            return _clip_target(weights, "")
    return None


def accepts(weights: StateDict, prefix: str) -> bool:
    """q, k and v together or apart, from one width; no branch for pictures as prompts."""
    attention = prefix + "layers.0.attention."
    fused = weights.get(attention + "qkv.weight")
    apart = weights.get(attention + "to_q.weight")
    width = len(weights[prefix + "cap_embedder.1.weight"])
    rows = len(fused) / 3 if fused is not None else len(apart) if apart is not None else 0
    return rows == width and prefix + "siglip_embedder.1.weight" not in weights


def config(weights: StateDict, prefix: str) -> ZImage:
    def first(*names: str) -> torch.Size:
        return next(weights[prefix + name].shape for name in names if prefix + name in weights)

    dim, text_width = first("cap_embedder.1.weight")
    (head,) = first("layers.0.attention.q_norm.weight", "layers.0.attention.norm_q.weight")
    return ZImage({
        "image_model": "lumina2", "patch_size": PATCH, "dim": dim, "cap_feat_dim": text_width,
        "in_channels": first("x_embedder.weight", "all_x_embedder.2-1.weight")[1] // PATCH**2,
        "n_layers": count_indices(weights, prefix + "layers.{}."),
        "n_refiner_layers": count_indices(weights, prefix + "noise_refiner.{}."),
        "n_heads": dim // head, "n_kv_heads": dim // head, "qk_norm": True,
        "axes_dims": [head // 4, head // 8 * 3, head // 8 * 3], "axes_lens": [1536, 512, 512],
        "rope_theta": 256.0, "ffn_dim_multiplier": 8 / 3, "z_image_modulation": True,
        "time_scale": 1000.0, "pad_tokens_multiple": MULTIPLE,
    })  # fmt: skip


FAMILY = Family(
    name="Z-Image",
    prefixes=("model.diffusion_model.", "", "diffusion_model."),
    keys=(
        "cap_embedder.1.weight",
        "t_embedder.mlp.2.weight",
        "noise_refiner.0.attention_norm1.weight",
        "context_refiner.0.attention_norm1.weight",
        "layers.0.adaLN_modulation.0.weight",  # Lumina 2's is behind an activation: ".1"
        "layers.0.feed_forward.w1.weight",
    ),
    accepts=accepts,
    config=config,
    config_classes={"ZImage": ZImage},
    text_encoders={"lumina2": text_encoders},
)
