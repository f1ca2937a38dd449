"""The lists of folder types from memory: what `folder_paths` alone would make, also where packs change it."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

import folder_paths
from comfy_depot import listing
from comfy_depot.catalog import Catalogue
from comfy_depot.depot import Depot
from comfy_depot.index import Index
from tests.comfy_depot.world import World

URL = "https://host.example/m.safetensors"


def made_by_folder_paths(depot: Depot, kind: str) -> list[str]:
    """The list without the index: walked, filtered, sorted."""
    names: set[str] = set()
    for directory in folder_paths.get_folder_paths(kind):
        found = folder_paths.recursive_search.__wrapped__(directory, [".git"])  # type: ignore[attr-defined]
        names.update(depot.add_names(directory, found)[0])
    return folder_paths.filter_files_extensions(names, folder_paths.folder_names_and_paths[kind][1])


def test_lists_are_corrected_to_what_a_new_one_would_be(
    depot_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two folders and a manifest with the same few names; every second time the corrections are too many."""
    chance = random.Random(1)
    roots = [depot_world.base / "models" / "loras", depot_world.base / "more"]
    folder_paths.add_model_folder_path("loras", str(roots[1]))
    names = [f"{folder}{letter}{end}" for folder in ("", "s/") for letter in "ab"
             for end in (".safetensors", ".CKPT", ".txt")]
    depot_world.write_manifest({"loras": {"a.safetensors": URL, "s/b.safetensors": URL}})
    with depot_world.depot() as depot:
        for turn in range(60):
            monkeypatch.setattr(listing, "MOST_CORRECTIONS", 0 if turn % 2 else 1000)
            for _ in range(chance.randrange(1, 5)):
                file = chance.choice(roots) / chance.choice(names)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.unlink() if file.exists() else file.touch()
            if turn == 40:
                depot_world.write_manifest({"loras": {"c.safetensors": URL}})
                depot.catalogue.refresh()
            assert folder_paths.get_filename_list("loras") == made_by_folder_paths(depot, "loras")


def test_a_list_that_was_handed_out_never_changes(depot_world: World) -> None:
    with depot_world.depot():
        before = folder_paths.cached_filename_list_("loras")
        assert before is not None and folder_paths.cached_filename_list_("loras") is before
        depot_world.write_model("loras", "a.safetensors")
        after = folder_paths.cached_filename_list_("loras")
        assert before[0] == [] and after is not None and after[0] == ["a.safetensors"]


def test_a_file_shows_at_once_although_the_time_of_its_folder_says_nothing(depot_world: World) -> None:
    folder = depot_world.base / "models" / "loras"
    with depot_world.depot():
        depot_world.write_model("loras", "a.safetensors")
        status = folder.stat()
        assert folder_paths.get_filename_list("loras") == ["a.safetensors"]
        depot_world.write_model("loras", "b.safetensors")
        os.utime(folder, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert folder_paths.get_filename_list("loras") == ["a.safetensors", "b.safetensors"]


def test_types_and_extensions_that_packs_add_count_at_once(depot_world: World) -> None:
    with depot_world.depot():
        depot_world.write_model("loras", "a.gguf")
        assert folder_paths.get_filename_list("loras") == []
        kept = set(folder_paths.supported_pt_extensions)
        try:
            folder_paths.supported_pt_extensions.add(".gguf")
            assert folder_paths.get_filename_list("loras") == ["a.gguf"]
        finally:
            folder_paths.supported_pt_extensions &= kept
        folder_paths.add_model_folder_path("mine", str(depot_world.base / "models" / "loras"))
        assert folder_paths.get_filename_list("mine") == ["a.gguf"]
        with pytest.raises(KeyError):
            folder_paths.get_filename_list("unknown")


@pytest.mark.parametrize("name", ["recursive_search", "filter_files_extensions", "get_filename_list_"])
def test_a_function_that_a_pack_puts_in_its_place_is_asked(
    depot_world: World, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    depot_world.write_model("loras", "a.safetensors")
    with depot_world.depot():
        assert folder_paths.get_filename_list("loras") == ["a.safetensors"]
        usual = getattr(folder_paths, name)

        def with_one_more(*args: object, **kwargs: object) -> object:
            found = usual(*args, **kwargs)
            return [*found, "z.ckpt"] if isinstance(found, list) else ([*found[0], "z.ckpt"], *found[1:])

        monkeypatch.setattr(folder_paths, name, with_one_more)
        depot_world.write_model("loras", "b.safetensors")
        assert folder_paths.get_filename_list("loras") == ["a.safetensors", "b.safetensors", "z.ckpt"]
        monkeypatch.undo()
        depot_world.write_model("loras", "c.safetensors")
        found = folder_paths.get_filename_list("loras")
        assert found == ["a.safetensors", "b.safetensors", "c.safetensors"]


def test_a_list_that_a_pack_puts_into_the_cache_counts_until_the_folder_changes(depot_world: World) -> None:
    folder = depot_world.base / "models" / "loras"
    with depot_world.depot() as depot:
        depot.catalogue.changed_at -= 10
        folder_paths.filename_list_cache["loras"] = (
            ["own.safetensors"], {str(folder): os.path.getmtime(folder)}, depot.catalogue.changed_at + 5
        )  # fmt: skip
        assert folder_paths.get_filename_list("loras") == ["own.safetensors"]
        os.utime(folder, (1, 1))
        assert folder_paths.get_filename_list("loras") == []
        depot_world.write_model("loras", "a.safetensors")
        folder_paths.filename_list_cache.clear()
        assert folder_paths.get_filename_list("loras") == ["a.safetensors"]


def test_the_index_answers_for_model_folders_and_for_no_other_search(depot_world: World) -> None:
    depot_world.write_model("loras", "sub/a.safetensors")
    index = Index(Catalogue(depot_world.manifests), depot_world.base / "depot")
    loras = str(depot_world.base / "models" / "loras")
    assert index.search(loras + os.sep, [".git"]) == (
        [os.path.join("sub", "a.safetensors")],
        {path: os.path.getmtime(path) for path in (loras, os.path.join(loras, "sub"))},
    )
    assert index.search(loras) is None and index.search(loras, ["sub"]) is None
    assert index.search(str(depot_world.base), [".git"]) is None
    assert index.search(str(depot_world.base / "custom_nodes"), [".git"]) is None
    index.close()


def test_after_the_end_of_the_depot_lists_are_as_ever(depot_world: World) -> None:
    depot_world.write_manifest({"loras": {"cloud.safetensors": URL}})
    depot_world.write_model("loras", "a.safetensors")
    with depot_world.depot():
        assert folder_paths.get_filename_list("loras") == ["a.safetensors", "cloud.safetensors"]
    assert folder_paths.get_filename_list("loras") == ["a.safetensors"]
    Path(depot_world.model("loras", "a.safetensors")).unlink()
    assert folder_paths.get_filename_list("loras") == []
