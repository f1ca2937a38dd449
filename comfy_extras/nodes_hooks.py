"""Nodes for hooks: LoRAs and models that hold for some conditionings only, with strengths that change over
the run, and conditionings with hooks, masks and ranges side by side. The arithmetic is in `comfy.hooks`.
"""

from __future__ import annotations

import logging

import folder_paths
from comfy_extras.core_inputs import float_input

_CATEGORY = "advanced/hooks"
_PAIR = ("CONDITIONING", "CONDITIONING")


def _strength():
    return float_input(1.0, -20.0, 20.0)


def _percent(default):
    return float_input(default, 0.0, 1.0, 0.001)


def _conditionings(*names):
    return dict.fromkeys(names, ("CONDITIONING",))


class _HookNode:
    """All of them are marked as experimental."""

    EXPERIMENTAL = True


# --- making hooks --------------------------------------------------------------------------------------


class _CreateHook(_HookNode):
    RETURN_TYPES = ("HOOKS",)
    FUNCTION = "create_hook"
    CATEGORY = f"{_CATEGORY}/create"


class CreateHookLora(_CreateHook):
    DESCRIPTION = "A LoRA for the conditionings that get this hook."

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "lora_name": (folder_paths.get_filename_list("loras"),),
                "strength_model": _strength(),
                "strength_clip": _strength(),
            },
            "optional": {"prev_hooks": ("HOOKS",)},
        }

    def create_hook(self, lora_name, strength_model, strength_clip, prev_hooks=None):
        import comfy.hooks

        previous = comfy.hooks.HookGroup() if prev_hooks is None else prev_hooks
        if strength_model == 0 and strength_clip == 0:
            return (previous,)
        path = folder_paths.get_full_path_or_raise("loras", lora_name)
        import comfy.lora_file

        tensors = comfy.lora_file.read_lora(path).tensors
        hooks = comfy.hooks.create_hook_lora(tensors, strength_model, strength_clip)
        return (previous.clone_and_combine(hooks),)


class CreateHookLoraModelOnly(CreateHookLora):
    DESCRIPTION = "A LoRA for the conditionings that get this hook; text encoders stay as they are."
    FUNCTION = "create_hook_model_only"

    @classmethod
    def INPUT_TYPES(cls):
        inputs = super().INPUT_TYPES()
        del inputs["required"]["strength_clip"]
        return inputs

    def create_hook_model_only(self, lora_name, strength_model, prev_hooks=None):
        return self.create_hook(lora_name, strength_model, 0, prev_hooks)


class CreateHookModelAsLora(_CreateHook):
    DESCRIPTION = "Another checkpoint for the conditionings that get this hook, whole at strength 1."

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "ckpt_name": (folder_paths.get_filename_list("checkpoints"),),
                "strength_model": _strength(),
                "strength_clip": _strength(),
            },
            "optional": {"prev_hooks": ("HOOKS",)},
        }

    def create_hook(self, ckpt_name, strength_model, strength_clip, prev_hooks=None):
        path = folder_paths.get_full_path_or_raise("checkpoints", ckpt_name)
        import comfy.hooks
        import comfy.sd

        model, clip, *_ = comfy.sd.load_checkpoint_guess_config(
            path, output_vae=False, embedding_directory=folder_paths.get_folder_paths("embeddings")
        )
        hooks = comfy.hooks.create_hook_model_as_lora(
            comfy.hooks.get_patch_weights_from_model(model),
            comfy.hooks.get_patch_weights_from_model(None if clip is None else clip.patcher),
            strength_model, strength_clip,
        )  # fmt: skip
        previous = comfy.hooks.HookGroup() if prev_hooks is None else prev_hooks
        return (previous.clone_and_combine(hooks),)


class CreateHookModelAsLoraModelOnly(CreateHookModelAsLora):
    DESCRIPTION = "Another checkpoint's diffusion model for the conditionings that get this hook."
    FUNCTION = "create_hook_model_only"

    @classmethod
    def INPUT_TYPES(cls):
        inputs = super().INPUT_TYPES()
        del inputs["required"]["strength_clip"]
        return inputs

    def create_hook_model_only(self, ckpt_name, strength_model, prev_hooks=None):
        return self.create_hook(ckpt_name, strength_model, 0.0, prev_hooks)


# --- keyframes -----------------------------------------------------------------------------------------


