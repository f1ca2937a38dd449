"""Tiny Flux.1 files of random weights, in the layout that ComfyUI's users have, written out key by key."""

import tokenizers
import torch
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from comfy.families import ldm_vae
from comfy.families.clip_text import CLIP_L
from tests.comfy.tiny_sd1 import randomise

HEAD, HEADS = 32, 4
WIDTH = HEAD * HEADS
POOLED, CONTEXT = 64, 96
TEXT = {**CLIP_L, "hidden_size": POOLED, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 1}  # fmt: skip
T5 = {"vocab_size": 64, "d_model": CONTEXT, "d_kv": 16, "d_ff": 160, "num_layers": 2, "num_heads": 4,
      "feed_forward_proj": "gated-gelu", "is_encoder_decoder": False, "dropout_rate": 0.0}  # fmt: skip
VAE = ldm_vae.VAEShape(
    channels=(32, 32, 64, 64), layers_per_block=1, latent_channels=16, has_quant_conv=False
)


def _layer(weights, name, out_width, in_width, bias=True):
    weights[f"{name}.weight"] = torch.randn(out_width, in_width) * in_width**-0.5
    if bias:
        weights[f"{name}.bias"] = 0.1 * torch.randn(out_width)


def _norms(weights, name, head):
    for side in ("query_norm", "key_norm"):
        weights[f"{name}.{side}.scale"] = 1 + 0.1 * torch.randn(head)


def transformer(
    prefix="model.diffusion_model.", *, guidance=True, depth=2, single=2, heads=HEADS, head=HEAD,
    in_channels=16, seed=0,
):  # fmt: skip
    """All weights of a transformer, by the names of the file."""
    torch.manual_seed(seed)
    width, weights = heads * head, {}
    _layer(weights, "img_in", width, in_channels * 4)
    _layer(weights, "txt_in", width, CONTEXT)
    embedders = {"time_in": 256, "vector_in": POOLED, **({"guidance_in": 256} if guidance else {})}
    for name, size in embedders.items():
        _layer(weights, f"{name}.in_layer", width, size)
        _layer(weights, f"{name}.out_layer", width, width)
    for i in range(depth):
        for side in ("img", "txt"):
            block = f"double_blocks.{i}.{side}"
            _layer(weights, f"{block}_mod.lin", 6 * width, width)
            _layer(weights, f"{block}_attn.qkv", 3 * width, width)
            _layer(weights, f"{block}_attn.proj", width, width)
            _norms(weights, f"{block}_attn.norm", head)
            _layer(weights, f"{block}_mlp.0", 4 * width, width)
            _layer(weights, f"{block}_mlp.2", width, 4 * width)
    for i in range(single):
        block = f"single_blocks.{i}"
        _layer(weights, f"{block}.modulation.lin", 3 * width, width)
        _layer(weights, f"{block}.linear1", 7 * width, width)
        _layer(weights, f"{block}.linear2", width, 5 * width)
        _norms(weights, f"{block}.norm", head)
    _layer(weights, "final_layer.adaLN_modulation.1", 2 * width, width)
    _layer(weights, "final_layer.linear", 64, width)
    return {prefix + key: tensor for key, tensor in weights.items()}


def clip_l(seed=1) -> CLIPTextModel:
    torch.manual_seed(seed)
    return _half(randomise(CLIPTextModel(CLIPTextConfig(**TEXT, bos_token_id=49406, eos_token_id=49407))))


def t5(seed=2) -> T5EncoderModel:
    torch.manual_seed(seed)
    return _half(randomise(T5EncoderModel(T5Config(**T5))))


def _half(model):
    for parameter in model.parameters():  # text encoders are kept in half precision
        parameter.data = parameter.data.half().float()
    return model


def clip_weights(model) -> dict[str, torch.Tensor]:
    return {f"text_model.{key}": tensor for key, tensor in model.state_dict().items()}


def t5_weights(model) -> dict[str, torch.Tensor]:
    return {key: tensor for key, tensor in model.state_dict().items() if "embed_tokens" not in key}


def vae() -> ldm_vae.LDMVAE:
    torch.manual_seed(3)
    return randomise(ldm_vae.LDMVAE(VAE))


def vae_weights(model, prefix="") -> dict[str, torch.Tensor]:
    renamed = ldm_vae.checkpoint_weights(model.state_dict())
    return {f"{prefix}{key}": tensor.contiguous() for key, tensor in renamed.items()}


def write_tokenizer(path) -> None:
    """A Unigram vocabulary like T5's: padding is 0, the end 1, the end is added to every text."""
    words = ["<pad>", "</s>", "<unk>", "▁a", "▁red", "▁cat", "▁in", "▁the", "▁rain", "▁", *"abcdefghijklmno"]
    model = tokenizers.models.Unigram([(word, -float(i)) for i, word in enumerate(words)], unk_id=2)
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    tokenizer.save(str(path))


def quantise(weights: dict[str, torch.Tensor], marker: str = "scaled_fp8"):
    """Every matrix as fp8 with a scale, as `scaled` files have them; also the weights that this means."""
    stored, meant = {marker: torch.zeros(2, dtype=torch.float8_e4m3fn)}, {}
    for key, tensor in weights.items():
        layer, _, leaf = key.rpartition(".")
        if leaf == "weight" and tensor.ndim == 2 and "shared" not in key and "relative" not in key:
            scale = (tensor.abs().max() / 448).float()
            stored[key] = (tensor / scale).to(torch.float8_e4m3fn)
            stored[f"{layer}.scale_weight"] = scale
            meant[key] = stored[key].float() * scale
        else:
            stored[key] = meant[key] = tensor
    return stored, meant
