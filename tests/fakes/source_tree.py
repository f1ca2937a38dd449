"""The project's own sources as syntax trees, for the tests of the architecture."""

import ast
import functools
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOP_MODULES = {
    "main",
    "folder_paths",
    "execution",
    "server",
    "nodes",
    "node_helpers",
    "latent_preview",
    "protocol",
    "comfyui_version",
}
PACKAGES = {
    "comfy",
    "comfy_execution",
    "comfy_api",
    "comfy_extras",
    "app",
    "comfy_depot",
    "comfy_fleet",
    "utils",
}


def sources():
    yield from sorted(ROOT.glob("*.py"))
    for package in sorted(PACKAGES | {"patches"}):
        yield from sorted((ROOT / package).rglob("*.py"))


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_type_checking(node):
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


@functools.cache
def tree_of(path: Path) -> ast.Module:
    """The syntax tree of a file. Several tests read the same files, so it is kept; nobody changes it."""
    return ast.parse(path.read_text(encoding="utf-8"))


def imports_of(path, *, everywhere=True):
    """(module, line) of the imports; with everywhere=False only those that run when the module is imported.
    """
    module = module_of(path)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found = []

    def visit(node):
        for child in ast.iter_child_nodes(node):
            if is_type_checking(child):
                continue
            if isinstance(child, ast.Import):
                found.extend((alias.name, child.lineno) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = child.module or ""
                if child.level:
                    anchor = package.split(".")[: len(package.split(".")) - child.level + 1]
                    base = ".".join(anchor + ([child.module] if child.module else []))
                found.extend((f"{base}.{alias.name}", child.lineno) for alias in child.names)
            elif everywhere or not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
                visit(child)

    visit(tree_of(path))
    return found


def room(module):
    return module.split(".")[0]
