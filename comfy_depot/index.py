"""The index of local files: what lists, searches and the model library ask instead of the disk.

Names, sizes and dates come from the forest (`forest.py`), which is right at every question; lists are kept in
memory (`listing.py`, `model_files.py`). What it takes longer to find out (sha256, headers) is in a database
(`database.py`), which a thread keeps current (`indexer.py`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import folder_paths
from comfy_depot import inventory, places
from comfy_depot.catalog import Catalogue
from comfy_depot.database import Database
from comfy_depot.forest import Forest
from comfy_depot.indexer import Indexer
from comfy_depot.listing import FileList, Listings
from comfy_depot.model_files import Describe, ModelFile, ModelFiles

log = logging.getLogger(__name__)

_MADE_BY = ("recursive_search", "filter_files_extensions", "get_filename_list_")
_OWN_MODULES = ("folder_paths", "comfy_depot.hooks")


class Index:
    """The local files of all model folders. Every method may be called from any thread."""

    def __init__(self, catalogue: Catalogue, state_dir: Path) -> None:
        self._catalogue = catalogue
        self.forest = Forest()
        self.database = Database(state_dir)
        self.indexer = Indexer(self.forest, self.database, _roots)
        self.listings = Listings(self.forest, catalogue.names_in)
        self._files = ModelFiles(self.forest, catalogue.names_in)
        self._given: dict[str, FileList] = {}

    def close(self) -> None:
        """Forget everything; the kernel is asked no more."""
        self.indexer.close()
        self.forest.close()

    # In the place of `folder_paths`.

    def search(
        self, directory: str, excluded_dir_names: Any = None
    ) -> tuple[list[str], dict[str, float]] | None:
        """What `recursive_search` finds in a model folder; None for any other question."""
        if list(excluded_dir_names or ()) != [".git"] or not self._is_model_folder(directory):
            return None
        with self.forest.lock:
            tree = self.forest.tree(places.same_directory(directory))
            return list(tree.names()), tree.times()

    def current_list(self, function: Callable[[str], FileList | None], folder_name: str) -> FileList | None:
        """What `cached_filename_list_` gives; `function` is the one of `folder_paths`.

        Packs can change the lists: by functions in the place of those that make them, or by putting a list
        of their own into the cache. Then the lists are made and kept as `folder_paths` does it.
        """
        kind = folder_paths.map_legacy(folder_name)
        kept = folder_paths.cache_helper.get(kind)
        if kept is not None:
            return kept
        if kind in inventory.NOT_MODELS or kind not in places.table() or not _lists_are_made_as_usual():
            return self._if_fresh(function(folder_name))
        current = self.listings.current(kind)
        foreign = folder_paths.filename_list_cache.get(kind)
        if foreign is not None and foreign is not self._given.get(kind) and foreign[0] != current[0]:
            fresh = self._if_fresh(function(folder_name))
            if fresh is not None:
                return fresh
        self._given[kind] = folder_paths.filename_list_cache[kind] = current
        return current

    def describe_files(self, ask_disk: Describe, folder_name: str, names: list[str]) -> list[ModelFile]:
        """Size and dates of models of a type; `ask_disk` gives those that are not known here."""
        kind = folder_paths.map_legacy(folder_name)
        if kind in inventory.NOT_MODELS or kind not in places.table():
            return ask_disk(folder_name, names)
        return self._files.describe(ask_disk, kind, names)

    def _if_fresh(self, listed: FileList | None) -> FileList | None:
        return listed if listed is not None and self._catalogue.is_fresh(listed[2]) else None

    def _is_model_folder(self, directory: str) -> bool:
        wanted = places.same_directory(directory)
        return any(
            places.same_directory(one) == wanted
            for kind, (directories, _) in list(places.table().items()) if kind not in inventory.NOT_MODELS
            for one in directories
        )


def _roots() -> list[str]:
    """The folders of all types of models."""
    found = {places.same_directory(directory) for kind, (directories, _) in list(places.table().items())
             if kind not in inventory.NOT_MODELS for directory in directories}
    return sorted(found)


def _lists_are_made_as_usual() -> bool:
    """Whether no pack has put functions of its own in the place of those that make the lists."""
    makers = (getattr(getattr(folder_paths, name), "__globals__", {}) for name in _MADE_BY)
    return all(maker.get("__name__") in _OWN_MODULES for maker in makers)
