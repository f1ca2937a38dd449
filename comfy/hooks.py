"""Hooks: changes of a model that hold for some conditionings only, with a strength that follows the noise.

A CONDITIONING carries a `HookGroup` under "hooks". The sampler evaluates conditionings with equal groups
together, with the weights of the model patched for that group (`comfy.hooked_weights`), and puts the weights
back when the run ends.

    HookGroup                  what a conditioning has, and what nodes hand on as HOOKS
      WeightHook               patches of weights: a LoRA, or another model as one
      TransformerOptionsHook   wrappers, callbacks and patches of the forward
      AdditionalModelsHook     models that must be loaded beside
    HookKeyframeGroup          factors of the strength, each from a share of the schedule on

What is shared and what is not: clones of a hook have one `hook_ref`, under which a model keeps its patches
once; its keyframes are its own when they are set anew.
"""

from __future__ import annotations

import bisect
import enum
import math
from collections.abc import Callable, Iterable
from typing import Any

import comfy.lora
import comfy.patcher_extension
from comfy.hook_keyframes import (
    HookKeyframe,
    HookKeyframeGroup,
    InterpolationMethod,
    get_sorted_list_via_attr,
)

__all__ = [
    "AdditionalModelsHook", "EnumHookMode", "EnumHookScope", "EnumHookType", "EnumWeightTarget", "Hook",
    "HookGroup", "HookKeyframe", "HookKeyframeGroup", "InjectionsHook", "InterpolationMethod",
    "ObjectPatchHook", "TransformerOptionsHook", "WeightHook", "WrapperHook", "combine_conditioning",
    "combine_with_new_conds", "conditioning_set_values_with_hooks", "create_hook_lora",
    "create_hook_model_as_lora", "create_target_dict", "create_transformer_options_from_hooks",
    "get_patch_weights_from_model", "get_sorted_list_via_attr", "load_hook_lora_for_models",
    "set_conds_props", "set_conds_props_and_combine", "set_default_conds_and_combine",
    "set_hooks_for_conditioning", "set_mask_for_conditioning", "set_timesteps_for_conditioning",
]  # fmt: skip


class EnumHookMode(enum.Enum):
    """Whether weights that were patched for a group are kept until the run ends."""

    MinVram = "minvram"
    MaxSpeed = "maxspeed"


class EnumHookType(enum.Enum):
    """What a hook changes."""

    Weight = "weight"
    ObjectPatch = "object_patch"
    AdditionalModels = "add_models"
    TransformerOptions = "transformer_options"
    Injections = "add_injections"


class EnumWeightTarget(enum.Enum):
    """Which of the two kinds of models a WeightHook is registered on."""

    Model = "model"
    Clip = "clip"


class EnumHookScope(enum.Enum):
    """Whether a hook holds for the whole run, or for the conditionings that have it."""

    AllConditioning = "all_conditioning"
    HookedOnly = "hooked_only"


class _HookRef:
    """Stands for a hook and all its clones."""


def default_should_register(hook, model, model_options, target_dict, registered) -> bool:
    """Hooks are registered wherever they are found."""
    return True


def create_target_dict(target: EnumWeightTarget | None = None, **kwargs) -> dict[str, Any]:
    """What a hook is told about where it is registered."""
    return {"target": target, **kwargs} if target is not None else dict(kwargs)


# --- hooks ---------------------------------------------------------------------------------------------


