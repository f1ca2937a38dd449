"""The websocket: greeting, flags, reconnection, and who hears what."""

import asyncio
import json
import struct
from pathlib import Path

import pytest
from PIL import Image

from app.client_line import ClientLine
from protocol import BinaryEventTypes


async def greeted(socket):
    """The id in the greeting, which is the first message."""
    greeting = await socket.receive_json(timeout=5)
    assert greeting["type"] == "status"
    assert greeting["data"]["status"] == {"exec_info": {"queue_remaining": 0, "paused": False}}
    return greeting["data"]["sid"]


async def test_a_client_is_greeted_with_its_id_and_the_queue(client):
    async with client.ws_connect("/ws?clientId=me") as own, client.ws_connect("/api/ws") as given:
        assert await greeted(own) == "me"
        assert len(await greeted(given)) == 32


async def test_feature_flags_are_answered_with_the_servers(client):
    async with client.ws_connect("/ws?clientId=me") as socket:
        await greeted(socket)
        await socket.send_json({"type": "feature_flags", "data": {"supports_preview_metadata": True}})
        answer = await socket.receive_json(timeout=5)
        assert answer["type"] == "feature_flags" and answer["data"]["supports_preview_metadata"] is True
        assert client.prompt_server.sockets_metadata["me"]["feature_flags"] == {
            "supports_preview_metadata": True
        }


@pytest.mark.parametrize(
    "first", ["no json", "[1]", '{"type": "other"}', '{"type": "feature_flags", "data": 3}']
)
async def test_any_other_first_message_is_harmless(client, first):
    async with client.ws_connect("/ws?clientId=me") as socket:
        await greeted(socket)
        await socket.send_str(first)
        await socket.send_json({"type": "feature_flags", "data": {"late": True}})
        await socket.ping()
        client.prompt_server.send_sync("hello", {"n": 1}, "me")
        message = await socket.receive_json(timeout=5)
        while message["type"] == "feature_flags":
            message = await socket.receive_json(timeout=5)
        assert message == {"type": "hello", "data": {"n": 1}}
        assert client.prompt_server.sockets_metadata["me"]["feature_flags"] == {}


async def test_messages_reach_one_client_or_all(client):
    async with client.ws_connect("/ws?clientId=a") as a, client.ws_connect("/ws?clientId=b") as b:
        await greeted(a)
        await greeted(b)
        client.prompt_server.send_sync("only", 1, "a")
        client.prompt_server.send_sync("nobody", 2, "unknown")
        client.prompt_server.send_sync("all", 3)
        assert [(await a.receive_json(timeout=5))["type"] for _ in range(2)] == ["only", "all"]
        assert (await b.receive_json(timeout=5))["type"] == "all"


async def test_a_client_that_reconnects_before_its_old_line_ends_goes_on_hearing(client):
    """Upstream drops the new registration when the old line ends; the client then hears nothing more."""
    old = await client.ws_connect("/ws?clientId=me")
    await greeted(old)
    async with client.ws_connect("/ws?clientId=me") as new:
        await greeted(new)
        await new.send_json({"type": "feature_flags", "data": {"new": True}})
        await new.receive_json(timeout=5)
        await old.close()
        await asyncio.sleep(0.05)
        client.prompt_server.send_sync("hello", None, "me")
        assert (await new.receive_json(timeout=5))["type"] == "hello"
        assert client.prompt_server.sockets_metadata["me"]["feature_flags"] == {"new": True}
    for _ in range(100):
        if not client.prompt_server.sockets:
            break
        await asyncio.sleep(0.01)
    assert client.prompt_server.sockets == {} and client.prompt_server.sockets_metadata == {}


async def test_the_owner_of_the_running_prompt_is_told_the_node_when_it_comes_back(client):
    client.prompt_server.client_id, client.prompt_server.last_node_id = "me", "7"
    client.prompt_server.last_prompt_id = "p"
    async with (
        client.ws_connect("/ws?clientId=me") as socket,
        client.ws_connect("/ws?clientId=other") as other,
    ):
        await greeted(socket)
        assert await socket.receive_json(timeout=5) == {
            "type": "executing", "data": {"node": "7", "display_node": "7", "prompt_id": "p"}
        }  # fmt: skip
        await greeted(other)
        client.prompt_server.send_sync("next", None)
        assert (await other.receive_json(timeout=5))["type"] == "next"


async def test_previews_go_out_with_and_without_metadata(client):
    picture = Image.new("RGBA", (64, 32), (255, 0, 0, 255))
    async with client.ws_connect("/ws?clientId=me") as socket:
        await greeted(socket)
        server = client.prompt_server
        server.send_sync(BinaryEventTypes.UNENCODED_PREVIEW_IMAGE, ("JPEG", picture, 16), "me")
        plain = await socket.receive_bytes(timeout=5)
        assert struct.unpack(">II", plain[:8]) == (1, 1) and plain[8:10] == b"\xff\xd8"
        server.send_sync(BinaryEventTypes.UNENCODED_PREVIEW_IMAGE, ("PNG", picture, None), "me")
        assert struct.unpack(">II", (await socket.receive_bytes(timeout=5))[:8]) == (1, 2)
        metadata = {"node_id": "3", "prompt_id": "p"}
        server.send_sync(BinaryEventTypes.PREVIEW_IMAGE_WITH_METADATA, (("PNG", picture, 16), metadata), "me")
        message = await socket.receive_bytes(timeout=5)
        event, length = struct.unpack(">II", message[:8])
        assert event == 4
        assert json.loads(message[8 : 8 + length]) == {**metadata, "image_type": "image/png"}
        assert message[8 + length :].startswith(b"\x89PNG")


