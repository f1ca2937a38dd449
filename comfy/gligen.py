"""GLIGEN (arXiv:2301.07093): texts in boxes, as tokens that self-attention of a UNet sees.

The networks are diffusers'; a file has one gated attention for each transformer of the UNet, in the UNet's
order, and a network that makes tokens of boxes and texts.
"""

from __future__ import annotations

import re

import torch
from diffusers.models.attention import GatedSelfAttentionDense
from diffusers.models.embeddings import GLIGENTextBoundingboxProjection

import comfy.model_management
import comfy.model_patcher
import comfy.ops
from comfy.errors import ModelFileError
from comfy.families.base import build_empty, load_exactly

MAX_OBJECTS = 30
_PARTS = ("input_blocks", "middle_block", "output_blocks")
_FUSER = re.compile(r"(?P<part>input_blocks|middle_block|output_blocks)\.(?P<place>[\d.]+)\..*?fuser\.")


class Gligen(torch.nn.Module):
    """`set_position` and `set_empty` give a patch of the kind "middle_patch"."""

    def __init__(self, modules, position_net, key_dim: int):
        super().__init__()
        self.module_list = torch.nn.ModuleList(modules)
        self.position_net = position_net
        self.key_dim = key_dim
        self.max_objs = MAX_OBJECTS

    def _set_position(self, boxes, masks, positive_embeddings):
        tokens = self.position_net(boxes, masks, positive_embeddings)

        def attend(x, extra_options):
            module = self.module_list[extra_options["transformer_index"]]
            return module(x, tokens.to(device=x.device, dtype=x.dtype))

        return attend

    def set_position(self, latent_image_shape, position_params, device):
        """A patch for boxes: (embedding (1, width), height, width, y, x) each, in latent pixels.

        Raises:
            ValueError: more boxes than the model knows.
        """
        if len(position_params) > self.max_objs:
            raise ValueError(
                f"There are {len(position_params)} text boxes, and GLIGEN knows {self.max_objs}. "
                "Leave some of Apply GLIGEN Text Box out."
            )
        batch, _, rows, columns = latent_image_shape
        boxes, masks, texts = self._nothing(device)
        for number, (text, height, width, y, x) in enumerate(position_params):
            corners = (x / columns, y / rows, (x + width) / columns, (y + height) / rows)
            boxes[number] = torch.tensor(corners, device=device)
            texts[number] = text.to(texts)
            masks[number] = 1.0
        return self._set_position(*(one.expand(batch, *one.shape) for one in (boxes, masks, texts)))

    def set_empty(self, latent_image_shape, device):
        """A patch for no boxes."""
        return self.set_position(latent_image_shape, [], device)

    def _nothing(self, device):
        count, dtype = self.max_objs, self.position_net.null_position_feature.dtype
        shapes = ((count, 4), (count,), (count, self.key_dim))
        return [torch.zeros(shape, device=device, dtype=dtype) for shape in shapes]


def _groups(sd: dict) -> list[dict]:
    """The weights of each gated attention, in the order in which the UNet comes by."""
    found: dict[tuple, dict] = {}
    for key, tensor in sd.items():
        match = _FUSER.search(key)
        if match:
            place = tuple(int(number) for number in match["place"].split("."))
            group = found.setdefault((_PARTS.index(match["part"]), place), {})
            group[key[match.end() :]] = tensor
    return [found[place] for place in sorted(found)]


def _gated(weights: dict) -> GatedSelfAttentionDense:
    width, context = weights["linear.weight"].shape
    # The head width of SD1 is the UNet's: 8 heads in all of its attentions.
    module = build_empty(lambda: GatedSelfAttentionDense(width, context, 8, width // 8))
    load_exactly(module, weights, what="gated attention (GLIGEN)")
    return module


def load_gligen(sd: dict) -> Gligen:
    """The model of a file's weights.

    Raises:
        ModelFileError: it is no GLIGEN model for texts in boxes, or a weight is missing.
    """
    groups = _groups(sd)
    begin = "position_net."
    position = {key[len(begin) :]: tensor for key, tensor in sd.items() if key.startswith(begin)}
    if not groups or "null_positive_feature" not in position:
        raise ModelFileError(
            "This file is no GLIGEN model for texts in boxes: it lacks their 'fuser' and 'position_net' "
            "weights. Choose one such as gligen_sd14_textbox_pruned.safetensors."
        )
    key_dim = position["null_positive_feature"].shape[0]
    out_dim = position["linears.4.weight"].shape[0]
    net = build_empty(lambda: GLIGENTextBoundingboxProjection(key_dim, out_dim))
    load_exactly(net, position, what="position network (GLIGEN)")
    return Gligen([_gated(group) for group in groups], net, key_dim)


def patcher_of(sd: dict) -> comfy.model_patcher.ModelPatcher:
    """GLIGEN: the model, where it runs and where it rests."""
    model = comfy.ops.cast_on_use(load_gligen(sd).eval().requires_grad_(False))
    management = comfy.model_management
    return comfy.model_patcher.ModelPatcher(
        model, load_device=management.get_torch_device(), offload_device=management.unet_offload_device()
    )
