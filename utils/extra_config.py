"""extra_model_paths.yaml: more folders to look for models in.

    my_library:
        base_path: ~/library
        is_default: true
        checkpoints: models/checkpoints
        loras: |
            models/loras
            models/lycoris
"""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

import folder_paths

log = logging.getLogger(__name__)


def load_extra_path_config(yaml_path: str) -> None:
    """Add the folders that a yaml file names; ValueError with file and section where it is not usable."""
    try:
        with open(yaml_path, encoding="utf-8") as stream:
            sections = yaml.safe_load(stream)
    except OSError as error:
        raise ValueError(f"{yaml_path} cannot be read: {error.strerror}. Check the name.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{yaml_path} is not YAML: {reason}. Correct or remove the file.") from error
    if sections is None:
        return
    if not isinstance(sections, Mapping):
        raise ValueError(f"{yaml_path} holds no sections. Write a name, a colon, and folders below it.")
    here = os.path.dirname(os.path.abspath(yaml_path))
    for name, section in sections.items():
        if section is None:
            continue
        if not isinstance(section, Mapping):
            advice = "Write 'checkpoints: FOLDER' there"
            raise ValueError(f"{yaml_path}: section '{name}' holds no folders. {advice}.")
        _add_section(section, here=here, where=f"{yaml_path}: section '{name}'")


def load_configured(arguments: argparse.Namespace) -> None:
    """Load the base folder's extra_model_paths.yaml, where there is one, and those of the command line."""
    beside = os.path.join(folder_paths.base_path, "extra_model_paths.yaml")
    if os.path.isfile(beside):
        load_extra_path_config(beside)
    given = getattr(arguments, "extra_model_paths_config", None) or []
    for entry in given:
        for path in [entry] if isinstance(entry, str) else entry:
            load_extra_path_config(path)


def _add_section(section: Mapping[str, Any], *, here: str, where: str) -> None:
    given = section.get("base_path") or ""
    if not isinstance(given, str):
        raise ValueError(f"{where}: base_path is no folder: {given!r}. Write a path.")
    base = os.path.join(here, os.path.expandvars(os.path.expanduser(given)))
    is_default = bool(section.get("is_default", False))
    for folder_name, folders in section.items():
        if folder_name in ("base_path", "is_default"):
            continue
        lines = folders if isinstance(folders, list) else [folders]
        if not all(isinstance(text, str) for text in (folder_name, *lines)):
            raise ValueError(f"{where}: '{folder_name}' is no folder. Write a path, or one path per line.")
        for folder in _lines(folders):
            path = os.path.normpath(os.path.join(base, os.path.expanduser(folder)))
            log.info("Models of type %s are also looked for in %s.", folder_name, path)
            folder_paths.add_model_folder_path(folder_name, path, is_default)


def _lines(folders: str | list[str]) -> Iterator[str]:
    lines = folders.split("\n") if isinstance(folders, str) else folders
    return (line.strip() for line in lines if line.strip())
