"""`force` and `cache` in POST /prompt, and the options: from the request to the second file."""

import argparse
import asyncio
import json
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

import nodes
from app import worker
from comfy import cli_args
from tests.fakes.server_process import ServerProcess

ROOT = Path(__file__).resolve().parents[2]
GRAPH = {
    "1": {"class_type": "Echo", "inputs": {"text": "hi"}},
    "2": {"class_type": "Echo", "inputs": {"text": "ho"}},
}
PICTURE = {
    "4": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 255}},
    "9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "twice", "images": ["4", 0]}},
}


def why(entry):
    return {node: reason["reason"] for node, reason in entry["reasons"].items()}


@pytest.mark.slow
def test_the_same_json_posted_twice_saves_the_picture_twice(tmp_path):
    """The whole way: HTTP, queue, executor, files, history. It begins with the example of docs/force.md."""
    (example, *_) = re.findall(r"```\n(.*?)```", (ROOT / "docs/force.md").read_text(), re.S)
    (body,) = re.findall(r"<<'END'\n(.*?)\nEND\n", example, re.S)
    with ServerProcess(tmp_path) as server:
        entries = [server.run_prompt(**json.loads(body), seconds=120) for _ in range(2)]
        plain = server.run_prompt(PICTURE)
        forced = server.run_prompt(PICTURE, force=["EmptyImage"])
        status, refusal = server.request("POST", "/prompt", {"prompt": PICTURE, "force": ["10"]})
        by_curl = run_in_shell(example, server)
    names = [entry["outputs"]["9"]["images"][0]["filename"] for entry in (*entries, plain, forced, *by_curl)]
    assert names == [f"twice_0000{number}_.png" for number in (1, 2, 3, 4, 5, 6)[: len(names)]]
    assert sorted(file.name for file in (tmp_path / "output").glob("*.png")) == names
    assert [why(entry) for entry in (*entries, plain, forced)] == [
        {"4": "never ran", "9": "forced"},
        {"4": "cached", "9": "forced"},
        {"4": "changed", "9": "changed"},
        {"4": "forced", "9": "forced"},
    ]
    assert entries[1]["prompt"][3]["force"] == "outputs"
    assert set(entries[1]["status"]) == {"status_str", "completed", "messages"}
    assert set(entries[1]["meta"]["9"]) == {"node_id", "display_node", "parent_node", "real_node_id"}
    assert status == 400 and b"The nodes are: 4 (EmptyImage), 9 (SaveImage)" in refusal


def run_in_shell(example, server):
    """The history entries of the documented commands, run as they stand; none where there is no curl."""
    if not (shutil.which("curl") and shutil.which("sh")):
        return []
    lines = example.replace("http://127.0.0.1:8188", server.url)
    done = subprocess.run(
        ["sh", "-e"], input=lines, cwd=server.base_directory, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    answers = [json.loads(text) for text in done.stdout.replace("}{", "}\n{").splitlines()]
    assert len(answers) == 2
    return [server.wait_for_history(answer["prompt_id"]) for answer in answers]


class Draw:
    """What an output needs, and no output itself."""

    RETURN_TYPES = ("STRING",)
    FUNCTION = "draw"
    CATEGORY = "test"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    def draw(self):
        return ("drawn",)


DRAWING = {
    "1": {"class_type": "Draw", "inputs": {}},
    "2": {"class_type": "Draw", "inputs": {"side": 1}},
    "3": {"class_type": "Echo", "inputs": {"text": ["1", 0]}},
    "4": {"class_type": "Echo", "inputs": {"text": ["2", 0]}},
}
C, F, N = "cached", "forced", "not read"


@pytest.mark.parametrize(
    ("line", "fields", "second", "after"),
    [
        ([], {}, [C, C, C, C], [C, C, C, C]),
        (["--no-cache"], {}, [N, N, N, N], [N, N, N, N]),
        (["--no-cache"], {"force": "outputs"}, [N, N, F, F], [N, N, N, N]),
        (["--cache-none"], {}, [N, N, N, N], [N, N, N, N]),
        (["--force"], {}, [F, F, F, F], [F, F, F, F]),
        (["--force"], {"force": "outputs"}, [F, F, F, F], [F, F, F, F]),
        ([], {"cache": "read"}, [C, C, C, C], [C, C, C, C]),
        ([], {"cache": "write"}, [N, N, N, N], [C, C, C, C]),
        ([], {"cache": "off"}, [N, N, N, N], [C, C, C, C]),
        ([], {"force": True}, [F, F, F, F], [C, C, C, C]),
        ([], {"force": "outputs"}, [C, C, F, F], [C, C, C, C]),
        ([], {"force": ["3"]}, [C, C, F, C], [C, C, C, C]),
        ([], {"force": ["2"]}, [C, F, C, F], [C, C, C, C]),
        ([], {"force": ["Draw"]}, [F, F, F, F], [C, C, C, C]),
        ([], {"extra_data": {"force": ["3", "2"]}}, [C, F, F, F], [C, C, C, C]),
        ([], {"extra_data": {"cache": "off"}}, [N, N, N, N], [C, C, C, C]),
    ],
)
async def test_each_row_of_the_table_from_the_command_line_to_the_history(
    connect, echo, line, fields, second, after
):
    """Posted plainly, then with the fields, then plainly: what ran, and what the client was told."""
    nodes.NODE_CLASS_MAPPINGS["Draw"] = Draw
    options = argparse.Namespace()
    cli_args.build_parser().parse_args(line, namespace=options)
    client = await connect(**{name: getattr(options, name) for name in ("cache_none", "force")})
    runner = worker.Worker(client.prompt_server.prompt_queue, client.prompt_server)
    entries = []
    for extra in ({}, fields, {}):
        answer = await (await client.post("/prompt", json={"prompt": DRAWING, **extra})).json()
        await asyncio.to_thread(runner.run_next)
        history = await (await client.get(f"/history/{answer['prompt_id']}")).json()
        entries.append(history[answer["prompt_id"]])
    for entry, expected in zip(entries[1:], (second, after)):
        assert [why(entry)[node] for node in "1234"] == expected
        messages = dict(entry["status"]["messages"])
        assert sorted(messages["execution_cached"]["nodes"]) == [n for n in "1234" if why(entry)[n] == C]


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
