"""Inputs whose number and names depend on what a prompt sends: growing lists, choices with inputs of their
own, slots that open more inputs.

A class declares such an input once, with one of three types. Against the inputs of one node the declaration
is *expanded* into plain ones, whose ids are paths with dots ("images.image0"). When the node is called, its
values are *nested* again: `execute(images={"image0": ...})`.

    type                     options of the declaration             plain inputs
    COMFY_AUTOGROW_V3        template: input, min, and either       id.name for each name; the first `min`
                             names or prefix and max                are required if the template is
    COMFY_DYNAMICCOMBO_V3    options: [{key, inputs}]               id, and id.x for each x of the chosen key
    COMFY_DYNAMICSLOT_V3     slotType, inputs                       id, and, if it is given, id.x for each x
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

AUTOGROW = "COMFY_AUTOGROW_V3"
DYNAMIC_COMBO = "COMFY_DYNAMICCOMBO_V3"
DYNAMIC_SLOT = "COMFY_DYNAMICSLOT_V3"
DYNAMIC_TYPES = frozenset({AUTOGROW, DYNAMIC_COMBO, DYNAMIC_SLOT})
EMPTY_DICT = "empty_dict"
CATEGORIES = ("required", "optional")

Declaration = tuple[Any, Mapping[str, Any]]
"""(type, options) of one input."""


@dataclass
class Expansion:
    """The plain inputs of one node, and where their values go."""

    required: dict[str, Any] = field(default_factory=dict)
    optional: dict[str, Any] = field(default_factory=dict)
    paths: dict[str, str] = field(default_factory=dict)
    """For each input that is a part of a dynamic one: its place in the nested values, as a path with dots."""
    defaults: dict[str, str] = field(default_factory=dict)
    """For places without a value: EMPTY_DICT."""

    def declare(self, category: str, name: str, declaration: Any) -> None:
        """Enter a plain input."""
        (self.required if category == "required" else self.optional)[name] = declaration


def has_dynamic_inputs(declared: Mapping[str, Any]) -> bool:
    """Does any declared input have to be expanded?"""
    return any(_is_dynamic(declaration) for _, _, declaration in _declarations(declared))


def expand(declared: Mapping[str, Any], live: Mapping[str, Any]) -> Expansion:
    """The declaration of a class as it applies to a node with the inputs `live`."""
    expansion = Expansion()
    _expand_all(expansion, declared, live, prefix="")
    return expansion


def _declarations(declared: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    for category in CATEGORIES:
        for name, declaration in (declared.get(category) or {}).items():
            yield category, name, declaration


def _is_dynamic(declaration: Any) -> bool:
    return isinstance(declaration[0], str) and str.__str__(declaration[0]) in DYNAMIC_TYPES


def _expand_all(
    expansion: Expansion, declared: Mapping[str, Any], live: Mapping[str, Any], prefix: str
) -> None:
    for category, name, declaration in _declarations(declared):
        full = prefix + name
        if _is_dynamic(declaration):
            _EXPANDERS[str.__str__(declaration[0])](expansion, declaration[1], live, full, category)
        else:
            expansion.declare(category, full, declaration)
            if prefix:
                expansion.paths[full] = full


def _expand_autogrow(
    expansion: Expansion, options: Mapping[str, Any], live: Mapping[str, Any], full: str, category: str
) -> None:
    template = options["template"]
    own_category, _, declaration = next(_declarations(template["input"]))
    names = template.get("names")
    if names is None:
        names = [f"{template['prefix']}{index}" for index in range(template["max"])]
    grown = False
    for index, name in enumerate(names):
        is_required = own_category == "required" and index < template["min"]
        path = f"{full}.{name}"
        expansion.declare("required" if is_required else "optional", path, declaration)
        if path in live:
            expansion.paths[path] = path
            grown = True
    if not grown:
        expansion.paths[full] = full
        expansion.defaults[full] = EMPTY_DICT


def _expand_combo(
    expansion: Expansion, options: Mapping[str, Any], live: Mapping[str, Any], full: str, category: str
) -> None:
    """The choice itself becomes a plain one of its keys, so that a missing or unknown key is an error."""
    choices = options["options"]
    plain = {**options, "options": [choice["key"] for choice in choices]}
    expansion.declare(category, full, ("COMBO", plain))
    if full not in live:
        return
    for choice in choices:
        if choice["key"] == live[full]:
            _expand_all(expansion, choice["inputs"], live, f"{full}.")
            break
    expansion.paths[full] = f"{full}.{full.rpartition('.')[2]}"


def _expand_slot(
    expansion: Expansion, options: Mapping[str, Any], live: Mapping[str, Any], full: str, category: str
) -> None:
    expansion.declare("optional", full, (options.get("slotType", "*"), options))
    if full in live:
        _expand_all(expansion, options["inputs"], live, f"{full}.")
        expansion.paths[full] = f"{full}.{full.rpartition('.')[2]}"


_EXPANDERS = {AUTOGROW: _expand_autogrow, DYNAMIC_COMBO: _expand_combo, DYNAMIC_SLOT: _expand_slot}


def nest(
    values: Mapping[str, Any],
    paths: Mapping[str, str],
    defaults: Mapping[str, str],
    *,
    with_ids: bool = False,
) -> dict[str, Any]:
    """The values of one call with those of dynamic inputs in dictionaries of their own.

    `with_ids`: each such value is given as (value, id of its input), for a node that asks for inputs by id.
    """
    plain = dict(values)
    nested: dict[str, Any] = {}
    for name, path in paths.items():
        value = plain.pop(name, None)
        if value is None and defaults.get(name) == EMPTY_DICT:
            value = {}
        *groups, last = path.split(".")
        place = nested
        for group in groups:
            place = place.setdefault(group, {})
        place[last] = (value, name) if with_ids else value
    return {**plain, **nested}
