"""The names of the host that a node pack uses, read from its source: what it imports, and what it takes off
those modules. Nothing of the pack is run.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

HOST_PACKAGES = frozenset((
    "app", "comfy", "comfy_api", "comfy_execution", "comfy_extras", "comfyui_version", "execution",
    "folder_paths", "latent_preview", "node_helpers", "nodes", "protocol", "server", "utils",
))  # fmt: skip
# Folders of a pack that its import does not reach.
APART = frozenset(("tests", "test", "node_modules", "notebook", "notebooks", ".git", "__pycache__"))


@dataclass(frozen=True, order=True)
class Use:
    """A name of the host in a pack."""

    name: str
    at_import: bool
    """Is it needed to import the module, and not only when a function runs?"""
    guarded: bool
    """Does the pack cope without it (in a `try`, or only for type checkers)?"""


def sources(pack: Path) -> list[Path]:
    """The Python files of a pack, which may be one file."""
    if pack.is_file():
        return [pack]
    return [file for file in sorted(pack.rglob("*.py")) if not APART & set(file.relative_to(pack).parts[:-1])]


def is_host_name(name: str, own: Iterable[str] = ()) -> bool:
    """Does it belong to the host, and not to a module that the pack has itself (`own`)?"""
    top = name.partition(".")[0]
    return top in HOST_PACKAGES and top not in own


def names_used(pack: Path) -> set[Use]:
    """Every host name in a pack's sources."""
    own = own_modules(pack)
    found: set[Use] = set()
    for file in sources(pack):
        try:
            tree = ast.parse(file.read_text(encoding="utf-8", errors="replace"), filename=str(file))
        except SyntaxError:  # another version of Python, or a template: not imported here either
            continue
        found.update(_in_file(tree, own))
    return found


def own_modules(pack: Path) -> frozenset[str]:
    """Names that a pack may mean by itself: it puts its own folder on sys.path."""
    if pack.is_file():
        return frozenset()
    inserts = any("sys.path" in file.read_text(encoding="utf-8", errors="replace") for file in sources(pack))
    inside = {file.stem for file in pack.glob("*.py")} | {one.name for one in pack.iterdir() if one.is_dir()}
    return frozenset(inside) if inserts else frozenset()


def _in_file(tree: ast.Module, own: frozenset[str]) -> Iterator[Use]:
    scopes = list(_statements(tree.body, at_import=True, guarded=False))
    aliases = {}
    for node, at_import, guarded in scopes:
        for bound, target in _imports(node):
            if not is_host_name(target, own):
                continue
            aliases[bound] = target
            yield Use(target, at_import, guarded)
    for node, at_import, guarded in scopes:
        if isinstance(node, ast.Attribute):
            chain = _chain(node)
            if chain and chain[0] in aliases and aliases[chain[0]] != ".".join(chain):
                yield Use(".".join([aliases[chain[0]], *chain[1:]]), at_import, guarded)


def _imports(node: ast.AST) -> Iterator[tuple[str, str]]:
    """(name in the file, name in the host) of an import."""
    if isinstance(node, ast.Import):
        for one in node.names:
            bound = one.asname or one.name.partition(".")[0]
            yield (bound, one.name if one.asname else bound)
            if not one.asname and "." in one.name:
                yield (one.name, one.name)  # no name of the file: says that the module is needed
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        for one in node.names:
            if one.name != "*":
                yield (one.asname or one.name, f"{node.module}.{one.name}")
            else:
                yield (node.module, node.module)


def _chain(node: ast.Attribute) -> list[str]:
    """`a.b.c` as a list; empty for anything that does not begin with a name."""
    parts: list[str] = []
    at: ast.AST = node
    while isinstance(at, ast.Attribute):
        parts.append(at.attr)
        at = at.value
    return [at.id, *reversed(parts)] if isinstance(at, ast.Name) else []


def _statements(
    body: Iterable[ast.AST], *, at_import: bool, guarded: bool
) -> Iterator[tuple[ast.AST, bool, bool]]:
    """Every node below, with where it stands; of an attribute chain only the whole."""
    for node in body:
        yield node, at_import, guarded
        inner_import = at_import and not isinstance(
            node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
        )
        if isinstance(node, ast.Try):
            inside = guarded or bool(node.handlers)
            yield from _statements(node.body, at_import=inner_import, guarded=inside)
            rest: list[ast.AST] = [*node.handlers, *node.orelse, *node.finalbody]
            yield from _statements(rest, at_import=inner_import, guarded=inside)
        elif isinstance(node, ast.If):
            inside = guarded or "TYPE_CHECKING" in ast.dump(node.test) or "hasattr" in ast.dump(node.test)
            yield from _statements(ast.iter_child_nodes(node), at_import=inner_import, guarded=inside)
        elif isinstance(node, ast.Attribute) and _chain(node):
            continue
        else:
            yield from _statements(ast.iter_child_nodes(node), at_import=inner_import, guarded=guarded)
