"""`GET /depot/files`: a node's models for another node, who must know the token."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.comfy_depot.test_routes import client
from tests.comfy_depot.world import World

KEY = {"Authorization": "Bearer a-secret"}


@pytest.fixture
def shared(depot_world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("DEPOT_TOKEN", "a-secret")
    depot_world.write_model("loras", "sub/a.safetensors", b"0123456789")
    return depot_world


async def test_a_file_is_served_whole_and_in_ranges(shared: World) -> None:
    async with client(shared) as http:
        whole = await http.get("/depot/files/loras/sub/a.safetensors", headers=KEY)
        assert (whole.status, await whole.read()) == (200, b"0123456789")
        part = await http.get("/depot/files/loras/sub/a.safetensors", headers={**KEY, "Range": "bytes=2-4"})
        assert (part.status, await part.read()) == (206, b"234")
        assert part.headers["Content-Range"] == "bytes 2-4/10"
        assert (await http.get("/depot/files/loras/sub/a.safetensors",
                               headers={**KEY, "Range": "bytes=99-"})).status == 416


async def test_another_node_can_use_the_manifest(shared: World, tmp_path: Path) -> None:
    async with client(shared) as http:
        entry = (await (await http.get("/depot/files", headers=KEY)).json())["loras"]["sub/a.safetensors"]
        assert entry["size"] == 10 and entry["headers"] == {"Authorization": "Bearer $DEPOT_TOKEN"}
        answer = await http.get(entry["url"].partition("/depot")[1] + entry["url"].partition("/depot")[2],
                                headers=KEY)
        assert await answer.read() == b"0123456789"


async def test_nobody_else_gets_a_file_or_learns_which_there_are(
    shared: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with client(shared) as http:
        for path in ("/depot/files", "/depot/files/loras/sub/a.safetensors", "/depot/files/loras/none"):
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "a-secret"}):
                assert (await http.get(path, headers=headers)).status == 401
        monkeypatch.delenv("DEPOT_TOKEN")
        for given in ({}, KEY, {"Authorization": "Bearer "}):
            answer = await http.get("/depot/files", headers=given)
            assert answer.status == 403 and "DEPOT_TOKEN" in (await answer.json())["error"]["message"]


NO_FILES = [
    "loras/none.safetensors", "loras/cloud.safetensors", "loras/..%2f..%2fsecret.safetensors",
    "loras/%2e%2e/%2e%2e/secret.safetensors", "custom_nodes/pack/a.py", "nothing/a.safetensors",
    "loras/notes.txt", "loras/.depot/a.safetensors.part", "loras//etc/passwd",
]


async def test_what_is_no_model_on_this_disk_is_not_served(shared: World) -> None:
    shared.write_manifest({"loras": {"cloud.safetensors": "https://host.example/c"}})
    shared.write_model("loras", "notes.txt")
    shared.write_model("loras", ".depot/a.safetensors.part")
    (shared.base / "secret.safetensors").write_bytes(b"secret")
    async with client(shared) as http:
        for path in NO_FILES:
            answer = await http.get(f"/depot/files/{path}", headers=KEY)
            assert (path, answer.status, b"secret" in await answer.read()) == (path, 404, False)
