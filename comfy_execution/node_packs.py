"""Loading of node packs: from folders of the user, and from the topics that ship with the program.

A pack is a Python module that names its nodes in NODE_CLASS_MAPPINGS, or gives an extension that lists them
from `comfy_entrypoint()`. One that fails is reported and skipped: a start never fails because of a pack. The
folder conventions are those of ComfyUI (WEB_DIRECTORY, prestartup_script.py, `[tool.comfy] web` in
pyproject.toml, names that end in `.disabled`).
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import logging
import os
import re
import sys
import time
import traceback
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from comfy_execution import schema_nodes

log = logging.getLogger(__name__)


@dataclass
class Registry:
    """Where packs are entered. The dictionaries are those of `nodes`, shared, not copied."""

    classes: MutableMapping[str, Any]
    display_names: MutableMapping[str, str]
    web_directories: MutableMapping[str, str] = field(default_factory=dict)
    module_directories: MutableMapping[str, str] = field(default_factory=dict)
    protected: frozenset[str] = frozenset()
    """Class names that a pack cannot replace: the built-in nodes."""


@dataclass(frozen=True)
class PackReport:
    """What came of one pack."""

    name: str
    path: str
    seconds: float
    node_names: tuple[str, ...] = ()
    error: str | None = None

    @property
    def is_loaded(self) -> bool:
        return self.error is None


class PackRefused(Exception):
    """The module imports, but is no node pack that can be used here."""


def pack_name(path: str) -> str:
    """Name of a pack: the folder's name, or the file's without `.py`."""
    base = os.path.basename(os.path.normpath(path))
    return base[:-3] if base.endswith(".py") and os.path.isfile(path) else base


def find_packs(directory: str) -> list[str]:
    """Paths of the packs in a folder, in order of name: folders and `.py` files that are not disabled."""
    if not os.path.isdir(directory):
        return []
    found = []
    for name in sorted(os.listdir(directory)):
        path = os.path.join(directory, name)
        is_candidate = os.path.isdir(path) or name.endswith(".py")
        if (
            is_candidate
            and name != "__pycache__"
            and not name.startswith(".")
            and not name.endswith(".disabled")
        ):
            found.append(path)
    return found


def _execute_file(module_name: str, path: str) -> ModuleType:
    """Import the file or package at `path` under `module_name`; on failure sys.modules is as before."""
    if os.path.isdir(path):
        spec = importlib.util.spec_from_file_location(
            module_name, os.path.join(path, "__init__.py"), submodule_search_locations=[path])
    else:
        spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise PackRefused(f"{path} cannot be imported. A pack is a folder with __init__.py, or a .py file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(module_name, None)
        raise
    return module


def _web_directory(module: ModuleType, path: str) -> str | None:
    """Absolute folder of the pack's JavaScript, from WEB_DIRECTORY or pyproject.toml, if it exists."""
    relative = getattr(module, "WEB_DIRECTORY", None)
    project_file = Path(path) / "pyproject.toml"
    if relative is None and project_file.is_file():
        section = re.search(
            r"^\[tool\.comfy\]\s*$(.*?)(?=^\[|\Z)", project_file.read_text(encoding="utf-8"), re.M | re.S
        )
        line = re.search(r"^\s*web\s*=\s*[\"']([^\"']+)[\"']", section.group(1), re.M) if section else None
        relative = line.group(1) if line else None
    if not relative:
        return None
    root = Path(path if os.path.isdir(path) else os.path.dirname(path)).resolve()
    folder = (root / relative).resolve()
    return str(folder) if folder.is_dir() and folder.is_relative_to(root) else None


async def _nodes_of_extension(entrypoint: Any, file: str) -> tuple[dict[str, Any], dict[str, str]]:
    """(node classes, titles) of the extension that a module's `comfy_entrypoint` gives."""
    if not callable(entrypoint):
        raise PackRefused(f"{file} is not used: its comfy_entrypoint is no function.")
    extension = entrypoint()
    if inspect.isawaitable(extension):
        extension = await extension
    if not all(hasattr(extension, name) for name in ("on_load", "get_node_list")):
        raise PackRefused(
            f"{file} is not used: its comfy_entrypoint returned a {type(extension).__name__}, "
            "and no ComfyExtension."
        )
    await extension.on_load()
    node_list = await extension.get_node_list()
    if not isinstance(node_list, list):
        raise PackRefused(
            f"{file} is not used: get_node_list of its extension returned a {type(node_list).__name__}, "
            "and no list."
        )
    schemas = [(node_class.GET_SCHEMA(), node_class) for node_class in node_list]
    classes = {schema.node_id: node_class for schema, node_class in schemas}
    return classes, {schema.node_id: schema.display_name for schema, _ in schemas if schema.display_name}


def _problem_with_schema(node_class: Any) -> str | None:
    """Why the schema of a class cannot be used. Asked once, here: afterwards prompts rely on it."""
    if not schema_nodes.is_schema_class(node_class):
        return None
    try:
        node_class.GET_SCHEMA()
    except Exception as failure:  # code of the pack; its other nodes can be used
        return f"{type(failure).__name__}: {failure}"
    return None


