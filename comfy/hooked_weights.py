"""The part of a ModelPatcher that applies hooks: weights patched for a group while it is evaluated.

    register_all_hook_patches   before a run: the model knows the patches of every hook that will come
    apply_hooks(group)          the weights are patched for this group, on top of the patcher's own patches
    apply_hooks(None)           they are as without hooks
    clean_hooks                 the run ends

Tensors take each other's place and are never written to, so that going back is exact and copies nothing.
Which group is applied is known by its hooks and their strengths at that moment. With a `hook_mode` of
MaxSpeed, patched weights stay while memory is free, for the next time that their group has these strengths.
"""

from __future__ import annotations

import uuid

import comfy.lora
import comfy.model_management
from comfy import weight_places
from comfy.hooks import EnumHookMode, EnumHookType, HookGroup, create_transformer_options_from_hooks
from comfy.patcher_extension import CallbacksMP
from comfy.utils import string_to_seed


def create_hook_patches_clone(orig_hook_patches: dict, copy_tuples=False) -> dict:
    """{hook: {weight: [patch, ...]}} whose dictionaries and lists are its own."""
    return {
        ref: {key: [tuple(one) if copy_tuples else one for one in patches] for key, patches in own.items()}
        for ref, own in orig_hook_patches.items()
    }


class HookedWeights:
    """A mixin of ModelPatcher, see the module docstring."""

    def set_hook_mode(self, hook_mode: EnumHookMode) -> None:
        """Whether patched weights are kept until the run ends."""
        self.hook_mode = hook_mode

    # --- registering ---

    def register_all_hook_patches(
        self, hooks: HookGroup, target_dict: dict, model_options=None, registered: HookGroup | None = None
    ) -> HookGroup:
        """Learn the patches of all hooks of weights; the group of those that are known now."""
        self.restore_hook_patches()
        registered = HookGroup() if registered is None else registered
        new = []
        for hook in hooks.get_type(EnumHookType.Weight):
            if hook.hook_ref in self.hook_patches:
                registered.add(hook)
            else:
                new.append(hook)
        if new:
            self.hook_patches_backup = create_hook_patches_clone(self.hook_patches)
            for hook in new:
                hook.add_hook_patches(self, model_options, target_dict, registered)
        for callback in self.get_all_callbacks(CallbacksMP.ON_REGISTER_ALL_HOOK_PATCHES):
            callback(self, hooks, target_dict, model_options, registered)
        return registered

    def restore_hook_patches(self) -> None:
        """Forget what was registered for the last run."""
        if self.hook_patches_backup is not None:
            self.hook_patches, self.hook_patches_backup = self.hook_patches_backup, None

    def add_hook_patches(self, hook, patches: dict, strength_patch=1.0, strength_model=1.0) -> list:
        """`add_patches` for one hook; returns the names that the model has."""
        with self.use_ejected():
            known = self.model.state_dict().keys()
        own = self.hook_patches.setdefault(hook.hook_ref, {})
        accepted = []
        for key, value in patches.items():
            name, offset, function = (key, None, None) if isinstance(key, str) else (*key, None, None)[:3]
            if name in known:
                own.setdefault(name, []).append((strength_patch, value, strength_model, offset, function))
                accepted.append(key)
        if self.is_clip:  # a text encoder is loaded with its hooks, a diffusion model without
            self.patches_uuid = uuid.uuid4()
        return accepted

    def get_combined_hook_patches(self, hooks: HookGroup | None) -> dict[str, list]:
        """{weight: its patches} of a group, with the strengths of this moment."""
        combined: dict[str, list] = {}
        for hook in [] if hooks is None else hooks.get_type(EnumHookType.Weight):
            for key, patches in self.hook_patches.get(hook.hook_ref, {}).items():
                if hook.strength != 0:
                    combined.setdefault(key, []).extend(
                        (hook.strength * strength, *rest) for strength, *rest in patches
                    )
        return combined

    # --- during a run ---

    def prepare_hook_patches_current_keyframe(self, t, hook_group: HookGroup | None, model_options) -> None:
        """Let the hooks of a group go on to the noise level `t` (B,)."""
        for hook in [] if hook_group is None else hook_group.hooks:
            hook.hook_keyframe.prepare_current_keyframe(float(t[0]), model_options["transformer_options"])

    def apply_hooks(self, hooks: HookGroup | None, transformer_options=None, force_apply=False) -> dict:
        """Patch the weights for a group; returns the transformer_options that it asks for."""
        if force_apply or self.model.hooked_with != _strengths(hooks):
            self.patch_hooks(hooks)
        for callback in self.get_all_callbacks(CallbacksMP.ON_APPLY_HOOKS):
            callback(self, hooks)
        return create_transformer_options_from_hooks(self, hooks, transformer_options)

    def patch_hooks(self, hooks: HookGroup | None) -> None:
        """Put weights back, and patch those of a group."""
        with self.use_ejected():
            self.unpatch_hooks()
            strengths = _strengths(hooks)
            if strengths:
                known = self.cached_hook_patches.get(strengths, {})
                for key, patches in self.get_combined_hook_patches(hooks).items():
                    self._put_hooked(key, patches, known.get(key), strengths)
            if self.model.model_lowvram:
                self.model.streamer.rest()  # what is on its way has the weights of before
            self.current_hooks, self.model.hooked_with = hooks, strengths

    def _put_hooked(self, key: str, patches: list, hooked, strengths: tuple) -> None:
        owner, name = weight_places.owner_of(self.model, key)
        weight = getattr(owner, name)
        if hooked is None or hooked.device != weight.device:
            hooked = self._hooked_weight(key, owner, weight, patches)
            if self._keeps_hooked(hooked):
                self.cached_hook_patches.setdefault(strengths, {})[key] = hooked
        self.hook_backup[key] = weight
        weight_places.set_tensor(owner, name, hooked)

    def _keeps_hooked(self, hooked) -> bool:
        """Are there other groups to come back from, and is memory free?"""
        if self.is_clip or self.hook_mode != EnumHookMode.MaxSpeed:
            return False
        management = comfy.model_management
        needed = 4 * hooked.nbytes + management.minimum_inference_memory()
        return management.get_free_memory(hooked.device) > needed

    def _hooked_weight(self, key: str, owner, weight, patches: list):
        management, name = comfy.model_management, key.rpartition(".")[2]
        device, dtype = self.load_device, management.lora_compute_dtype(self.load_device)
        convert = getattr(owner, f"convert_{name}", None)

        def real(tensor):
            tensor = management.cast_to(tensor, dtype, device, copy=True)
            return tensor if convert is None else convert(tensor, inplace=True)

        original = self.backup[key].weight if key in self.backup else weight
        kinds = [patch[1][0] for patch in patches if isinstance(patch[1], tuple)]
        is_difference = any(isinstance(kind, str) and kind == "model_as_lora" for kind in kinds)
        originals = {key: [(real(original), None)]} if is_difference else None
        patched = comfy.lora.calculate_weight(patches, real(weight), key, original_weights=originals)
        store = getattr(owner, f"set_{name}", None)
        if store is not None:
            patched = store(patched, return_weight=True, seed=string_to_seed(key))
        return patched.to(device=weight.device, dtype=weight.dtype)

    def unpatch_hooks(self, whitelist_keys_set: set[str] | None = None) -> None:
        """Put weights back, all or those named."""
        wanted = self.hook_backup.keys() if whitelist_keys_set is None else whitelist_keys_set
        for key in [key for key in self.hook_backup if key in wanted]:
            owner, name = weight_places.owner_of(self.model, key)
            weight_places.set_tensor(owner, name, self.hook_backup.pop(key))
        self.current_hooks, self.model.hooked_with = None, ()

    def clear_cached_hook_weights(self) -> None:
        """Let go of patched weights that are kept."""
        self.cached_hook_patches.clear()

    def clean_hooks(self) -> None:
        """The end of a run."""
        if self.hook_backup or self.cached_hook_patches:
            self.patch_hooks(None)
            self.clear_cached_hook_weights()


def _strengths(hooks: HookGroup | None) -> tuple:
    """What patched weights are known by; empty where no weight is patched."""
    found = [] if hooks is None else hooks.get_type(EnumHookType.Weight)
    return tuple((hook.hook_ref, hook.strength) for hook in found if hook.strength != 0)