class Hook:
    """One change. Two hooks are equal if one is a clone of the other."""

    def __init__(
        self, hook_type: EnumHookType | None = None, hook_ref: _HookRef | None = None,
        hook_id: str | None = None, hook_keyframe: HookKeyframeGroup | None = None,
        hook_scope=EnumHookScope.AllConditioning,
    ):  # fmt: skip
        self.hook_type = hook_type
        self.hook_ref = hook_ref or _HookRef()
        self.hook_id = hook_id
        self.hook_keyframe = hook_keyframe or HookKeyframeGroup()
        self.hook_scope = hook_scope
        self.custom_should_register: Callable[..., bool] = default_should_register

    @property
    def strength(self) -> float:
        """The factor of its keyframes at this moment."""
        return self.hook_keyframe.strength

    def initialize_timesteps(self, model) -> None:
        """Start over, with the noise levels of this model."""
        self.reset()
        self.hook_keyframe.initialize_timesteps(model)

    def reset(self) -> None:
        """Back to the first keyframe."""
        self.hook_keyframe.reset()

    def clone(self):
        """An equal hook, with the same keyframes."""
        new = self.__class__.__new__(self.__class__)
        new.__dict__.update(self.__dict__)
        return new

    def should_register(self, model, model_options, target_dict, registered) -> bool:
        """Is it wanted on this model?"""
        return self.custom_should_register(self, model, model_options, target_dict, registered)

    def add_hook_patches(self, model, model_options, target_dict, registered) -> bool:
        """Put it on a model, and into the group `registered`; False if it is not wanted there."""
        raise NotImplementedError(f"{type(self).__name__} has no add_hook_patches.")

    def __eq__(self, other):
        return self.__class__ is other.__class__ and self.hook_ref is other.hook_ref

    def __hash__(self):
        return hash(self.hook_ref)


class WeightHook(Hook):
    """Patches of weights: the tensors of a LoRA file, or patches by the names of weights."""

    def __init__(self, strength_model=1.0, strength_clip=1.0):
        super().__init__(hook_type=EnumHookType.Weight, hook_scope=EnumHookScope.HookedOnly)
        self.weights: dict | None = None
        self.weights_clip: dict | None = None
        self.need_weight_init = True
        self._strength_model = strength_model
        self._strength_clip = strength_clip

    @property
    def strength_model(self) -> float:
        """Of the diffusion model, at this moment."""
        return self._strength_model * self.strength

    @property
    def strength_clip(self) -> float:
        """Of the text encoders, at this moment."""
        return self._strength_clip * self.strength

    def add_hook_patches(self, model, model_options, target_dict, registered) -> bool:
        """See Hook. `target_dict["target"]` says which strength counts and how layers are named."""
        if not self.should_register(model, model_options, target_dict, registered):
            return False
        is_clip = target_dict.get("target") == EnumWeightTarget.Clip
        if self.need_weight_init:
            names = comfy.lora.model_lora_keys_clip if is_clip else comfy.lora.model_lora_keys_unet
            weights = comfy.lora.load_lora(self.weights or {}, names(model.model, {}), log_missing=False)
        else:
            weights = (self.weights_clip if is_clip else self.weights) or {}
        strength = self._strength_clip if is_clip else self._strength_model
        model.add_hook_patches(hook=self, patches=weights, strength_patch=strength)
        registered.add(self)
        return True


class AdditionalModelsHook(Hook):
    """Models that must be loaded while the conditioning is evaluated."""

    def __init__(self, models: list | None = None, key: str | None = None):
        super().__init__(hook_type=EnumHookType.AdditionalModels)
        self.models = models
        self.key = key

    def add_hook_patches(self, model, model_options, target_dict, registered) -> bool:
        """See Hook; the sampler loads the models of all registered hooks."""
        if not self.should_register(model, model_options, target_dict, registered):
            return False
        registered.add(self)
        return True


class TransformerOptionsHook(Hook):
    """Entries of transformer_options, for the whole run or while the conditioning is evaluated."""

    def __init__(self, transformers_dict: dict | None = None, hook_scope=EnumHookScope.AllConditioning):
        super().__init__(hook_type=EnumHookType.TransformerOptions)
        self.transformers_dict = transformers_dict
        self.hook_scope = hook_scope
        self._skip_adding = False

    def add_hook_patches(self, model, model_options, target_dict, registered) -> bool:
        """See Hook."""
        if not self.should_register(model, model_options, target_dict, registered):
            return False
        registered.add(self)
        self._skip_adding = self.hook_scope == EnumHookScope.AllConditioning
        if self._skip_adding:
            _merge_into(model_options.setdefault("transformer_options", {}), self.transformers_dict)
        return True

    def on_apply_hooks(self, model, transformer_options: dict) -> None:
        """Add the entries for one evaluation, unless the run has them anyway."""
        if not self._skip_adding:
            _merge_into(transformer_options, self.transformers_dict)


