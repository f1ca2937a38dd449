"""A model, where it runs, and the patches that this view of it has.

Many patchers can share one model: `clone()` copies the patches, never the weights. Patches are applied when
the model is brought to its device and undone, from a backup, before another clone's are applied: the base is
never left dirty.
"""

from __future__ import annotations

import collections
import copy
import logging
import time
import uuid
from dataclasses import dataclass

import torch

import comfy.lora
import comfy.model_management
import comfy.utils
from comfy import host_memory, patched_weights, placement
from comfy.cli_args import args
from comfy.patcher_extension import CallbacksMP, PatcherInjection, WrappersMP
from comfy.patcher_registries import (
    AutoPatcherEjector,
    OptionSetters,
    Registries,
    create_model_options_clone,
    set_model_options_patch_replace,
    set_model_options_post_cfg_function,
    set_model_options_pre_cfg_function,
)
from comfy.streaming import Streamer
from comfy.utils import string_to_seed

__all__ = [
    "AutoPatcherEjector", "CallbacksMP", "CoreModelPatcher", "ModelPatcher", "PatcherInjection", "WrappersMP",
    "create_model_options_clone", "get_key_weight", "set_model_options_patch_replace",
    "set_model_options_post_cfg_function", "set_model_options_pre_cfg_function", "string_to_seed",
]  # fmt: skip

Backup = collections.namedtuple("Backup", ["weight", "inplace_update"])
# What all patchers of one model must agree about is kept on the model itself.
_SHARED_STATE = {
    "device": None,
    "model_loaded_weight_memory": 0,
    "lowvram_patch_counter": 0,
    "model_lowvram": False,
    "current_weight_patches_uuid": None,
    "model_offload_buffer_memory": 0,
    "seconds_to_place": 0.0,
    "is_pinned": False,
}


def get_key_weight(model, key: str):
    """The weight of that name, and the functions to write and to convert it, where its layer has its own."""
    owner_name, _, name = key.rpartition(".")
    owner = comfy.utils.get_attr(model, owner_name) if owner_name else model
    return getattr(owner, name), getattr(owner, f"set_{name}", None), getattr(owner, f"convert_{name}", None)


