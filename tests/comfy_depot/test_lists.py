"""Lists that are kept elsewhere: fetched when their digest differs, replaced in one step, or left alone."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

import folder_paths
from comfy_depot import cli, lists, sources
from comfy_depot.lists import read_versions
from tests.comfy_depot.world import World
from tests.fakes.origin import Origin
from tests.fakes.waiting import wait_until

URL = "https://host.example/"
SHA = "ab" * 32


def body_of(*names: str) -> bytes:
    return json.dumps({"loras": {name: URL + name for name in names}}).encode()


def digest(body: bytes, kind: str = "sha256") -> dict[str, str]:
    return {kind: hashlib.new(kind, body).hexdigest()}


def names(depot_world: World) -> list[str]:
    return [name for name in folder_paths.get_filename_list("loras") if name.endswith(".safetensors")]


@pytest.mark.parametrize("kind", ["sha256", "md5"])
def test_a_list_is_fetched_when_its_digest_differs_only(depot_world: World, kind: str) -> None:
    depot_world.write_manifest(body_of("old.safetensors").decode(), "team.json")
    new = body_of("new.safetensors")
    with Origin() as origin, depot_world.depot(manifest_refresh=0) as depot:
        depot_world.write_manifest({"team.json": {"url": origin.put("/t.json", new), **digest(new, kind)}},
                                   lists.FILE_NAME)
        assert names(depot_world) == ["old.safetensors"] and not origin.log, "a list waits for no network"
        assert [one.state for one in depot.lists.refresh()] == ["fetched"]
        depot.catalogue.refresh()
        assert names(depot_world) == ["new.safetensors"]
        origin.log.clear()
        assert [one.state for one in depot.lists.refresh()] == ["current"]
        assert not origin.log


def test_a_name_without_its_extension_means_the_list(depot_world: World) -> None:
    (version,) = read_versions(json.dumps({"team": {"url": URL, "sha256": SHA, "md5": "0" * 32}})).lists
    assert (version.name, version.kind, version.digest) == ("team.json", "sha256", SHA), "the stronger digest"


def test_the_server_refreshes_by_itself_and_the_command_line_does_not(depot_world: World) -> None:
    new = body_of("new.safetensors")
    with Origin() as origin:
        depot_world.write_manifest({"team.json": {"url": origin.put("/t.json", new), **digest(new)}},
                                   lists.FILE_NAME)
        base = ["--base-directory", str(depot_world.base), "--depot-allow-hosts", "127.0.0.1"]
        assert cli.main([*base, "list"]) == 0 and not origin.log
        with depot_world.depot(manifest_refresh=0.05):
            wait_until(lambda: (depot_world.manifests / "team.json").exists())
            newer = body_of("newer.safetensors")
            depot_world.write_manifest({"team.json": {"url": origin.put("/t.json", newer), **digest(newer)}},
                                       lists.FILE_NAME)
            wait_until(lambda: (depot_world.manifests / "team.json").read_bytes() == newer)


def refusal(depot_world: World, body: bytes, **version: Any) -> str:
    """Why a fetched list is not used; the old one is there as it was."""
    old = body_of("old.safetensors")
    file = depot_world.write_manifest(old.decode(), "team.json")
    with Origin() as origin, depot_world.depot(manifest_refresh=0) as depot:
        url = origin.put("/t.json", body)
        depot_world.write_manifest({"team.json": {"url": url, **digest(body), **version}}, lists.FILE_NAME)
        (outcome,) = depot.lists.refresh()
        (problem,) = depot.catalogue.snapshot().problems
    assert outcome.state == "kept" and outcome.message == problem.message
    assert (problem.file, problem.line) == (lists.FILE_NAME, 2)
    assert file.read_bytes() == old and not list(depot_world.manifests.glob(".incoming*"))
    assert problem.message.endswith("The list stays as it was.")
    return problem.message


@pytest.mark.parametrize(
    ("body", "version", "words"),
    [
        (b"{}", {"sha256": SHA}, "another sha256 than model_versions.json says. Correct the digest there"),
        (b"{", {}, "is not used: team.json:1: not JSON"),
        (b"[]", {}, "is not used: team.json:1: not an object"),
        (b'{"loras": {"a": "https://h/a"}}', {}, "has no extension"),
        (b'{"loras": {"a.safetensors": "/etc/a.safetensors"}}', {}, "names a file or bucket of this machine"),
        (b'{"loras": {"a.safetensors": "s3://mine/a.safetensors"}}', {}, "names a file or bucket"),
        (b'{"loras": {"a.safetensors": {"url": "https://h/a", "headers": {"X": "$HOME"}}}}', {},
         "has a header with a variable of this machine; a fetched list may not. Use --depot-tokens"),
        (b"{}", {"url": "https://127.0.0.2/t.json"}, "is not public"),
        (b"{}", {"url": "http://[::1]/t.json"}, "is not public"),
    ],
)
def test_a_list_that_is_not_what_it_should_be_leaves_the_old_one(
    depot_world: World, body: bytes, version: dict[str, str], words: str
) -> None:
    assert words in refusal(depot_world, body, **version)


def test_an_answer_that_is_too_large_or_no_file_is_refused(
    depot_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "LARGEST_MANIFEST", 1 << 20)
    assert "sends more than 1 MiB" in refusal(depot_world, b" " * (1 << 20) + b"{}")
    monkeypatch.setattr(sources, "LIST_SECONDS", -1.0)
    assert "and was not done" in refusal(depot_world, b"{}")


def test_a_folder_that_cannot_be_written_is_named(depot_world: World) -> None:
    (depot_world.manifests / "team.json").mkdir()
    with Origin() as origin, depot_world.depot(manifest_refresh=0) as depot:
        url = origin.put("/t.json", b"{}")
        depot_world.write_manifest({"team.json": {"url": url, **digest(b"{}")}}, lists.FILE_NAME)
        (outcome,) = depot.lists.refresh()
    assert "cannot be written into" in str(outcome.message) and "--model-manifests" in str(outcome.message)


def test_further_versions_come_from_one_place_for_all_nodes(depot_world: World) -> None:
    ours, theirs = body_of("ours.safetensors"), body_of("theirs.safetensors")
    with Origin() as origin, depot_world.depot(manifest_refresh=0) as depot:
        own, far = origin.put("/own.json", ours), origin.put("/far.json", theirs)
        wrong = {"url": far, **digest(b"")}
        source = origin.put("/versions.json", json.dumps({
            "far.json": {"url": far, **digest(theirs)}, "own.json": wrong,
            "bad.json": {"url": "file:///etc/x.json", "sha256": SHA}}).encode())
        versions = {"$from": source, "own.json": {"url": own, **digest(ours)}}
        depot_world.write_manifest(versions, lists.FILE_NAME)
        assert [(one.name, one.state) for one in depot.lists.refresh()] == [
            ("far.json", "fetched"), ("own.json", "fetched")]
        (problem,) = depot.catalogue.snapshot().problems
        assert problem.file == source and "is no address of the network" in problem.message
        origin.put("/versions.json", status=503)
        assert [one.state for one in depot.lists.refresh()] == ["current"], "what is here stays"
        assert "'$from': " in depot.catalogue.snapshot().problems[0].message
        depot.catalogue.refresh()
        assert names(depot_world) == ["ours.safetensors", "theirs.safetensors"]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("{", 1, "not JSON: Expecting property name enclosed in double quotes at column 2. Correct"),
        ("[]", 1, 'not an object. The form is {"list.json": {"url"'),
        ("[" * 100_000, None, "nested too deeply"),
        ("1" * 5000, None, "a number has too many digits"),
        ('{\n"../a.json": {}}', 2, "is refused"),
        ('{"/etc/a.json": {}}', 1, "is refused"),
        ('{"a/b.json": {}}', 1, "it is no list of models in this folder. Write a file name"),
        ('{"schema.json": {}}', 1, "it is no list of models"),
        ('{"model_versions.json": {}}', 1, "it is no list of models"),
        ('{"a.json": "https://h/a"}', 1, 'the value is no object. Write {"url"'),
        ('{"a.json": {"sha256": "' + SHA + '"}}', 1, "'url' is missing or no text. Write https://host/list.json"),
        ('{"a.json": {"url": "ftp://h/a", "sha256": "' + SHA + '"}}', 1, "is not the url of a file"),
        ('{"a.json": {"url": "/etc/a.json", "sha256": "' + SHA + '"}}', 1, "is no address of the network"),
        ('{"a.json": {"url": "https://h/a"}}', 1, 'it has no digest, so nobody can tell when it changed'),
        ('{"a.json": {"url": "https://h/a", "md5": "12"}}', 1, "'12' is no md5. Write its 32 hexadecimal"),
        ('{"a.json": {"url": "https://h/a", "sha1": "12"}}', 1, "field 'sha1' is not known. Write url and"),
        ('{"$from": 5}', 1, "'$from': 'url' is missing or no text"),
    ],
)
def test_a_mistake_in_the_versions_says_what_to_write(text: str, line: int | None, words: str) -> None:
    versions = read_versions(text)
    (problem,) = versions.problems
    assert words in problem.message and problem.line == line and problem.file == "model_versions.json"
    assert versions.lists == ()


def test_a_mistake_in_the_versions_is_shown_without_any_fetch(depot_world: World) -> None:
    depot_world.write_manifest("[]", lists.FILE_NAME)
    with depot_world.depot(manifest_refresh=0) as depot:
        assert "not an object" in str(depot.catalogue.snapshot().problems[0])
        os.remove(depot_world.manifests / lists.FILE_NAME)
        depot.lists.refresh()
        assert depot.catalogue.snapshot().problems == ()


def test_the_command_line_refreshes_when_told(depot_world: World, capsys: pytest.CaptureFixture[str]) -> None:
    new = body_of("new.safetensors")
    base = ["--base-directory", str(depot_world.base), "--depot-allow-hosts", "127.0.0.1"]
    with Origin() as origin:
        url = origin.put("/t.json", new)
        depot_world.write_manifest({"team.json": {"url": url, **digest(new)}}, lists.FILE_NAME)
        assert cli.main([*base, "refresh"]) == 0
        assert capsys.readouterr().out == "team.json\tfetched\t\n"
        depot_world.write_manifest({"team.json": {"url": url, "sha256": SHA}}, lists.FILE_NAME)
        assert cli.main([*base, "refresh", "--json"]) == 1
        answer = json.loads(capsys.readouterr().out)
        assert answer["models"] == 1 and answer["lists"][0]["state"] == "kept"
        assert Path(depot_world.manifests / "team.json").read_bytes() == new
