"""What packs hang onto a ModelPatcher: sampler options, transformer patches, callbacks, wrappers.

Two mixins, so that `comfy.model_patcher` is left with the weights.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

from comfy.patcher_extension import CallbacksMP, copy_nested_dicts


def create_model_options_clone(orig_model_options: dict) -> dict:
    """A copy whose dictionaries and lists can be changed without touching the original."""
    return copy_nested_dicts(orig_model_options)


def set_model_options_patch_replace(model_options, patch, name, block_name, number, transformer_index=None):
    """Put `patch` in the place of an attention; dictionaries on the way are copied, not changed."""
    options = model_options["transformer_options"].copy()
    replacements = options.get("patches_replace", {}).copy()
    block = (block_name, number) if transformer_index is None else (block_name, number, transformer_index)
    replacements[name] = {**replacements.get(name, {}), block: patch}
    options["patches_replace"] = replacements
    model_options["transformer_options"] = options
    return model_options


def _append_cfg_function(model_options, name, function, disable_cfg1_optimization):
    model_options[name] = [*model_options.get(name, []), function]
    if disable_cfg1_optimization:
        model_options["disable_cfg1_optimization"] = True
    return model_options


def set_model_options_post_cfg_function(model_options, post_cfg_function, disable_cfg1_optimization=False):
    return _append_cfg_function(
        model_options, "sampler_post_cfg_function", post_cfg_function, disable_cfg1_optimization
    )


def set_model_options_pre_cfg_function(model_options, pre_cfg_function, disable_cfg1_optimization=False):
    return _append_cfg_function(
        model_options, "sampler_pre_cfg_function", pre_cfg_function, disable_cfg1_optimization
    )


class OptionSetters:
    """The `set_model_*` methods; all of them write into `self.model_options`."""

    model_options: dict

    def set_model_sampler_cfg_function(self, sampler_cfg_function, disable_cfg1_optimization=False):
        """The function gets a dictionary; one with three parameters gets cond, uncond and cond_scale."""
        function = sampler_cfg_function
        if len(inspect.signature(sampler_cfg_function).parameters) == 3:

            def function(args):
                return sampler_cfg_function(args["cond"], args["uncond"], args["cond_scale"])

        self.model_options["sampler_cfg_function"] = function
        if disable_cfg1_optimization:
            self.model_options["disable_cfg1_optimization"] = True

    def set_model_sampler_post_cfg_function(self, post_cfg_function, disable_cfg1_optimization=False):
        self.model_options = set_model_options_post_cfg_function(
            self.model_options, post_cfg_function, disable_cfg1_optimization
        )

    def set_model_sampler_pre_cfg_function(self, pre_cfg_function, disable_cfg1_optimization=False):
        self.model_options = set_model_options_pre_cfg_function(
            self.model_options, pre_cfg_function, disable_cfg1_optimization
        )

    def set_model_sampler_calc_cond_batch_function(self, sampler_calc_cond_batch_function):
        self.model_options["sampler_calc_cond_batch_function"] = sampler_calc_cond_batch_function

    def set_model_unet_function_wrapper(self, unet_wrapper_function):
        self.model_options["model_function_wrapper"] = unet_wrapper_function

    def set_model_denoise_mask_function(self, denoise_mask_function):
        self.model_options["denoise_mask_function"] = denoise_mask_function

    def set_model_patch(self, patch, name):
        """Register a patch under its kind, such as "attn1_patch" or "input_block_patch"."""
        patches = self.model_options["transformer_options"].setdefault("patches", {})
        patches[name] = [*patches.get(name, []), patch]

    def set_model_patch_replace(self, patch, name, block_name, number, transformer_index=None):
        self.model_options = set_model_options_patch_replace(
            self.model_options, patch, name, block_name, number, transformer_index
        )

    def set_model_attn1_replace(self, patch, block_name, number, transformer_index=None):
        self.set_model_patch_replace(patch, "attn1", block_name, number, transformer_index)

    def set_model_attn2_replace(self, patch, block_name, number, transformer_index=None):
        self.set_model_patch_replace(patch, "attn2", block_name, number, transformer_index)

    def set_model_attn1_patch(self, patch):
        self.set_model_patch(patch, "attn1_patch")

    def set_model_attn2_patch(self, patch):
        self.set_model_patch(patch, "attn2_patch")

    def set_model_attn1_output_patch(self, patch):
        self.set_model_patch(patch, "attn1_output_patch")

    def set_model_attn2_output_patch(self, patch):
        self.set_model_patch(patch, "attn2_output_patch")

    def set_model_input_block_patch(self, patch):
        self.set_model_patch(patch, "input_block_patch")

    def set_model_input_block_patch_after_skip(self, patch):
        self.set_model_patch(patch, "input_block_patch_after_skip")

    def set_model_output_block_patch(self, patch):
        self.set_model_patch(patch, "output_block_patch")

    def set_model_emb_patch(self, patch):
        self.set_model_patch(patch, "emb_patch")

    def set_model_forward_timestep_embed_patch(self, patch):
        self.set_model_patch(patch, "forward_timestep_embed_patch")

    def set_model_double_block_patch(self, patch):
        self.set_model_patch(patch, "double_block")

    def set_model_post_input_patch(self, patch):
        self.set_model_patch(patch, "post_input")

    def set_model_noise_refiner_patch(self, patch):
        self.set_model_patch(patch, "noise_refiner")

    def set_model_rope_options(self, scale_x, shift_x, scale_y, shift_y, scale_t, shift_t, **kwargs):
        options = {
            "scale_x": scale_x, "shift_x": shift_x, "scale_y": scale_y, "shift_y": shift_y,
            "scale_t": scale_t, "shift_t": shift_t,
        }  # fmt: skip
        self.model_options["transformer_options"].setdefault("rope_options", {}).update(options)

    def _patch_places(self):
        """Every (container, key) that holds a patch object."""
        options = self.model_options["transformer_options"]
        for patches in options.get("patches", {}).values():
            yield from ((patches, index) for index in range(len(patches)))
        for patches in options.get("patches_replace", {}).values():
            yield from ((patches, key) for key in list(patches))
        if "model_function_wrapper" in self.model_options:
            yield self.model_options, "model_function_wrapper"

    def model_patches_to(self, device):
        """Move patch objects that can be moved to a device or dtype."""
        for container, key in self._patch_places():
            if hasattr(container[key], "to"):
                container[key] = container[key].to(device)

    def model_patches_models(self) -> list:
        """The models that patch objects bring along."""
        patches = [container[key] for container, key in self._patch_places()]
        return [model for patch in patches if hasattr(patch, "models") for model in patch.models()]


class Registries:
    """Callbacks, wrappers, attachments, injections and additional models, each by kind and key."""

    callbacks: dict
    wrappers: dict
    attachments: dict
    injections: dict
    additional_models: dict

    def add_callback(self, call_type: str, callback: Callable):
        self.add_callback_with_key(call_type, None, callback)

    def add_callback_with_key(self, call_type: str, key, callback: Callable):
        self.callbacks.setdefault(call_type, {}).setdefault(key, []).append(callback)

    def remove_callbacks_with_key(self, call_type: str, key):
        self.callbacks.get(call_type, {}).pop(key, None)

    def get_callbacks(self, call_type: str, key) -> list:
        return self.callbacks.get(call_type, {}).get(key, [])

    def get_all_callbacks(self, call_type: str) -> list:
        return [
            function for functions in self.callbacks.get(call_type, {}).values() for function in functions
        ]

    def add_wrapper(self, wrapper_type: str, wrapper: Callable):
        self.add_wrapper_with_key(wrapper_type, None, wrapper)

    def add_wrapper_with_key(self, wrapper_type: str, key, wrapper: Callable):
        self.wrappers.setdefault(wrapper_type, {}).setdefault(key, []).append(wrapper)

    def remove_wrappers_with_key(self, wrapper_type: str, key):
        self.wrappers.get(wrapper_type, {}).pop(key, None)

    def get_wrappers(self, wrapper_type: str, key) -> list:
        return self.wrappers.get(wrapper_type, {}).get(key, [])

    def get_all_wrappers(self, wrapper_type: str) -> list:
        return [
            function for functions in self.wrappers.get(wrapper_type, {}).values() for function in functions
        ]

    def set_attachments(self, key: str, attachment):
        self.attachments[key] = attachment

    def remove_attachments(self, key: str):
        self.attachments.pop(key, None)

    def get_attachment(self, key: str):
        return self.attachments.get(key)

    def set_injections(self, key: str, injections: list):
        self.injections[key] = injections

    def remove_injections(self, key: str):
        self.injections.pop(key, None)

    def get_injections(self, key: str):
        return self.injections.get(key)

    def set_additional_models(self, key: str, models: list):
        self.additional_models[key] = models

    def remove_additional_models(self, key: str):
        self.additional_models.pop(key, None)

    def get_additional_models_with_key(self, key: str) -> list:
        return self.additional_models.get(key, [])

    def get_additional_models(self) -> list:
        return [model for models in self.additional_models.values() for model in models]

    def get_nested_additional_models(self) -> list:
        """The additional models, theirs, and so on, each once."""
        found: list = []
        waiting = self.get_additional_models()
        while waiting:
            model = waiting.pop(0)
            if not any(model is other for other in found):
                found.append(model)
                waiting.extend(model.get_additional_models())
        return found

    def inject_model(self):
        """Let every injection put its part into the model."""
        if self.is_injected or self.skip_injection:
            return
        pairs = [pair for injections in self.injections.values() for pair in injections]
        for pair in pairs:
            pair.inject(self)
        if pairs:
            self.is_injected = True
            for callback in self.get_all_callbacks(CallbacksMP.ON_INJECT_MODEL):
                callback(self)

    def eject_model(self):
        """Take the injected parts out again."""
        if not self.is_injected:
            return
        for injections in self.injections.values():
            for pair in injections:
                pair.eject(self)
        self.is_injected = False
        for callback in self.get_all_callbacks(CallbacksMP.ON_EJECT_MODEL):
            callback(self)

    def use_ejected(self, skip_and_inject_on_exit_only=False):
        """Context in which nothing is injected."""
        return AutoPatcherEjector(self, skip_and_inject_on_exit_only)


class AutoPatcherEjector:
    """Ejects on entering; injects again on leaving, where something had been injected before."""

    def __init__(self, model, skip_and_inject_on_exit_only=False):
        self.model = model
        self.skip_and_inject_on_exit_only = skip_and_inject_on_exit_only
        self.was_injected = False
        self.prev_skip_injection = False

    def __enter__(self):
        self.prev_skip_injection = self.model.skip_injection
        if self.skip_and_inject_on_exit_only:
            self.model.skip_injection = True
        self.was_injected = self.model.is_injected
        self.model.eject_model()
        return self.model

    def __exit__(self, *exception):
        self.model.skip_injection = self.prev_skip_injection
        if self.was_injected or self.skip_and_inject_on_exit_only:
            self.model.inject_model()