class ModelPatcher(OptionSetters, Registries):
    """See the module docstring. `model` is a torch module: a BaseModel, a text encoder or a VAE."""

    def __init__(self, model, load_device, offload_device, size=0, weight_inplace_update=False):
        self.model = model
        self.load_device = load_device
        self.offload_device = offload_device
        self.size = size
        self.weight_inplace_update = weight_inplace_update
        for name, start in _SHARED_STATE.items():
            if getattr(model, name, None) is None:
                setattr(model, name, offload_device if name == "device" else start)
        self.patches: dict[str, list] = {}
        self.patches_uuid = uuid.uuid4()
        self.backup: dict[str, Backup] = {}
        self.object_patches: dict = {}
        self.object_patches_backup: dict = {}
        self.weight_wrapper_patches: dict = {}
        self.model_options: dict = {"transformer_options": {}}
        self.parent: ModelPatcher | None = None
        self.force_cast_weights = False
        self.pinned: set[str] = set()
        self.attachments: dict = {}
        self.additional_models: dict[str, list[ModelPatcher]] = {}
        self.callbacks = CallbacksMP.init_callbacks()
        self.wrappers = WrappersMP.init_wrappers()
        self.injections: dict[str, list[PatcherInjection]] = {}
        self.is_injected = False
        self.skip_injection = False
        self.hook_patches: dict = {}
        self.hook_patches_backup = None
        self.hook_backup: dict = {}
        self.cached_hook_patches: dict = {}
        self.current_hooks = None
        self.forced_hooks = None
        self.hook_mode = None
        self.is_clip = False

    # --- size, identity, clones ---

    def model_size(self) -> int:
        """Bytes of the weights."""
        if not self.size:
            self.size = comfy.model_management.module_size(self.model)
        return self.size

    def get_ram_usage(self) -> int:
        return self.model_size()

    def loaded_size(self) -> int:
        return self.model.model_loaded_weight_memory

    def lowvram_patch_counter(self) -> int:
        return self.model.lowvram_patch_counter

    def current_loaded_device(self):
        return self.model.device

    def model_dtype(self):
        return self.model.get_dtype() if hasattr(self.model, "get_dtype") else None

    def memory_required(self, input_shape):
        return self.model.memory_required(input_shape=input_shape)

    def clone(self):
        """Another patcher of the same model, with copies of all that can be registered."""
        new = self.__class__(
            self.model, self.load_device, self.offload_device, self.model_size(), self.weight_inplace_update
        )
        new.parent = self
        new.patches = {key: list(patches) for key, patches in self.patches.items()}
        new.patches_uuid = self.patches_uuid
        new.object_patches = self.object_patches.copy()
        new.weight_wrapper_patches = self.weight_wrapper_patches.copy()
        new.model_options = copy.deepcopy(self.model_options)
        # The backups belong to the model: whoever patches next must find them.
        for name in ("backup", "object_patches_backup", "hook_backup", "pinned"):
            setattr(new, name, getattr(self, name))
        for name in ("force_cast_weights", "is_injected", "skip_injection", "is_clip", "hook_mode",
        "current_hooks",
                     "forced_hooks", "hook_patches_backup"):  # fmt: skip
            setattr(new, name, getattr(self, name))
        new.attachments = {
            key: value.on_model_patcher_clone() if hasattr(value, "on_model_patcher_clone") else value
            for key, value in self.attachments.items()
        }
        new.additional_models = {
            key: [m.clone() for m in models] for key, models in self.additional_models.items()
        }
        new.callbacks = {
            kind: {k: list(v) for k, v in table.items()} for kind, table in self.callbacks.items()
        }
        new.wrappers = {kind: {k: list(v) for k, v in table.items()} for kind, table in self.wrappers.items()}
        new.injections = {key: list(injections) for key, injections in self.injections.items()}
        for callback in self.get_all_callbacks(CallbacksMP.ON_CLONE):
            callback(self, new)
        return new

    def is_clone(self, other) -> bool:
        """Do both view the same model?"""
        return getattr(other, "model", None) is self.model

    def clone_has_same_weights(self, clone) -> bool:
        """Would loading `clone` leave the weights as they are?"""
        if not self.is_clone(clone):
            return False
        names = ("hook_patches", "attachments", "additional_models", "injections")
        if any(getattr(self, name).keys() != getattr(clone, name).keys() for name in names):
            return False
        return (not self.patches and not clone.patches) or self.patches_uuid == clone.patches_uuid

    # --- patches ---

    def add_object_patch(self, name: str, obj) -> None:
        """Put `obj` in the place of the attribute `name` (dotted) of the model while this is loaded."""
        self.object_patches[name] = obj

    def get_model_object(self, name: str):
        """The attribute `name` as this patcher sees it, whichever patcher is loaded now."""
        if name in self.object_patches:
            return self.object_patches[name]
        if name in self.object_patches_backup:
            return self.object_patches_backup[name]
        return comfy.utils.get_attr(self.model, name)

    def set_model_compute_dtype(self, dtype) -> None:
        self.add_object_patch("manual_cast_dtype", dtype)
        self.force_cast_weights = self.force_cast_weights or dtype is not None
        self.patches_uuid = uuid.uuid4()

    def add_weight_wrapper(self, name: str, function) -> None:
        self.weight_wrapper_patches.setdefault(name, []).append(function)
        self.patches_uuid = uuid.uuid4()

    def add_patches(self, patches, strength_patch=1.0, strength_model=1.0) -> list:
        """Add patches by weight name and return the names that the model has.

        A key is a name, or `(name, (dim, start, length))` for a part of a weight, or that with a function.
        """
        with self.use_ejected():
            known = self.model.state_dict().keys()
        accepted = []
        for key, value in patches.items():
            name, offset, function = (key, None, None) if isinstance(key, str) else (*key, None, None)[:3]
            if name in known:
                patch = (strength_patch, value, strength_model, offset, function)
                self.patches[name] = [*self.patches.get(name, []), patch]
                accepted.append(key)
        self.patches_uuid = uuid.uuid4()
        return accepted

    def get_key_patches(self, filter_prefix=None) -> dict:
        """Per weight: the unpatched weight with its conversion, then this patcher's patches."""
        found = {}
        for key in self.model_state_dict(filter_prefix):
            weight, _, convert = get_key_weight(self.model, key)
            if key in self.backup:
                weight = self.backup[key].weight
            found[key] = [(weight, convert or _unchanged), *self.patches.get(key, [])]
        return found

    def model_state_dict(self, filter_prefix=None) -> dict:
        with self.use_ejected():
            weights = self.model.state_dict()
        return {
            key: w for key, w in weights.items() if filter_prefix is None or key.startswith(filter_prefix)
        }

    def calculate_weight(self, patches, weight, key, intermediate_dtype=torch.float32):
        return comfy.lora.calculate_weight(patches, weight, key, intermediate_dtype=intermediate_dtype)

    def patch_weight_to_device(self, key, device_to=None, inplace_update=False) -> None:
        """Replace one weight by its patched version."""
        if key not in self.patches:
            return
        weight, set_weight, convert = get_key_weight(self.model, key)
        inplace_update = self.weight_inplace_update or inplace_update
        if key not in self.backup:
            self.backup[key] = Backup(self._original(key, weight, inplace_update), inplace_update)
        dtype = comfy.model_management.lora_compute_dtype(device_to)
        working = comfy.model_management.cast_to(weight, dtype, device_to or weight.device, copy=True)
        if convert is not None:
            working = convert(working, inplace=True)
        patched = comfy.lora.calculate_weight(self.patches[key], working, key)
        if set_weight is not None:
            set_weight(patched, inplace_update=inplace_update, seed=string_to_seed(key))
        elif inplace_update:
            comfy.utils.copy_to_param(self.model, key, patched.to(weight.dtype))
        else:
            comfy.utils.set_attr_param(self.model, key, patched.to(weight.dtype))

    def _original(self, key: str, weight: torch.Tensor, is_overwritten: bool) -> torch.Tensor:
        """What to put back when the patches are undone; nothing is copied where host memory has it."""
        kept = self.model.__dict__.get("weights_in_host_memory", {}).get(key)
        if kept is not None and self.offload_device.type == "cpu" and kept.dtype == weight.dtype:
            return kept
        return weight.to(device=self.offload_device, copy=is_overwritten)

    # --- loading ---

    def patch_model(
        self, device_to=None, lowvram_model_memory=0, load_weights=True, force_patch_weights=False
    ):
        """Apply object patches and, with `load_weights`, bring the patched weights to `device_to`."""
        with self.use_ejected():
            for name, value in self.object_patches.items():
                previous = comfy.utils.set_attr(self.model, name, value)
                self.object_patches_backup.setdefault(name, previous)
            if load_weights:
                self.load(
                    device_to, lowvram_model_memory, force_patch_weights, full_load=lowvram_model_memory == 0
                )
        self.inject_model()
        return self.model

    def load(
        self, device_to=None, lowvram_model_memory=0, force_patch_weights=False, full_load=False
    ) -> None:
        """Bring weights to `device_to`, so many bytes (all for 0), and patch those that have patches.

        What does not come is streamed from host memory while the model runs.
        """
        started = time.perf_counter()
        if device_to is not None:
            is_partial = lowvram_model_memory > 0 and not full_load
            self._place(torch.device(device_to), int(lowvram_model_memory) if is_partial else None)
        streamed = self.model.__dict__.get("streamed_weights", ())
        if self.model.current_weight_patches_uuid != self.patches_uuid:
            self._patch_weights(device_to, streamed)
        self.model.lowvram_patch_counter = sum(key in streamed for key in self.patches)
        self.model.current_weight_patches_uuid = self.patches_uuid
        self.model.seconds_to_place = time.perf_counter() - started
        for callback in self.get_all_callbacks(CallbacksMP.ON_LOAD):
            callback(self, device_to, lowvram_model_memory, force_patch_weights, full_load)

    def _patch_weights(self, device_to, streamed) -> None:
        """Patch the weights that have patches, or put back what was patched before."""
        identity = patched_weights.identity_of(self.patches)
        before = patched_weights.take(self.model, identity)
        put_back = 0
        for key in self.patches:
            if key in before and key not in self.backup:
                weight = _replace_tensor(self.model, key, before[key])
                if weight.device == before[key].device:
                    self.backup[key] = Backup(self._original(key, weight, False), False)
                    put_back += 1
                    continue
                _replace_tensor(self.model, key, weight)
            self.patch_weight_to_device(key, device_to)
            if key in streamed:
                self._bring_home([key])
        patched_weights.count(computed=len(self.patches) - put_back, put_back=put_back)
        self.model.patched_with = identity

    def _undo_patches(self, is_kept: bool) -> None:
        """Put the unpatched weights back, and keep the patched ones or let go of all that were kept."""
        identity = self.model.__dict__.pop("patched_with", None)
        patched = {}
        for key, saved in self.backup.items():
            if saved.inplace_update:
                comfy.utils.copy_to_param(self.model, key, saved.weight)
            else:
                patched[key] = _replace_tensor(self.model, key, saved.weight)
        if not is_kept:
            patched_weights.release(self.model)
        elif identity is not None and len(patched) == len(self.backup):
            patched_weights.keep(self.model, identity, patched)
        self.backup.clear()

    def _place(self, device: torch.device, budget: int | None) -> None:
        """Have so many bytes of the weights on `device` (None: all) and the others streamed to it."""
        self._stop_streaming()
        size = self.model_size()
        layers = [] if budget is None or budget >= size else _layers_to_stream(self.model)
        budget = size if budget is None else budget - (size - sum(layer.size for layer in layers))
        resident = placement.choose_resident([(layer.name, layer.size) for layer in layers], budget)
        streamed = [layer for layer in layers if layer.name not in resident]
        names = {name for layer in streamed for name in layer.weights}
        if names:
            self._bring_home([name for name, tensor in _own_tensors(self.model)
                              if name in names and tensor.device.type != "cpu"])
            self._lock_pages(names, device)
            ahead = 0 if args.disable_async_offload else max(1, args.async_offload or 1)
            self.model.streamer = Streamer([layer.module for layer in streamed], device, layers_ahead=ahead)
        self._move_weights(device, stay=names)
        self.model.streamed_weights = names
        self.model.model_lowvram = bool(names)
        self.model.model_loaded_weight_memory = size - sum(layer.size for layer in streamed)

    def rest(self) -> None:
        """Give back what streaming holds on the device between two runs."""
        if self.model.model_lowvram:
            self.model.streamer.rest()

    def _stop_streaming(self) -> None:
        streamer = self.model.__dict__.pop("streamer", None)
        if streamer is not None:
            streamer.close()
        self.model.streamed_weights = set()

    def _bring_home(self, names) -> None:
        """Move these weights, patched or not, to host memory."""
        kept = self.model.__dict__.setdefault("weights_in_host_memory", {})
        tensors = {name: comfy.utils.get_attr(self.model, name) for name in names}
        tensors = {name: tensor for name, tensor in tensors.items() if tensor.device.type != "cpu"}
        here = {name: kept[name] for name in tensors if name in kept and name not in self.backup}
        moved = host_memory.to_host({name: tensor for name, tensor in tensors.items() if name not in here})
        for name, tensor in {**here, **moved}.items():
            _replace_tensor(self.model, name, tensor)

    def _lock_pages(self, names, device: torch.device) -> None:
        """Let the device take these weights at the bus's speed."""
        tensors = {name: comfy.utils.get_attr(self.model, name) for name in names}
        for name, tensor in host_memory.lock_pages(tensors, device).items():
            if tensor is not tensors[name]:
                _replace_tensor(self.model, name, tensor)

    def _move_weights(self, device: torch.device, stay=frozenset()) -> None:
        """Move the weights but those that `stay`.

        Those in host memory stay there as well, so that moving back copies nothing: weights of a safetensors
        file are mapped, not read, and keeping them costs address space, not memory.
        """
        kept = self.model.__dict__.setdefault("weights_in_host_memory", {})
        moving = {name: tensor for name, tensor in _own_tensors(self.model)
                  if tensor.device != device and name not in stay}
        if device.type == "cpu":
            back = {name: kept[name] for name, tensor in moving.items() if _is_kept(kept.get(name), tensor)}
            copied = host_memory.to_host({n: tensor for n, tensor in moving.items() if n not in back})
            kept.clear()
            moved = {**back, **copied}
        else:
            if self.offload_device.type == "cpu":
                kept.update({name: tensor for name, tensor in moving.items()
                             if tensor.device.type == "cpu" and name not in self.backup})
            moved = host_memory.to_device(moving, device)
        for name, tensor in moved.items():
            _replace_tensor(self.model, name, tensor)
        self.model.device = device

    def unpatch_model(self, device_to=None, unpatch_weights=True) -> None:
        """Undo what `patch_model` did; with `device_to` the weights go there."""
        self.eject_model()
        if unpatch_weights:
            self._undo_patches(is_kept=device_to is None)
            self.model.current_weight_patches_uuid = None
            if device_to is not None:
                self._stop_streaming()
                self._move_weights(torch.device(device_to))
                self.model.model_lowvram = False
                self.model.model_loaded_weight_memory = 0
        for name, value in self.object_patches_backup.items():
            comfy.utils.set_attr(self.model, name, value)
        self.object_patches_backup.clear()

    def partially_load(self, device_to, extra_memory=0, force_patch_weights=False) -> int:
        """Make this patcher the loaded one and let up to `extra_memory` more bytes of it come to the device.

        Returns the bytes that came. What is left in host memory is streamed while the model runs.
        """
        with self.use_ejected(skip_and_inject_on_exit_only=True):
            self._recognise_weights()
            loaded_as = self.model.current_weight_patches_uuid
            other_weights = loaded_as is not None and (loaded_as != self.patches_uuid or force_patch_weights)
            self.unpatch_model(unpatch_weights=other_weights)
            self.patch_model(load_weights=False)
            is_here = self.model.device == device_to
            before = self.model.model_loaded_weight_memory if is_here else 0
            is_placed = is_here and (before > 0 or self.model.model_lowvram)
            grows = before < self.model_size() and extra_memory > 0
            if is_placed and not grows and self.model.current_weight_patches_uuid == self.patches_uuid:
                return 0
            self._load_or_detach(device_to, before + extra_memory, force_patch_weights)
            return max(0, self.model.model_loaded_weight_memory - before)

    def _recognise_weights(self) -> None:
        """If another patcher applied the same patches, as of a LoRA that is loaded twice, they are ours."""
        shared = self.model
        if shared.current_weight_patches_uuid in (None, self.patches_uuid):
            return
        if shared.__dict__.get("patched_with") == patched_weights.identity_of(self.patches):
            shared.current_weight_patches_uuid = self.patches_uuid

    def _load_or_detach(self, device_to, bytes_there: float, force_patch_weights: bool) -> None:
        try:
            self.load(
                device_to, min(max(1, bytes_there), self.model_size()), force_patch_weights,
                full_load=bytes_there >= self.model_size(),
            )  # fmt: skip
        except BaseException:
            logging.warning("%s could not be loaded on %s.", type(self.model).__name__, device_to)
            self.detach()
            raise

    def partially_unload(self, device_to, memory_to_free=0, force_patch_weights=False) -> int:
        """Move about `memory_to_free` bytes to host memory, from where they are streamed; returns how many.
        """
        before = self.model.model_loaded_weight_memory
        if memory_to_free <= 0 or before == 0 or torch.device(device_to) == self.model.device:
            return 0
        self._place(torch.device(self.model.device), max(1, int(before - memory_to_free)))
        return before - self.model.model_loaded_weight_memory

    def detach(self, unpatch_all=True):
        """Take the model off its device."""
        self.eject_model()
        self.model_patches_to(self.offload_device)
        if unpatch_all:
            self.unpatch_model(self.offload_device, unpatch_weights=True)
        for callback in self.get_all_callbacks(CallbacksMP.ON_DETACH):
            callback(self, unpatch_all)
        return self.model

    # --- around a run ---

    def pre_run(self) -> None:
        if hasattr(self.model, "current_patcher"):
            self.model.current_patcher = self
        for callback in self.get_all_callbacks(CallbacksMP.ON_PRE_RUN):
            callback(self)

    def prepare_state(self, timestep) -> None:
        for callback in self.get_all_callbacks(CallbacksMP.ON_PREPARE_STATE):
            callback(self, timestep)

    def cleanup(self) -> None:
        if hasattr(self.model, "current_patcher"):
            self.model.current_patcher = None
        for callback in self.get_all_callbacks(CallbacksMP.ON_CLEANUP):
            callback(self)


