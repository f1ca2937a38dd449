"""What a command works with: the options, the open depot, a model's name."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import comfy_depot
import folder_paths
from comfy.cli_args import args as program_arguments
from comfy_depot import options
from comfy_depot.depot import Depot
from utils import extra_config


def options_of(arguments: argparse.Namespace) -> options.Options:
    """Place the folders as the server does, and the depot's options with them."""
    if not hasattr(folder_paths, "apply_arguments"):
        from comfy_depot.upstream import folders

        folders.place(arguments)
        return options.from_args(arguments, base_directory=Path(folder_paths.base_path))
    for name in ("base_directory", "models_directory", "extra_model_paths_config"):
        setattr(program_arguments, name, getattr(arguments, name))
    folder_paths.apply_arguments(program_arguments)
    extra_config.load_configured(arguments)
    return options.from_args(arguments, base_directory=Path(folder_paths.base_path))


@contextmanager
def open_depot(arguments: argparse.Namespace) -> Iterator[Depot]:
    """The depot of the command line's folders, closed at the end."""
    depot = comfy_depot.start(options_of(arguments))
    if depot is None:
        raise ValueError("The depot is off. Leave out --depot-off.")
    try:
        yield depot
    finally:
        comfy_depot.stop()


def folder_and_name(model: str) -> tuple[str, str]:
    """The two parts of FOLDER/NAME; ValueError says how to write it."""
    folder, slash, name = model.partition("/")
    if not slash:
        raise ValueError(f"'{model}' names no folder. Write FOLDER/NAME, as checkpoints/{model}.")
    if not folder or not name:
        raise ValueError(f"'{model}' names no {'model' if folder else 'folder'}. Write FOLDER/NAME, as "
                         "checkpoints/x.safetensors.")
    return folder, name
