"""Models are found by name, hash and base model, on the disk and in manifests, as they are now."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import folder_paths
from comfy_depot.depot import Depot
from comfy_depot.eviction import Stamp
from comfy_depot.search import BadSearch, Results, Wanted, search
from tests.comfy_depot.test_cli import Commands
from tests.comfy_depot.test_model_headers import UNET, write
from tests.comfy_depot.test_routes import client
from tests.comfy_depot.world import World

CLOUD = "c0ffee" + "0" * 58
LOCAL = "c0ffee" + "1" * 58


@pytest.fixture
def library(depot_world: World) -> Path:
    """Two files of which all is known, one of them in a manifest too, and a model in the cloud."""
    loras = depot_world.base / "models" / "loras"
    (loras / "style").mkdir()
    write(loras / "style" / "Ink Wash.safetensors", {UNET: [4, 768]}, {"title": "Ink"})
    write(loras / "photo.safetensors", {"w": [1, 1]}, {"modelspec.architecture": "flux-1-schnell"})
    depot_world.write_manifest({
        "checkpoints": {"dream.safetensors": {
            "url": "https://host.example/d?token=x", "sha256": CLOUD, "size": 9, "group": "SDXL 1.0"}},
        "loras": {"photo.safetensors": {"url": "https://host.example/p", "sha256": CLOUD, "group": "sd1"}},
    })  # fmt: skip
    return loras


def found(depot: Depot, **wanted: str) -> list[str]:
    depot.index.indexer.update()
    return names(search(depot, Wanted(**wanted)))


def names(results: Results) -> list[str]:
    return [f"{model.folder}/{model.name}" for model in results.models]


def note_sha256(depot: Depot, file: Path) -> None:
    depot.digests.note(Stamp.of(os.stat(file)), LOCAL)


def test_names_are_found_by_words_in_any_order_and_case(depot_world: World, library: Path) -> None:
    with depot_world.depot() as depot:
        assert found(depot, name="wash INK") == ["loras/style/Ink Wash.safetensors"]
        assert found(depot, name="safetensors") == [
            "checkpoints/dream.safetensors", "loras/photo.safetensors", "loras/style/Ink Wash.safetensors"]
        assert found(depot, name="safetensors", folder="checkpoints") == ["checkpoints/dream.safetensors"]
        assert found(depot, name="none") == []


def test_hashes_are_found_by_their_beginning(depot_world: World, library: Path) -> None:
    with depot_world.depot() as depot:
        note_sha256(depot, library / "style" / "Ink Wash.safetensors")
        ink, dream = "loras/style/Ink Wash.safetensors", "checkpoints/dream.safetensors"
        assert found(depot, sha256="C0FFEE") == [dream, ink], "not the file that only a manifest says this of"
        assert found(depot, sha256=LOCAL[:10]) == [ink] == found(depot, sha256=LOCAL, name="ink")
        assert found(depot, sha256=CLOUD) == [dream]
        assert found(depot, sha256=LOCAL, name="photo") == []


def test_base_models_are_found_by_family_and_by_the_words_of_the_file(
    depot_world: World, library: Path
) -> None:
    with depot_world.depot() as depot:
        assert found(depot, base_model="SD 1.5") == ["loras/style/Ink Wash.safetensors"]
        assert found(depot, base_model="flux") == ["loras/photo.safetensors"]
        assert found(depot, base_model="Flux-1-Schnell") == ["loras/photo.safetensors"]
        assert found(depot, base_model="schnell") == ["loras/photo.safetensors"], "the words of the file"
        assert found(depot, base_model="sdxl inpaint") == []
        assert found(depot, base_model="flux-1-dev") == []
        assert found(depot, base_model="sdxl") == ["checkpoints/dream.safetensors"]
        assert found(depot, base_model="sdxl", name="nothing") == []


def test_what_was_noted_of_another_file_is_not_said_of_this_one(depot_world: World, library: Path) -> None:
    """The database is not brought up to date in between: the disk counts at once."""
    ink = library / "style" / "Ink Wash.safetensors"
    with depot_world.depot() as depot:
        note_sha256(depot, ink)
        assert found(depot, sha256=LOCAL) == found(depot, base_model="sd1") != []
        os.replace(library / "photo.safetensors", ink)
        assert names(search(depot, Wanted(sha256=LOCAL))) == []
        assert names(search(depot, Wanted(base_model="sd1"))) == ["loras/photo.safetensors"], "the cloud's"
        (one,) = search(depot, Wanted(name="ink")).models
        assert one.sha256 is None and one.base_model == "flux1", "it is the file that was photo.safetensors"
        ink.unlink()
        assert names(search(depot, Wanted(name="ink"))) == []


def test_a_result_says_what_is_known(depot_world: World, library: Path) -> None:
    with depot_world.depot() as depot:
        note_sha256(depot, library / "photo.safetensors")
        depot.index.indexer.update()
        results = search(depot, Wanted(name="safetensors"), limit=2, offset=0)
        assert results.total == 3 and results.is_complete
        dream, photo = results.models
        assert (dream.tier, dream.size, dream.sha256, dream.base_model, dream.base_model_from) == (
            "cloud", 9, CLOUD, "sdxl", "group")
        assert dream.source == "host.example" and dream.in_manifest
        assert (photo.tier, photo.sha256, photo.base_model, photo.base_model_from, photo.architecture) == (
            "disk", LOCAL, "flux1", "modelspec.architecture", "flux-1-schnell")
        assert (photo.tensors, photo.dtypes, photo.metadata) == (1, "F8_E4M3 1", None) and photo.in_manifest
        (ink,) = search(depot, Wanted(name="safetensors"), offset=2, with_metadata=True).models
        assert ink.metadata == {"title": "Ink"} and not ink.in_manifest and ink.source is None


def test_types_that_share_a_folder_both_have_the_model(depot_world: World, library: Path) -> None:
    folder_paths.add_model_folder_path("vae", str(library))
    with depot_world.depot() as depot:
        assert found(depot, base_model="flux1") == ["loras/photo.safetensors", "vae/photo.safetensors"]


def test_before_the_first_pass_a_search_says_that_it_is_not_complete(
    depot_world: World, library: Path
) -> None:
    with depot_world.depot() as depot:
        assert search(depot, Wanted(name="photo")).is_complete
        assert not search(depot, Wanted(base_model="flux")).is_complete


@pytest.mark.parametrize(("query", "message"), [
    ("", "Nothing to search for"), ("name=%20", "Nothing to search for"), ("base_model=%20", "Nothing to"),
    ("hash=abc", "4 to 64 hexadecimal digits"), ("hash=xyzxyz", "is no beginning of a sha256"),
    ("hash=" + "a" * 65, "is no beginning"), ("name=a&folder=nothing", "no folder type 'nothing'"),
    ("name=a&limit=0", "Give 1 to 1000"), ("name=a&limit=1001", "Give 1 to 1000"),
    ("name=a&limit=x", "Write a whole number"), ("name=a&offset=-1", "Write a whole number"),
    ("name=a&metadata=yes", "Write true or false"), ("nmae=a", "'nmae' is not known"),
])  # fmt: skip
async def test_a_search_that_cannot_be_carried_out_is_refused(
    depot_world: World, query: str, message: str
) -> None:
    async with client(depot_world) as http:
        answer = await http.get(f"/depot/search?{query}")
        body = await answer.json()
    assert answer.status == 400 and body["error"]["type"] == "bad_search"
    assert message in body["error"]["message"]


async def test_the_route_gives_what_a_search_finds(depot_world: World, library: Path) -> None:
    async with client(depot_world) as http:
        answer = await http.get("/depot/search?name=photo&folder=loras&metadata=true&limit=5&offset=0")
        body = await answer.json()
        assert body["total"] == 1 and body["models"][0]["name"] == "photo.safetensors"
        assert "token" not in await (await http.get("/depot/search?hash=c0ffee")).text()
        for odd in ("%ff", "%00", "'%25_", "%ed%b0%80", "%F0%9F%90%88"):
            assert (await http.get(f"/depot/search?name={odd}&base_model={odd}")).status == 200, odd


def test_the_command_finds_models_and_brings_the_index_up_to_date(
    depot_world: World, library: Path, run: Commands
) -> None:
    status, out, err = run("search", "INK", "--base-model", "sd1")
    assert (status, out, err) == (0, "loras\tstyle/Ink Wash.safetensors\tdisk\t3.2 KiB\tsd1\t\n", "")
    status, out, _ = run("search", "--hash", "c0ffee", "--json")
    assert status == 0 and json.loads(out)["models"][0]["sha256"] == CLOUD and json.loads(out)["is_complete"]
    assert run("search", "nothing", "--folder", "loras")[0] == 1
    status, _, err = run("search")
    assert status == 1 and "Nothing to search for" in err


@pytest.fixture
def run(depot_world: World, capsys: pytest.CaptureFixture[str]) -> Commands:
    return Commands(depot_world, capsys)


def test_limits_of_a_page_are_checked(depot_world: World) -> None:
    with depot_world.depot() as depot, pytest.raises(BadSearch, match="Give 0 or more"):
        search(depot, Wanted(name="a"), offset=-1)
