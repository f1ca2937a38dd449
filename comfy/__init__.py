"""ComfyUI's inference library on a maintained model zoo; it knows no server, no queue and no nodes.

A part is imported when it is first named: node packs write `import comfy` and then `comfy.samplers`.
"""

import importlib
from types import ModuleType


def __getattr__(name: str) -> ModuleType:
    if not name.startswith("__"):
        try:
            return importlib.import_module(f"{__name__}.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"{__name__}.{name}":
                raise
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
