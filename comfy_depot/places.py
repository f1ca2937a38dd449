"""Where a fetched model is put, and which names a folder type may hold.

Folder types and their folders come from `folder_paths`; node packs add types at any time, so every answer is
given from the table as it is now.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection, Mapping

import folder_paths
from comfy_depot.manifest import Entry, extension_of, told

FolderTable = Mapping[str, tuple[list[str], Collection[str]]]

PLAIN_FORMATS = frozenset(
    ".safetensors .sft .gguf .onnx .json .yaml .yml .txt .model .png .jpg .jpeg .webp .wav .flac .mp4".split()
)
"""Formats that hold data only. A file of any other kind could run code when it is opened."""

PICKLE_FORMATS = frozenset(".ckpt .pt .pt2 .pth .bin .pkl".split())


def table() -> FolderTable:
    """The folder types of now: {type: (folders, extensions)}."""
    return folder_paths.folder_names_and_paths


def unknown_type(folder: str) -> str:
    """What to say of a folder type that nobody knows."""
    known = sorted(table())
    near = difflib.get_close_matches(folder[:60], known, n=3, cutoff=0.5)
    advice = f"Did you mean {' or '.join(near)}? " if near else ""
    return f"There is no folder type '{told(folder)}'. {advice}Known: {', '.join(known)}."


def directory_for(folder: str) -> str | None:
    """The folder that gets what is fetched for a type: its first one, which an `is_default` folder is.

    The built-in models/unet is passed over for models/diffusion_models, which replaced it.
    """
    directories = table().get(folder, ([], ()))[0]
    replaced = os.path.join(folder_paths.models_dir, "unet")
    return next((directory for directory in directories if directory != replaced), None)


def same_directory(directory: str) -> str:
    """A folder's path in the one spelling that can be compared."""
    return os.path.normcase(os.path.abspath(directory))


def name_of(path: str) -> str:
    """A model file for people: "folder type/name", or only its own name where it lies in no model folder."""
    for folder, (directories, _) in table().items():
        for directory in map(os.path.abspath, directories):
            if path.startswith(directory + os.sep):
                return f"{folder}/{os.path.relpath(path, directory).replace(os.sep, '/')}"
    return os.path.basename(path)


def why_refused(entry: Entry, *, allow_pickle: bool) -> str | None:
    """Why an entry cannot stand in its folder and what to write instead, or None when it can."""
    folders = table()
    if entry.folder not in folders:
        near = difflib.get_close_matches(entry.folder[:60], folders, n=3, cutoff=0.5)
        advice = f"Did you mean {' or '.join(repr(name) for name in near)}? " if near else ""
        return f"folder type '{told(entry.folder)}' is not known. {advice}Known: {', '.join(sorted(folders))}"
    if entry.folder == "custom_nodes":
        return "node packs are code and are never fetched. Take the entry out of the manifest"
    directory = directory_for(entry.folder)
    if directory is None:
        return f"folder type '{entry.folder}' has no folder. Add one to extra_model_paths.yaml"
    return _why_extension_refused(entry, folders[entry.folder][1], allow_pickle=allow_pickle)


def _why_extension_refused(entry: Entry, accepted: Collection[str], *, allow_pickle: bool) -> str | None:
    extension = extension_of(entry.name)
    allowed = PLAIN_FORMATS | PICKLE_FORMATS if allow_pickle else PLAIN_FORMATS
    if accepted and extension not in accepted:
        shown = ", ".join(sorted(name for name in accepted if name in allowed)) or "no files at all"
        return f"'{entry.folder}' lists no files with extension '{extension}'. Use a file of kind: {shown}"
    if extension in PICKLE_FORMATS and not allow_pickle:
        return (f"'{extension}' files can run code when they are loaded. "
                "Use a .safetensors file, or start with --allow-pickle if you trust the source")
    if extension not in allowed:
        return f"the depot fetches no '{extension}' files. Use one of: {', '.join(sorted(allowed))}"
    return None
