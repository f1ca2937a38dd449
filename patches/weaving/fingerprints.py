"""Which bodies of hooked functions were tested, and the names that the meaning of our lines rests on.

`tested.json`:

    {"bodies": {"folder_paths.py: get_full_path": {"<sha256 of the syntax tree>": "v0.33.0"}},
     "watches": {"comfy/model_patcher.py": ["ModelPatcher.clone"]}}

A digest is one of the meaning alone: positions, comments, the docstring and annotations are no part of it. It
is the same in every version of Python.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weaving import anchors
from weaving.errors import PatchFileError, Refused
from weaving.planning import Files, Target
from weaving.sources import Source

FUNCTION_ANCHORS = ("before def", "enter", "leave")
_LEFT_OUT = {"annotation", "returns", "type_comment", "type_params", "ctx", "kind", "type_ignores"}


@dataclass(frozen=True)
class Tested:
    """What `tested.json` holds."""

    bodies: dict[str, dict[str, str]]
    watches: dict[str, list[str]]


def read_tested(file: Path) -> Tested:
    """What was tested; PatchFileError for a file that does not say it."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return Tested(found["bodies"], found["watches"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PatchFileError(f"{file} cannot be read ({error}). Take it from the project again.") from error


def write_tested(file: Path, tested: Tested) -> None:
    """The same, sorted."""
    found = {"bodies": tested.bodies, "watches": tested.watches}
    file.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def hooked_bodies(files: Files, targets: Sequence[Target]) -> dict[str, str]:
    """{"file: function": digest} of each function that has a line of ours."""
    found = {}
    for target in targets:
        if target.anchor.kind in FUNCTION_ANCHORS:
            function = anchors.definition(files.bare[target.path], target.anchor)
            if function is not None:
                found[f"{target.path}: {target.anchor.name}"] = digest_of(function)
    return found


def digest_of(function: anchors.Function) -> str:
    """The sha256 of what a function means."""
    body = function.body if ast.get_docstring(function, clean=False) is None else function.body[1:]
    parts = (type(function).__name__, *_parts(function.args), *_parts(body))
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def missing_watches(files: Files, watches: dict[str, list[str]]) -> list[str]:
    """"file: name" of each watch that is not there."""
    missing = []
    for path, names in watches.items():
        try:
            source = files.get(path)
            there = set() if source is None else _names(source)
        except Refused:
            there = set()
        missing += [f"{path}: {name}" for name in names if name not in there]
    return missing


def _names(source: Source) -> set[str]:
    assigned = {name for node in anchors.in_scope(source.tree.body) for name in anchors.bound_names(node)}
    return assigned | set(anchors.qualified_names(source.tree.body))


def _parts(node: Any) -> Iterator[str]:
    """A text of a tree that no version of Python writes differently: what is empty is left out."""
    if isinstance(node, ast.AST):
        yield f"({type(node).__name__}"
        for name in sorted(node._fields):
            value = getattr(node, name, None)
            if name not in _LEFT_OUT and value is not None and value != []:
                yield f" {name}="
                yield from _parts(value)
        yield ")"
    elif isinstance(node, list):
        for item in node:
            yield "["
            yield from _parts(item)
            yield "]"
    else:
        yield f"{type(node).__name__}:{node!r}"


def accept(tested: Tested, bodies: dict[str, str], version: str) -> Tested:
    """The same with bodies that were tested in a version. The first version of each body is kept."""
    known = {name: dict(digests) for name, digests in tested.bodies.items()}
    for name, digest in bodies.items():
        known.setdefault(name, {}).setdefault(digest, version)
    return Tested(known, tested.watches)


def untested(tested: Tested, bodies: dict[str, str]) -> list[str]:
    """The functions whose body nobody has tested."""
    return [name for name, digest in bodies.items() if digest not in tested.bodies.get(name, {})]

