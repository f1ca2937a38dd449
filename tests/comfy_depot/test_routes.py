"""`/depot/...`: input is checked, answers say what to do, and no answer holds a secret."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from comfy_depot import hooks
from tests.comfy_depot.world import World
from tests.fakes.origin import Origin, safetensors, sha256

Client = TestClient[web.Request, web.Application]


@asynccontextmanager
async def client(world: World, **options: Any) -> AsyncIterator[Client]:
    """A server with the depot's routes alone."""
    with world.depot(**options):
        routes = web.RouteTableDef()
        hooks.add_routes(routes)
        application = web.Application()
        application.add_routes(routes)
        async with TestClient(TestServer(application)) as made:
            yield made


async def until(is_true: Callable[[], bool]) -> None:
    for _ in range(500):
        if is_true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the condition did not come true")


async def test_models_are_listed_with_their_tiers(depot_world: World) -> None:
    depot_world.write_model("loras", "own.safetensors", b"12345")
    depot_world.write_model("loras", "sub/known.safetensors", b"123")
    secret = {"Authorization": "Bearer $MY_SECRET_TOKEN"}
    depot_world.write_manifest(
        {
            "checkpoints": {
                "cloud.safetensors": {
                    "url": "https://host.example/path?signature=abc",
                    "size": 9,
                    "headers": secret,
                    "group": "g",
                    "license": "MIT",
                    "gated": True,
                }
            },
            "loras": {
                "sub/known.safetensors": "https://host.example/known",
                "bad": "https://host.example/bad",
            },
        }
    )
    async with client(depot_world) as http:
        text = await (await http.get("/depot/models")).text()
        answer = json.loads(text)
        assert [
            (model["folder"], model["name"], model["tier"], model["size"]) for model in answer["models"]
        ] == [
            ("checkpoints", "cloud.safetensors", "cloud", 9),
            ("loras", "own.safetensors", "disk", 5),
            ("loras", "sub/known.safetensors", "disk", 3),
        ]
        cloud = answer["models"][0]
        assert (cloud["source"], cloud["group"], cloud["license"], cloud["gated"]) == (
            "host.example",
            "g",
            "MIT",
            True,
        )
        assert [model["in_manifest"] for model in answer["models"]] == [True, False, True]
        assert (
            answer["problems"][0]["file"] == "models.json"
            and "no extension" in answer["problems"][0]["message"]
        )
        assert "signature" not in text and "SECRET" not in text
        disk = await (await http.get("/depot/models?folder=loras&tier=disk")).json()
        assert len(disk["models"]) == 2
        assert (await (await http.get("/depot/models?folder=unet")).json())["models"] == []
        bad = await http.get("/depot/models?folder=lora")
        assert (bad.status, "Did you mean loras" in await bad.text()) == (400, True)
        bad = await http.get("/depot/models?tier=moon")
        assert bad.status == 400
        message = (await bad.json())["error"]["message"]
        assert message == "tier 'moon' is not known. Use one of: cloud, downloading, disk, memory."


async def test_a_model_is_fetched_watched_and_cancelled(depot_world: World) -> None:
    with Origin(rate_total=200_000) as origin:
        depot_world.write_manifest(
            {"loras": {"a.safetensors": origin.put("/a", safetensors(3_000_000)) + "?x=secret"}}
        )
        async with client(depot_world) as http:
            answer = await http.post("/depot/fetch", json={"folder": "loras", "name": "a.safetensors"})
            assert answer.status == 202
            transfer = (await answer.json())["transfer"]
            assert (transfer["folder"], transfer["name"], transfer["error"]) == (
                "loras",
                "a.safetensors",
                None,
            )
            again = await http.post("/depot/fetch", json={"folder": "loras", "name": "a.safetensors"})
            assert (await again.json())["transfer"]["id"] == transfer["id"], "a second wish joins the first"
            text = await (await http.get("/depot/transfers")).text()
            (shown,) = json.loads(text)["transfers"]
            assert shown["id"] == transfer["id"] and "secret" not in text
            models = (await (await http.get("/depot/models")).json())["models"]
            assert [model["tier"] for model in models] == ["downloading"]
            assert (await (await http.get("/depot/stats")).json())["transfers"] == 1
            gone = await http.delete(f"/depot/transfers/{transfer['id']}")
            assert await gone.json() == {"cancelled": transfer["id"]}
            await until(lambda: not hooks.armed().active_transfers())
            unknown = await http.delete(f"/depot/transfers/{transfer['id']}")
            assert unknown.status == 404
            assert (
                "is under way. GET /depot/transfers lists them." in (await unknown.json())["error"]["message"]
            )


