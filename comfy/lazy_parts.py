"""Parts of a package that are imported when they are first named, as attributes of it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType


def importer(package: str) -> Callable[[str], ModuleType]:
    """The `__getattr__` of a package: node packs write `import comfy` and then `comfy.samplers`."""

    def find(name: str) -> ModuleType:
        if not name.startswith("__"):
            try:
                return importlib.import_module(f"{package}.{name}")
            except ModuleNotFoundError as error:
                if error.name != f"{package}.{name}":
                    raise
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return find
