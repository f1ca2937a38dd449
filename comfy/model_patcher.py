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

import torch

import comfy.lora
import comfy.model_management
import comfy.ops
import comfy.utils
from comfy import patched_weights, weight_places
from comfy.hooked_weights import HookedWeights, create_hook_patches_clone
from comfy.hooks import EnumHookMode
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
from comfy.utils import string_to_seed

__all__ = [
    "AutoPatcherEjector", "CallbacksMP", "CoreModelPatcher", "ModelPatcher", "PatcherInjection", "WrappersMP",
    "create_hook_patches_clone", "create_model_options_clone", "get_key_weight",
    "set_model_options_patch_replace", "set_model_options_post_cfg_function",
    "set_model_options_pre_cfg_function", "string_to_seed",
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
    "keeps_originals": False,
    "hooked_with": (),
}


class LowVramPatch:
    """The patches of one weight as a function of the weight, for a layer's `weight_function`."""

    is_lowvram_patch = True

    def __init__(self, key, patches, convert_func=None, set_func=None):
        self.key, self.patches = key, patches
        self.convert_func, self.set_func = convert_func, set_func

    def __call__(self, weight):
        return comfy.lora.calculate_weight(
            self.patches[self.key], weight, self.key, intermediate_dtype=weight.dtype
        )


def move_weight_functions(m, device) -> int:
    """Move what the functions of layer `m` hold, as far as they have a `move_to`; how many bytes that was."""
    if device is None:
        return 0
    functions = [*getattr(m, "weight_function", ()), *getattr(m, "bias_function", ())]
    return sum(one.move_to(device=device) for one in functions if hasattr(one, "move_to"))


def get_key_weight(model, key: str):
    """The weight of that name, and the functions to write and to convert it, where its layer has its own."""
    owner_name, _, name = key.rpartition(".")
    owner = comfy.utils.get_attr(model, owner_name) if owner_name else model
    return getattr(owner, name), getattr(owner, f"set_{name}", None), getattr(owner, f"convert_{name}", None)


