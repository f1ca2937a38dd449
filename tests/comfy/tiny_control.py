"""Tiny control models of random weights in the layouts that users have, written apart from the readers."""

import torch
from diffusers import FluxControlNetModel, T2IAdapter

from comfy.families import control_lora, ldm_controlnet, ldm_unet, union_controlnet
from tests.comfy import tiny_flux, tiny_sd1
from tests.comfy.tiny_sd1 import randomise

# UNets with the levels of SD1.5 and of SDXL, which T2I-Adapters are made for.
SD_LEVELS = {"channel_mult": (1, 2, 2, 2), "num_res_blocks": (2,) * 4, "transformer_depth": (1, 1, 1, 0)}
XL_LEVELS = {"channel_mult": (1, 2, 2), "num_res_blocks": (2,) * 3, "transformer_depth": (0, 1, 1)}
WIDTHS = (32, 64, 64, 64)
KINDS = ("full_adapter", "full_adapter_xl", "light_adapter")


def adapter(kind: str, in_channels=3, seed=4) -> T2IAdapter:
    """The zoo's own adapter for one of the UNets above."""
    torch.manual_seed(seed)
    widths, layers = (WIDTHS[:3], 4) if kind == "light_adapter" else (WIDTHS, 2)
    return randomise(T2IAdapter(in_channels, list(widths), layers, 16 if kind.endswith("xl") else 8, kind))


def original_adapter(net: T2IAdapter) -> dict[str, torch.Tensor]:
    """Its weights under the names of the original repository."""
    is_light, out = net.config.adapter_type == "light_adapter", {}
    for key, tensor in net.state_dict().items():
        name = key.removeprefix("adapter.")
        if is_light:
            name = name.replace(".resnets.", ".body.")
        elif name.startswith("body."):
            _, level, part, *rest = name.split(".")
            row = 2 * int(level) + (int(rest.pop(0)) if part == "resnets" else 0)
            name = ".".join(["body", str(row), *([part] if part == "in_conv" else []), *rest])
        out[name] = tensor
    return out


def controlnet(seed=3, **changes) -> ldm_controlnet.LDMControlNet:
    """A ControlNet for the tiny UNet with these changes."""
    torch.manual_seed(seed)
    unet = ldm_unet.UNetShape(**{**tiny_sd1.UNET, **changes})
    return randomise(ldm_controlnet.LDMControlNet(ldm_controlnet.ControlNetShape(unet, 3, (8, 8, 16, 16))))


def original_controlnet(net, prefix="control_model.", config=tiny_sd1.UNET) -> dict[str, torch.Tensor]:
    """Its weights under the names of the original repository."""
    shape, out = ldm_unet.UNetShape(**config), {}
    blocks = {zoo: original for original, zoo in ldm_unet.module_names(shape).items()}
    inside = {zoo: original for original, zoo in ldm_unet._RESNET.items()}
    hint = ["conv_in", *(f"blocks.{n}" for n in range(6)), "conv_out"]
    for key, tensor in net.state_dict().items():
        layer, kind = key.rsplit(".", 1) if "." in key else ("", key)
        if layer.startswith("controlnet_cond_embedding."):
            name = f"input_hint_block.{2 * hint.index(layer.split('.', 1)[1])}"
        elif layer.startswith("controlnet_down_blocks."):
            name = f"zero_convs.{layer.split('.')[1]}.0"
        elif layer == "controlnet_mid_block":
            name = "middle_block_out.0"
        else:
            fitting = [zoo for zoo in blocks if layer == zoo or layer.startswith(zoo + ".")]
            block = max(fitting, key=len, default="")
            rest = layer[len(block) + 1 :] if block else layer
            rest = inside.get(rest, rest) if ".resnets." in block else rest
            name = ".".join(filter(None, [blocks.get(block), rest]))
        out[".".join(filter(None, [prefix + name, kind]))] = tensor
    return out


def union(types=6, **changes) -> union_controlnet.UnionControlNet:
    """A union ControlNet for the tiny UNet."""
    torch.manual_seed(5)
    unet = ldm_unet.UNetShape(**{**tiny_sd1.UNET, **changes})
    shape = ldm_controlnet.ControlNetShape(unet, 3, (8, 8, 16, 16))
    return randomise(union_controlnet.UnionControlNet(shape, types, width=32, layers=1))


