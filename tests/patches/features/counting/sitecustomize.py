"""Python imports this file at its start, where its folder is on PYTHONPATH: it watches the hooks at work.

Each first time that a hook does something is a line of the file HOOKS_FIRED: its name, where it stands, and
whether the depot was started.
"""

import functools
import importlib.abc
import importlib.machinery
import os
import sys
import types

NAME = "comfy_depot.hooks"


def note(*words):
    with open(os.environ["HOOKS_FIRED"], "a", encoding="utf-8") as file:
        file.write(" ".join(words) + "\n")


def watch(hooks, name, function, place=""):
    """What calls `function` and notes it; a decorator that it returns, and what that makes, alike."""
    seen = set()

    @functools.wraps(function)
    def watched(*args, **kwargs):
        result = function(*args, **kwargs)
        if isinstance(result, types.FunctionType) and not place:
            hooked = args[0] if args and isinstance(args[0], types.FunctionType) else None
            where = f"{hooked.__module__}.{hooked.__qualname__}" if hooked else ""
            return watch(hooks, name, result, where)
        state = "off" if hooks.armed() is None else "on"
        if state not in seen:
            seen.add(state)
            note(name, place or "-", state)
        return result

    # the depot looks for the function under its hook
    watched.__wrapped__ = getattr(function, "__wrapped__", function)
    return watched


class Finder(importlib.abc.MetaPathFinder):
    """Finds the module of the hooks as Python would, and watches its functions."""

    def find_spec(self, fullname, path, target=None):
        if fullname != NAME:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            for name, value in list(vars(module).items()):
                is_own = isinstance(value, types.FunctionType) and value.__module__ == NAME
                if is_own and not name.startswith("_") and name not in ("arm", "disarm", "armed"):
                    setattr(module, name, watch(module, name, value))

        spec.loader.exec_module = exec_module
        return spec


if "HOOKS_FIRED" in os.environ:
    sys.meta_path.insert(0, Finder())
