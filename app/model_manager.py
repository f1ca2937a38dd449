"""Model files as the web page's model library shows them: name, folder, size, dates, cover picture."""

from __future__ import annotations

import base64
import binascii
import glob
import io
import json
import mimetypes
import os
from typing import Any

import folder_paths
from app.safe_paths import inside
from app.safetensors_header import read_header
from comfy_depot.model_files import ModelFile
from comfy_depot import hooks as depot

HIDDEN_FOLDERS = frozenset({"configs", "custom_nodes", "tokenizers"})
COVER_HEADER_BYTES = 8 * 1024 * 1024


class ModelFileManager:
    """Lists model folders and files.

    Names come from `folder_paths`, so models that are still to be fetched appear too.
    """

    def folders(self) -> list[dict[str, Any]]:
        """[{name, folders, extensions}] of every kind of model."""
        return [
            {"name": kind, "folders": list(paths), "extensions": sorted(extensions)}
            for kind, (paths, extensions) in folder_paths.folder_names_and_paths.items()
            if kind not in HIDDEN_FOLDERS
        ]

    def get_model_file_list(self, folder_name: str) -> list[dict[str, Any]]:
        """[{name, pathIndex, size, modified, created}]; a file that is not on disk has no size and dates."""
        return [as_dict(file) for file in model_files(folder_name)]

    def get_model_previews(self, filepath: str) -> list[str | io.BytesIO]:
        """Cover pictures of a model file: pictures beside it, then those in its safetensors header."""
        base = os.path.splitext(filepath)[0]
        beside = sorted(glob.glob(glob.escape(base) + ".*"))
        found: list[str | io.BytesIO] = [
            file for file in beside if is_picture(file) and is_named_after(file, base)
        ]
        for file in beside:
            if file.endswith(".safetensors"):
                found.extend(covers_in_header(file))
        return found


def model_files(folder_name: str) -> list[ModelFile]:
    """The files of a kind of model, in the order of its list."""
    return describe_files(folder_name, folder_paths.get_filename_list(folder_name))


@depot.knows_files
def describe_files(folder_name: str, names: list[str]) -> list[ModelFile]:
    """Each name with the first place that has the file, and what the disk says of it."""
    places = folder_paths.get_folder_paths(folder_name)
    return [describe_file(name, places) for name in names]


def describe_file(name: str, places: list[str]) -> ModelFile:
    """One line of the list: the first place that has the file."""
    for index, place in enumerate(places):
        try:
            found = os.stat(os.path.join(place, name))
        except OSError:
            continue
        return ModelFile(name, index, found.st_size, found.st_mtime, found.st_ctime)
    return ModelFile(name, 0)


def as_dict(file: ModelFile) -> dict[str, Any]:
    """A file as the page reads it: without size and dates where it is not on the disk."""
    line: dict[str, Any] = {"name": file.name, "pathIndex": file.path_index}
    if file.size is not None:
        line |= {"size": file.size, "modified": file.modified, "created": file.created}
    return line


def files_as_json(files: list[ModelFile]) -> bytes:
    """The items of a JSON list of files."""
    return json.dumps([as_dict(file) for file in files])[1:-1].encode("ascii")


def is_picture(file: str) -> bool:
    """Does the name end like a picture's?"""
    return (mimetypes.guess_type(file)[0] or "").startswith("image/")


def is_named_after(file: str, base: str) -> bool:
    """Is it <base>.png or <base>.preview.png?"""
    return os.path.splitext(file)[0] in (base, base + ".preview")


def covers_in_header(file: str) -> list[io.BytesIO]:
    """The pictures that training tools put into a safetensors header."""
    metadata = (read_header(file, bytes_limit=COVER_HEADER_BYTES) or {}).get("__metadata__")
    try:
        encoded = json.loads(metadata["ssmd_cover_images"])
        return [io.BytesIO(base64.b64decode(picture)) for picture in encoded]
    except (TypeError, KeyError, ValueError, binascii.Error):
        return []


def as_webp(picture: str | io.BytesIO) -> bytes | None:
    """The picture as a WEBP file, or None when it cannot be read."""
    from PIL import Image

    try:
        with Image.open(picture) as opened:
            file = io.BytesIO()
            opened.save(file, format="WEBP")
            return file.getvalue()
    except (OSError, ValueError):
        return None


def find_model(folder: str, path_index: int, name: str) -> str | None:
    """Path that a name of the list stands for, or None when it would leave the model folder."""
    return (
        inside(folder_paths.get_folder_paths(folder)[path_index], name, links_may_leave=True)
        if name
        else None
    )
