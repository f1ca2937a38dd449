"""The log, verification, replay and the import of templates over HTTP: as on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from comfy_depot import templates
from comfy_depot.access import Access
from tests.comfy_depot.test_routes import client
from tests.comfy_depot.world import World

LOG = [Access(float(number), "loras", f"{name}.safetensors", "p1", "4", "alice", 100, "hit")
       for number, name in enumerate("abcab")]


async def test_the_log_is_given_newest_first_with_what_was_noted_a_moment_ago(depot_world: World) -> None:
    async with client(depot_world) as http:
        from comfy_depot import hooks

        depot: Any = hooks.armed()
        for access in LOG:
            depot.access.note(access)
        rows = (await (await http.get("/depot/log?limit=2")).json())["accesses"]
        assert [(row["time"], row["name"], row["tenant"]) for row in rows] == [
            (4.0, "b.safetensors", "alice"), (3.0, "a.safetensors", "alice")]
        for bad in ("0", "-1", "x", "99999999999999999999", "²"):
            answer = await http.get("/depot/log", params={"limit": bad})
            assert answer.status == 400 and "Write 1 to 10000" in (await answer.json())["error"]["message"]
        answer = await http.post("/depot/replay", json={"size": "200", "policy": "lru"})
        (result,) = (await answer.json())["results"]
        assert (result["policy"], result["uses"], result["misses"]) == ("lru", 5, 5)


async def test_files_that_are_not_what_the_manifest_says_are_found(depot_world: World) -> None:
    depot_world.write_model("loras", "a.safetensors", b"12345")
    depot_world.write_manifest({"loras": {"a.safetensors": {
        "url": "https://host.example/a", "size": 5, "sha256": "0" * 64}, "bad": "https://host.example/b"}})
    async with client(depot_world) as http:
        answer = await (await http.post("/depot/verify")).json()
        assert (answer["models"], len(answer["problems"])) == (1, 1)
        assert "has no extension" in answer["problems"][0]
        problems = (await (await http.post("/depot/verify", json={"hash": True})).json())["problems"]
        assert len(problems) == 2 and "has sha256 5994471a" in problems[1]


BAD_BODIES: list[tuple[str, Any, str]] = [
    ("verify", {"hash": 1}, "neither true nor false"),
    ("verify", {"hashes": True}, "'hashes' is not known here"),
    ("verify", [], "no object"),
    ("replay", {}, "'size': 'None' is neither a size nor a share"),
    ("replay", {"size": "5G", "policy": "magic"}, "is none of lru, sieve"),
    ("manifests/import-templates", {"check": "yes"}, "neither true nor false"),
]


async def test_a_body_that_cannot_be_meant_is_refused_with_an_example(depot_world: World) -> None:
    async with client(depot_world) as http:
        for route, body, words in BAD_BODIES:
            answer = await http.post(f"/depot/{route}", json=body)
            message = (await answer.json())["error"]["message"]
            assert answer.status == 400 and words in message and "Send {" in message


async def test_templates_are_compared_written_and_listed(
    depot_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = {"name": "t.safetensors", "url": "https://huggingface.co/o/r/resolve/main/t.safetensors",
             "directory": "loras"}
    monkeypatch.setattr(templates, "read_templates", lambda: iter([{"models": [model]}]))
    async with client(depot_world) as http:
        path = "/depot/manifests/import-templates"
        assert (await (await http.post(path, json={"check": True})).json())["state"] == "not current"
        assert not (depot_world.manifests / "templates.json").exists()
        answer = await (await http.post(path)).json()
        assert (answer["file"], answer["models"], answer["state"]) == ("templates.json", 1, "written")
        assert json.loads(Path(depot_world.manifests, "templates.json").read_text())["loras"]
        models = (await (await http.get("/depot/models")).json())["models"]
        assert [one["name"] for one in models] == ["t.safetensors"]
        assert (await (await http.post(path, json={"check": True})).json())["state"] == "current"
