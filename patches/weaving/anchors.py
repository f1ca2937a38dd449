"""Where a named place is in a file: found in the syntax tree, exactly once, or refused."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Union

from weaving.errors import Ambiguous, Changed, Missing, Unsuited
from weaving.patch_files import Anchor
from weaving.sources import Source

Function = Union[ast.FunctionDef, ast.AsyncFunctionDef]
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
NEAREST = 3


@dataclass(frozen=True)
class Place:
    """Where lines go: above the line of this index (from 0), with this indentation."""

    index: int
    indent: str
    is_trailing: bool = False
    """Whether it ends what stands above it, rather than begins what stands below."""


def find(source: Source, anchor: Anchor) -> Place | None:
    """The place of an anchor; None when nothing there has its name.

    Raises:
        Changed: the definition has lost a parameter.
        Ambiguous: the name is bound more than once.
        Unsuited: no line can stand there.
    """
    if anchor.kind == "after imports":
        return _after_imports(source)
    if anchor.kind == "end of module":
        return _end_of_module(source)
    if anchor.kind in ("before", "after"):
        return _around_assignment(source, anchor)
    function = definition(source, anchor)
    if function is None:
        return None
    find_place = {"before def": _above, "enter": _enter, "leave": _leave}[anchor.kind]
    return find_place(source, function)


def find_first(source: Source, anchors: Sequence[Anchor]) -> tuple[Anchor, Place]:
    """The first anchor that exists, with its place; Missing names what is near."""
    for anchor in anchors:
        place = find(source, anchor)
        if place is not None:
            return anchor, place
    wanted = " | ".join(map(str, anchors))
    near = nearest(source, anchors)
    raise Missing(f"{source.path}: `{wanted}` is not there. "
                  + (f"Near: {', '.join(near)}." if near else "Nothing has a similar name."))


def definition(source: Source, anchor: Anchor) -> Function | None:
    """The function of an anchor, None when there is none of its name."""
    scope: list[ast.stmt] = source.tree.body
    *classes, name = anchor.name.split(".")
    for part in classes:
        found = _only(source, scope, part, anchor)
        if not isinstance(found, ast.ClassDef):
            return None
        scope = found.body
    function = _only(source, scope, name, anchor)
    if not isinstance(function, FUNCTIONS):
        return None
    there = parameters(function)
    lost = [name for name in anchor.parameters if name not in there]
    if lost:
        raise Changed(f"{source.path}:{function.lineno}: `{anchor.name}({', '.join(there)})` has no "
                      f"parameter {', '.join(lost)} any more.")
    return function


def parameters(function: Function) -> list[str]:
    """The names of a function's parameters, in order."""
    given = function.args
    return [arg.arg for arg in (*given.posonlyargs, *given.args, *given.kwonlyargs)]


def nearest(source: Source, anchors: Iterable[Anchor]) -> list[str]:
    """Names of the file that are like those of anchors."""
    names = list(dict.fromkeys(qualified_names(source.tree.body)))
    found: list[str] = []
    for anchor in anchors:
        own = anchor.name.rpartition(".")[2]
        by_end = {name.rpartition(".")[2]: name for name in names}
        found += difflib.get_close_matches(anchor.name, names, NEAREST)
        found += [by_end[end] for end in difflib.get_close_matches(own, by_end, NEAREST)]
    return list(dict.fromkeys(found))[:NEAREST]


def qualified_names(body: Iterable[ast.stmt], prefix: str = "") -> Iterator[str]:
    """The name of each function, class and method: "function", "Class", "Class.method"."""
    for node in in_scope(body):
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            yield prefix + node.name
        if isinstance(node, ast.ClassDef):
            yield from qualified_names(node.body, f"{prefix}{node.name}.")


