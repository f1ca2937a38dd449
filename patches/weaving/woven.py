"""Lines of ours put into a file, and taken out of it again."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from weaving.anchors import FUNCTIONS, Place, blocks_of, find_first
from weaving.errors import Refused, SourceError
from weaving.patch_files import PACKAGES, Anchor, alias_of, root_of
from weaving.sources import Source

IMPORTS = tuple(f"from {package} import hooks as {alias}" for alias, package in PACKAGES.items())


@dataclass(frozen=True)
class Insertion:
    """Lines for the first of some anchors that exists."""

    anchors: tuple[Anchor, ...]
    lines: tuple[str, ...]


def our_lines(source: Source) -> list[int]:
    """The indices of the lines that are ours: the import of our hooks, and, where that is there, each
    decorator and each statement that is one call of them and has a line of its own.
    """
    if not any(line in source.text for line in IMPORTS):
        return []
    imported = {alias: node for node in source.tree.body if (alias := alias_of(node))}
    found = [node.lineno for node in imported.values() if _is_alone(source, node, "")]
    waiting = [source.tree.body]
    while waiting:
        for node in waiting.pop():
            waiting.extend(blocks_of(node))
            found += _lines_of(source, node, imported)
    return sorted(number - 1 for number in found)


def _lines_of(source: Source, node: ast.stmt, imported: Collection[str]) -> Iterator[int]:
    """The numbers of the lines of a statement that are calls of ours."""
    if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
        for mark in node.decorator_list:
            if root_of(mark) in imported and _is_alone(source, mark, "@"):
                yield mark.lineno
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        if root_of(node.value) in imported and _is_alone(source, node, ""):
            yield node.lineno


def _is_alone(source: Source, node: ast.stmt | ast.expr, mark: str) -> bool:
    """Whether a node is all that its line has."""
    text = source.line(node.lineno)
    start, end = node.col_offset, node.end_col_offset
    return (node.lineno == node.end_lineno and end is not None
            and text.encode()[:start].decode().strip() == mark and not text.encode()[end:].decode().strip())


def strip(source: Source) -> Source:
    """The file without our lines."""
    ours = set(our_lines(source))
    if not ours:
        return source
    kept = [line for index, line in enumerate(source.lines) if index not in ours]
    if max(ours) == len(source.lines) - 1 and kept and not source.text.endswith("\n"):
        kept[-1] = kept[-1].rstrip("\r\n")  # the line that ended the file had no end, and so has this one
    return replace(source, text="".join(kept))


def weave(source: Source, insertions: Sequence[Insertion], known: Source | None = None) -> Source:
    """The file with these lines, and with no others of ours. A line that several want at one place stands
    there once. `known` may be the file as it stood: where that is the result, it is not read again.

    Raises Refused where a place is not there exactly once, and where the result would not be valid.
    """
    bare = strip(source)
    wanted: dict[tuple[Place, str], None] = {}
    for insertion in insertions:
        _, place = find_first(bare, insertion.anchors)
        wanted.update(((place, line), None) for line in insertion.lines)
    order = sorted(wanted, key=lambda item: (
        item[0].index, not item[0].is_trailing, -len(item[0].indent) if item[0].is_trailing else 0))
    lines = list(bare.lines)
    for place, line in reversed(order):
        _insert(lines, place, line, bare.newline)
    made = replace(source, text="".join(lines))
    made = known if known is not None and known.text == made.text else made
    _prove(bare, made)
    return made


def _insert(lines: list[str], place: Place, line: str, newline: str) -> None:
    if place.index == len(lines) and lines and not lines[-1].endswith("\n"):
        lines[-1] += newline
        lines.append(place.indent + line)
    else:
        lines.insert(place.index, place.indent + line + newline)


def _prove(bare: Source, made: Source) -> None:
    """The result compiles, and without our lines it is the file that it was made of."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(made.tree, made.path, "exec")
    except (SyntaxError, SourceError) as error:
        raise Refused(f"{made.path}: with our lines it would not compile ({error}).") from error
    if strip(made).text != bare.text:
        raise Refused(f"{made.path}: taking our lines out again would not give back the same bytes. "
                      "The file has lines of its own that look like ours.")