WrapperHook = TransformerOptionsHook


class _NotForRuns(Hook):
    """A kind that exists for packs that read it, and that no sampler applies."""

    def add_hook_patches(self, model, model_options, target_dict, registered) -> bool:
        """Refuses."""
        raise NotImplementedError(
            f"{type(self).__name__} cannot be applied per conditioning. "
            "Change the MODEL instead: add_object_patch and set_injections hold for the whole run."
        )


class ObjectPatchHook(_NotForRuns):
    """Attributes of the model."""

    def __init__(self, object_patches: dict | None = None, hook_scope=EnumHookScope.AllConditioning):
        super().__init__(hook_type=EnumHookType.ObjectPatch, hook_scope=hook_scope)
        self.object_patches = object_patches


class InjectionsHook(_NotForRuns):
    """Parts that are put into the model."""

    def __init__(
        self, key: str | None = None, injections: list | None = None,
        hook_scope=EnumHookScope.AllConditioning,
    ):  # fmt: skip
        super().__init__(hook_type=EnumHookType.Injections, hook_scope=hook_scope)
        self.key = key
        self.injections = injections


def _merge_into(options: dict, more: dict | None) -> None:
    comfy.patcher_extension.merge_nested_dicts(options, more or {}, copy_dict1=False)


# --- groups --------------------------------------------------------------------------------------------


class HookGroup:
    """Hooks that hold together, each once. Groups are compared by identity."""

    def __init__(self):
        self.hooks: list[Hook] = []

    def __len__(self):
        return len(self.hooks)

    def add(self, hook: Hook) -> None:
        """Take in a hook, unless it is there."""
        if hook not in self.hooks:
            self.hooks.append(hook)

    def remove(self, hook: Hook) -> None:
        """Let go of a hook, if it is there."""
        if hook in self.hooks:
            self.hooks.remove(hook)

    def get_type(self, hook_type: EnumHookType) -> list:
        """The hooks of one kind."""
        return [hook for hook in self.hooks if hook.hook_type == hook_type]

    def contains(self, hook: Hook) -> bool:
        """Is this hook, or a clone of it, here?"""
        return hook in self.hooks

    def is_subset_of(self, other: HookGroup) -> bool:
        """Are all of its hooks in `other`?"""
        return all(other.contains(hook) for hook in self.hooks)

    def new_with_common_hooks(self, other: HookGroup) -> HookGroup:
        """The hooks that are in both."""
        return _group_of(hook for hook in self.hooks if other.contains(hook))

    def clone(self) -> HookGroup:
        """A group of clones of the hooks."""
        return _group_of(hook.clone() for hook in self.hooks)

    def clone_and_combine(self, other: HookGroup | None) -> HookGroup:
        """A group of clones, and of those of `other`."""
        combined = self.clone()
        for hook in () if other is None else other.hooks:
            combined.add(hook.clone())
        return combined

    def set_keyframes_on_hooks(self, hook_kf: HookKeyframeGroup | None) -> None:
        """Give all hooks these keyframes, or none."""
        keyframes = HookKeyframeGroup() if hook_kf is None else hook_kf.clone()
        for hook in self.hooks:
            hook.hook_keyframe = keyframes

    def get_hooks_for_clip_schedule(self) -> list[tuple[tuple[float, float], list[tuple[Hook, Any]]]]:
        """[((start, end) of the schedule, [(hook, its keyframe or None)])] for hooks of weights.

        Text is encoded before sampling, so each range of equal strengths is encoded for itself.
        """
        hooks = self.get_type(EnumHookType.Weight)
        bounds = {0.0, 1.0}
        for hook in hooks:
            bounds.update(_percents_of_changes(hook.hook_keyframe.keyframes))
        ordered = sorted(bounds)
        return [
            ((start, end), [(hook, _keyframe_at(hook.hook_keyframe.keyframes, start)) for hook in hooks])
            for start, end in zip(ordered, ordered[1:])
        ]

    def reset(self) -> None:
        """Back to the first keyframes."""
        for hook in self.hooks:
            hook.reset()

    @staticmethod
    def combine_all_hooks(hooks_list: list[HookGroup | None], require_count=0) -> HookGroup | None:
        """One group of all that are given; None where there is none.

        Raises:
            ValueError: fewer groups than `require_count`.
        """
        given = [hooks for hooks in hooks_list if hooks is not None]
        if len(given) < require_count:
            raise ValueError(
                f"{require_count} or more groups of hooks are needed, {len(given)} came. Connect the others."
            )
        if len(given) < 2:
            return given[0] if given else None
        combined = given[0].clone()
        for group in given[1:]:
            combined = combined.clone_and_combine(group)
        return combined