def in_scope(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Each statement of a scope, those inside of `if`, `try`, loops and `with` as well."""
    for node in body:
        yield node
        if not isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            for inner in blocks_of(node):
                yield from in_scope(inner)


def blocks_of(node: ast.stmt) -> Iterator[list[ast.stmt]]:
    """The blocks of statements inside of a statement."""
    for name in ("body", "orelse", "finalbody"):
        if block := getattr(node, name, None):
            yield block
    for part in (*getattr(node, "handlers", ()), *getattr(node, "cases", ())):
        yield part.body


def bound_names(node: ast.stmt) -> set[str]:
    """The names that a statement itself gives a meaning to."""
    if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
        return {node.name}
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return {(name.asname or name.name).partition(".")[0] for name in node.names}
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, (ast.AnnAssign, ast.AugAssign)):
        targets = [node.target] if node.value is not None else []
    return {inner.id for target in targets for inner in ast.walk(target)
            if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store)}


def _only(source: Source, body: Iterable[ast.stmt], name: str, anchor: Anchor) -> ast.stmt | None:
    found = [node for node in in_scope(body) if name in bound_names(node)]
    if len(found) > 1:
        lines = ", ".join(str(node.lineno) for node in found)
        raise Ambiguous(f"{source.path}: `{anchor.name}` has a meaning in several places (lines {lines}), so "
                        f"`{anchor}` is not one place.")
    return found[0] if found else None


def _indent(source: Source, number: int, column: int) -> str:
    """The indentation of what begins in a line; Unsuited when something stands before it."""
    line = source.line(number)
    indent = line[: len(line) - len(line.lstrip())]
    if column != len(indent.encode()):
        raise Unsuited(f"{source.path}:{number}: what the anchor names does not begin its line. Give it "
                       "a line of its own.")
    return indent


def _first_line(node: ast.stmt) -> int:
    marks: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(mark.lineno for mark in marks)])


def _above(source: Source, function: Function) -> Place:
    number = _first_line(function)
    line = source.line(number)
    indent = line[: len(line) - len(line.lstrip())]
    if not line.lstrip().startswith(("@", "def ", "async ")):
        raise Unsuited(f"{source.path}:{number}: `{function.name}` does not begin its line.")
    return Place(number - 1, indent)


def _body(source: Source, function: Function) -> list[ast.stmt]:
    """The statements of a function, of which the first begins a line of its own."""
    _indent(source, _first_line(function.body[0]), function.body[0].col_offset)
    return function.body


def _enter(source: Source, function: Function) -> Place:
    body = _body(source, function)
    if ast.get_docstring(function, clean=False) is None:
        first = body[0]
    elif len(body) == 1:
        return _after(source, body[0], None)
    else:
        first = body[1]
    number = _first_line(first)
    return Place(number - 1, _indent(source, number, first.col_offset))


def _leave(source: Source, function: Function) -> Place:
    last = _body(source, function)[-1]
    if isinstance(last, ast.Raise):
        raise Unsuited(f"{source.path}:{last.lineno}: `{function.name}` ends with `raise`, and a line behind "
                       "it would never run.")
    if isinstance(last, ast.Return):
        return Place(last.lineno - 1, _indent(source, last.lineno, last.col_offset))
    indent = _indent(source, _first_line(last), last.col_offset)
    return _after(source, last, None, indent)


def _after(source: Source, node: ast.stmt, below: ast.stmt | None, indent: str | None = None) -> Place:
    """Behind a statement, whose last line nothing else may share."""
    end = node.end_lineno or node.lineno
    if indent is None:
        indent = _indent(source, _first_line(node), node.col_offset)
    rest = source.line(end).encode()[node.end_col_offset:].decode().strip()
    if (rest and not rest.startswith("#")) or (below is not None and _first_line(below) <= end):
        raise Unsuited(f"{source.path}:{end}: something else stands behind what the anchor names.")
    return Place(end, indent, is_trailing=True)


def _after_imports(source: Source) -> Place | None:
    body = source.tree.body
    imports = (ast.Import, ast.ImportFrom)
    first = next((index for index, node in enumerate(body) if isinstance(node, imports)), None)
    if first is None:
        return None
    last = first
    while last + 1 < len(body) and isinstance(body[last + 1], imports):
        last += 1
    return _after(source, body[last], body[last + 1] if last + 1 < len(body) else None, indent="")


def _end_of_module(source: Source) -> Place:
    body = source.tree.body
    if not body:
        return Place(len(source.lines), "", is_trailing=True)
    last = body[-1]
    if isinstance(last, ast.If) and _is_main_guard(last.test):
        return Place(last.lineno - 1, "")
    return _after(source, last, None, indent="")


def _is_main_guard(test: ast.expr) -> bool:
    return (isinstance(test, ast.Compare) and isinstance(test.left, ast.Name) and test.left.id == "__name__"
            and isinstance(test.comparators[0], ast.Constant) and test.comparators[0].value == "__main__")


def _around_assignment(source: Source, anchor: Anchor) -> Place | None:
    node = _only(source, source.tree.body, anchor.name, anchor)
    if not isinstance(node, (ast.Assign, ast.AnnAssign)):
        return None
    body = source.tree.body
    if node not in body:
        raise Unsuited(f"{source.path}:{node.lineno}: `{anchor.name}` is assigned inside of a block.")
    position = body.index(node)
    if anchor.kind == "before":
        return Place(node.lineno - 1, _indent(source, node.lineno, node.col_offset))
    return _after(source, node, body[position + 1] if position + 1 < len(body) else None)
