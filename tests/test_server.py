"""The running server: `python main.py`, a websocket client, and real prompts."""

import asyncio
import json
import struct
import time
import uuid

import aiohttp
import pytest

from tests.fakes.server_process import ServerProcess, install_live_pack


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server with the live pack and a pack that cannot be imported."""
    base = tmp_path_factory.mktemp("base")
    install_live_pack(base)
    (base / "custom_nodes" / "broken_pack.py").write_text("raise RuntimeError('broken on purpose')")
    with ServerProcess(base) as process:
        process.idle_megabytes = process.rss_megabytes()
        yield process


def graph(class_type, **inputs):
    return {"1": {"class_type": class_type, "inputs": inputs}}


class Listener:
    """A websocket client that keeps what it hears."""

    def __init__(self, socket):
        self.socket = socket
        self.messages = []
        self.binary = []

    async def until(self, event, **fields):
        """Listen until a message of that kind with those fields has come; returns its data."""
        while True:
            message = await asyncio.wait_for(self.socket.receive(), 60)
            if message.type == aiohttp.WSMsgType.BINARY:
                self.binary.append(message.data)
                continue
            assert message.type == aiohttp.WSMsgType.TEXT, message
            content = json.loads(message.data)
            self.messages.append((content["type"], content["data"]))
            if content["type"] == event and all(content["data"].get(key) == fields[key] for key in fields):
                return content["data"]

    def events(self):
        """Kinds of messages, in order, without the queue's length."""
        return [kind for kind, _ in self.messages if kind != "status"]


@pytest.fixture
async def listen(server):
    """A function that opens a websocket for a client id, and announces flags if there are any."""
    async with aiohttp.ClientSession() as session:

        async def open_line(client_id, flags=None):
            socket = await session.ws_connect(f"{server.url}/ws?clientId={client_id}")
            if flags is not None:
                await socket.send_json({"type": "feature_flags", "data": flags})
            listener = Listener(socket)
            await listener.until("status")
            return listener

        yield open_line


async def post(server, prompt, **fields):
    """POST /prompt without blocking the listener."""
    return await asyncio.to_thread(server.post_json, "/prompt", {"prompt": prompt, **fields})


@pytest.mark.slow
def test_the_server_answers_small_before_any_model_is_used(server):
    assert server.idle_megabytes < 200
    assert server.seconds_to_answer < 30  # a bound for loaded machines; benchmarks/startup.py measures


def test_a_broken_pack_is_reported_and_the_others_work(server):
    assert "broken on purpose" in server.log()
    assert "LivePicture" in server.get_json("/object_info/LivePicture")


def test_the_scripts_of_a_pack_are_listed_and_served(server):
    assert "/extensions/live_pack/live.js" in server.get_json("/extensions")
    assert b"livePackIsLoaded" in server.request("GET", "/extensions/live_pack/live.js")[1]


async def test_a_client_hears_the_whole_story_of_its_prompt(server, listen):
    listener = await listen("story")
    answer = await post(server, graph("LivePicture", red=10), client_id="story")
    prompt_id = answer["prompt_id"]
    await listener.until("executing", node=None)
    history = await asyncio.to_thread(server.get_json, f"/history/{prompt_id}")
    assert history[prompt_id]["status"]["completed"], "the history is there when the end is told"
    lengths = [data["status"]["exec_info"]["queue_remaining"] for kind, data in listener.messages
               if kind == "status"]
    assert lengths[-3:] == [1, 1, 0], "it waits, it runs, it has run; all before the end is told"
    story = listener.events()
    assert story[:2] == ["execution_start", "execution_cached"]
    assert story[-2:] == ["execution_success", "executing"]
    assert {"executing", "executed", "progress_state"} <= set(story)
    assert listener.messages[-1] == ("executing", {"node": None, "prompt_id": prompt_id})
    executed = dict(listener.messages)["executed"]
    assert executed["node"] == executed["display_node"] == "1" and executed["prompt_id"] == prompt_id
    assert executed["output"] == {"images": [{"filename": "live_10.png", "subfolder": "", "type": "temp"}]}
    status, picture = await asyncio.to_thread(server.request, "GET", "/view?filename=live_10.png&type=temp")
    assert status == 200 and picture.startswith(b"\x89PNG")


async def test_a_free_form_id_comes_back_everywhere(server, listen):
    listener = await listen("echo")
    answer = await post(server, graph("LivePicture", red=11), client_id="echo", prompt_id="krita-7 of 9")
    assert answer["prompt_id"] == "krita-7 of 9"
    await listener.until("executing", node=None)
    assert {data["prompt_id"] for _, data in listener.messages if "prompt_id" in data} == {"krita-7 of 9"}
    job = await asyncio.to_thread(server.get_json, "/api/jobs/krita-7%20of%209")
    assert job["status"] == "completed" and job["preview_output"]["filename"] == "live_11.png"