def _group_of(hooks: Iterable[Hook]) -> HookGroup:
    group = HookGroup()
    for hook in hooks:
        group.add(hook)
    return group


def _percents_of_changes(keyframes: list[HookKeyframe]) -> Iterable[float]:
    before = None
    for keyframe in keyframes:
        if before is None or not math.isclose(keyframe.strength, before):
            yield keyframe.start_percent
        before = keyframe.strength


def _keyframe_at(keyframes: list[HookKeyframe], percent: float) -> HookKeyframe | None:
    if not keyframes:
        return None
    starts = [keyframe.start_percent for keyframe in keyframes]
    return keyframes[max(0, bisect.bisect_right(starts, percent) - 1)]


def create_transformer_options_from_hooks(model, hooks: HookGroup | None, transformer_options=None) -> dict:
    """`transformer_options` with what the group adds for one evaluation."""
    options = {} if transformer_options is None else transformer_options
    for hook in [] if hooks is None else hooks.get_type(EnumHookType.TransformerOptions):
        hook.on_apply_hooks(model, options)
    return options


# --- making hooks --------------------------------------------------------------------------------------


def create_hook_lora(lora: dict, strength_model: float, strength_clip: float) -> HookGroup:
    """A group of one hook with the tensors of a LoRA file."""
    hook = WeightHook(strength_model=strength_model, strength_clip=strength_clip)
    hook.weights = lora
    return _group_of([hook])


def create_hook_model_as_lora(
    weights_model: dict | None, weights_clip: dict | None, strength_model: float, strength_clip: float
) -> HookGroup:
    """A group of one hook that goes from a model's weights towards these, by strength."""
    hook = WeightHook(strength_model=strength_model, strength_clip=strength_clip)
    hook.weights, hook.weights_clip = (
        None if weights is None else {key: ("model_as_lora", (tensor,)) for key, tensor in weights.items()}
        for weights in (weights_model, weights_clip)
    )
    hook.need_weight_init = False
    return _group_of([hook])


def get_patch_weights_from_model(model, discard_model_sampling=True) -> dict | None:
    """The weights of a MODEL or of a CLIP's patcher, without those of the noise levels."""
    if model is None:
        return None
    weights = model.model.state_dict()
    if not discard_model_sampling:
        return weights
    return {key: tensor for key, tensor in weights.items() if not key.startswith("model_sampling.")}


def load_hook_lora_for_models(model, clip, lora: dict, strength_model: float, strength_clip: float):
    """(MODEL, CLIP, the group): a LoRA as a hook that is registered on clones of both."""
    hooks = create_hook_lora(lora, strength_model, strength_clip)
    clones = []
    for whole, target in ((model, EnumWeightTarget.Model), (clip, EnumWeightTarget.Clip)):
        clone = None if whole is None else whole.clone()
        clones.append(clone)
        if clone is not None:
            patcher = getattr(clone, "patcher", clone)
            patcher.register_all_hook_patches(hooks, create_target_dict(target))
    return (*clones, hooks)


# --- conditioning --------------------------------------------------------------------------------------

Cache = dict[tuple, HookGroup]