@pytest.mark.parametrize("route", ["fetch", "warm"])
async def test_a_model_whose_manifest_names_other_bytes_is_fetched_anew(
    depot_world: World, route: str
) -> None:
    wanted = {"folder": "loras", "name": "a.safetensors"}
    file = depot_world.model("loras", "a.safetensors")
    with Origin() as origin:
        for seed in (1, 2):
            body = safetensors(20_000, seed=seed)
            depot_world.write_manifest({"loras": {"a.safetensors": {
                "url": origin.put(f"/{seed}", body), "sha256": sha256(body)}}})
            async with client(depot_world) as http:
                assert (await http.post(f"/depot/{route}", json=wanted)).status == 202
                await until(lambda body=body: file.exists() and file.read_bytes() == body)  # type: ignore[misc]
                await until(lambda: not hooks.armed().active_transfers())
                assert (await http.post(f"/depot/{route}", json=wanted)).status == 200


async def test_a_fetched_model_is_on_the_disk(depot_world: World) -> None:
    with Origin() as origin:
        depot_world.write_manifest({"loras": {"a.safetensors": origin.put("/a", safetensors(10_000))}})
        async with client(depot_world) as http:
            await http.post("/depot/fetch", json={"folder": "loras", "name": "a.safetensors"})
            await until(depot_world.model("loras", "a.safetensors").exists)
            await until(lambda: not hooks.armed().active_transfers())
            answer = await http.post("/depot/fetch", json={"folder": "loras", "name": "a.safetensors"})
            assert answer.status == 200
            assert await answer.json() == {"folder": "loras", "name": "a.safetensors", "tier": "disk"}
            stats = await (await http.get("/depot/stats")).json()
            assert stats["tiers"]["disk"] == {"models": 1, "bytes": 10_000}
            assert stats["tiers"]["cloud"] == {"models": 0, "bytes": 0}
            assert stats["bytes_free"] > 0 and stats["problems"] == 0
            assert stats["resident"].pop("budget") > 0
            assert stats["resident"] == {"models": 0, "bytes": 0, "loads": 0, "hits": 0, "drops": 0}


@pytest.mark.parametrize(
    "body, status, kind, words",
    [
        (
            b"{",
            400,
            "not_json",
            'The body is not JSON. Send {"folder": "checkpoints", "name": "x.safetensors"}.',
        ),
        (b"\xff", 400, "not_json", "The body is not JSON."),
        (b"[" * 100_000, 400, "not_json", "The body is not JSON."),
        (b"1" * 5000, 400, "not_json", "The body is not JSON."),
        (b"[]", 400, "bad_request", 'The body is no object. Send {"folder"'),
        (b'{"name": "a"}', 400, "bad_request", "'folder' is missing or no text. Send"),
        (b'{"folder": "loras", "name": 5}', 400, "bad_request", "'name' is missing or no text. Send"),
        (b'{"folder": "loras", "name": "no.safetensors"}', 404, "model_unavailable", "Add it to a manifest"),
        (
            b'{"folder": "zzz", "name": "no.safetensors"}',
            404,
            "model_unavailable",
            "no folder type 'zzz'. Known:",
        ),
        (
            b'{"folder": "loras", "name": "../../x.safetensors"}',
            404,
            "model_unavailable",
            "is in no manifest",
        ),
        (b'{"folder": "loras", "name": "out/a.safetensors"}', 400, "refused", "leads out of"),
    ],
)
async def test_a_bad_wish_says_what_to_send(
    depot_world: World, tmp_path: Path, body: bytes, status: int, kind: str, words: str
) -> None:
    (tmp_path / "outside").mkdir()
    depot_world.model("loras", "out").symlink_to(tmp_path / "outside")
    depot_world.write_manifest({"loras": {"out/a.safetensors": "https://host.example/a"}})
    async with client(depot_world) as http:
        answer = await http.post("/depot/fetch", data=body, headers={"Content-Type": "application/json"})
        assert answer.status == status
        error = (await answer.json())["error"]
        assert error["type"] == kind and words in error["message"]


def write_evictable(world: World) -> None:
    """One model that a manifest can bring back, and one that none can."""
    world.write_manifest({"loras": {"a.safetensors": {"url": "https://host.example/a", "size": 4}}})
    world.write_model("loras", "a.safetensors", b"1234")
    world.write_model("loras", "own.safetensors")


