"""The folders of upstream for the command line (`python -m comfy_depot`), where no server has placed them."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

import folder_paths
from comfy_depot.upstream import core
from utils import extra_config


def place(arguments: argparse.Namespace) -> None:
    """Place the folders as upstream's server would with these options: it does so while `folder_paths` is
    imported, so that is done again. ValueError: this version has no such option.
    """
    program = core.arguments()
    for name in ("base_directory", "models_directory"):
        value = getattr(arguments, name, None)
        if value is None:
            continue
        if not hasattr(program, name):
            option = name.replace("_", "-")
            raise ValueError(f"This version of ComfyUI has no --{option}. Leave it out, or name the folders "
                             "by --extra-model-paths-config.")
        setattr(program, name, value)
    importlib.reload(folder_paths)
    beside = Path(folder_paths.__file__).resolve().parent / "extra_model_paths.yaml"
    for file in ([str(beside)] if beside.is_file() else []) + (arguments.extra_model_paths_config or []):
        extra_config.load_extra_path_config(file)
