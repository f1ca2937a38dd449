"""Wrappers and callbacks that packs register around sampling, loading and the model's forward.

Both live in nested dictionaries: {"kind": {"key": [function, ...]}}.
"""

from __future__ import annotations

from collections.abc import Callable


class CallbacksMP:
    """The moments in the life of a ModelPatcher that a callback can be registered for."""

    ON_CLONE = "on_clone"
    ON_LOAD = "on_load_after"
    ON_DETACH = "on_detach_after"
    ON_CLEANUP = "on_cleanup"
    ON_PRE_RUN = "on_pre_run"
    ON_PREPARE_STATE = "on_prepare_state"
    ON_APPLY_HOOKS = "on_apply_hooks"
    ON_REGISTER_ALL_HOOK_PATCHES = "on_register_all_hook_patches"
    ON_INJECT_MODEL = "on_inject_model"
    ON_EJECT_MODEL = "on_eject_model"

    @classmethod
    def init_callbacks(cls) -> dict[str, dict[str, list[Callable]]]:
        return {}


class WrappersMP:
    """The calls that a wrapper can surround."""

    OUTER_SAMPLE = "outer_sample"
    PREPARE_SAMPLING = "prepare_sampling"
    SAMPLER_SAMPLE = "sampler_sample"
    PREDICT_NOISE = "predict_noise"
    CALC_COND_BATCH = "calc_cond_batch"
    APPLY_MODEL = "apply_model"
    DIFFUSION_MODEL = "diffusion_model"

    @classmethod
    def init_wrappers(cls) -> dict[str, dict[str, list[Callable]]]:
        return {}


def _register(table: str, kind: str, key, function: Callable, options: dict, is_model_options: bool) -> None:
    if is_model_options:
        options = options.setdefault("transformer_options", {})
    options.setdefault(table, {}).setdefault(kind, {}).setdefault(key, []).append(function)


def _registered(table: str, kind: str, options: dict, is_model_options: bool) -> dict:
    if is_model_options:
        options = options.get("transformer_options", {})
    return options.get(table, {}).get(kind, {})


def add_callback(call_type: str, callback: Callable, transformer_options: dict, is_model_options=False):
    _register("callbacks", call_type, None, callback, transformer_options, is_model_options)


def add_callback_with_key(call_type: str, key, callback, transformer_options: dict, is_model_options=False):
    _register("callbacks", call_type, key, callback, transformer_options, is_model_options)


def get_callbacks_with_key(call_type: str, key, transformer_options: dict, is_model_options=False) -> list:
    return list(_registered("callbacks", call_type, transformer_options, is_model_options).get(key, []))


def get_all_callbacks(call_type: str, transformer_options: dict, is_model_options=False) -> list:
    table = _registered("callbacks", call_type, transformer_options, is_model_options)
    return [function for functions in table.values() for function in functions]


def add_wrapper(wrapper_type: str, wrapper: Callable, transformer_options: dict, is_model_options=False):
    _register("wrappers", wrapper_type, None, wrapper, transformer_options, is_model_options)


def add_wrapper_with_key(wrapper_type: str, key, wrapper, transformer_options: dict, is_model_options=False):
    _register("wrappers", wrapper_type, key, wrapper, transformer_options, is_model_options)


def get_wrappers_with_key(wrapper_type: str, key, transformer_options: dict, is_model_options=False) -> list:
    return list(_registered("wrappers", wrapper_type, transformer_options, is_model_options).get(key, []))


def get_all_wrappers(wrapper_type: str, transformer_options: dict, is_model_options=False) -> list:
    table = _registered("wrappers", wrapper_type, transformer_options, is_model_options)
    return [function for functions in table.values() for function in functions]


class WrapperExecutor:
    """Calls a function through its wrappers, outermost first.

    A wrapper gets the executor as its first argument and calls it to go one step inwards; for a method,
    `executor.class_obj` is the instance.
    """

    def __init__(self, original: Callable, class_obj: object, wrappers: list[Callable], idx: int):
        self.original = original
        self.class_obj = class_obj
        self.wrappers = list(wrappers)
        self.idx = idx
        self.is_last = idx == len(wrappers)

    def __call__(self, *args, **kwargs):
        return WrapperExecutor(self.original, self.class_obj, self.wrappers, self.idx + 1).execute(
            *args, **kwargs
        )

    def execute(self, *args, **kwargs):
        """Start here; wrappers call the executor itself instead."""
        if self.idx > len(self.wrappers):
            raise IndexError("A wrapper called its executor after the wrapped function had been reached.")
        if self.is_last:
            return self.original(*args, **kwargs)
        return self.wrappers[self.idx](self, *args, **kwargs)

    @classmethod
    def new_executor(cls, original: Callable, wrappers: list[Callable], idx=0) -> WrapperExecutor:
        return cls(original, None, wrappers, idx)

    @classmethod
    def new_class_executor(cls, original: Callable, class_obj: object, wrappers: list[Callable], idx=0):
        return cls(original, class_obj, wrappers, idx)


class PatcherInjection:
    """A pair of functions that put something into a model before a run and take it out after."""

    def __init__(self, inject: Callable, eject: Callable):
        self.inject = inject
        self.eject = eject


def copy_nested_dicts(input_dict: dict) -> dict:
    """Copy dictionaries and lists all the way down, and nothing else."""
    copied = {}
    for key, value in input_dict.items():
        if isinstance(value, dict):
            value = copy_nested_dicts(value)
        elif isinstance(value, list):
            value = value.copy()
        copied[key] = value
    return copied


def merge_nested_dicts(dict1: dict, dict2: dict, copy_dict1=True) -> dict:
    """`dict2` over `dict1`: dictionaries merge, lists join, other values replace."""
    merged = copy_nested_dicts(dict1) if copy_dict1 else dict1
    for key, value in dict2.items():
        if isinstance(value, dict):
            merged[key] = merge_nested_dicts(merged.get(key, {}), value)
        elif isinstance(value, list):
            merged.setdefault(key, []).extend(value)
        else:
            merged[key] = value
    return merged
