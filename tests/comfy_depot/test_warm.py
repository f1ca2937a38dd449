"""Models that nobody waits for come in idle time, evict nothing, and are asked for over HTTP and by hand."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from comfy_depot import access, cli
from comfy_depot.access import Access
from comfy_depot.options import WarmModels
from comfy_depot.services import Priority
from tests.comfy_depot.world import World, queued
from tests.fakes.origin import Origin, safetensors
from tests.fakes.waiting import wait_until

SIZE = 100_000


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as made:
        yield made


def offer(world: World, origin: Origin, names: str, *, size: int = SIZE) -> None:
    world.write_manifest({"loras": {
        f"{name}.safetensors": {"url": origin.put(f"/{name}", safetensors(size)), "size": size}
        for name in names}})


def note(depot: Any, names: str) -> None:
    for age, name in zip(range(len(names), 0, -1), names):
        depot.access.note(
            Access(time.time() - age, "loras", f"{name}.safetensors", "p", "1", "t", SIZE, "hit"))


def on_disk(world: World) -> str:
    return "".join(sorted(path.stem for path in (world.base / "models/loras").glob("*.safetensors")))


def test_configured_models_come_then_popular_ones_as_far_as_they_fit(
    depot_world: World, origin: Origin
) -> None:
    offer(depot_world, origin, "abcdx")
    wanted = WarmModels(("loras/x*", "loras/none"), popular=2 * SIZE)
    with depot_world.depot(depot_warm=wanted) as depot:
        note(depot, "bccaaad")
        assert [(wish.name[0], wish.why) for wish in depot.warm.plan()] == [
            ("x", "configured"), ("a", "popular"), ("c", "popular")]
        depot.warm.look()
        assert on_disk(depot_world) == "acx" and depot.warm.stats() == {"models": 3, "bytes": 3 * SIZE}
        depot.access.flush()
        rows = list(access.read(depot.options.depot_dir))
        assert {row.name[0] for row in rows if row.outcome == "warmed"} == set("acx")


def test_what_a_tenant_will_probably_ask_for_comes_within_the_budget(
    depot_world: World, origin: Origin
) -> None:
    offer(depot_world, origin, "abc")
    with depot_world.depot(depot_predict=SIZE) as depot:
        note(depot, "abcabcabcabcabcabca")
        depot.warm.look()
        assert on_disk(depot_world) == "b"
        note(depot, "c")  # and now a is probable, but the budget is at stake
        depot.warm.look()
        assert on_disk(depot_world) == "b"
        note(depot, "b")  # it was right: there is a budget again, and c is what follows
        depot.warm.look()
        assert on_disk(depot_world) == "bc"
        assert depot.warm.foresight.stats(time.time())["guesses"]["models_used"] == 1


def test_nothing_comes_while_anybody_needs_a_download(depot_world: World, origin: Origin) -> None:
    offer(depot_world, origin, "ab", size=4 << 20)
    origin.total.rate = 1 << 20
    with depot_world.depot(depot_warm=WarmModels(("loras/b*",))) as depot:
        depot_world.prompts.append(queued("p", "a.safetensors"))
        depot.preload.look()
        depot.warm.look()
        assert [one.entry.name for one in depot.active_transfers()] == ["a.safetensors"]


def test_warming_evicts_nothing(depot_world: World, origin: Origin) -> None:
    offer(depot_world, origin, "ab")
    depot_world.write_model("loras", "a.safetensors", safetensors(SIZE))
    with depot_world.depot(depot_warm=WarmModels(("loras/b*",)), depot_max_size=SIZE * 18 // 10) as depot:
        (wish,) = depot.warm.plan()
        assert "of --depot-max-size" in str(depot.warm.bring(wish)) and on_disk(depot_world) == "a"
        depot.warm.look()
        depot.fetch("loras", "b.safetensors")
        assert on_disk(depot_world) == "b"


async def test_the_route_brings_one_or_all_or_only_looks(depot_world: World, origin: Origin) -> None:
    offer(depot_world, origin, "abx")
    origin.total.rate = 4 * SIZE
    with depot_world.depot(depot_warm=WarmModels(("loras/x*",))) as depot:
        routes, app = web.RouteTableDef(), web.Application()
        depot.add_routes(routes)
        app.add_routes(routes)
        async with TestClient(TestServer(app)) as client:
            async def post(body: Any) -> tuple[int, Any]:
                answer = await client.post("/depot/warm", json=body)
                return answer.status, await answer.json()

            one = {"folder": "loras", "name": "a.safetensors"}
            planned = {"folder": "loras", "name": "x.safetensors", "size": SIZE, "why": "configured"}
            assert await post({"dry_run": True}) == (200, {"dry_run": True, "models": [planned]})
            assert (await post({**one, "dry_run": True}))[1]["models"][0]["why"] == "asked"
            assert on_disk(depot_world) == "" and not depot.active_transfers()
            status, body = await post(one)
            assert status == 202 and body["transfer"]["name"] == "a.safetensors"
            assert depot.active_transfers()[0].priority is Priority.WARM
            assert (await post({}))[0] == 202
            wait_until(lambda: on_disk(depot_world) == "ax")
            assert await post(one) == (200, {**one, "tier": "disk"})
            assert (await post({"folder": "loras", "name": "none.safetensors"}))[0] == 404
            for bad in ({"dry": True}, {"dry_run": 1}, {"folder": "loras"}, {"folder": 1, "name": "a"}, []):
                status, body = await post(bad)
                assert status == 400 and 'Send {"folder"' in body["error"]["message"]
            stats = await (await client.get("/depot/stats")).json()
            assert stats["warm"]["models"] == 2 and stats["predict"]["budget"] == 0
            assert stats["preload"]["started"] == 0


def test_the_commands_warm_and_tell(
    depot_world: World, origin: Origin, capsys: pytest.CaptureFixture[str]
) -> None:
    offer(depot_world, origin, "ab")
    common = ["--base-directory", str(depot_world.base), "--depot-allow-hosts", "127.0.0.1",
              "--depot-reserve", "0"]
    assert cli.main(["warm", "--dry-run", "--depot-warm", "loras/a*", *common]) == 0
    assert capsys.readouterr().out == "loras/a.safetensors\t97.7 KiB\tconfigured\n"
    assert not on_disk(depot_world)
    assert cli.main(["warm", "loras/b.safetensors", "--json", *common]) == 0
    assert json.loads(capsys.readouterr().out)["models"][0]["error"] is None and on_disk(depot_world) == "b"
    assert cli.main(["warm", "loras/c.safetensors", *common]) == 1
    assert "is in no manifest" in capsys.readouterr().err
    assert cli.main(["stats", *common]) == 0
    assert "tiers.disk.models\t1\n" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        cli.main(["warm", "--depot-warm", "a.safetensors", *common])
    assert "names no folder. Write FOLDER/NAME, as loras/a.safetensors" in capsys.readouterr().err
