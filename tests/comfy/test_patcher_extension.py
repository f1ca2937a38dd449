"""Wrappers and callbacks in nested dictionaries."""

import pytest

from comfy import patcher_extension as pe


def test_wrappers_surround_the_function_from_the_outside_in():
    said = []

    def wrapper(name):
        def wrap(executor, value):
            said.append(name)
            return executor(value + 1)

        return wrap

    executor = pe.WrapperExecutor.new_executor(lambda value: value * 10, [wrapper("outer"), wrapper("inner")])
    assert executor.execute(1) == 30
    assert said == ["outer", "inner"]


def test_a_wrapper_of_a_method_sees_its_object():
    owner = object()
    executor = pe.WrapperExecutor.new_class_executor(
        lambda: 1, owner, [lambda ex: ex.class_obj is owner and ex()]
    )
    assert executor.execute() == 1


def test_an_executor_that_is_called_too_often_says_so():
    executor = pe.WrapperExecutor(lambda: 1, None, [], 1)
    with pytest.raises(IndexError, match="after the wrapped function"):
        executor.execute()


def test_registered_functions_are_found_by_kind_and_key_in_model_options_too():
    options: dict = {}
    pe.add_wrapper_with_key(pe.WrappersMP.APPLY_MODEL, "pack", "a", options, is_model_options=True)
    pe.add_wrapper(pe.WrappersMP.APPLY_MODEL, "b", options, is_model_options=True)
    pe.add_callback_with_key(pe.CallbacksMP.ON_LOAD, "pack", "c", options)
    pe.add_callback(pe.CallbacksMP.ON_LOAD, "d", options)
    assert pe.get_all_wrappers(pe.WrappersMP.APPLY_MODEL, options["transformer_options"]) == ["a", "b"]
    assert pe.get_wrappers_with_key(pe.WrappersMP.APPLY_MODEL, "pack", options, is_model_options=True) == [
        "a"
    ]
    assert pe.get_all_callbacks(pe.CallbacksMP.ON_LOAD, options) == ["c", "d"]
    assert pe.get_callbacks_with_key(pe.CallbacksMP.ON_LOAD, "pack", options) == ["c"]
    assert pe.get_all_callbacks("nothing", options) == []


def test_nested_dictionaries_are_copied_down_to_their_lists_and_merged():
    original = {"a": {"b": [1]}, "c": 1}
    merged = pe.merge_nested_dicts(original, {"a": {"b": [2], "d": [3]}, "c": 5})
    assert merged == {"a": {"b": [1, 2], "d": [3]}, "c": 5}
    assert original == {"a": {"b": [1]}, "c": 1}
