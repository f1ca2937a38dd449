"""LoRA files on models: read once, matched with the layers of a model and its text encoders, put on clones.

What fits nothing is an error that says so; what fits in part is one line in the log.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass

import torch

import comfy.families
import comfy.lora
import comfy.utils
from comfy import lora_names
from comfy.errors import LoraMismatch
from comfy.weight_adapter import bypass
from comfy_depot import hooks as depot

_OF_TEXT_ENCODERS = ("lora_te", "text_encoder", "lycoris_text_model")


class LoraFile:
    """The tensors of a file, which stay in memory like a model's: clones share them."""

    load_device = offload_device = torch.device("cpu")

    def __init__(self, model: dict[str, torch.Tensor], metadata: dict | None, parent: LoraFile | None = None):
        self.model = model  # the name under which models in memory are asked for
        self.metadata = metadata or {}
        self.parent = parent

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """{key of the file: tensor}"""
        return self.model

    def model_size(self) -> int:
        """Bytes of the tensors."""
        return sum(tensor.nbytes for tensor in self.model.values())

    def clone(self) -> LoraFile:
        """The same tensors for another user."""
        return LoraFile(self.model, self.metadata, self)


@depot.keeps_resident("lora_path")
def read_lora(lora_path) -> LoraFile:
    """The tensors of a LoRA file; raises UnreadableModelFile for one that is damaged."""
    found, metadata = comfy.utils.load_torch_file(lora_path, safe_load=True, return_metadata=True)
    named = found.items() if isinstance(found, dict) else ()
    return LoraFile({key: tensor for key, tensor in named if torch.is_tensor(tensor)}, metadata)


@dataclass(frozen=True)
class Match:
    """How many keys of a LoRA belong to the models, and how many weights they patch."""

    total: int
    unused: tuple[str, ...]
    misfits: tuple[str, ...] = ()
    """Weights whose names the file has, in other shapes."""
    patched: int = 0

    @property
    def is_whole(self) -> bool:
        """Did everything fit?"""
        return not self.unused and not self.misfits

    def __str__(self) -> str:
        parts = [f"{self.total - len(self.unused)} of {self.total} keys name layers of the model, "
                 f"{self.patched} weights are patched."]  # fmt: skip
        if self.unused:
            parts.append(comfy.lora.describe_unused(list(self.unused), self.total))
        if self.misfits:
            first = ", ".join(self.misfits[:3]) + (", ..." if len(self.misfits) > 3 else "")
            parts.append(f"{len(self.misfits)} weights have another shape: {first}.")
        return " ".join(parts)


def apply_lora(model, clip, lora, strength_model, strength_clip, *, beside=False):
    """(MODEL, CLIP, Match): clones with the patches of a LoRA's tensors; either of the two may be None.

    A side with strength 0 gets no patches, so its weights are not touched at all. `beside`: the layers get
    them, see `comfy.weight_adapter.bypass`, not the weights.
    """
    names: lora_names.Names = {}
    if model is not None:
        names = comfy.lora.model_lora_keys_unet(model.model, names)
    if clip is not None:
        names = comfy.lora.model_lora_keys_clip(clip.cond_stage_model, names)
    patches, unused = comfy.lora.match(lora, names)
    if clip is None:
        unused = [key for key in unused if not key.startswith(_OF_TEXT_ENCODERS)]
    patched, misfits = 0, list(patches)
    clones = []
    for whole, strength in ((model, strength_model), (clip, strength_clip)):
        clone = None if whole is None else whole.clone()
        clones.append(clone)
        if clone is None:
            continue
        patcher = getattr(clone, "patcher", clone)
        fitting = _that_fit(patches, patcher.model_state_dict())
        patched += len(fitting)
        misfits = [key for key in misfits if key not in fitting]
        if strength != 0 and beside:
            bypass.add_beside(patcher, fitting, strength)
        elif strength != 0:
            clone.add_patches(fitting, strength)
    misfits = [key if isinstance(key, str) else key[0] for key in misfits]
    return (*clones, Match(len(lora), tuple(unused), tuple(misfits), patched))


def _that_fit(patches: dict, weights: dict[str, torch.Tensor]) -> dict:
    """The patches of these weights that have their shapes."""
    fitting = {}
    for place, value in patches.items():
        key, offset = (place, None) if isinstance(place, str) else place[:2]
        if key in weights:
            weight = weights[key] if offset is None else weights[key].narrow(*offset)
            fits = value.fits(weight.shape) if hasattr(value, "fits") else value[1][0].shape == weight.shape
            if fits:
                fitting[place] = value
    return fitting


def load_lora_for_models(model, clip, lora, strength_model, strength_clip, *, beside=False):
    """(MODEL, CLIP) with the LoRA's tensors as patches on clones; what does not fit is logged."""
    model, clip, found = apply_lora(model, clip, lora, strength_model, strength_clip, beside=beside)
    if not found.is_whole:
        logging.warning("LoRA: %s", found)
    return model, clip


def load_lora_file(lora_path, model, clip, strength_model, strength_clip):
    """`load_lora_for_models` for a file, which is read once.

    Raises:
        LoraMismatch: nothing in the file fits these models; the message says what the file looks like.
        UnreadableModelFile: the file is damaged.
    """
    file = read_lora(lora_path)
    patched_model, patched_clip, found = apply_lora(model, clip, file.tensors, strength_model, strength_clip)
    name = os.path.basename(lora_path)
    if found.patched == 0:
        raise LoraMismatch(_nothing_fits(name, file, found, model, clip))
    if not found.is_whole:
        is_doubtful = len(found.unused) > found.total / 2 or len(found.misfits) > found.patched
        logging.warning("LoRA '%s': %s%s", name, found, _looks_like(file) if is_doubtful else "")
    return patched_model, patched_clip


def _nothing_fits(name: str, file: LoraFile, found: Match, model, clip) -> str:
    kind = "the text encoder" if model is None else f"this model ({type(model.model.model_config).__name__})"
    if not file.tensors:
        return f"The LoRA '{name}' is empty: it holds no named tensors. Download it again."
    text = f"The LoRA '{name}' changes nothing of {kind}: {found}{_looks_like(file)}"
    if clip is None and all(key.startswith(_OF_TEXT_ENCODERS) for key in file.tensors):
        return f"The LoRA '{name}' changes text encoders only. Use the loader that takes a CLIP as well."
    if not any(key.endswith(comfy.lora.ENDINGS) for key in file.tensors):
        kind = comfy.families.kind_of_file(file.tensors)
        return f"{text} No key is one of a LoRA. {kind or 'It may be a whole model, for another loader.'}"
    return f"{text} Choose a LoRA made for this kind of model."


def _looks_like(file: LoraFile) -> str:
    shapes = {key: tuple(tensor.shape) for key, tensor in file.tensors.items()}
    family = base_model_of(shapes, file.metadata)
    return "" if family is None else f" The file looks like one for {family}."


@depot.knows_base_models
def base_model_of(shapes: dict[str, tuple[int, ...]], metadata: dict) -> str | None:
    """The family that a file's tensors and metadata are of, such as "flux1 schnell"; None where it is
    unknown, as all are without the depot.
    """
    return None
