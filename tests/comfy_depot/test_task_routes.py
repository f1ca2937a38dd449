"""`/api/assets/download` and `/api/tasks`: the shapes that ComfyUI's page reads, and whose urls are taken."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from comfy_depot import cli, hooks
from tests.comfy_depot.test_routes import Client, client, until
from tests.comfy_depot.world import World
from tests.fakes.origin import Origin, safetensors, sha256

MIB = 1 << 20


async def ask(http: Client, url: str, *tags: str, **metadata: Any) -> tuple[int, dict[str, Any]]:
    body = {"source_url": url, "tags": list(tags), "user_metadata": metadata}
    answer = await http.post("/assets/download", json=body)
    return answer.status, await answer.json()


async def ended(http: Client, number: str) -> dict[str, Any]:
    for _ in range(500):
        task: dict[str, Any] = await (await http.get(f"/tasks/{number}")).json()
        if task["status"] not in ("created", "running"):
            return task
        await asyncio.sleep(0.01)
    raise AssertionError("the task did not end")


async def test_a_url_of_a_manifest_is_downloaded_and_its_task_told(depot_world: World) -> None:
    with Origin() as origin:
        url = origin.put("/m", safetensors(MIB))
        depot_world.write_manifest({"loras": {"m.safetensors": url}})
        async with client(depot_world) as http:
            status, task = await ask(http, url)
            assert status == 202 and task["status"] in ("created", "running") and task["task_id"]
            done = await ended(http, task["task_id"])
            assert (done["status"], done["task_name"]) == ("completed", "download_file")
            assert done["result"] == {"success": True, "filename": "m.safetensors", "bytes_downloaded": MIB}
            assert {"id", "idempotency_key", "payload", "create_time", "update_time"} <= done.keys()
            assert url not in str(done)
            assert (await http.delete(f"/tasks/{task['task_id']}")).status == 409
            status, again = await ask(http, url)
            assert (status, again["status"]) == (202, "completed"), "it is on the disk"
    assert depot_world.model("loras", "m.safetensors").stat().st_size == MIB
    told = [data for event, data in depot_world.events if event == "asset_download"]
    assert told[-1]["progress"] == 1 and told[-1]["status"] == "completed"
    assert told[0].keys() == {
        "task_id", "asset_name", "bytes_downloaded", "bytes_total", "progress", "status", "error"}


async def test_a_task_is_stopped_and_a_failed_one_says_why(depot_world: World) -> None:
    with Origin(rate_total=MIB) as origin:
        urls = {name: origin.put(f"/{name}", safetensors(8 * MIB)) for name in ("slow", "gone")}
        origin.assets["/gone"].status = 404
        depot_world.write_manifest({"loras": {f"{name}.safetensors": url for name, url in urls.items()}})
        async with client(depot_world) as http:
            _, slow = await ask(http, urls["slow"])
            await until(lambda: origin.bytes_sent("/slow") > 0)
            assert (await http.delete(f"/tasks/{slow['task_id']}")).status == 202
            assert (await ended(http, slow["task_id"]))["status"] == "cancelled"
            _, gone = await ask(http, urls["gone"])
            failed = await ended(http, gone["task_id"])
            assert failed["status"] == "failed" and "answered 404" in failed["error_message"]
            assert (await http.get("/tasks/none")).status == (await http.delete("/tasks/none")).status == 404


REFUSED: list[tuple[str, tuple[str, ...], dict[str, str], int, str]] = [
    ("https://elsewhere.example/a.safetensors", ("models", "loras"), {}, 403, "offers --accept loras/a.safe"),
    ("https://127.0.0.1/a.safetensors", ("loras",), {}, 403, "wait until the owner"),
    ("https://huggingface.co/a.safetensors", ("models",), {}, 400, "No tag is a folder type"),
    ("https://huggingface.co/a.safetensors", ("custom_nodes",), {}, 400, "No tag is a folder type"),
    ("https://huggingface.co/a.safetensors", (), {"model_type": "lorass"}, 400, "Did you mean 'loras'"),
    ("https://huggingface.co/a.py", ("loras",), {}, 400, "is refused"),
    ("https://huggingface.co/a", ("loras",), {"name": "../../a.safetensors"}, 400, "is refused"),
    ("file:///etc/passwd.safetensors", ("loras",), {}, 400, "may not name files or buckets"),
    ("s3://bucket/a.safetensors", ("loras",), {}, 400, "may not name files or buckets"),
    ("https://huggingface.co/o/own.safetensors", ("loras",), {}, 400, "another model here"),
]


async def test_a_url_that_nobody_has_allowed_is_not_fetched(depot_world: World) -> None:
    depot_world.write_model("loras", "own.safetensors")
    async with client(depot_world) as http:
        for url, tags, metadata, status, words in REFUSED:
            found, answer = await ask(http, url, *tags, **metadata)
            message = answer["error"]["message"]
            assert (found, words in message) == (status, True), answer
            assert ("Send {" in message) == ("No tag" in message), "the form helps where the body is wrong"
        assert (await (await http.get("/depot/transfers")).json())["transfers"] == []


        bodies: list[Any] = [{}, {"source_url": 5}, {"source_url": "x", "tags": "loras"}, []]
        for body in bodies:
            refusal = await http.post("/assets/download", json=body)
            assert refusal.status == 400 and "Send {" in (await refusal.json())["error"]["message"]


async def test_a_digest_of_the_workflow_is_what_the_bytes_must_have(
    depot_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, body = sha256(safetensors(MIB, 1)), safetensors(MIB, 2)
    with Origin() as origin:
        monkeypatch.setenv("HF_ENDPOINT", origin.url)
        async with client(depot_world) as http:
            for name, digest in (("a.safetensors", right), ("b.safetensors", sha256(body))):
                origin.put(f"/o/{name}", body)
                _, task = await ask(http, f"https://huggingface.co/o/{name}", "loras", filename=name,
                                    hash=digest.upper(), hash_type="SHA256")  # fmt: skip
                done = await ended(http, task["task_id"])
                assert done["status"] == ("failed" if digest == right else "completed"), done
    assert not depot_world.model("loras", "a.safetensors").exists()


async def test_the_command_line_lists_and_stops_the_downloads_of_a_server(
    depot_world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    async def run(*words: str) -> tuple[int, str, str]:
        status = await asyncio.to_thread(cli.main, ["transfers", "--server", str(http.make_url("/")), *words])
        return status, *capsys.readouterr()

    with Origin(rate_total=MIB) as origin:
        depot_world.write_manifest({"loras": {"m.safetensors": origin.put("/m", safetensors(8 * MIB))}})
        async with client(depot_world) as http:
            await http.post("/depot/fetch", json={"folder": "loras", "name": "m.safetensors"})
            await until(lambda: origin.bytes_sent() > 0)
            status, out, _ = await run()
            assert status == 0 and out.startswith("t1\tloras/m.safetensors\t") and "127.0.0.1" in out
            status, _, err = await run("--stop", "t1", "--stop", "../models")
            assert status == 1 and "No transfer '../models' is under way" in err
            await until(lambda: not hooks.armed().active_transfers())  # type: ignore[union-attr]
            assert (await run("--json"))[1].split() == ["{", '"transfers":', "[],", '"errors":', "[]", "}"]
    for server, words in (("ftp://x", "is no address"), ("http://127.0.0.1:9", "No depot answers")):
        assert cli.main(["transfers", "--server", server]) == 1
        assert words in capsys.readouterr().err