class SetHookKeyframes(_HookNode):
    DESCRIPTION = "Lets the strength of hooks follow keyframes."
    RETURN_TYPES = ("HOOKS",)
    FUNCTION = "set_hook_keyframes"
    CATEGORY = f"{_CATEGORY}/scheduling"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"hooks": ("HOOKS",)}, "optional": {"hook_kf": ("HOOK_KEYFRAMES",)}}

    def set_hook_keyframes(self, hooks, hook_kf=None):
        if hook_kf is not None:
            hooks = hooks.clone()
            hooks.set_keyframes_on_hooks(hook_kf)
        return (hooks,)


def _with_keyframes(previous, strengths, percents, is_logged=False):
    """The keyframes of before and these; of several only the first is sure of a step."""
    from comfy.hook_keyframes import HookKeyframe, HookKeyframeGroup

    group = HookKeyframeGroup() if previous is None else previous.clone()
    for number, (strength, percent) in enumerate(zip(strengths, percents)):
        keyframe = HookKeyframe(float(strength), percent, guarantee_steps=int(number == 0))
        group.add(keyframe)
        if is_logged:
            logging.info("Hook keyframe: from %.3f on, strength %.3f", percent, keyframe.strength)
    return (group,)


class _CreateKeyframes(_HookNode):
    RETURN_TYPES = ("HOOK_KEYFRAMES",)
    RETURN_NAMES = ("HOOK_KF",)
    FUNCTION = "create_hook_keyframes"
    CATEGORY = f"{_CATEGORY}/scheduling"


class CreateHookKeyframe(_CreateKeyframes):
    DESCRIPTION = "Multiplies the strength of hooks from a share of the schedule on."
    FUNCTION = "create_hook_keyframe"
    SEARCH_ALIASES = ["hook scheduling", "strength animation", "timed hook"]

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {"strength_mult": _strength(), "start_percent": _percent(0.0)},
            "optional": {"prev_hook_kf": ("HOOK_KEYFRAMES",)},
        }

    def create_hook_keyframe(self, strength_mult, start_percent, prev_hook_kf=None):
        return _with_keyframes(prev_hook_kf, [strength_mult], [start_percent])


class CreateHookKeyframesInterpolated(_CreateKeyframes):
    DESCRIPTION = "Keyframes from one strength to another, along a curve."
    SEARCH_ALIASES = ["ease hook strength", "smooth hook transition", "interpolate keyframes"]
    METHODS = ["linear", "ease_in", "ease_out", "ease_in_out"]

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "strength_start": float_input(1.0, 0.0, 10.0, 0.001),
                "strength_end": float_input(1.0, 0.0, 10.0, 0.001),
                "interpolation": (cls.METHODS,),
                "start_percent": _percent(0.0),
                "end_percent": _percent(1.0),
                "keyframes_count": ("INT", {"default": 5, "min": 2, "max": 100, "step": 1}),
                "print_keyframes": ("BOOLEAN", {"default": False, "advanced": True}),
            },
            "optional": {"prev_hook_kf": ("HOOK_KEYFRAMES",)},
        }

    def create_hook_keyframes(
        self, strength_start, strength_end, interpolation, start_percent, end_percent, keyframes_count,
        print_keyframes=False, prev_hook_kf=None,
    ):  # fmt: skip
        from comfy.hook_keyframes import InterpolationMethod

        along = InterpolationMethod.get_weights
        percents = along(start_percent, end_percent, keyframes_count, "linear")
        strengths = along(strength_start, strength_end, keyframes_count, interpolation)
        return _with_keyframes(prev_hook_kf, strengths, percents, print_keyframes)


class CreateHookKeyframesFromFloats(_CreateKeyframes):
    DESCRIPTION = "Keyframes with these strengths, evenly spread over a part of the schedule."
    SEARCH_ALIASES = ["batch keyframes", "strength list to keyframes"]

    @classmethod
    def INPUT_TYPES(cls):
        floats = {"default": -1, "min": -1, "step": 0.001, "forceInput": True}
        return {
            "required": {
                "floats_strength": ("FLOATS", floats),
                "start_percent": _percent(0.0),
                "end_percent": _percent(1.0),
                "print_keyframes": ("BOOLEAN", {"default": False, "advanced": True}),
            },
            "optional": {"prev_hook_kf": ("HOOK_KEYFRAMES",)},
        }

    def create_hook_keyframes(
        self, floats_strength, start_percent, end_percent, print_keyframes=False, prev_hook_kf=None
    ):
        from comfy.hook_keyframes import InterpolationMethod

        single = isinstance(floats_strength, (int, float))
        try:
            strengths = [float(one) for one in ([floats_strength] if single else floats_strength)]
        except TypeError:
            raise ValueError(
                f"floats_strength is a {type(floats_strength).__name__}. Connect a list of numbers."
            ) from None
        percents = InterpolationMethod.get_weights(start_percent, end_percent, len(strengths), "linear")
        return _with_keyframes(prev_hook_kf, strengths, percents, print_keyframes)