def union_file(net, layout: str, config=tiny_sd1.UNET) -> dict[str, torch.Tensor]:
    """Its weights as files have them: torch's attention fuses q, k and v under a name of its own."""
    weights = net.state_dict() if layout == "diffusers" else original_controlnet(net, "", config)
    return {key.replace(".attn.in_proj.", ".attn.in_proj_"): tensor for key, tensor in weights.items()}


def flux_controlnet(seed=6, **changes) -> FluxControlNetModel:
    """The zoo's own ControlNet for the tiny Flux."""
    torch.manual_seed(seed)
    sizes = {
        "in_channels": 64, "num_layers": 2, "num_single_layers": 1, "attention_head_dim": tiny_flux.HEAD,
        "num_attention_heads": tiny_flux.HEADS, "joint_attention_dim": tiny_flux.CONTEXT,
        "pooled_projection_dim": tiny_flux.POOLED, "guidance_embeds": True, "axes_dims_rope": (4, 14, 14),
    }  # fmt: skip
    net = FluxControlNetModel(**{**sizes, **changes})
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1)
    return net.eval().requires_grad_(False)


def xlabs_file(seed=7, heads=tiny_flux.HEADS, head=tiny_flux.HEAD) -> dict[str, torch.Tensor]:
    """A ControlNet of Flux in XLabs' layout: two double blocks, no single ones."""
    base = tiny_flux.transformer("", depth=2, single=0, seed=seed, heads=heads, head=head)
    weights = {key: tensor for key, tensor in base.items() if not key.startswith("final_layer")}
    width = heads * head
    for name in ("controlnet_blocks.0", "controlnet_blocks.1"):
        tiny_flux._layer(weights, name, width, width)
    tiny_flux._layer(weights, "pos_embed_input", width, 64)
    for number in range(0, 15, 2):
        _conv(weights, f"input_hint_block.{number}", 16, 16 if number else 3, 3)
    return weights


def mist_file(**sizes) -> dict[str, torch.Tensor]:
    """The same in MistoLine's layout."""
    weights = {}
    for key, tensor in xlabs_file(**sizes).items():
        if key.startswith("controlnet_blocks."):
            layer, leaf = key.rsplit(".", 1)
            weights[f"{layer}.linear.{leaf}"] = tensor
        elif not key.startswith("input_hint"):
            weights[key] = tensor
    for number in range(10):
        kernel = 1 if number in (1, 8) else 3
        _conv(weights, f"input_cond_block.encoder.{2 * number}", 16, 16 if number else 3, kernel)
    return weights


def _conv(weights, name, out_width, in_width, kernel):
    weights[f"{name}.weight"] = (
        torch.randn(out_width, in_width, kernel, kernel) * (in_width * kernel**2) ** -0.5
    )
    weights[f"{name}.bias"] = 0.1 * torch.randn(out_width)


def control_lora_file(net, unet, rank=2, config=tiny_sd1.UNET):
    """(a Control-LoRA's file, the same as a whole ControlNet): on this UNet, with the rest of `net`."""
    torch.manual_seed(8)
    base, whole, kept = unet.state_dict(), {}, {}
    for key, tensor in net.state_dict().items():
        shared = base.get(key)
        if shared is None or shared.ndim < 2:
            whole[key] = kept[key] = tensor  # norms and biases are in the file, and what UNets do not have
            continue
        up = torch.randn(shared.shape[0], rank, *[1] * (shared.ndim - 2)) * 0.2
        down = torch.randn(rank, *shared.shape[1:]) * shared[0].numel() ** -0.5
        layer = key.removesuffix(".weight")
        kept[f"{layer}.up"], kept[f"{layer}.down"] = up, down
        whole[key] = shared + (up.flatten(1) @ down.flatten(1)).reshape(shared.shape)
    names = original_controlnet(_Holder(kept), "", config)
    return {**names, control_lora.MARKER: torch.zeros(1)}, whole


class _Holder:
    """Something that has a state dict."""

    def __init__(self, weights):
        self.weights = weights

    def state_dict(self):
        return self.weights
