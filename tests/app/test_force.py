"""`force` and `cache` in POST /prompt, and the options: from the request to the second file."""

import argparse
from types import SimpleNamespace

import pytest

from app import worker
from comfy import cli_args
from tests.fakes.server_process import ServerProcess

GRAPH = {
    "1": {"class_type": "Echo", "inputs": {"text": "hi"}},
    "2": {"class_type": "Echo", "inputs": {"text": "ho"}},
}
PICTURE = {
    "4": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 255}},
    "9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "twice", "images": ["4", 0]}},
}


def test_the_same_json_posted_twice_saves_the_picture_twice(tmp_path):
    """The whole way: HTTP, queue, executor, files, history."""
    with ServerProcess(tmp_path) as server:
        entries = [server.run_prompt(PICTURE, force="outputs", seconds=120) for _ in range(2)]
        plain = server.run_prompt(PICTURE)
        forced = server.run_prompt(PICTURE, force=["EmptyImage"])
        status, refusal = server.request("POST", "/prompt", {"prompt": PICTURE, "force": ["10"]})
    names = [entry["outputs"]["9"]["images"][0]["filename"] for entry in (*entries, plain, forced)]
    assert names == ["twice_00001_.png", "twice_00002_.png", "twice_00002_.png", "twice_00003_.png"]
    assert sorted(file.name for file in (tmp_path / "output").glob("*.png")) == sorted({*names})
    never_ran, cached, forced_to = {"reason": "never ran"}, {"reason": "cached"}, {"reason": "forced"}
    assert [entry["reasons"] for entry in (*entries, plain, forced)] == [
        {"4": never_ran, "9": forced_to},
        {"4": cached, "9": forced_to},
        {"4": cached, "9": cached},
        {"4": forced_to, "9": forced_to},
    ]
    assert entries[1]["prompt"][3]["force"] == "outputs"
    assert set(entries[1]["status"]) == {"status_str", "completed", "messages"}
    assert set(entries[1]["meta"]["9"]) == {"node_id", "display_node", "parent_node", "real_node_id"}
    assert status == 400 and b"The nodes are: 4 (EmptyImage), 9 (SaveImage)" in refusal


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({}, {}),
        ({"force": None, "cache": None}, {}),
        ({"force": True}, {"force": True}),
        ({"force": False, "extra_data": {"force": True}}, {"force": False}),
        ({"force": ["1", "Echo"], "cache": "write"}, {"force": ["1", "Echo"], "cache": "write"}),
        ({"extra_data": {"force": "outputs"}}, {"force": "outputs"}),
        ({"cache": "off"}, {"cache": "off"}),
    ],
)
async def test_the_fields_travel_in_the_extra_data(client, echo, fields, kept):
    answer = await client.post("/prompt", json={"prompt": GRAPH, **fields})
    assert answer.status == 200
    ((*_, extra_data, _outputs),) = (await (await client.get("/queue")).json())["queue_pending"]
    assert {key: extra_data[key] for key in ("force", "cache") if key in extra_data} == kept


@pytest.mark.parametrize(
    ("fields", "kind", "part"),
    [
        ({"force": "everything"}, "invalid_force", "Received 'everything'."),
        ({"force": [1]}, "invalid_force", "Ids are texts"),
        ({"force": ["3"]}, "invalid_force", "'3'. The nodes are: 1 (Echo), 2 (Echo)"),
        ({"force": ["1", "SaveImage"]}, "invalid_force", "'SaveImage'. The nodes are"),
        ({"cache": "none"}, "invalid_cache", "Received 'none'."),
        ({"extra_data": {"cache": 5}}, "invalid_cache", "Received 5."),
        ({"force": ["\ud800"]}, "invalid_force", "The nodes are"),
    ],
)
async def test_what_cannot_be_followed_is_refused_and_not_queued(client, echo, fields, kind, part):
    answer = await client.post("/prompt", json={"prompt": GRAPH, **fields})
    content = await answer.json()
    assert answer.status == 400 and set(content) == {"error", "node_errors"} and content["node_errors"] == {}
    assert set(content["error"]) == {"type", "message", "details", "extra_info"}
    assert content["error"]["type"] == kind and part in content["error"]["details"]
    assert (await (await client.get("/queue")).json())["queue_pending"] == []


async def test_a_refusal_names_what_exists(client, echo):
    answer = await client.post("/prompt", json={"prompt": GRAPH, "force": ["3"]})
    assert (await answer.json())["error"]["extra_info"] == {
        "unknown": ["3"], "ids": ["1", "2"], "class_types": ["Echo"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("line", "none", "force"),
    [([], False, False), (["--no-cache"], True, False), (["--cache-none"], True, False),
     (["--force"], False, True), (["--force", "--cache-lru", "5"], False, True)],
)  # fmt: skip
def test_the_options_reach_the_executor(line, none, force):
    options = argparse.Namespace()
    cli_args.build_parser().parse_args(line, namespace=options)
    settings = worker.cache_settings(options)
    assert (settings["cache_type"].name == "NONE") is none
    assert worker.execution.PromptExecutor(SimpleNamespace(), **settings).force is force