async def test_text_below_a_node_carries_the_nodes_id(client):
    async with client.ws_connect("/ws?clientId=me") as socket:
        await greeted(socket)
        client.prompt_server.send_progress_text("half way", 12, "me")
        assert await socket.receive_bytes(timeout=5) == struct.pack(">II", 3, 2) + b"12half way"


async def test_bytes_need_an_event_number(client):
    with pytest.raises(RuntimeError, match="needs an event number, not 'name'"):
        client.prompt_server.encode_bytes("name", b"")


async def test_a_message_that_cannot_be_encoded_does_not_stop_the_others(client, caplog):
    async with client.ws_connect("/ws?clientId=me") as socket:
        await greeted(socket)
        client.prompt_server.send_sync("bad", b"a named event has no bytes")
        client.prompt_server.send_sync("good", None)
        assert (await socket.receive_json(timeout=5))["type"] == "good"
    assert "Message 'bad' could not be sent." in caplog.text


async def test_a_message_holds_nothing_that_a_browser_cannot_read(client):
    async with client.ws_connect("/ws?clientId=me") as socket:
        await greeted(socket)
        client.prompt_server.send_sync("shown", {"value": [float("nan"), 1.5], "path": Path("a")})
        text = await socket.receive_str(timeout=5)
        assert json.loads(text, parse_constant=pytest.fail)["data"] == {"value": [None, 1.5], "path": "a"}


async def test_the_length_of_the_queue_is_told_to_all(client):
    async with client.ws_connect("/ws?clientId=me") as socket:
        await greeted(socket)
        client.prompt_server.queue_updated()
        message = await socket.receive_json(timeout=5)
        info = {"queue_remaining": 0, "paused": False}
        assert message == {"type": "status", "data": {"status": {"exec_info": info}}}


async def test_a_client_that_reads_nothing_is_disconnected_and_the_others_go_on(client, monkeypatch, caplog):
    monkeypatch.setattr("app.client_line.SECONDS_TO_TAKE_SOMETHING", 0.2)
    stuck = await client.ws_connect("/ws?clientId=stuck")
    async with client.ws_connect("/ws?clientId=other", max_msg_size=0) as other:
        await greeted(stuck)
        await greeted(other)
        stuck._response.connection.transport.pause_reading()
        for _ in range(12):
            client.prompt_server.send_sync("big", "x" * 1_000_000)
        heard = [(await other.receive_json(timeout=10))["type"] for _ in range(12)]
        assert heard == ["big"] * 12
        for _ in range(300):
            if "stuck" not in client.prompt_server.sockets:
                break
            await asyncio.sleep(0.01)
        assert "Client stuck takes no messages and is disconnected." in caplog.text
        assert list(client.prompt_server.sockets) == ["other"]
    stuck._response.connection.transport.resume_reading()
    await stuck.close()


async def test_a_client_that_reads_nothing_holds_up_nobody(client):
    stuck = await client.ws_connect("/ws?clientId=stuck")
    async with client.ws_connect("/ws?clientId=other", max_msg_size=0) as other:
        await greeted(stuck)
        await greeted(other)
        stuck._response.connection.transport.pause_reading()
        for _ in range(12):
            client.prompt_server.send_sync("big", "x" * 1_000_000)
        assert [(await other.receive_json(timeout=10))["type"] for _ in range(12)] == ["big"] * 12
        assert "stuck" in client.prompt_server.sockets  # it has had no time to be given up
    stuck._response.connection.transport.resume_reading()
    assert [(await stuck.receive_json(timeout=10))["type"] for _ in range(12)] == ["big"] * 12
    await stuck.close()


class SlowClient:
    """A socket that takes nothing more, and its transport, whose backlog shrinks for a while."""

    def __init__(self, backlog):
        self.backlog = iter(backlog)
        self.aborted = asyncio.Event()

    async def send_str(self, message):
        await asyncio.Event().wait()

    def get_write_buffer_size(self):
        return next(self.backlog)

    def abort(self):
        self.aborted.set()


async def test_a_client_that_takes_something_now_and_then_is_kept(monkeypatch):
    monkeypatch.setattr("app.client_line.SECONDS_TO_TAKE_SOMETHING", 0.01)
    client = SlowClient([9, 6, 3, 3])
    line = ClientLine("slow", client, client)
    line.put("a large message")
    await asyncio.wait_for(client.aborted.wait(), 5)
    assert next(client.backlog, "all looks were taken") == "all looks were taken"
    line.close()


async def test_ten_thousand_messages_are_sent_within_seconds(client):
    async with client.ws_connect("/ws?clientId=me") as socket:
        await greeted(socket)
        for number in range(10_000):
            client.prompt_server.send_sync("n", number, "me")
        client.prompt_server.send_sync("end", None, "me")
        started = asyncio.get_running_loop().time()
        while (await socket.receive_json(timeout=20))["type"] != "end":
            pass
        assert asyncio.get_running_loop().time() - started < 5


async def test_a_queue_that_changes_a_thousand_times_is_told_now_and_then_and_its_last_length_always(client):
    queue = client.prompt_server.prompt_queue
    async with client.ws_connect("/ws?clientId=me") as socket:
        await greeted(socket)
        lengths = []
        for number in range(1000):
            queue.put((number, str(number), {}, {}, [], {}))
        while not lengths or lengths[-1] != 1000:
            message = await socket.receive_json(timeout=5)
            lengths.append(message["data"]["status"]["exec_info"]["queue_remaining"])
        assert len(lengths) < 300
        assert lengths == sorted(lengths)
