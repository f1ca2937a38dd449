"""POST /prompt with bodies that no honest client sends. The long form is benchmarks/fuzz_prompt.py."""

import asyncio
import json
import threading
from itertools import islice

import pytest

import execution
import nodes
from app import worker
from tests.comfy_execution.rig import INT, make, node
from tests.fakes.hostile_prompts import FIELDS, NUMBERS, OTHERS, TEXTS, Hostile

GRAPH = {
    "1": node("HostileNumber", value=1),
    "2": node("HostileAdd", a=["1", 0], b=2),
    "3": node("HostileShow", value=["2", 0]),
}
BODIES = 400


@pytest.fixture
async def client(connect):
    """A client of a server that knows the nodes of the graph."""
    client = await connect(max_upload_size=0.5)
    nodes.NODE_CLASS_MAPPINGS.update(
        HostileNumber=make(lambda self, value: (value,), {"value": INT}),
        HostileAdd=make(lambda self, a, b=1: (a + b,), {"a": INT}, optional={"b": INT}),
        HostileShow=make(
            lambda self, value: {"ui": {"text": [value]}}, {"value": ("*", {})}, returns=(), OUTPUT_NODE=True
        ),
    )
    return client


@pytest.fixture
def run_all(client):
    """A function that runs everything that waits, as the worker does; it returns the executor's thread."""
    queue = client.prompt_server.prompt_queue

    def start():
        working = worker.Worker(queue, client.prompt_server)

        def run():
            while queue.get_tasks_remaining():
                working.run_next()

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    return start


async def post(client, body):
    answer = await client.post("/prompt", data=body.content, headers=body.headers)
    text = await answer.text()
    try:
        return answer.status, json.loads(text)
    except ValueError:
        raise AssertionError(
            f"{body.name}: HTTP {answer.status} {text[:300]} for {body.content[:300]}"
        ) from None


def check_answer(body, status, content):
    where = f"{body.name}: HTTP {status} {str(content)[:300]} for {body.content[:300]}"
    assert status in (200, 400, 413), where
    assert status == 200 or body.expected != "valid", where
    assert status != 200 or body.expected != "refused", where
    if status != 200:
        assert content["error"]["type"] and content["error"]["message"], where


@pytest.mark.slow
async def test_hostile_bodies_get_an_answer_and_only_what_is_accepted_is_queued(client, run_all):
    accepted, honest = [], []
    for body in islice(Hostile(1, GRAPH, limit=600_000, large=2000).bodies(), BODIES):
        status, content = await post(client, body)
        check_answer(body, status, content)
        if status == 200:
            accepted.append(content["prompt_id"])
            honest += [accepted[-1]] if body.expected == "valid" else []
        assert client.prompt_server.prompt_queue.get_tasks_remaining() == len(accepted), body.name
    assert len(honest) > 10 and len(accepted) < BODIES / 1.3
    assert (await client.get("/queue")).status == 200
    await asyncio.get_running_loop().run_in_executor(None, run_all().join)
    history = await (await client.get("/history")).json()
    assert set(history) == set(accepted)
    assert {history[one]["status"]["status_str"] for one in honest} == {"success"}


async def test_the_same_seed_makes_the_same_bodies():
    one, other = (list(islice(Hostile(7, GRAPH, large=10).bodies(), 60)) for _ in range(2))
    assert one == other != list(islice(Hostile(8, GRAPH, large=10).bodies(), 60))


async def test_a_body_over_the_limit_is_refused_with_the_limit_and_the_option(client):
    body = {"prompt": GRAPH, "extra_data": {"x": "x" * 600_000}}
    answer = await client.post("/prompt", json=body)
    error = (await answer.json())["error"]
    assert (answer.status, error["type"], error["extra_info"]) == (413, "body_too_large", {"limit": 524_288})
    assert "524,288 bytes" in error["message"] and "--max-upload-size" in error["details"]
    assert client.prompt_server.prompt_queue.get_tasks_remaining() == 0


@pytest.mark.parametrize("field", FIELDS)
async def test_a_field_of_any_shape_is_taken_or_refused(client, field):
    for value in (*TEXTS, *NUMBERS, *OTHERS):
        answer = await client.post("/prompt", data=json.dumps({"prompt": GRAPH, field: value}))
        assert answer.status in (200, 400), f"{field} = {value!r}: {await answer.text()}"
    assert isinstance(client.prompt_server.prompt_queue, execution.PromptQueue)
    assert (await client.get("/queue")).status == 200
