"""Pinned models stay, whoever asks, and a damaged list of pins lets nothing go."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from comfy_depot import cli
from comfy_depot.eviction import Limits
from comfy_depot.pins import Pins, PinsUnreadable
from tests.comfy_depot.test_routes import client
from tests.comfy_depot.world import World


def test_pins_are_kept_over_restarts_and_seen_by_others(tmp_path: Path) -> None:
    ours, others = Pins(tmp_path / "state"), Pins(tmp_path / "state")
    assert others.all() == frozenset()
    ours.change(add=[("loras", "a"), ("loras", "b")])
    others.change(remove=[("loras", "a")])
    assert ours.all() == Pins(tmp_path / "state").all() == {("loras", "b")}


def test_pins_made_at_once_are_all_kept(tmp_path: Path) -> None:
    keys = [("loras", str(number)) for number in range(20)]
    threads = [threading.Thread(target=Pins(tmp_path).change, kwargs={"add": [key]}) for key in keys]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Pins(tmp_path).all() == set(keys)


def test_nothing_is_evicted_when_the_pins_cannot_be_read(depot_world: World) -> None:
    depot_world.write_manifest({"loras": {"a.safetensors": {"url": "https://host.example/a", "size": 5}}})
    depot_world.write_model("loras", "a.safetensors", b"12345")
    with depot_world.depot() as depot:
        depot.pin("loras", "a.safetensors")
        file = depot_world.base / "depot" / "pins.json"
        file.write_text(file.read_text()[:-4])
        with pytest.raises(PinsUnreadable, match="so nothing is evicted. Correct it .* or delete it"):
            depot.plan_eviction(Limits(max_size=0))


def test_a_pinned_model_stays_until_it_is_unpinned(depot_world: World) -> None:
    depot_world.write_manifest({"loras": {"a.safetensors": {"url": "https://host.example/a", "size": 5}}})
    path = depot_world.write_model("loras", "a.safetensors", b"12345")
    with depot_world.depot() as depot:
        depot.pin("loras", "a.safetensors")
        for limits in (Limits(max_size=0), Limits(keep_days=0), Limits(names={("loras", "a.safetensors")})):
            (stays,) = depot.plan_eviction(limits).execute().staying
            assert stays.reason == "it is pinned" and path.exists()
        depot.unpin("loras", "a.safetensors")
        assert depot.plan_eviction(Limits(max_size=0)).execute().bytes_freed == 5


async def test_pins_are_changed_over_http(depot_world: World) -> None:
    depot_world.write_model("loras", "own.safetensors")
    wish = {"folder": "loras", "name": "own.safetensors"}
    async with client(depot_world) as http:
        answer = await http.post("/depot/pin", json={**wish, "dry_run": True})
        assert (answer.status, await answer.json()) == (200, {"dry_run": True, "pinned": [wish]})
        assert (await (await http.get("/depot/models")).json())["pinned"] == []
        answer = await http.post("/depot/pin", json={**wish, "dryrun": True})
        assert (answer.status, "'dryrun' is not known" in await answer.text()) == (400, True)
        answer = await http.post("/depot/pin", json=wish)
        assert (answer.status, await answer.json()) == (200, {"dry_run": False, "pinned": [wish]})
        assert (await (await http.get("/depot/models")).json())["pinned"] == [wish]
        answer = await http.post("/depot/unpin", json={**wish, "dry_run": True})
        assert (await answer.json())["pinned"] == []
        answer = await http.post("/depot/unpin", json=wish)
        assert (answer.status, await answer.json()) == (200, {"dry_run": False, "pinned": []})
        answer = await http.post("/depot/unpin", json=wish)
        assert answer.status == 404
        assert "'loras/own.safetensors' is not pinned" in (await answer.json())["error"]["message"]
        assert (await http.post("/depot/pin", json={**wish, "name": "../x"})).status == 404
        assert (await http.post("/depot/pin", json=[])).status == 400
        (depot_world.base / "depot" / "pins.json").write_text("{")
        assert (await http.post("/depot/pin", json=wish)).status == 409
        assert (await http.post("/depot/evict", json={"max_size": 0})).status == 409


def test_pins_are_changed_on_the_command_line(
    depot_world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    depot_world.write_model("loras", "own.safetensors")
    base = ("--base-directory", str(depot_world.base))
    assert cli.main(["pin", "loras/own.safetensors", "loras/nobody.safetensors", *base]) == 1
    printed = capsys.readouterr()
    assert printed.out == "loras/own.safetensors\tdisk\n" and "is in no manifest" in printed.err
    assert cli.main(["pin", "--json", *base]) == 0
    assert json.loads(capsys.readouterr().out)["pinned"] == [
        {"folder": "loras", "name": "own.safetensors", "on_disk": True}]
    assert cli.main(["unpin", "--dry-run", "loras/own.safetensors", *base]) == 0
    assert capsys.readouterr().out == "", "what would be pinned after it, as over HTTP"
    assert cli.main(["pin", *base]) == 0
    assert capsys.readouterr().out == "loras/own.safetensors\tdisk\n", "it is pinned still"
    assert cli.main(["unpin", "--dry-run", "loras/none.safetensors", *base]) == 1
    assert "is not pinned" in capsys.readouterr().err
    assert cli.main(["unpin", "loras/own.safetensors", *base]) == 0 and capsys.readouterr().out == ""
