"""Manifest names in the lists: quick, current, and only where they belong."""

from __future__ import annotations

import json
import logging
import os
import time
from pathlib import Path

import pytest

import folder_paths
from comfy_depot import catalog
from comfy_depot.catalog import Catalogue
from comfy_depot.manifest import Reading
from tests.comfy_depot.world import World

URL = "https://host.example/a"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the manifest folder each time instead of once a second."""
    monkeypatch.setattr(catalog, "SECONDS_BETWEEN_LOOKS", 0.0)


def test_manifest_names_join_the_files_of_their_own_type(depot_world: World) -> None:
    depot_world.write_model("checkpoints", "local.safetensors")
    depot_world.write_manifest({"checkpoints": {"cloud.safetensors": URL, "sub/deep.safetensors": URL}})
    with depot_world.depot():
        names = folder_paths.get_filename_list("checkpoints")
        assert names == ["cloud.safetensors", "local.safetensors", os.path.join("sub", "deep.safetensors")]
        assert folder_paths.get_filename_list("loras") == []


def test_recursive_search_itself_gives_the_names(depot_world: World) -> None:
    depot_world.write_manifest({"loras": {"cloud.safetensors": URL}})
    with depot_world.depot():
        found, times = folder_paths.recursive_search(str(depot_world.base / "models" / "loras"))
        assert found == ["cloud.safetensors"] and list(times) == [str(depot_world.base / "models" / "loras")]


def test_a_folder_that_is_not_there_yet_lists_its_cloud_models(depot_world: World) -> None:
    depot_world.write_manifest({"vae": {"cloud.safetensors": URL}})
    assert not (depot_world.base / "models" / "vae").exists()
    with depot_world.depot():
        assert folder_paths.get_filename_list("vae") == ["cloud.safetensors"]


def test_a_file_on_disk_stands_once_in_the_list(depot_world: World) -> None:
    depot_world.write_model("loras", "a.safetensors")
    depot_world.write_manifest({"loras": {"a.safetensors": URL}})
    with depot_world.depot():
        assert folder_paths.recursive_search(str(depot_world.base / "models" / "loras"))[0] == [
            "a.safetensors"
        ]
        assert folder_paths.get_filename_list("loras") == ["a.safetensors"]


def test_legacy_folder_names_mean_their_successors(depot_world: World) -> None:
    depot_world.write_manifest({"unet": {"u.safetensors": URL}, "clip": {"c.safetensors": URL}})
    with depot_world.depot() as depot:
        assert folder_paths.get_filename_list("diffusion_models") == ["u.safetensors"]
        assert folder_paths.get_filename_list("clip") == ["c.safetensors"]
        assert depot.catalogue.find("unet", "u.safetensors") == depot.catalogue.find(
            "diffusion_models", "u.safetensors"
        )


def test_lists_are_as_before_without_a_depot(depot_world: World) -> None:
    depot_world.write_manifest({"loras": {"a.safetensors": URL}})
    with depot_world.depot():
        assert folder_paths.get_filename_list("loras") == ["a.safetensors"]
    folder_paths.filename_list_cache.clear()
    assert folder_paths.get_filename_list("loras") == []


def test_a_list_from_before_the_start_is_made_again(depot_world: World) -> None:
    depot_world.write_manifest({"loras": {"a.safetensors": URL}})
    assert folder_paths.get_filename_list("loras") == []
    with depot_world.depot():
        assert folder_paths.get_filename_list("loras") == ["a.safetensors"]


@pytest.mark.usefixtures("impatient")
def test_a_changed_manifest_shows_in_the_next_list(depot_world: World) -> None:
    file = depot_world.write_manifest({"loras": {"a.safetensors": URL}})
    with depot_world.depot():
        assert folder_paths.get_filename_list("loras") == ["a.safetensors"]
        depot_world.write_manifest({"loras": {"a.safetensors": URL, "b.safetensors": URL}})
        assert folder_paths.get_filename_list("loras") == ["a.safetensors", "b.safetensors"]
        depot_world.write_manifest({"loras": {"c.safetensors": URL}}, name="more.json")
        assert folder_paths.get_filename_list("loras") == ["a.safetensors", "b.safetensors", "c.safetensors"]
        file.unlink()
        assert folder_paths.get_filename_list("loras") == ["c.safetensors"]


def test_a_change_is_seen_within_a_second_and_at_once_on_refresh(depot_world: World) -> None:
    depot_world.write_manifest({"loras": {}})
    with depot_world.depot() as depot:
        assert folder_paths.get_filename_list("loras") == []
        depot_world.write_manifest({"loras": {"b.safetensors": URL}})
        assert folder_paths.get_filename_list("loras") == [], "the folder was looked at just now"
        depot.catalogue.refresh()
        assert folder_paths.get_filename_list("loras") == ["b.safetensors"]


def test_an_unchanged_catalogue_keeps_the_cached_list(depot_world: World) -> None:
    depot_world.write_manifest({"loras": {"a.safetensors": URL}})
    with depot_world.depot() as depot:
        depot.catalogue.changed_at -= catalog.SECONDS_TO_SETTLE + 1
        folder_paths.get_filename_list("loras")
        kept = folder_paths.filename_list_cache["loras"]
        folder_paths.get_filename_list("loras")
        assert folder_paths.filename_list_cache["loras"] is kept


def test_a_list_made_during_a_change_is_made_once_more(depot_world: World) -> None:
    depot_world.write_manifest({"loras": {"a.safetensors": URL}})
    with depot_world.depot() as depot:
        depot.catalogue.snapshot()
        listed_at = time.perf_counter()
        assert depot.is_fresh(listed_at)
        depot.catalogue.changed_at = listed_at - catalog.SECONDS_TO_SETTLE + 0.05
        time.sleep(0.1)
        assert not depot.is_fresh(listed_at)
        assert depot.is_fresh(time.perf_counter())


@pytest.mark.usefixtures("impatient")
def test_a_half_written_manifest_keeps_its_entries_and_is_reported(depot_world: World) -> None:
    depot_world.write_manifest({"loras": {"a.safetensors": URL}})
    with depot_world.depot() as depot:
        assert folder_paths.get_filename_list("loras") == ["a.safetensors"]
        depot_world.write_manifest('{"loras": {"a.safe')
        assert folder_paths.get_filename_list("loras") == ["a.safetensors"]
        assert "not JSON" in str(depot.catalogue.snapshot().problems[0])
        depot_world.write_manifest({"loras": {"b.safetensors": URL}})
        assert folder_paths.get_filename_list("loras") == ["b.safetensors"]
        assert depot.catalogue.snapshot().problems == ()


@pytest.mark.parametrize(
    "folder, name, words",
    [
        ("checkpoint", "a.safetensors", "folder type 'checkpoint' is not known. Did you mean 'checkpoints'"),
        ("zzz", "a.safetensors", "folder type 'zzz' is not known. Known: audio_encoders, "),
        ("custom_nodes", "a.json", "node packs are code and are never fetched. Take the entry out"),
        (
            "loras",
            "a.txt",
            "'loras' lists no files with extension '.txt'. Use a file of kind: .safetensors, .sft",
        ),
        ("loras", "a.v2", "'loras' lists no files with extension '.v2'"),
        (
            "diffusers",
            "a.json",
            "'diffusers' lists no files with extension '.json'. Use a file of kind: no files",
        ),
        (
            "checkpoints",
            "a.ckpt",
            "'.ckpt' files can run code when they are loaded. Use a .safetensors file, or",
        ),
        ("datasets", "a.py", "the depot fetches no '.py' files. Use one of: .flac, .gguf"),
    ],
)
def test_a_refused_entry_tells_line_and_reason(
    depot_world: World, caplog: pytest.LogCaptureFixture, folder: str, name: str, words: str
) -> None:
    depot_world.write_manifest(
        {"loras": {"good.safetensors": URL}, folder + "": {name: URL}}
        if folder != "loras"
        else {"loras": {"good.safetensors": URL, name: URL}}
    )
    with caplog.at_level(logging.WARNING), depot_world.depot() as depot:
        (problem,) = depot.catalogue.snapshot().problems
        assert words in problem.message and problem.file == "models.json"
        text = (depot_world.manifests / "models.json").read_text().split("\n")
        assert problem.line is not None and f'"{name}"' in text[problem.line - 1]
        assert folder_paths.get_filename_list("loras") == ["good.safetensors"], "the good entry works"
    assert words in caplog.text


def test_pickle_formats_are_listed_when_they_are_allowed(depot_world: World) -> None:
    depot_world.write_manifest({"checkpoints": {"a.ckpt": URL}})
    with depot_world.depot(allow_pickle=True):
        assert folder_paths.get_filename_list("checkpoints") == ["a.ckpt"]


def test_a_type_without_a_folder_is_refused(depot_world: World) -> None:
    folder_paths.folder_names_and_paths["bare"] = ([], set())
    depot_world.write_manifest({"bare": {"a.safetensors": URL}})
    with depot_world.depot() as depot:
        message = depot.catalogue.snapshot().problems[0].message
        assert "'bare' has no folder. Add one to extra_model_paths.yaml" in message


def test_the_first_of_two_manifests_counts_and_the_second_is_told(depot_world: World) -> None:
    depot_world.write_manifest({"unet": {"a.safetensors": "https://first.example/a"}}, name="a.json")
    depot_world.write_manifest(
        {"diffusion_models": {"a.safetensors": "https://second.example/a"}}, name="b.json"
    )
    with depot_world.depot() as depot:
        entry = depot.catalogue.find("diffusion_models", "a.safetensors")
        assert entry is not None and entry.urls == ("https://first.example/a",)
        (problem,) = depot.catalogue.snapshot().problems
        assert problem.file == "b.json"
        assert "a.json names it already, and the first one counts. Take one of the two out" in problem.message


def test_a_type_that_a_pack_adds_later_is_known_from_then_on(depot_world: World) -> None:
    depot_world.write_manifest({"unet_gguf": {"a.gguf": URL}})
    with depot_world.depot() as depot:
        assert len(depot.catalogue.snapshot().problems) == 1
        folder_paths.folder_names_and_paths["unet_gguf"] = (
            [str(depot_world.base / "models" / "gguf")],
            {".gguf"},
        )
        assert folder_paths.get_filename_list("unet_gguf") == ["a.gguf"]
        assert depot.catalogue.snapshot().problems == ()


def test_names_move_to_a_new_default_folder(depot_world: World) -> None:
    depot_world.write_manifest({"loras": {"a.safetensors": URL}})
    other = str(depot_world.base / "library" / "loras")
    with depot_world.depot():
        assert folder_paths.get_filename_list("loras") == ["a.safetensors"]
        folder_paths.add_model_folder_path("loras", other, is_default=True)
        assert folder_paths.recursive_search(other)[0] == ["a.safetensors"]
        assert folder_paths.recursive_search(str(depot_world.base / "models" / "loras"))[0] == []


def test_partials_and_their_folder_are_never_listed(depot_world: World) -> None:
    folder_paths.add_model_folder_path("anything", str(depot_world.base / "models" / "anything"))
    depot_world.write_model("anything", ".depot/a.safetensors.part", b"x")
    depot_world.write_model("anything", "sub/.depot/b.safetensors", b"x")
    depot_world.write_model("anything", "sub/c.depot.safetensors", b"x")
    with depot_world.depot():
        assert folder_paths.get_filename_list("anything") == [os.path.join("sub", "c.depot.safetensors")]
        times = folder_paths.filename_list_cache["anything"][1]
        assert not any(".depot" in path for path in times), "a growing partial makes no list old"


def test_a_missing_manifest_folder_is_an_empty_catalogue(tmp_path: Path) -> None:
    catalogue = Catalogue(tmp_path / "no-such-folder")
    assert list(catalogue) == [] and catalogue.snapshot().problems == ()


def test_schema_and_versions_are_no_manifests(depot_world: World) -> None:
    for name in catalog.NOT_MANIFESTS:
        depot_world.write_manifest("{}", name=name)
    with depot_world.depot() as depot:
        assert depot.catalogue.snapshot().problems == ()


def test_two_lists_may_agree_and_two_that_differ_are_told(depot_world: World) -> None:
    depot_world.write_manifest({"loras": {"a.safetensors": URL, "b.safetensors": URL}}, name="1.json")
    depot_world.write_manifest(
        {"loras": {"a.safetensors": {"urls": [URL + "2", URL]}, "b.safetensors": URL + "2"}}, name="2.json"
    )
    with depot_world.depot() as depot:
        (problem,) = depot.catalogue.snapshot().problems
        assert "'b.safetensors' in 'loras': 1.json names it already" in problem.message
        entry = depot.catalogue.find("loras", "a.safetensors")
        assert entry is not None and entry.urls == (URL,)


def test_a_thousand_mistakes_do_not_flood_the_log(
    depot_world: World, caplog: pytest.LogCaptureFixture
) -> None:
    depot_world.write_manifest({"loras": {f"{i}": URL for i in range(1000)}})
    with caplog.at_level(logging.WARNING), depot_world.depot() as depot:
        assert len(depot.catalogue.snapshot().problems) == 1000
    assert "980 more mistakes in manifests; python -m comfy_depot verify lists them all." in caplog.text
    assert len(caplog.records) == 21


@pytest.mark.slow
def test_a_list_of_a_hundred_thousand_entries_is_made_once(depot_world: World) -> None:
    names = {f"set{i % 50}/model-{i:06}.safetensors": f"https://host.example/{i}" for i in range(100_000)}
    depot_world.write_manifest(json.dumps({"loras": names}))
    with depot_world.depot() as depot:
        depot.catalogue.changed_at -= catalog.SECONDS_TO_SETTLE
        assert len(folder_paths.get_filename_list("loras")) == 100_000
        snapshot, made = depot.catalogue.snapshot(), folder_paths.filename_list_cache["loras"]
        for _ in range(20):
            folder_paths.get_filename_list("loras")
        assert folder_paths.filename_list_cache["loras"] is made, "what nothing has changed is not made again"
        assert depot.catalogue.snapshot() is snapshot
        assert depot.catalogue.find("loras", "set49/model-099999.safetensors")


def test_a_link_to_itself_among_the_manifests_hides_no_other(depot_world: World) -> None:
    depot_world.write_manifest({"loras": {"a.safetensors": URL}}, "a.json")
    depot_world.write_manifest({"loras": {"z.safetensors": URL}}, "z.json")
    (depot_world.manifests / "loop.json").symlink_to("loop.json")
    assert [entry.name for entry in Catalogue(depot_world.manifests)] == ["a.safetensors", "z.safetensors"]


def test_a_manifest_folder_that_cannot_be_read_now_empties_no_list(
    depot_world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    depot_world.write_manifest({"loras": {"a.safetensors": URL}})
    catalogue = Catalogue(depot_world.manifests)
    assert len(list(catalogue)) == 1

    def too_many_open_files(folder: object) -> None:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(catalog.os, "scandir", too_many_open_files)
        assert list(catalogue.refresh().entries["loras"]) == ["a.safetensors"]
    assert "Too many open files" in caplog.text


def test_a_manifest_that_may_be_read_at_last_is_read(
    depot_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = depot_world.write_manifest({"loras": {"a.safetensors": URL}})

    def refuse(path: Path, **how: object) -> Reading:
        return Reading(path, is_readable=False)  # root, who runs tests, may read everything

    with monkeypatch.context() as patch:
        patch.setattr(catalog, "read_manifest", refuse)
        catalogue = Catalogue(depot_world.manifests)
        assert not catalogue.refresh().entries
    file.chmod(0o600)
    assert list(catalogue.refresh().entries) == ["loras"]
