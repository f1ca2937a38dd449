"""Pins in memory over HTTP and on the command line: looked at first, refused with a reason, shown."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from comfy_depot import cli
from comfy_depot.memory_pins import FILE_NAME
from comfy_depot.options import Budget
from tests.comfy_depot.pinned import Pinned
from tests.comfy_depot.test_routes import Client, client, until
from tests.comfy_depot.world import World

MEMORY = {"tier": "memory", "folder": "checkpoints"}


@pytest.fixture
def pinned(depot_world: World) -> Pinned:
    return Pinned(depot_world)


@asynccontextmanager
async def serving(pinned: Pinned, **options: Any) -> AsyncIterator[Client]:
    from comfy_depot import hooks

    async with client(pinned.world, **{"resident_budget": Budget(size=0), **options}) as http:
        pinned.depot = hooks.armed()
        yield http


async def post(http: Client, route: str, **body: Any) -> tuple[int, Any]:
    answer = await http.post(f"/depot/{route}", json=body, headers={"comfy-user": "alice"})
    return answer.status, await answer.json()


async def memory(http: Client) -> Any:
    return (await (await http.get("/depot/models")).json())["memory"]


async def test_a_model_is_pinned_and_unpinned_by_a_request_that_says_who(pinned: Pinned) -> None:
    pinned.write("a1", "a2")
    async with serving(pinned) as http:
        status, body = await post(http, "pin", **MEMORY, name="a*", dry_run=True)
        assert (status, body["dry_run"], body["pinned_bytes"], body["budget"]) == (200, True, 2000, None)
        assert [one["name"] for one in body["models"]] == ["a1.safetensors", "a2.safetensors"]
        assert (await memory(http))["pins"] == []
        status, body = await post(http, "pin", **MEMORY, name="a*")
        assert status == 200 and [(pin["pattern"], pin["by"]) for pin in body["pins"]] == [
            ("checkpoints/a*", "POST /depot/pin by alice")]
        await until(lambda: pinned.states() == {"a1": "ready", "a2": "ready"})
        found = await (await http.get("/depot/models")).json()
        assert found["memory"]["pinned_bytes"] == 2000 and found["pinned"] == [], "the disk is another list"
        (pin,) = found["memory"]["pins"]
        assert [one["state"] for one in pin["models"]] == ["ready", "ready"]
        (one, _) = found["resident"]
        assert one["pinned"]["by"] == ["POST /depot/pin by alice"] and one["on"] == {"cpu": 1000}
        assert one["why"].startswith("pinned by POST /depot/pin by alice; used 0 s ago")
        status, body = await post(http, "unpin", **MEMORY, name="a*", dry_run=True)
        assert (status, body["pins"]) == (200, []) and len((await memory(http))["pins"]) == 1
        status, body = await post(http, "unpin", **MEMORY, name="a*")
        assert (status, body["pins"]) == (200, []) and pinned.in_memory() == set()
        answer = await http.post("/depot/pin", json={**MEMORY, "name": "a*"})
        assert (await answer.json())["pins"][0]["by"] == "POST /depot/pin by 127.0.0.1"


async def test_over_the_budget_is_409_with_the_list_of_what_is_pinned(pinned: Pinned) -> None:
    pinned.write("a", "b")
    async with serving(pinned, pin=("checkpoints/a*",), pin_budget=Budget(size=1500)) as http:
        await until(lambda: pinned.states() == {"a": "ready"})
        status, body = await post(http, "pin", **MEMORY, name="b.safetensors")
        assert (status, body["error"]["type"]) == (409, "over_budget")
        assert body["pinned"] == [
            {"name": "checkpoints/a.safetensors", "bytes": 1000, "by": ["--pin checkpoints/a*"]}]
        assert (await post(http, "pin", **MEMORY, name="b.safetensors", dry_run=True))[0] == 409


async def test_a_group_is_switched_in_one_request(pinned: Pinned) -> None:
    pinned.write("s", "v")
    groups = (("still", ("checkpoints/s*",)), ("video", ("checkpoints/v*",)))
    async with serving(pinned, pin_group=groups) as http:
        await until(lambda: pinned.states() == {"s": "ready"})
        status, body = await post(http, "pin", group="video", dry_run=True)
        assert status == 200 and [one["name"] for one in body["models"]] == ["v.safetensors"]
        assert (await post(http, "pin", group="video"))[0] == 200
        await until(lambda: pinned.states() == {"v": "ready"})
        assert pinned.in_memory() == {"v"}
        assert [group["is_active"] for group in (await memory(http))["groups"]] == [False, True]
        assert (await post(http, "unpin", tier="memory", group="video"))[0] == 200
        assert (await memory(http))["pins"] == []
        status, body = await post(http, "pin", group="none")
        assert (status, body["error"]["type"]) == (404, "not_pinned")


async def test_groups_are_listed_with_their_models_and_why_one_cannot_become_the_active_one(
    pinned: Pinned,
) -> None:
    pinned.write("s", "v", "large1", "large2")
    groups = (("still", ("checkpoints/s*",)), ("video", ("checkpoints/v*",)),
              ("both", ("checkpoints/large*",)), ("later", ("checkpoints/x*",)))
    async with serving(pinned, pin_group=groups, pin_budget=Budget(size=1500)) as http:
        listed = (await (await http.get("/depot/groups")).json())["groups"]
        assert [(one["name"], one["is_active"], [model["bytes"] for model in one["models"]])
                for one in listed] == [("still", True, [1000]), ("video", False, [1000]),
                                       ("both", False, [1000, 1000]), ("later", False, [])]
        still, video, both, later = (one["problem"] for one in listed)
        assert still is None and video is None, "video would take the place of still"
        refused = (await post(http, "pin", group="both"))[1]["error"]["message"]
        assert both == refused and "would take" in both
        assert later.startswith("No known model is called 'checkpoints/x*'")
        assert [group["is_active"] for group in (await memory(http))["groups"]] == [True, False, False, False]


async def test_memory_alone_can_be_asked_for_without_the_list_of_all_models(pinned: Pinned) -> None:
    pinned.write("a", "b")
    async with serving(pinned, pin=("checkpoints/a*",)) as http:
        await until(lambda: pinned.states() == {"a": "ready"})
        whole = await (await http.get("/depot/models")).json()
        alone = await (await http.get("/depot/models?tier=memory")).json()
        assert len(whole["models"]) == 2 and alone["models"] == []
        assert [one["names"] for one in alone["resident"]] == [["checkpoints/a.safetensors"]]
        assert alone["memory"]["pins"] == whole["memory"]["pins"] and alone.keys() == whole.keys()
        wrong = await (await http.get("/depot/models?tier=gpu")).json()
        assert "Use one of: cloud, downloading, disk, memory." in wrong["error"]["message"]


@pytest.mark.parametrize("route, body, status, message", [
    ("pin", {**MEMORY, "name": "none*"}, 404, "No known model is called 'checkpoints/none*'"),
    ("pin", {**MEMORY, "name": "none"}, 404, "'none' is in no manifest"),
    ("pin", {**MEMORY, "name": "../a.safetensors"}, 404, "is in no manifest"),
    ("pin", {**MEMORY, "folder": "bogus", "name": "a*"}, 404, "There is no folder type 'bogus'"),
    ("unpin", {**MEMORY, "name": "a.safetensors"}, 404, "is not pinned in memory"),
    ("pin", {**MEMORY, "name": "*" * 400}, 400, "are at most 400 printable characters"),
    ("pin", {**MEMORY, "name": "a\n*"}, 400, "are at most 400 printable characters"),
    ("pin", {**MEMORY}, 400, "'name' is missing or no text."),
    ("pin", {**MEMORY, "name": "a", "dryrun": True}, 400, "'dryrun' is not known here."),
    ("pin", {**MEMORY, "tier": "gpu", "name": "a"}, 400, "'tier' is none of disk and memory"),
    ("pin", {"group": "x", "tier": "disk"}, 400, "a group is not of the disk"),
    ("pin", {"group": 5}, 400, "'group' is a text and stands without"),
    ("pin", {"group": "x", "name": "a"}, 400, "'group' is a text and stands without"),
    ("warm", {**MEMORY, "name": "none"}, 404, "'none' is in no manifest"),
    ("warm", {**MEMORY}, 400, "'name' is missing or no text."),
    ("warm", {"tier": "gpu"}, 400, "'tier' is none of disk and memory"),
    ("warm", {"tier": "memory", "group": "x"}, 400, "'group' is not known here."),
])
async def test_a_bad_request_says_what_to_send(
    pinned: Pinned, route: str, body: dict[str, Any], status: int, message: str
) -> None:
    pinned.write("a")
    async with serving(pinned) as http:
        answer = await post(http, route, **body)
        assert answer[0] == status and message in answer[1]["error"]["message"]
        assert status != 400 or "Send {" in answer[1]["error"]["message"]


async def test_damaged_pins_and_a_disk_that_takes_nothing_are_said_and_change_nothing(pinned: Pinned) -> None:
    pinned.write("a")
    async with serving(pinned) as http:
        file = pinned.depot.options.depot_dir / FILE_NAME
        file.write_text("{")
        status, body = await post(http, "pin", **MEMORY, name="a.safetensors")
        assert (status, body["error"]["type"]) == (409, "pins_unreadable") and file.read_text() == "{"
        assert "cannot be read" in (await memory(http))["problem"]
        file.unlink()
        beside = file.with_name(f".{FILE_NAME}.new")
        beside.mkdir()
        status, body = await post(http, "pin", **MEMORY, name="a.safetensors")
        assert (status, body["error"]["type"]) == (507, "not_written")
        assert "Nothing has changed. Look after the depot's state folder" in body["error"]["message"]
        assert (await memory(http))["pins"] == []


async def test_models_are_warmed_up_one_or_all_or_only_looked_at(pinned: Pinned) -> None:
    pinned.write("a", "b")
    pinned.refusals["a"] = ValueError("not yet")
    async with serving(pinned, pin=("checkpoints/a*",), resident_budget=Budget(size=5000)) as http:
        await until(lambda: pinned.states() == {"a": "failed"})
        status, body = await post(http, "warm", **MEMORY, name="b.safetensors", dry_run=True)
        assert (status, body["models"][0]["state"], pinned.reads) == (200, "waiting", [])
        status, body = await post(http, "warm", tier="memory", dry_run=True)
        assert (status, body["models"][0]["message"]) == (200, "not yet")
        status, body = await post(http, "warm", **MEMORY, name="b.safetensors")
        assert status in (200, 202) and body["models"][0]["name"] == "b.safetensors"
        await until(lambda: pinned.in_memory() == {"b"})
        await until(lambda: [one.state for one in pinned.depot.warm_memory.asked()] == ["ready"])
        assert [one["state"] for one in (await memory(http))["warming"]] == ["ready"]
        pinned.refusals.clear()
        assert (await post(http, "warm", tier="memory"))[0] in (200, 202)
        await until(lambda: pinned.states() == {"a": "ready"})
        assert (await post(http, "warm", tier="memory"))[0] == 200
        stats = (await (await http.get("/depot/stats")).json())["memory"]
        assert (stats["loads"], stats["evictions"]) == (2, 0)
        assert (stats["pinned_models"], stats["pinned_bytes"]) == (1, 1000)
        assert stats["seconds_to_load"] >= 0 and (stats["moves"], stats["bytes_moved"]) == (0, 0)
        assert stats["budget"] is None and stats["devices"] == []
        assert stats["patched"] == {"computed": 3, "put_back": 2, "bytes_kept": 1}


def test_pins_in_memory_are_changed_on_the_command_line(
    pinned: Pinned, capsys: pytest.CaptureFixture[str]
) -> None:
    pinned.write("a1", "a2", size=2048)
    base = ("--base-directory", str(pinned.world.base))

    def run(*words: str) -> tuple[int, str, str]:
        status = cli.main([*words, *base])
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    line = "checkpoints/a*\t4.0 KiB\tpython -m comfy_depot pin\n"
    assert run("pin", "--memory", "--dry-run", "checkpoints/a*") == (0, line, "")
    assert run("pin", "--memory") == (0, "", "")
    assert run("pin", "--memory", "checkpoints/a*") == (0, line, "")
    status, out, _ = run("pin", "--memory", "--json")
    assert status == 0 and json.loads(out)["pins"][0]["pattern"] == "checkpoints/a*"
    assert run("pin") == (0, "", ""), "the disk is another list"
    status, out, error = run("pin", "--memory", "checkpoints/none")
    assert (status, out) == (1, line) and "'none' is in no manifest" in error
    status, _, error = run("unpin", "--memory", "checkpoints/a1.safetensors")
    assert status == 1 and "unpin that pattern, 'checkpoints/a*'." in error and "POST /depot/unpin" in error
    status, _, error = run("unpin", "--memory")
    assert status == 1 and "Nothing to unpin. Name models as FOLDER/NAME" in error
    assert run("unpin", "--memory", "checkpoints/a*") == (0, "", "")
    groups = ("--pin-group", "still=checkpoints/a1*", "--pin-group", "all=checkpoints/a*")
    assert run("pin", "--group", "all", *groups) == (0, "checkpoints/a*\t4.0 KiB\tgroup all\n", "")
    assert run("unpin", "--group", "all", *groups) == (0, "", "")
    status, _, error = run("pin", "--group", "all")
    assert status == 1 and "There is no group 'all'" in error
    assert "--pin-group is given as to the server" in error
    (pinned.world.base / "depot" / FILE_NAME).write_text("{")
    status, _, error = run("pin", "--memory")
    assert status == 1 and "cannot be read" in error