def conditioning_set_values_with_hooks(
    conditioning, values: dict[str, Any] | None = None, append_hooks=True, cache: Cache | None = None
) -> list:
    """A copy of a CONDITIONING whose entries carry `values`; "hooks" come to those that are there.

    One `cache` for several conditionings lets equal groups stay one object, and so be evaluated together.
    """
    cache = {} if cache is None else cache
    changed = []
    for tokens, extras in conditioning:
        extras = dict(extras)
        for name, value in (values or {}).items():
            if name == "hooks" and append_hooks:
                extras["hooks"] = _combined(extras.get("hooks"), value, cache)
            else:
                extras[name] = value
        changed.append([tokens, extras])
    return changed


def _combined(there: HookGroup | None, more: HookGroup | None, cache: Cache) -> HookGroup | None:
    key = (there, more)
    if key not in cache:
        cache[key] = HookGroup.combine_all_hooks([there, more])
    return cache[key]


def set_hooks_for_conditioning(cond, hooks: HookGroup | None, append_hooks=True, cache: Cache | None = None):
    """A CONDITIONING with hooks; as it was without."""
    if hooks is None:
        return cond
    return conditioning_set_values_with_hooks(cond, {"hooks": hooks}, append_hooks=append_hooks, cache=cache)


def set_timesteps_for_conditioning(cond, timestep_range: tuple[float, float] | None):
    """A CONDITIONING that holds in (start, end) of the schedule; as it was without."""
    if timestep_range is None:
        return cond
    start, end = timestep_range
    return conditioning_set_values_with_hooks(cond, {"start_percent": start, "end_percent": end})


def set_mask_for_conditioning(cond, mask, set_cond_area: str, strength: float):
    """A CONDITIONING that holds where the mask (B, H, W) or (H, W) is set; as it was without."""
    if mask is None:
        return cond
    mask = mask.unsqueeze(0) if mask.ndim < 3 else mask
    bounds = set_cond_area != "default"
    values = {"mask": mask, "set_area_to_bounds": bounds, "mask_strength": strength}
    return conditioning_set_values_with_hooks(cond, values)


def combine_conditioning(conds: list) -> list:
    """All entries in one CONDITIONING."""
    return [entry for cond in conds for entry in cond]


def combine_with_new_conds(conds: list, new_conds: list) -> list:
    """Side by side: each CONDITIONING with its counterpart."""
    return [combine_conditioning([cond, new]) for cond, new in zip(conds, new_conds)]


def set_conds_props(
    conds: list, strength: float, set_cond_area: str, mask=None, hooks: HookGroup | None = None,
    timesteps_range: tuple[float, float] | None = None, append_hooks=True,
) -> list:  # fmt: skip
    """Each CONDITIONING with these hooks, this range and this mask; `strength` is the mask's."""
    cache: Cache = {}
    changed = []
    for cond in conds:
        cond = set_hooks_for_conditioning(cond, hooks, append_hooks=append_hooks, cache=cache)
        cond = set_timesteps_for_conditioning(cond, timesteps_range)
        changed.append(set_mask_for_conditioning(cond, mask, set_cond_area, strength))
    return changed


def set_conds_props_and_combine(
    conds: list, new_conds: list, strength: float = 1.0, set_cond_area: str = "default", mask=None,
    hooks: HookGroup | None = None, timesteps_range: tuple[float, float] | None = None, append_hooks=True,
) -> list:  # fmt: skip
    """`set_conds_props` on the new ones, then both side by side."""
    new = set_conds_props(new_conds, strength, set_cond_area, mask, hooks, timesteps_range, append_hooks)
    return combine_with_new_conds(conds, new)


def set_default_conds_and_combine(
    conds: list, new_conds: list, hooks: HookGroup | None = None,
    timesteps_range: tuple[float, float] | None = None, append_hooks=True,
) -> list:  # fmt: skip
    """Side by side, the new ones for the places that no other conditioning has."""
    cache: Cache = {}
    defaults = []
    for cond in new_conds:
        cond = set_hooks_for_conditioning(cond, hooks, append_hooks=append_hooks, cache=cache)
        cond = set_timesteps_for_conditioning(cond, timesteps_range)
        defaults.append(conditioning_set_values_with_hooks(cond, {"default": True}))
    return combine_with_new_conds(conds, defaults)