# --- combining hooks -----------------------------------------------------------------------------------


class _CombineHooks(_HookNode):
    DESCRIPTION = "All hooks in one group."
    RETURN_TYPES = ("HOOKS",)
    FUNCTION = "combine_hooks"
    CATEGORY = f"{_CATEGORY}/combine"
    letters = ""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}, "optional": {f"hooks_{letter}": ("HOOKS",) for letter in cls.letters}}

    def combine_hooks(self, **hooks):
        import comfy.hooks

        given = [hooks.get(f"hooks_{letter}") for letter in self.letters]
        return (comfy.hooks.HookGroup.combine_all_hooks(given),)


class CombineHooks2(_CombineHooks):
    SEARCH_ALIASES = ["merge hooks"]
    letters = "AB"


class CombineHooks4(_CombineHooks):
    letters = "ABCD"


class CombineHooks8(_CombineHooks):
    letters = "ABCDEFGH"


# --- conditioning --------------------------------------------------------------------------------------

_PLACES = {"mask": ("MASK",), "hooks": ("HOOKS",), "timesteps": ("TIMESTEPS_RANGE",)}


class _SetProperties(_HookNode):
    """Gives `new` a mask, hooks and a range; with `before`, both come out side by side. A name in `before` is
    that of its counterpart in `new`, without the ending.
    """

    FUNCTION = "set_properties"
    new: tuple[str, ...] = ()
    before: tuple[str, ...] = ()

    @classmethod
    def INPUT_TYPES(cls):
        how = {"strength": float_input(1.0, 0.0, 10.0), "set_cond_area": (["default", "mask bounds"],)}
        return {"required": {**_conditionings(*cls.before, *cls.new), **how}, "optional": dict(_PLACES)}

    def set_properties(self, strength, set_cond_area, mask=None, hooks=None, timesteps=None, **conds):
        import comfy.hooks

        changed = comfy.hooks.set_conds_props(
            [conds[name] for name in self.new], strength, set_cond_area, mask, hooks, timesteps
        )
        if self.before:
            changed = comfy.hooks.combine_with_new_conds([conds[name] for name in self.before], changed)
        return tuple(changed)


class ConditioningSetProperties(_SetProperties):
    DESCRIPTION = "Says where, when and with which hooks a conditioning holds."
    RETURN_TYPES = ("CONDITIONING",)
    CATEGORY = f"{_CATEGORY}/cond single"
    new = ("cond_NEW",)


class ConditioningSetPropertiesAndCombine(ConditioningSetProperties):
    DESCRIPTION = "Adds a conditioning to another, and says where, when and with which hooks it holds."
    before = ("cond",)


class PairConditioningSetProperties(_SetProperties):
    DESCRIPTION = "Says where, when and with which hooks a positive and a negative conditioning hold."
    RETURN_TYPES = _PAIR
    RETURN_NAMES = ("positive", "negative")
    CATEGORY = f"{_CATEGORY}/cond pair"
    new = ("positive_NEW", "negative_NEW")


class PairConditioningSetPropertiesAndCombine(PairConditioningSetProperties):
    DESCRIPTION = "Adds two conditionings to two others, and says where, when and with which hooks they hold."
    before = ("positive", "negative")


class ConditioningSetDefaultCombine(_HookNode):
    DESCRIPTION = "Adds a conditioning for the places that no other one has."
    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "set_default_and_combine"
    CATEGORY = f"{_CATEGORY}/cond single"
    sides: tuple[str, ...] = ("cond",)

    @classmethod
    def INPUT_TYPES(cls):
        names = (*cls.sides, *(f"{side}_DEFAULT" for side in cls.sides))
        return {"required": _conditionings(*names), "optional": {"hooks": ("HOOKS",)}}

    def set_default_and_combine(self, hooks=None, **conds):
        import comfy.hooks

        before, defaults = ([conds[side + end] for side in self.sides] for end in ("", "_DEFAULT"))
        return tuple(comfy.hooks.set_default_conds_and_combine(before, defaults, hooks))


class PairConditioningSetDefaultCombine(ConditioningSetDefaultCombine):
    DESCRIPTION = "Adds a positive and a negative conditioning for the places that no other ones have."
    RETURN_TYPES = _PAIR
    RETURN_NAMES = ("positive", "negative")
    CATEGORY = f"{_CATEGORY}/cond pair"
    sides = ("positive", "negative")