# The name under which newer packs look for the plain patcher.
CoreModelPatcher = ModelPatcher


def _unchanged(weight, **_options):
    return weight


@dataclass(frozen=True)
class _Layer:
    """A layer whose weights nobody but itself uses, while it computes."""

    name: str
    module: torch.nn.Module
    weights: tuple[str, ...]
    """Their names in the model."""
    size: int


def _layers_to_stream(model: torch.nn.Module) -> list[_Layer]:
    """The layers without layers inside; buffers, and the weights of others, stay on the device."""
    attentions = [module for module in model.modules() if isinstance(module, torch.nn.MultiheadAttention)]
    read_from_outside = {part for attention in attentions for part in attention.modules()}
    layers = []
    for name, module in model.named_modules():
        weights = {key: tensor for key, tensor in module._parameters.items() if tensor is not None}
        if weights and not module._modules and module not in read_from_outside:
            names = tuple(f"{name}.{key}" if name else key for key in weights)
            layers.append(_Layer(name, module, names, sum(t.nbytes for t in weights.values())))
    return layers


def _is_kept(kept: torch.Tensor | None, tensor: torch.Tensor) -> bool:
    """Is this host copy all that must be kept? Where page-locked memory helps, a mapped file is not."""
    if kept is None or kept.dtype != tensor.dtype:
        return False
    return kept.is_pinned() or not host_memory.locks_pages(tensor.device)


def _own_tensors(module: torch.nn.Module):
    """(dotted name, tensor) of every parameter and buffer, also the buffers that are not saved."""
    waiting, seen = [("", module)], set()
    while waiting:  # a recursive generator takes four times as long, and a switch comes through here
        prefix, part = waiting.pop()
        if part in seen:
            continue
        seen.add(part)
        for name, tensor in (*part._parameters.items(), *part._buffers.items()):
            if tensor is not None:
                yield prefix + name, tensor
        waiting += [(f"{prefix}{name}.", inner) for name, inner in reversed(part._modules.items())
                    if inner is not None]


def _replace_tensor(model: torch.nn.Module, key: str, tensor: torch.Tensor) -> torch.Tensor:
    """Put a tensor in the place of a parameter or buffer; returns what was there."""
    owner_name, _, name = key.rpartition(".")
    owner = comfy.utils.get_attr(model, owner_name) if owner_name else model
    if name not in owner._parameters:
        before, owner._buffers[name] = owner._buffers[name], tensor
        return before
    is_parameter = isinstance(tensor, torch.nn.Parameter)
    before = owner._parameters[name]
    owner._parameters[name] = tensor if is_parameter else torch.nn.Parameter(tensor, requires_grad=False)
    return before