async def enter_nodes(registry: Registry, module: ModuleType, python_module: str) -> list[str]:
    """Enter the module's node classes; returns their names. Built-in names are left alone."""
    file = getattr(module, "__file__", python_module)
    mappings = getattr(module, "NODE_CLASS_MAPPINGS", None)
    display_names: Mapping[str, str] = {}
    if mappings is not None:
        display_names = getattr(module, "NODE_DISPLAY_NAME_MAPPINGS", None) or {}
    elif hasattr(module, "comfy_entrypoint"):
        mappings, display_names = await _nodes_of_extension(module.comfy_entrypoint, file)
    else:
        raise PackRefused(f"{file} is not used: it has neither NODE_CLASS_MAPPINGS nor comfy_entrypoint.")
    entered = []
    for name, node_class in mappings.items():
        if name in registry.protected:
            log.warning(
                "Node pack %s may not replace the built-in node %s; its version is ignored.",
                python_module,
                name,
            )
            continue
        problem = _problem_with_schema(node_class)
        if problem is not None:
            log.error("Node %s of %s is left out. Its schema fails: %s", name, python_module, problem)
            continue
        node_class.RELATIVE_PYTHON_MODULE = python_module
        registry.classes[name] = node_class
        entered.append(name)
    registry.display_names.update({name: title for name, title in display_names.items()
                                   if name not in registry.protected})
    return entered


async def load_pack(path: str, registry: Registry, *, parent: str = "custom_nodes") -> PackReport:
    """Import one pack and enter its nodes. Never raises for a fault of the pack."""
    started = time.perf_counter()
    name = pack_name(path)
    # The name that packs see as __name__: the path, with dots hidden from the import system.
    module_name = os.path.normpath(path).replace(".", "_x_") if os.path.isdir(path) else name
    names: list[str] = []
    error = None
    try:
        module = _execute_file(module_name, path)
        registry.module_directories[name] = os.path.abspath(
            path if os.path.isdir(path) else os.path.dirname(path)
        )
        web_directory = _web_directory(module, path)
        if web_directory is not None:
            registry.web_directories[name] = web_directory
        names = await enter_nodes(registry, module, f"{parent}.{name}")
    except PackRefused as refusal:
        error = str(refusal)
        log.warning("%s", error)
    except KeyboardInterrupt:
        raise
    except BaseException as failure:  # packs may raise anything; the start goes on
        error = f"{type(failure).__name__}: {failure}"
        log.error(
            "Node pack %s could not be loaded and is skipped: %s\n%s",
            path,
            error,
            traceback.format_exc().rstrip(),
        )
    return PackReport(name, path, time.perf_counter() - started, tuple(names), error)


async def load_packs(directories: Iterable[str], registry: Registry, *, disabled: bool = False,
                     allowed: Iterable[str] = ()) -> list[PackReport]:
    """Load every pack of the folders, in order. When `disabled`, only those named in `allowed`."""
    wanted = set(allowed)
    reports = []
    for directory in directories:
        for path in find_packs(directory):
            if disabled and os.path.basename(path) not in wanted and pack_name(path) not in wanted:
                log.info("Node pack %s is not loaded (--disable-all-custom-nodes).", path)
                continue
            reports.append(await load_pack(path, registry))
    return reports


async def load_topics(package: str, registry: Registry) -> list[PackReport]:
    """Load the modules `nodes_<topic>` of an importable package, such as comfy_extras."""
    root = importlib.import_module(package).__path__[0]
    reports = []
    for path in sorted(Path(root).glob("nodes_*.py")):
        started = time.perf_counter()
        error, names = None, []
        try:
            names = await enter_nodes(
                registry, importlib.import_module(f"{package}.{path.stem}"), f"{package}.{path.stem}"
            )
        except Exception as failure:  # a topic with a missing optional library must not stop the start
            error = f"{type(failure).__name__}: {failure}"
            log.error(
                "The nodes of %s could not be loaded: %s\n%s", path, error, traceback.format_exc().rstrip()
            )
        reports.append(PackReport(path.stem, str(path), time.perf_counter() - started, tuple(names), error))
    return reports


def run_prestartup_scripts(
    directories: Iterable[str], *, disabled: bool = False, allowed: Iterable[str] = ()
) -> None:
    """Run each pack's `prestartup_script.py`, before anything heavy is imported."""
    wanted = set(allowed)
    for directory in directories:
        for path in find_packs(directory):
            script = os.path.join(path, "prestartup_script.py")
            if not os.path.isfile(script) or (disabled and os.path.basename(path) not in wanted):
                continue
            try:
                _execute_file(f"{pack_name(path)}_prestartup", script)
            except KeyboardInterrupt:
                raise
            except BaseException:  # a pack's script may raise anything; the start goes on
                log.error("%s failed and is skipped:\n%s", script, traceback.format_exc().rstrip())


def describe(reports: Iterable[PackReport]) -> str:
    """Import times, slowest last, for the log."""
    lines = [f"  {report.seconds:5.1f} seconds{'' if report.is_loaded else ' (IMPORT FAILED)'}: {report.path}"
             for report in sorted(reports, key=lambda report: report.seconds)]
    return "\n".join(lines)