@pytest.mark.parametrize(("flags", "event"), [({"supports_preview_metadata": True}, 4), ({}, 1), (None, 1)])
async def test_previews_come_in_the_form_the_client_knows(server, listen, flags, event):
    name = uuid.uuid4().hex
    listener = await listen(name, flags)
    if flags is not None:
        await listener.until("feature_flags")
    # another number each time: what ran before is not run again
    seconds = 0.01 + int(name[:4], 16) / 1e8
    await post(server, graph("LiveSlow", steps=3, seconds=seconds), client_id=name)
    await listener.until("executing", node=None)
    progress = [data for kind, data in listener.messages if kind == "progress"]
    assert [(data["value"], data["max"], data["node"]) for data in progress] == [
        (1, 3, "1"),
        (2, 3, "1"),
        (3, 3, "1"),
    ]
    assert {struct.unpack(">I", message[:4])[0] for message in listener.binary} == {event}
    if event == 4:
        (length,) = struct.unpack(">I", listener.binary[0][4:8])
        metadata = json.loads(listener.binary[0][8 : 8 + length])
        assert metadata["node_id"] == "1" and metadata["image_type"] == "image/jpeg"
        assert {"prompt_id", "display_node_id", "parent_node_id", "real_node_id"} <= set(metadata)


async def test_a_running_job_is_cancelled_and_the_next_one_runs(server, listen):
    listener = await listen("cancel")
    await post(server, graph("LiveSlow", steps=2000, seconds=0.02), client_id="cancel", prompt_id="long")
    await post(server, graph("LiveSlow", steps=2000, seconds=0.03), client_id="cancel", prompt_id="waiting")
    await listener.until("progress")
    for prompt_id in ("waiting", "long"):
        answer = await asyncio.to_thread(server.post_json, f"/api/jobs/{prompt_id}/cancel", {})
        assert answer == {"cancelled": True}
    interrupted = await listener.until("execution_interrupted")
    assert (interrupted["prompt_id"], interrupted["node_id"]) == ("long", "1")
    await listener.until("executing", node=None)
    assert (await asyncio.to_thread(server.get_json, "/api/jobs/long"))["status"] == "cancelled"
    assert (await asyncio.to_thread(server.request, "GET", "/api/jobs/waiting"))[0] == 404
    entry = await asyncio.to_thread(server.run_prompt, graph("LivePicture", red=12))
    assert entry["status"]["completed"]


async def test_a_failing_node_is_told_with_its_reason_and_the_server_goes_on(server, listen):
    listener = await listen("fail")
    await post(server, graph("LiveFailure"), client_id="fail", prompt_id="failing")
    error = await listener.until("execution_error")
    assert (error["node_id"], error["node_type"], error["exception_message"].strip()) == (
        "1",
        "LiveFailure",
        "as it should",
    )
    assert any("as it should" in line for line in error["traceback"])
    await listener.until("executing", node=None)
    job = await asyncio.to_thread(server.get_json, "/api/jobs/failing")
    assert job["status"] == "failed" and job["execution_error"]["exception_message"].strip() == "as it should"
    entry = await asyncio.to_thread(server.run_prompt, graph("LivePicture", red=13))
    assert entry["status"]["completed"]


async def test_free_is_followed_while_idle(server):
    slow = graph("LivePicture", red=14)
    await asyncio.to_thread(server.run_prompt, slow)
    await asyncio.to_thread(server.request, "POST", "/free", {"free_memory": True, "unload_models": True})
    await asyncio.sleep(0.3)
    entry = await asyncio.to_thread(server.run_prompt, slow)
    cached = next(data for kind, data in entry["status"]["messages"] if kind == "execution_cached")
    assert cached["nodes"] == []


def test_a_port_in_use_is_said_with_advice(server, tmp_path):
    code, log = ServerProcess(tmp_path, port=server.port).run_to_end()
    assert code == 1
    assert f"Port {server.port} on 127.0.0.1 is in use by another program." in log
    assert f"--port {server.port + 1}" in log


@pytest.mark.slow
def test_a_killed_server_starts_again(tmp_path):
    process = ServerProcess(tmp_path)
    process.start()
    process.kill()
    with process:
        assert process.get_json("/queue") == {"queue_running": [], "queue_pending": []}
    assert process.stop() == 0, "asked to stop, it ends well"


def test_going_from_a_to_b_and_back_runs_nothing_until_memory_is_freed(server):
    """Rules 68 and 72, through HTTP."""

    def run(red):
        return server.run_prompt(graph("LivePicture", red=red))

    def free(**what):
        assert server.request("POST", "/free", what)[0] == 200

    first, other, again = run(61), run(62), run(61)
    assert first["reasons"]["1"]["reason"] != "cached" and again["reasons"]["1"]["reason"] == "cached"
    assert other["reasons"]["1"]["inputs"] == ["red"]
    assert again["outputs"] == first["outputs"]
    free(unload_models=True)
    assert run(62)["reasons"] == {"1": {"reason": "cached"}}
    before = server.get_json("/depot/cache")
    assert before["mode"] == "budget" and before["entries"] >= 2 and 0 < before["bytes"] < before["budget"]
    free(free_memory=True)
    deadline = time.monotonic() + 20
    while server.get_json("/depot/cache")["entries"] and time.monotonic() < deadline:
        time.sleep(0.02)
    assert run(61)["reasons"] == {"1": {"reason": "dropped", "why": "free"}}
    assert server.get_json("/depot/cache")["drops"] >= before["drops"] + before["entries"]
