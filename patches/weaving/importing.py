"""`run main.py ...`: the lines are woven while Python imports the files; no file changes.

Positions of the woven syntax tree are put back to those of the file, so that tracebacks show its real lines;
a line of ours has the number of the line that it stands above.
"""

from __future__ import annotations

import ast
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import CodeType, ModuleType

from weaving import woven
from weaving.errors import Refused
from weaving.patch_files import PACKAGES, Patch
from weaving.planning import Plan, plan_weaving
from weaving.sources import Source
from weaving.trees import Folder


def code_of(bare: Source, made: Source, filename: str) -> CodeType:
    """The code of a woven file with the line numbers of the file as it stands."""
    tree = made.tree
    numbers = _numbers(len(made.lines), woven.our_lines(made))
    for node in ast.walk(tree):
        for name in ("lineno", "end_lineno"):
            number = getattr(node, name, None)
            if number is not None:
                setattr(node, name, min(numbers[number], max(1, len(bare.lines))))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return compile(tree, filename, "exec", dont_inherit=True)


def _numbers(count: int, ours: Sequence[int]) -> list[int]:
    """For each line number of the woven file (from 1; 0 is not used) the one in the file as it stands."""
    numbers, number, skipped = [0], 1, set(ours)
    for index in range(count):
        numbers.append(number)
        number += index not in skipped
    return numbers


class WeavingLoader(importlib.machinery.SourceFileLoader):
    """Loads a file of the core with our lines in it."""

    def __init__(self, name: str, path: str, code: CodeType) -> None:
        super().__init__(name, path)
        self._code = code

    def get_code(self, fullname: str) -> CodeType:
        return self._code


class WeavingFinder(importlib.abc.MetaPathFinder):
    """Finds the modules whose files are woven; asked before all others."""

    def __init__(self, codes: Mapping[str, CodeType]) -> None:
        self._codes = codes

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        code = self._codes.get(fullname)
        found = None if code is None else importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if code is None or found is None or found.origin != code.co_filename:
            return None
        loader = WeavingLoader(fullname, found.origin, code)
        return importlib.util.spec_from_file_location(
            fullname, found.origin, loader=loader,
            submodule_search_locations=found.submodule_search_locations)


class PackageFinder(importlib.abc.MetaPathFinder):
    """Finds our packages, and nothing else, in the project's folder; asked after all others."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in PACKAGES.values():
            return None
        return importlib.machinery.PathFinder.find_spec(fullname, [self._folder], target)


def codes_of(root: Path, plan: Plan) -> dict[str, CodeType]:
    """Module name -> code of each woven file."""
    return {path.removesuffix(".py").removesuffix("/__init__").replace("/", "."):
            code_of(plan.bare[path], made, str(root / path)) for path, made in plan.after.items()}


def run(script: Path, arguments: Sequence[str], patches: Sequence[Patch], packages: Path) -> None:
    """Run a core's `main.py` as Python would, with the series woven in, and our packages found in `packages`
    where the core has none of its own beside it.
    """
    if not script.is_file():
        raise Refused(f"{script} is not there. Name the main.py of a ComfyUI.")
    root = script.resolve().parent
    codes = codes_of(root, plan_weaving(Folder(root), patches))
    sys.meta_path.insert(0, WeavingFinder(codes))
    sys.path[0] = str(root)
    sys.meta_path.append(PackageFinder(packages))
    sys.argv = [str(script), *arguments]
    main = ModuleType("__main__")
    main.__file__, main.__builtins__ = str(script), __builtins__  # type: ignore[attr-defined]
    sys.modules["__main__"] = main
    code = codes.get(script.stem)
    if code is None:
        code = compile(script.read_bytes(), str(script), "exec", dont_inherit=True)
    exec(code, main.__dict__)  # noqa: S102 - it is the program that the user asked for