class ModelPatcher(HookedWeights, OptionSetters, Registries):
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
        self._known_identity: tuple[uuid.UUID, patched_weights.Identity] | None = None
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
        self.hook_mode = EnumHookMode.MaxSpeed
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
        new.patches_uuid, new._known_identity = self.patches_uuid, self._known_identity
        new.object_patches = self.object_patches.copy()
        new.weight_wrapper_patches = self.weight_wrapper_patches.copy()
        new.model_options = copy.deepcopy(self.model_options)
        # The backups belong to the model: whoever patches next must find them.
        for name in ("backup", "object_patches_backup", "hook_backup", "pinned"):
            setattr(new, name, getattr(self, name))
        for name in ("force_cast_weights", "is_injected", "skip_injection", "is_clip", "hook_mode"):
            setattr(new, name, getattr(self, name))
        new.hook_patches = create_hook_patches_clone(self.hook_patches)
        new.forced_hooks = None if self.forced_hooks is None else self.forced_hooks.clone()
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
        """What to put back when the patches are undone; nothing is copied where it is kept anyway."""
        stays = weight.device == self.offload_device or (
            self.model.keeps_originals and weight.device == self.model.device
        )
        if stays and not is_overwritten:
            return weight
        kept = self.model.__dict__.get("weights_in_host_memory", {}).get(key)
        is_home = self.offload_device.type == "cpu" and weight.device.type != "cpu"
        if kept is not None and is_home and kept.dtype == weight.dtype:
            return kept
        return weight.to(device=self.offload_device, copy=is_overwritten)

    # --- loading ---

    def patch_model(
        self, device_to=None, lowvram_model_memory=0, load_weights=True, force_patch_weights=False
    ):
        """Apply object patches and, with `load_weights`, bring the patched weights to `device_to`."""
        if self.force_cast_weights:  # casting to the dtype that they have is nothing to others' layers
            comfy.ops.cast_on_use(self.model)
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
        started, has_moved = time.perf_counter(), False
        self.unpatch_hooks()
        if device_to is not None:
            is_partial = lowvram_model_memory > 0 and not full_load
            has_moved = weight_places.place(
                self.model, torch.device(device_to), self.model_size(),
                int(lowvram_model_memory) if is_partial else None, home=self.offload_device,
                patched=self.backup.keys(),
            )  # fmt: skip
        streamed = self.model.__dict__.get("streamed_weights", ())
        if self.model.current_weight_patches_uuid != self.patches_uuid:
            self._patch_weights(device_to, streamed)
        self.model.lowvram_patch_counter = sum(key in streamed for key in self.patches)
        self.model.current_weight_patches_uuid = self.patches_uuid
        if has_moved:  # another set of patches says nothing of what it takes to bring the weights back
            self.model.seconds_to_place = time.perf_counter() - started
        for callback in self.get_all_callbacks(CallbacksMP.ON_LOAD):
            callback(self, device_to, lowvram_model_memory, force_patch_weights, full_load)
        self.apply_hooks(self.forced_hooks)

    def _patch_weights(self, device_to, streamed) -> None:
        """Patch the weights that have patches, or put back what was patched before."""
        before = patched_weights.take(self.model, self._identity()) if self.patches else {}
        self.model.keeps_originals = self._has_room_for_originals()
        computed = [key for key in self.patches if not self._is_put_back(key, before.get(key))]
        for key in computed:
            self.patch_weight_to_device(key, device_to)
            if key in streamed:
                weight_places.bring_home(self.model, [key], patched=self.backup.keys())
        self.model.patched_with = self._identity() if self.patches else None
        self.model.is_patched_anew = bool(computed)
        patched_weights.count(computed=len(computed), put_back=len(self.patches) - len(computed))

    def _has_room_for_originals(self) -> bool:
        """May weights stay on the device beside patched ones? A pinned model is then switched uncopied."""
        sizes = (weight_places.size_of(self.model, key) for key in self.patches)
        return self.model.is_pinned and self._has_room_for(2 * sum(sizes))

    def _has_room_for(self, size: int) -> bool:
        """Are so many bytes free on the device, and what a run needs besides?"""
        management, device = comfy.model_management, self.model.device
        if not management.has_own_memory(device):
            return True
        return management.get_free_memory(device) > size + management.minimum_inference_memory()

    def _is_put_back(self, key: str, patched: torch.Tensor | None) -> bool:
        owner, name = weight_places.owner_of(self.model, key)
        weight = None if owner is None else owner._parameters.get(name)
        if patched is None or weight is None or weight.device != patched.device or key in self.backup:
            return False
        self.backup[key] = Backup(self._original(key, weight, False), False)
        owner._parameters[name] = patched
        return True

    def _identity(self) -> patched_weights.Identity:
        """What the weights are patched with, when this patcher is the loaded one."""
        if self._known_identity is None or self._known_identity[0] != self.patches_uuid:
            self._known_identity = self.patches_uuid, patched_weights.identity_of(self.patches)
        return self._known_identity[1]

    def _undo_patches(self, is_kept: bool) -> None:
        """Put the weights back; the patched ones are kept for the next time, if `is_kept`."""
        coming = sum(saved.weight.nbytes for saved in self.backup.values()
                     if saved.weight.device != self.model.device)  # fmt: skip
        is_kept = is_kept and self._has_room_for(coming)
        patched = {}
        for key, saved in self.backup.items():
            owner, name = weight_places.owner_of(self.model, key)
            if saved.inplace_update:
                comfy.utils.copy_to_param(self.model, key, saved.weight)
                continue
            patched[key] = owner._parameters[name]
            weight_places.set_tensor(owner, name, saved.weight)
            if saved.weight.device != self.model.device:
                self.model.placed_on = None
        identity = self.model.__dict__.pop("patched_with", None)
        if is_kept and identity is not None and len(patched) == len(self.backup):
            patched_weights.keep(self.model, identity, patched, is_new=self.model.is_patched_anew)
        self.backup.clear()
        self.model.current_weight_patches_uuid = None

    def rest(self) -> None:
        """Give back what streaming holds on the device between two runs."""
        if self.model.model_lowvram:
            self.model.streamer.rest()

    def unpatch_model(self, device_to=None, unpatch_weights=True) -> None:
        """Undo what `patch_model` did; with `device_to` the weights go there."""
        self.eject_model()
        if unpatch_weights:
            self.unpatch_hooks()
            self._undo_patches(is_kept=device_to is None)
            if device_to is not None:
                patched_weights.release(self.model)
                weight_places.stop_streaming(self.model)
                weight_places.move(self.model, torch.device(device_to), home=self.offload_device)
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
        if self.forced_hooks is not None or self.hook_backup:
            return
        if self.patches and shared.__dict__.get("patched_with") == self._identity():
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
        self.unpatch_hooks()
        weight_places.place(
            self.model, torch.device(self.model.device), self.model_size(),
            max(1, int(before - memory_to_free)), home=self.offload_device, patched=self.backup.keys(),
        )  # fmt: skip
        self.apply_hooks(self.forced_hooks)
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
        self.clean_hooks()
        if hasattr(self.model, "current_patcher"):
            self.model.current_patcher = None
        for callback in self.get_all_callbacks(CallbacksMP.ON_CLEANUP):
            callback(self)


# The name under which newer packs look for the plain patcher.
CoreModelPatcher = ModelPatcher


def _unchanged(weight, **_options):
    return weight
