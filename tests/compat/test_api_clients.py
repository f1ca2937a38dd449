"""What scripts do that speak to ComfyUI's API without a web page: HTTP alone, HTTP and websocket, and
pictures over the websocket. The client is written as such scripts are: bare paths, no content type, no flags.
"""

import asyncio
import io
import json
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid

import aiohttp
import pytest
from PIL import Image

from tests.fakes.server_process import ServerProcess, install_live_pack
from tests.fakes.shapes import ids, misfit

HEADER_BYTES = 8


def plain(width, height, color, batch_size=1):
    """A node that makes one-coloured pictures."""
    inputs = {"width": width, "height": height, "batch_size": batch_size, "color": color}
    return {"class_type": "EmptyImage", "inputs": inputs}


PICTURE = plain(24, 16, 0x336699, batch_size=3)
SAVE = {"class_type": "SaveImage", "inputs": {"filename_prefix": "api/out", "images": ["1", 0]}}
FILE = {"filename": str, "subfolder": "api", "type": "output"}
MESSAGES = {
    "status": {"status": {"exec_info": {"queue_remaining": int, "paused?": bool}}, "sid?": str},
    "execution_start": {"prompt_id": str, "timestamp": int},
    "execution_cached": {"nodes": [str], "prompt_id": str, "timestamp": int},
    "executing": {"node": (str, type(None)), "display_node?": str, "prompt_id": str, "reason?": dict},
    "progress": {"value": (int, float), "max": (int, float), "prompt_id": str, "node": str},
    "progress_state": {"prompt_id": str, "nodes": ids({
        "value": (int, float), "max": (int, float), "state": ("pending", "running", "finished", "error"),
        "node_id": str, "prompt_id": str, "display_node_id": str, "parent_node_id": (str, type(None)),
        "real_node_id": str,
    })},
    "executed": {"node": str, "display_node": str, "output": {"images": [FILE]}, "prompt_id": str,
                 "reason?": dict},
    "execution_success": {"prompt_id": str, "timestamp": int},
    "execution_error": {
        "prompt_id": str, "node_id": str, "node_type": str, "executed": [str], "exception_message": str,
        "exception_type": str, "traceback": [str], "current_inputs": dict, "current_outputs": [str],
        "timestamp": int,
    },
    "execution_interrupted": {
        "prompt_id": str, "node_id": str, "node_type": str, "executed": [str], "timestamp": int,
    },
    "logs": {"entries": [{"t": str, "m": str}], "size": (dict, type(None))},
}  # fmt: skip
"""Every message that a client hears of a prompt, by its shape."""


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """The address of a server."""
    base = tmp_path_factory.mktemp("base")
    install_live_pack(base)
    with ServerProcess(base) as process:
        yield process.url


def send(url, path, body=None):
    """POST as urllib does it by itself: JSON that calls itself a form."""
    data = b"" if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url + path, data=data), timeout=60) as answer:
        return answer.read()


def fetch(url, path, **query):
    with urllib.request.urlopen(f"{url}{path}?{urllib.parse.urlencode(query)}", timeout=60) as answer:
        return answer.read()


def queue_prompt(url, graph, **fields):
    return json.loads(send(url, "/prompt", {"prompt": graph, **fields}))["prompt_id"]