class PairConditioningCombine(_HookNode):
    DESCRIPTION = "Two positive and two negative conditionings side by side."
    RETURN_TYPES = _PAIR
    RETURN_NAMES = ("positive", "negative")
    FUNCTION = "combine"
    CATEGORY = f"{_CATEGORY}/cond pair"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": _conditionings("positive_A", "negative_A", "positive_B", "negative_B")}

    def combine(self, positive_A, negative_A, positive_B, negative_B):  # noqa: N803 - the inputs' names
        return (positive_A + positive_B, negative_A + negative_B)


class SetClipHooks(_HookNode):
    DESCRIPTION = "Encodes text with hooks, and hands them on to what is encoded."
    RETURN_TYPES = ("CLIP",)
    FUNCTION = "apply_hooks"
    CATEGORY = f"{_CATEGORY}/clip"

    @classmethod
    def INPUT_TYPES(cls):
        handed_on = "The conditionings that this text encoder makes have the hooks too."
        scheduled = "Encode each range of the keyframes for itself, with their strengths."
        return {
            "required": {
                "clip": ("CLIP",),
                "apply_to_conds": ("BOOLEAN", {"default": True, "advanced": True, "tooltip": handed_on}),
                "schedule_clip": ("BOOLEAN", {"default": False, "advanced": True, "tooltip": scheduled}),
            },
            "optional": {"hooks": ("HOOKS",)},
        }

    def apply_hooks(self, clip, apply_to_conds, schedule_clip, hooks=None):
        if hooks is None:
            return (clip,)
        import comfy.hooks

        clip = clip.clone()
        if apply_to_conds:
            clip.apply_hooks_to_conds = hooks
        clip.use_clip_schedule = schedule_clip
        clip.patcher.forced_hooks = hooks.clone()
        if not schedule_clip:
            clip.patcher.forced_hooks.set_keyframes_on_hooks(None)
        target = comfy.hooks.create_target_dict(comfy.hooks.EnumWeightTarget.Clip)
        clip.patcher.register_all_hook_patches(hooks, target)
        return (clip,)


class ConditioningTimestepsRange(_HookNode):
    DESCRIPTION = "A part of the schedule, and what is before and after it."
    RETURN_TYPES = ("TIMESTEPS_RANGE", "TIMESTEPS_RANGE", "TIMESTEPS_RANGE")
    RETURN_NAMES = ("TIMESTEPS_RANGE", "BEFORE_RANGE", "AFTER_RANGE")
    FUNCTION = "create_range"
    CATEGORY = _CATEGORY
    SEARCH_ALIASES = ["prompt scheduling", "timestep segments", "conditioning phases"]

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"start_percent": _percent(0.0), "end_percent": _percent(1.0)}}

    def create_range(self, start_percent, end_percent):
        return ((start_percent, end_percent), (0.0, start_percent), (end_percent, 1.0))


_TITLES = {
    CreateHookLora: "Create Hook LoRA", CreateHookLoraModelOnly: "Create Hook LoRA (MO)",
    CreateHookModelAsLora: "Create Hook Model as LoRA",
    CreateHookModelAsLoraModelOnly: "Create Hook Model as LoRA (MO)",
    SetHookKeyframes: "Set Hook Keyframes", CreateHookKeyframe: "Create Hook Keyframe",
    CreateHookKeyframesInterpolated: "Create Hook Keyframes Interp.",
    CreateHookKeyframesFromFloats: "Create Hook Keyframes From Floats",
    CombineHooks2: "Combine Hooks [2]", CombineHooks4: "Combine Hooks [4]",
    CombineHooks8: "Combine Hooks [8]",
    ConditioningSetProperties: "Cond Set Props",
    ConditioningSetPropertiesAndCombine: "Cond Set Props Combine",
    PairConditioningSetProperties: "Cond Pair Set Props",
    PairConditioningSetPropertiesAndCombine: "Cond Pair Set Props Combine",
    ConditioningSetDefaultCombine: "Cond Set Default Combine",
    PairConditioningSetDefaultCombine: "Cond Pair Set Default Combine",
    PairConditioningCombine: "Cond Pair Combine", SetClipHooks: "Set CLIP Hooks",
    ConditioningTimestepsRange: "Timesteps Range",
}  # fmt: skip
NODE_CLASS_MAPPINGS = {node.__name__: node for node in _TITLES}
NODE_DISPLAY_NAME_MAPPINGS = {node.__name__: title for node, title in _TITLES.items()}
