"""Checks of single inputs: types of links, and literal values against their declaration."""

from __future__ import annotations

from typing import Any

from comfy_execution.node_facts import InputSpec

ANY_TYPE = "*"
MATCH_TYPE = "COMFY_MATCHTYPE_V3"
COMBO = "COMBO"
LONGEST_LIST_IN_MESSAGE = 20

Error = dict[str, Any]
"""{"type", "message", "details", "extra_info"}"""

_converters = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}


def validate_node_input(received_type: Any, input_type: Any, strict: bool = False) -> bool:
    """May an output of `received_type` be linked to an input of `input_type`?

    Types are strings, "A,B" is a union; two unions must overlap (`strict`: the received one must lie in the
    other). The types' own `!=` decides first: packs make any-types by overriding it.
    """
    if not received_type != input_type:
        return True
    if any(kind == wild for kind in (received_type, input_type) for wild in (ANY_TYPE, MATCH_TYPE)):
        return True
    if isinstance(received_type, list) and input_type == COMBO:
        return True
    if not isinstance(received_type, str) or not isinstance(input_type, str):
        return False
    received = {part.strip() for part in received_type.split(",")}
    accepted = {part.strip() for part in input_type.split(",")}
    if ANY_TYPE in received or ANY_TYPE in accepted:
        return True
    return received <= accepted if strict else bool(received & accepted)


def make_error(kind: str, message: str, details: str, **extra_info: Any) -> Error:
    """One entry of a node's `errors`."""
    return {"type": kind, "message": message, "details": details, "extra_info": extra_info}


def converted(name: str, value: Any, spec: InputSpec) -> tuple[Any, Error | None]:
    """A literal as its declared type, or what is wrong with it. {"__value__": x} stands for x."""
    if isinstance(value, dict) and "__value__" in value:
        value = value["__value__"]
    convert = None if spec.plain_type is None else _converters.get(spec.plain_type)
    if convert is None or type(value) is convert:
        return value, None
    try:
        return convert(value), None
    except (TypeError, ValueError, OverflowError) as error:
        return value, make_error(
            "invalid_input_type",
            f"Failed to convert an input value to a {spec.plain_type} value",
            f"{name}, {value}, {error}",
            input_name=name,
            input_config=spec.config,
            received_value=value,
            exception_message=str(error),
        )


def check_value(name: str, value: Any, spec: InputSpec) -> Error | None:
    """What is wrong with a literal: outside of min and max, or not in the list of choices."""
    options = spec.options
    outside = None
    if "min" in options and value < options["min"]:
        outside = ("value_smaller_than_min", f"Value {value} smaller than min of {options['min']}")
    elif "max" in options and value > options["max"]:
        outside = ("value_bigger_than_max", f"Value {value} bigger than max of {options['max']}")
    if outside is not None:
        return make_error(
            *outside, name, input_name=name, input_config=spec.config, received_value=value
        )
    if isinstance(spec.type, list):
        return _check_choice(name, value, spec, spec.type)
    if spec.plain_type == COMBO:
        return _check_choice(name, value, spec, options.get("options", []))
    return None


def _check_choice(name: str, value: Any, spec: InputSpec, choices: Any) -> Error | None:
    several = spec.options.get("multiselect", False) and isinstance(value, list)
    wrong = [item for item in (value if several else [value]) if item not in choices]
    if not wrong:
        return None
    # Lists of model files can be huge: a long one is not sent back.
    is_long = len(choices) > LONGEST_LIST_IN_MESSAGE
    shown = f"(list of length {len(choices)})" if is_long else str(choices)
    return make_error(
        "value_not_in_list",
        "Value not in list",
        f"{name}: {', '.join(repr(item) for item in wrong)} not in {shown}",
        input_name=name,
        input_config=None if is_long else spec.config,
        received_value=value,
    )