def wait_for(url, prompt_id, seconds=60):
    """The history entry, by asking again and again."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        history = json.loads(fetch(url, f"/history/{prompt_id}"))
        if prompt_id in history:
            return history[prompt_id]
        time.sleep(0.05)
    raise AssertionError("the prompt has not run")


def pictures_of(url, entry):
    """Every picture that a history entry names."""
    files = [file for output in entry["outputs"].values() for file in output.get("images", ())]
    return [Image.open(io.BytesIO(fetch(url, "/view", **file))) for file in files]


async def follow(url, graph):
    """Queue a prompt on a websocket; (messages, binary messages by node, prompt id) until it is over."""
    client_id, messages, binary, current = uuid.uuid4().hex, [], {}, None
    address = f"{url}/ws?clientId={client_id}"
    async with aiohttp.ClientSession() as session, session.ws_connect(address) as line:
        prompt_id = await asyncio.to_thread(queue_prompt, url, graph, client_id=client_id)
        while True:
            received = await line.receive(timeout=60)
            if received.type == aiohttp.WSMsgType.BINARY:
                binary.setdefault(current, []).append(received.data)
                continue
            assert received.type == aiohttp.WSMsgType.TEXT, received
            message = json.loads(received.data)
            messages.append((message["type"], message["data"]))
            if message["type"] == "executing" and message["data"].get("prompt_id") == prompt_id:
                current = message["data"]["node"]
                if current is None:
                    return messages, binary, prompt_id


@pytest.mark.slow
def test_a_script_queues_polls_and_fetches(url):
    entry = wait_for(url, queue_prompt(url, {"1": PICTURE, "2": SAVE}))
    assert entry["status"]["status_str"] == "success" and entry["status"]["completed"] is True
    pictures = pictures_of(url, entry)
    assert [(picture.format, picture.size, picture.getpixel((0, 0))) for picture in pictures] == [
        ("PNG", (24, 16), (0x33, 0x66, 0x99))
    ] * 3


async def test_a_script_follows_its_prompt_on_the_websocket(url):
    messages, binary, prompt_id = await follow(url, {"1": plain(8, 8, 1, batch_size=3), "2": SAVE})
    wrong = [misfit(data, MESSAGES[kind], kind) for kind, data in messages]
    assert [reason for reason in wrong if reason] == []
    story = [data["node"] if kind == "executing" else kind for kind, data in messages
             if kind not in ("status", "progress_state", "progress")]  # fmt: skip
    assert story == ["execution_start", "execution_cached", "1", "2", "executed", "execution_success", None]
    assert binary == {}
    entry = json.loads(fetch(url, f"/history/{prompt_id}"))[prompt_id]
    assert len(pictures_of(url, entry)) == 3


async def test_pictures_come_over_the_websocket_each_time_in_order_and_full_size(url):
    stripes = {"1": plain(700, 8, 7), "3": plain(700, 8, 9),
               "4": {"class_type": "ImageBatch", "inputs": {"image1": ["1", 0], "image2": ["3", 0]}},
               "2": {"class_type": "SaveImageWebsocket", "inputs": {"images": ["4", 0]}}}  # fmt: skip
    for _ in range(2):  # the second time everything else is in the cache
        _, binary, prompt_id = await follow(url, stripes)
        pictures = [Image.open(io.BytesIO(message[HEADER_BYTES:])) for message in binary["2"]]
        assert [message[:HEADER_BYTES] for message in binary["2"]] == [b"\0\0\0\1\0\0\0\2"] * 2
        assert [(one.format, one.size, one.getpixel((0, 0))) for one in pictures] == [
            ("PNG", (700, 8), (0, 0, 7)), ("PNG", (700, 8), (0, 0, 9))]  # fmt: skip
    assert json.loads(fetch(url, f"/history/{prompt_id}"))[prompt_id]["outputs"] == {}


def test_a_script_reads_why_its_prompt_is_refused(url):
    graph = {"1": {"class_type": "LoadImage", "inputs": {"image": "gone.png"}}, "2": SAVE}
    with pytest.raises(urllib.error.HTTPError) as refused:
        queue_prompt(url, graph)
    with refused.value as answer:
        body = json.loads(answer.read())
    assert refused.value.code == 400
    assert set(body) == {"error", "node_errors"} and list(body["node_errors"]) == ["1"]


async def test_a_script_hears_why_its_prompt_failed(url):
    stored = await asyncio.to_thread(upload, url, "broken.png", b"no picture")
    graph = {"1": {"class_type": "LoadImage", "inputs": {"image": f"scripts/{stored['name']}"}}, "2": SAVE}
    messages, _, prompt_id = await follow(url, graph)
    (failure,) = [data for kind, data in messages if kind == "execution_error"]
    assert misfit(failure, MESSAGES["execution_error"]) is None
    assert (failure["prompt_id"], failure["node_id"], failure["node_type"]) == (prompt_id, "1", "LoadImage")
    assert json.loads(fetch(url, f"/history/{prompt_id}"))[prompt_id]["status"]["status_str"] == "error"


@pytest.mark.parametrize("is_own", [True, False], ids=["its client hears", "nobody's: all hear"])
async def test_a_script_interrupts_a_prompt(url, is_own):
    slow = {"1": {"class_type": "LiveSlow", "inputs": {"steps": 400, "seconds": 0.02}}}
    fields, binary, heard = {"client_id": "watcher"} if is_own else {}, [], {"type": None}
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{url}/ws?clientId=watcher") as line:
        prompt_id = await asyncio.to_thread(queue_prompt, url, slow, **fields)
        while heard["type"] != "execution_interrupted":
            received = await line.receive(timeout=30)
            if received.type == aiohttp.WSMsgType.BINARY:
                binary.append(received.data)
                if len(binary) == 1:
                    await asyncio.to_thread(send, url, "/interrupt")
                continue
            heard = json.loads(received.data)
    assert misfit(heard["data"], {**MESSAGES["execution_interrupted"], "prompt_id": prompt_id}) is None
    assert {message[:HEADER_BYTES] for message in binary} == {b"\0\0\0\1\0\0\0\1"}  # JPEG previews
    entry = await asyncio.to_thread(wait_for, url, prompt_id)
    assert (entry["status"]["status_str"], entry["status"]["completed"]) == ("error", False)


async def test_a_client_that_asks_for_the_log_hears_it_and_no_other_does(url):
    async with aiohttp.ClientSession() as session:
        lines = {name: await session.ws_connect(f"{url}/ws?clientId={name}") for name in ("asks", "other")}
        wish = {"clientId": "asks", "enabled": True}
        async with session.patch(f"{url}/internal/logs/subscribe", json=wish) as answer:
            assert answer.status == 200
        await asyncio.to_thread(send, url, "/interrupt")  # the server says so
        told = json.loads((await lines["asks"].receive(timeout=10)).data)
        while told["type"] != "logs":
            told = json.loads((await lines["asks"].receive(timeout=10)).data)
        assert misfit(told["data"], MESSAGES["logs"]) is None
        await asyncio.to_thread(queue_prompt, url, {"1": {"class_type": "LivePicture", "inputs": {"red": 3}}})
        kinds = []
        while kinds[-1:] != ["executed"] and len(kinds) < 4:
            kinds.append(json.loads((await lines["other"].receive(timeout=30)).data)["type"])
        assert "logs" not in kinds
        for line in lines.values():
            await line.close()


def upload(url, name, content):
    """Store a picture in input/scripts."""
    boundary = uuid.uuid4().hex
    parts = {f'name="image"; filename="{name}"': content, 'name="subfolder"': b"scripts",
             'name="overwrite"': b"true"}  # fmt: skip
    body = b"".join(b"--%s\r\nContent-Disposition: form-data; %s\r\n\r\n%s\r\n" % (
        boundary.encode(), head.encode(), content) for head, content in parts.items())  # fmt: skip
    request = urllib.request.Request(
        f"{url}/upload/image", data=body + b"--%s--\r\n" % boundary.encode(),
        headers={"Content-Type": f"multipart/form-data; boundary={boundary}"},
    )  # fmt: skip
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


def test_a_script_uploads_a_picture_and_uses_it(url):
    file = io.BytesIO()
    Image.new("RGB", (10, 6), (1, 2, 3)).save(file, "PNG")
    stored = upload(url, "mine.png", file.getvalue())
    assert stored == {"name": "mine.png", "subfolder": "scripts", "type": "input"}
    load = {"class_type": "LoadImage", "inputs": {"image": f"{stored['subfolder']}/{stored['name']}"}}
    (picture,) = pictures_of(url, wait_for(url, queue_prompt(url, {"1": load, "2": SAVE})))
    assert (picture.size, picture.getpixel((0, 0))) == ((10, 6), (1, 2, 3))


def test_a_script_keeps_house(url):
    prompt_id = str(uuid.uuid4())
    assert queue_prompt(url, {"1": PICTURE, "2": SAVE}, prompt_id=prompt_id) == prompt_id
    wait_for(url, prompt_id)
    assert send(url, "/history", {"delete": [prompt_id]}) == b""
    assert json.loads(fetch(url, f"/history/{prompt_id}")) == {}
    assert send(url, "/interrupt") == send(url, "/queue", {"clear": True}) == b""
    assert send(url, "/free", {"unload_models": True, "free_memory": True}) == b""
    assert json.loads(fetch(url, "/queue")) == {"queue_running": [], "queue_pending": []}
    assert json.loads(fetch(url, "/prompt"))["exec_info"]["queue_remaining"] == 0
    stats = json.loads(fetch(url, "/system_stats"))
    assert {"system", "devices"} <= set(stats)