async def test_a_model_is_evicted_by_name_and_stays_in_the_list(depot_world: World) -> None:
    write_evictable(depot_world)
    wish: dict[str, Any] = {"folder": "loras", "name": "a.safetensors"}
    async with client(depot_world) as http:
        for is_dry_run in (True, False):
            answer = await http.post("/depot/evict", json={**wish, "dry_run": is_dry_run})
            assert answer.status == 200
            body = await answer.json()
            assert (body["dry_run"], body["bytes_freed"], body["bytes_over"]) == (is_dry_run, 4, 0)
            (gone,) = body["evicted"]
            assert (gone["folder"], gone["name"], gone["size"], gone["reason"]) == (
                "loras",
                "a.safetensors",
                4,
                "asked for by name",
            )
            assert gone["last_used"] > 1.6e9 and body["kept"] == []
            assert depot_world.model("loras", "a.safetensors").exists() == is_dry_run
        models = (await (await http.get("/depot/models")).json())["models"]
        assert [(model["name"], model["tier"]) for model in models] == [
            ("a.safetensors", "cloud"),
            ("own.safetensors", "disk"),
        ]
        again = await http.post("/depot/evict", json=wish)
        assert again.status == 404
        assert "is not on this disk, so there is nothing" in (await again.json())["error"]["message"]


async def test_a_model_that_must_stay_is_refused_with_the_reason(depot_world: World) -> None:
    write_evictable(depot_world)
    async with client(depot_world) as http:
        answer = await http.post("/depot/evict", json={"folder": "loras", "name": "own.safetensors"})
        assert answer.status == 409
        assert (await answer.json())["error"] == {
            "type": "must_stay",
            "message": "'loras/own.safetensors' stays: no manifest names it, so nothing could bring it back.",
        }
        depot_world.models_in_use.add(("loras", "a.safetensors"))
        answer = await http.post("/depot/evict", json={"folder": "loras", "name": "a.safetensors"})
        assert "a running or queued prompt names it" in (await answer.json())["error"]["message"]
    assert depot_world.model("loras", "a.safetensors").exists()


@pytest.mark.parametrize("limits", [{"max_size": 0}, {"max_size": "3B"}, {"keep_days": 0}])
async def test_models_are_evicted_down_to_limits(depot_world: World, limits: dict[str, Any]) -> None:
    write_evictable(depot_world)
    async with client(depot_world) as http:
        body = await (await http.post("/depot/evict", json=limits)).json()
        assert [model["name"] for model in body["evicted"]] == ["a.safetensors"]
        assert [model["name"] for model in body["kept"]] == ["own.safetensors"]
        assert not depot_world.model("loras", "a.safetensors").exists()


@pytest.mark.parametrize(
    "body, words",
    [
        (b"{", "The body is not JSON. Send"),
        (b"[]", "The body is no object. Send"),
        (b"{}", "No limit is given. Give a size, a number of days, or both. Send"),
        (b'{"folder": "loras"}', "'name' is missing or no text. Send"),
        (b'{"folder": "loras", "name": "a.safetensors", "dryrun": true}', "'dryrun' is not known here. Send"),
        (b'{"max_size": 0, "dry_run": "yes"}', "'dry_run' is neither true nor false. Send"),
        (b'{"max_size": "much"}', "'much' is not a size. Write a number and a unit, such as 200G. Send"),
        (b'{"max_size": true}', "'max_size' is neither bytes nor a text such as \"200G\". Send"),
        (b'{"max_size": -1}', "max_size is -1. Give 0 or more bytes. Send"),
        (b'{"keep_days": "7"}', "'keep_days' is no number. Send"),
        (b'{"keep_days": NaN}', "keep_days is nan. Give 0 or more days. Send"),
        (
            b'{"folder": "loras", "name": "a.safetensors", "keep_days": 7}',
            "Models by name and limits do not go together. Ask for the one or the other. Send",
        ),
    ],
)
async def test_a_bad_eviction_deletes_nothing_and_says_what_to_send(
    depot_world: World, body: bytes, words: str
) -> None:
    write_evictable(depot_world)
    async with client(depot_world) as http:
        answer = await http.post("/depot/evict", data=body, headers={"Content-Type": "application/json"})
        assert answer.status == 400
        message = (await answer.json())["error"]["message"]
        assert message.startswith(words) and '{"max_size": "200G", "keep_days": 7}' in message
    assert depot_world.model("loras", "a.safetensors").exists()


async def test_refresh_reads_the_manifests_now(depot_world: World) -> None:
    async with client(depot_world) as http:
        depot_world.write_manifest(
            {"loras": {"a.safetensors": "https://host.example/a", "b": "https://host/b"}}
        )
        answer = await (await http.post("/depot/manifests/refresh")).json()
        assert answer["models"] == 1
        assert [problem["line"] for problem in answer["problems"]] == [4]
        models = (await (await http.get("/depot/models")).json())["models"]
        assert [model["name"] for model in models] == ["a.safetensors"]


async def test_every_route_stands_in_the_documentation(depot_world: World) -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "depot.md").read_text(encoding="utf-8")
    with depot_world.depot():
        routes = web.RouteTableDef()
        hooks.add_routes(routes)
        assert len(routes) >= 13
        for route in routes:
            assert isinstance(route, web.RouteDef)
            path = route.path.replace(":.+}", "}")  # a name may hold "/"
            assert f"`{route.method} {path}`" in text
