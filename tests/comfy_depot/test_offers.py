"""Models that workflows name: taken up by policy, below every manifest and file, with no token of ours."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

import folder_paths
from comfy_depot import cli, hooks, offers
from comfy_depot.errors import ModelUnavailable
from tests.comfy_depot.world import World

HUB = "https://huggingface.co/org/repo/resolve/main/"
OTHER = "https://models.example/"


def model(name: str, url: str = HUB, folder: str = "loras", **more: Any) -> dict[str, Any]:
    url += "x.safetensors" if url.endswith("/") else ""
    return {"name": name, "url": url, "directory": folder, **more}


def workflow(*models: Any) -> dict[str, Any]:
    return {"nodes": [{"type": "LoraLoader", "properties": {"models": list(models)}}]}


def body(*models: Any, uses: str = "") -> dict[str, Any]:
    names = [uses] if uses else [one["name"] for one in models]
    return {"prompt": {str(i): {"class_type": "L", "inputs": {"name": name}} for i, name in enumerate(names)},
            "extra_data": {"extra_pnginfo": {"workflow": workflow(*models)}}}


def test_a_posted_workflows_model_at_an_allowed_host_is_listed_at_once(depot_world: World) -> None:
    sha = "ab" * 32
    with depot_world.depot() as depot:
        sent = body(model("sub/a.safetensors", hash=sha, hash_type="SHA256"), model("b.safetensors", OTHER))
        assert depot.offers.on_prompt(sent) is sent
        assert folder_paths.get_filename_list("loras") == [str(Path("sub/a.safetensors"))]
        entry = depot.catalogue.find("loras", "sub/a.safetensors")
        assert entry is not None and entry.sha256 == sha and entry.urls == (HUB + "x.safetensors",)
        assert entry.is_anonymous, "whoever posts prompts gets none of the server's tokens"
        assert [(one.name, one.state) for one in depot.offers.listed()] == [
            ("sub/a.safetensors", "allowed"), ("b.safetensors", "pending")]
    with depot_world.depot() as depot:
        assert depot.catalogue.find("loras", "sub/a.safetensors") is not None, "a prompt outlives it"
    with depot_world.depot(workflow_models="off") as depot:
        assert depot.catalogue.find("loras", "sub/a.safetensors") is None


def test_only_models_that_the_prompt_uses_are_taken_up(depot_world: World) -> None:
    with depot_world.depot() as depot:
        both = model("a.safetensors"), model("sub/b.safetensors")
        depot.offers.on_prompt(body(*both, uses="sub\\b.safetensors"))
        assert [one.name for one in depot.offers.listed()] == ["sub/b.safetensors"]


@pytest.mark.parametrize(
    ("policy", "url", "state"),
    [
        ("allow-hosts", HUB, "allowed"),
        ("allow-hosts", "hf://org/repo/a.safetensors", "allowed"),
        ("allow-hosts", OTHER, "pending"),
        ("allow-hosts", "http://huggingface.co/", "pending"),
        ("allow-hosts", "https://huggingface.co:8443/", "pending"),
        ("allow-hosts", "https://huggingface.co.evil.example/", "pending"),
        ("allow-hosts", "https://evil.example/huggingface.co/", "pending"),
        ("allow-hosts", "civitai://12", "pending"),
        ("ask", HUB, "pending"),
        ("off", HUB, "refused"),
        ("allow-hosts", "/etc/x.safetensors", "refused"),
        ("allow-hosts", "file:///etc/x.safetensors", "refused"),
        ("allow-hosts", "s3://mine/x.safetensors", "refused"),
        ("allow-hosts", "https://user:pw@huggingface.co/", "refused"),
    ],
)
def test_the_policy_decides_by_scheme_host_and_port(
    depot_world: World, policy: str, url: str, state: str
) -> None:
    with depot_world.depot(workflow_models=policy) as depot:
        (offer,) = depot.offers.offer(workflow(model("a.safetensors", url)))
        assert offer.state == state
        assert (depot.catalogue.find("loras", "a.safetensors") is not None) == (state == "allowed")


def test_hosts_of_your_own_are_added(depot_world: World) -> None:
    with depot_world.depot(workflow_hosts=("models.example",)) as depot:
        found = depot.offers.offer(workflow(model("a.safetensors", OTHER), model("b.safetensors", HUB)))
        assert [one.state for one in found] == ["allowed", "pending"]


@pytest.mark.parametrize(
    ("folder", "name", "words"),
    [
        ("loras", "../a.safetensors", "is refused"),
        ("loras", "a.ckpt", "can run code when they are loaded"),
        ("loras", "a.py", "lists no files with extension"),
        ("custom_nodes", "a.safetensors", "node packs are code and are never fetched"),
        ("nothing", "a.safetensors", "folder type 'nothing' is not known"),
        ("loras", "a", "has no extension"),
    ],
)
def test_a_hostile_offer_is_refused_like_a_manifests(
    depot_world: World, folder: str, name: str, words: str
) -> None:
    with depot_world.depot() as depot:
        (offer,) = depot.offers.offer(workflow(model(name, folder=folder)))
        assert offer.state == "refused" and words in str(offer.message)
        assert depot.offers.listed() == []


def test_a_manifest_and_a_local_file_are_never_overridden(depot_world: World) -> None:
    depot_world.write_manifest({"loras": {"manifest.safetensors": OTHER + "real"}})
    depot_world.write_model("loras", "local.safetensors")
    with depot_world.depot() as depot:
        found = depot.offers.offer(workflow(model("manifest.safetensors"), model("local.safetensors")))
        assert [one.state for one in found] == ["known", "known"] and depot.offers.listed() == []
        depot.offers.offer(workflow(model("later.safetensors")))
        depot_world.write_manifest({"loras": {"later.safetensors": OTHER + "real"}})
        snapshot = depot.catalogue.refresh()
        assert snapshot.entries["loras"]["later.safetensors"].urls == (OTHER + "real",)
        assert snapshot.problems == (), "the manifest's owner has made no mistake"


def test_the_first_workflow_that_names_a_model_counts(depot_world: World) -> None:
    with depot_world.depot() as depot:
        depot.offers.offer(workflow(model("a.safetensors", OTHER)))
        depot.offers.offer(workflow(model("a.safetensors", "https://evil.example/")))
        assert [one.url for one in depot.offers.listed()] == [OTHER + "x.safetensors"]


def test_a_waiting_model_is_accepted_or_forgotten(depot_world: World) -> None:
    with depot_world.depot(workflow_models="ask") as depot:
        depot.offers.offer(workflow(model("a.safetensors", OTHER + "a?sig=secret"), model("b.safetensors")))
        assert "secret" not in repr(depot.offers.listed())
        assert folder_paths.get_filename_list("loras") == []
        depot.offers.accept("loras", "a.safetensors")
        entry = depot.catalogue.find("loras", "a.safetensors")
        assert entry is not None and not entry.is_anonymous and entry.urls == (OTHER + "a?sig=secret",)
        depot.offers.forget("loras", "b.safetensors")
        assert [(one.name, one.state) for one in depot.offers.listed()] == [("a.safetensors", "accepted")]
        depot.offers.forget("loras", "a.safetensors")
        assert depot.catalogue.find("loras", "a.safetensors") is None
        with pytest.raises(ModelUnavailable, match="No workflow has named 'loras/a.safetensors'. GET /dep"):
            depot.offers.accept("loras", "a.safetensors")


def test_workflows_cannot_fill_the_lists_without_end(
    depot_world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(offers, "MOST_KEPT", 3)
    monkeypatch.setattr(offers, "MOST_OF_A_WORKFLOW", 2)
    with depot_world.depot() as depot:
        assert len(depot.offers.offer(workflow(*(model(f"{i}.safetensors") for i in range(5))))) == 2
        depot.offers.offer(workflow(model("a.safetensors"), model("b.safetensors")))
        depot.offers.offer(workflow(model("c.safetensors")))
        assert [one.name[0] for one in depot.offers.listed()] == ["0", "1", "c"]
    assert "To make room: python -m comfy_depot offers --forget" in caplog.text


@pytest.mark.parametrize("sent", [None, [], {},
                                  {"prompt": [], "extra_data": {"extra_pnginfo": {"workflow": {}}}},
                                  {"extra_data": []}, {"extra_data": {"extra_pnginfo": "x"}, "prompt": {}},
                                  {"prompt": {"1": 5, "2": {"inputs": 3}},
                                   "extra_data": {"extra_pnginfo": {"workflow": [1]}}}])
def test_a_body_of_any_form_is_passed_on(depot_world: World, sent: Any) -> None:
    with depot_world.depot() as depot:
        assert depot.offers.on_prompt(sent) is sent
        assert not (depot_world.base / "depot" / "workflow").exists()


def test_the_command_line_does_what_http_does(depot_world: World, capsys: pytest.CaptureFixture[str]) -> None:
    file = depot_world.base / "w.json"
    file.write_text(json.dumps(workflow(model("a.safetensors", OTHER), model("bad"))), encoding="utf-8")
    command = ["--base-directory", str(depot_world.base), "offers"]
    assert cli.main([*command, "--from", str(file)]) == 1
    assert capsys.readouterr().out.splitlines()[0] == f"loras/a.safetensors\tpending\t{OTHER}x.safetensors\t"
    assert cli.main([*command, "--json", "--accept", "loras/a.safetensors"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["state"] == "accepted"
    assert cli.main([*command, "--forget", "loras/a.safetensors"]) == 0 and capsys.readouterr().out == ""
    assert cli.main([*command, "--accept", "loras/none.safetensors"]) == 1
    assert "No workflow has named" in capsys.readouterr().err


async def test_offers_over_http(depot_world: World) -> None:
    with depot_world.depot():
        routes = web.RouteTableDef()
        hooks.add_routes(routes)
        app = web.Application()
        app.add_routes(routes)
        async with TestClient(TestServer(app)) as client:
            wanted = {"folder": "loras", "name": "a.safetensors"}
            graph = workflow(model("a.safetensors", OTHER))
            answer = await client.post("/depot/offers", json={"workflow": graph})
            offer = {**wanted, "state": "pending", "message": None, "url": OTHER + "x.safetensors"}
            assert await answer.json() == {"offers": [offer]}
            answer = await client.post("/depot/offers/accept", json=wanted)
            assert (await answer.json())["offers"] == [{**offer, "state": "accepted"}]
            await client.post("/depot/offers/forget", json=wanted)
            answer = await client.get("/depot/offers")
            assert await answer.json() == {"policy": "allow-hosts", "hosts": ["huggingface.co"], "offers": []}
            for path, sent, status in [("", {}, 400), ("", {"workflow": 5}, 400), ("/accept", {}, 400),
                                       ("/accept", wanted, 404), ("/forget", wanted, 404)]:
                answer = await client.post("/depot/offers" + path, json=sent)
                assert answer.status == status and (await answer.json())["error"]["message"]


async def test_many_workflows_at_once_lose_nothing(depot_world: World) -> None:
    with depot_world.depot() as depot:
        await asyncio.gather(*(asyncio.to_thread(depot.offers.offer, workflow(model(f"{i}.safetensors")))
                               for i in range(8)))
        assert len(depot.offers.listed()) == 8
