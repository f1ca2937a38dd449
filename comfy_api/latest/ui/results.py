"""Files that were saved, as the web page is told of them; where they are saved, and with what metadata."""

from __future__ import annotations

import json
from typing import Any

import folder_paths
from comfy.cli_args import args
from comfy_api.latest.io.node import _UIOutput
from comfy_api.latest.io.options import FolderType


class SavedResult(dict[str, Any]):
    """A file: its name, its folder below the `type` folder."""

    def __init__(self, filename: str, subfolder: str, type: FolderType) -> None:
        super().__init__(filename=filename, subfolder=subfolder, type=FolderType(type).value)

    @property
    def filename(self) -> str:
        """Name of the file."""
        return self["filename"]

    @property
    def subfolder(self) -> str:
        """Folder of the file, "" for the `type` folder itself."""
        return self["subfolder"]

    @property
    def type(self) -> FolderType:
        """The folder that `subfolder` is below."""
        return FolderType(self["type"])


class SavedImages(_UIOutput):
    """Pictures that were saved."""

    def __init__(self, results: list[SavedResult], is_animated: bool = False) -> None:
        self.results = results
        self.is_animated = is_animated

    def as_dict(self) -> dict[str, Any]:
        shown: dict[str, Any] = {"images": self.results}
        return {**shown, "animated": (True,)} if self.is_animated else shown


class SavedAudios(_UIOutput):
    """Sounds that were saved."""

    def __init__(self, results: list[SavedResult]) -> None:
        self.results = results

    def as_dict(self) -> dict[str, Any]:
        return {"audio": self.results}


def directory_of(folder_type: FolderType) -> str:
    """The path of a kind of folder."""
    return {
        FolderType.input: folder_paths.get_input_directory,
        FolderType.output: folder_paths.get_output_directory,
        FolderType.temp: folder_paths.get_temp_directory,
    }[FolderType(folder_type)]()


def metadata_of(cls: Any) -> dict[str, str]:
    """What files of a node carry, as JSON by key: the prompt, and what the client adds. `cls` may be None."""
    hidden = getattr(cls, "hidden", None)
    if args.disable_metadata or hidden is None:
        return {}
    values = {} if hidden.prompt is None else {"prompt": hidden.prompt}
    values |= hidden.extra_pnginfo or {}
    return {key: json.dumps(value) for key, value in values.items()}
