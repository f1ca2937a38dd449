"""Webhooks: what is posted, signatures, trying again, restarts, whom they may reach. The receiver is real."""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import sqlite3
import time

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

import nodes
from app import queue_journal, webhooks
from app.guarded_http import Hosts
from app.webhooks_store import Hook, Message, WebhookStore
from comfy.cli_args import args
from comfy_execution.errors import InvalidRequestError
from tests.app.test_v2_jobs import ended, submit, waiting
from tests.fakes import running as fakes
from tests.fakes.running import running
from tests.fakes.server_process import free_port


class Receiver:
    """Takes posts; answers with the next of `statuses`, then 200."""

    def __init__(self, statuses=()):
        self.statuses = list(statuses)
        self.got = []
        self.paths = []
        self.location = None

    async def take(self, request):
        body = await request.read()
        self.got.append((dict(request.headers), body))
        self.paths.append(request.path)
        status = self.statuses.pop(0) if self.statuses else 200
        headers = {"Location": self.location} if 300 <= status < 400 else {}
        return web.Response(status=status, headers=headers)

    def bodies(self):
        return [json.loads(body) for _, body in self.got]

    async def until(self, count, seconds=10):
        deadline = time.monotonic() + seconds
        while len(self.got) < count:
            assert time.monotonic() < deadline, self.got
            await asyncio.sleep(0.01)
        return self.bodies()


@pytest.fixture
async def receiver():
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/{path:.*}", receiver.take)
    async with TestServer(app) as server:
        receiver.url = str(server.make_url("/done"))
        yield receiver


@pytest.fixture
async def start(connect):
    """A function that gives a client of a server that may call this machine, with short pauses."""
    nodes.NODE_CLASS_MAPPINGS.update(fakes.NODES)
    async with contextlib.AsyncExitStack() as stack:

        async def begin(runs=True, pauses=(0.05, 0.1), journal=False, hosts=("127.0.0.1",)):
            def prepare(server):
                if journal:
                    queue_journal.attach(server, args)
                    stack.callback(server.prompt_queue.close)
                server.webhooks = webhooks.Webhooks(server, pauses=pauses)

            client = await connect(prepare, webhook_hosts=hosts)
            if runs:
                stack.enter_context(running(client.prompt_server))
            return client

        yield begin


async def post(client, webhook, graph=None, **fields):
    answer = await client.post("/prompt", json={"prompt": graph or waiting(), "webhook": webhook, **fields})
    return answer.status, await answer.json()


async def test_the_end_of_a_prompt_is_posted_with_its_outputs(start, receiver):
    client = await start()
    status, body = await post(client, receiver.url)
    (message,) = await receiver.until(1)
    assert status == 200 and (message["type"], message["status"]) == ("prompt.complete", "succeeded")
    assert message["id"] == message["prompt_id"] == body["prompt_id"] and message["error"] is None
    (output,) = message["outputs"]
    assert (output["node_id"], output["type"]) == ("1", "text")
    assert output["url"].startswith(str(client.make_url("/api/v2/assets/out_")))
    headers, _ = receiver.got[0]
    assert headers["Content-Type"] == "application/json" and headers["webhook-id"].startswith("msg_")
    assert "webhook-signature" not in headers


async def test_a_failed_prompt_is_posted_with_its_error(start, receiver):
    client = await start()
    await post(client, {"url": receiver.url, "events": ["prompt.failed"]}, waiting(fails=True))
    (message,) = await receiver.until(1)
    assert (message["type"], message["status"]) == ("prompt.failed", "failed")
    assert message["error"]["node_id"] == "1" and "as it should" in message["error"]["message"]


async def test_a_prompt_that_is_cancelled_is_posted_where_it_was(start, receiver):
    client = await start(runs=False)
    for number, cancel in enumerate(("/api/jobs/%s/cancel", "/api/v2/jobs/%s/cancel", None), 1):
        _, body = await post(client, receiver.url)
        if cancel:
            await client.post(cancel % body["prompt_id"])
        else:
            await client.post("/queue", json={"clear": True})
        message = (await receiver.until(number))[-1]
        assert (message["type"], message["status"]) == ("prompt.cancelled", "canceled")
        assert message["outputs"] == []


async def test_only_the_wanted_events_are_posted(start, receiver):
    client = await start()
    await post(client, {"url": receiver.url, "events": ["prompt.failed"]})
    await post(client, {"url": receiver.url, "events": ["prompt.complete"]})
    await receiver.until(1)
    await asyncio.sleep(0.1)
    assert [message["type"] for message in receiver.bodies()] == ["prompt.complete"]
    assert client.prompt_server.webhooks.store.hooks() == []


async def test_jobs_of_the_v2_interface_have_webhooks_too(start, receiver):
    client = await start()
    status, job = await submit(client, webhook={"url": receiver.url})
    (message,) = await receiver.until(1)
    assert status == 201 and message["id"] == job["id"]
    assert message["urls"] == job["urls"]
    assert "webhook" not in json.dumps(await ended(client, job["id"]))


@pytest.mark.parametrize(
    ("secret", "key"),
    [("plain text", b"plain text"), ("whsec_" + base64.b64encode(b"k" * 24).decode(), b"k" * 24)],
)
async def test_messages_are_signed_over_id_time_and_body(start, receiver, secret, key):
    client = await start()
    await post(client, {"url": receiver.url, "secret": secret})
    await receiver.until(1)
    headers, body = receiver.got[0]
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 30
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"


async def test_the_secret_of_the_environment_signs_what_has_none(start, receiver, monkeypatch):
    monkeypatch.setenv("WEBHOOK_SECRET", "house")
    client = await start()
    await post(client, receiver.url)
    await receiver.until(1)
    headers, body = receiver.got[0]
    wanted = webhooks.signature("house", headers["webhook-id"], int(headers["webhook-timestamp"]), body)
    assert headers["webhook-signature"] == wanted


async def test_a_secret_shows_nowhere(start, receiver):
    client = await start(runs=False)
    _, body = await post(client, {"url": receiver.url, "secret": "SECRET"})
    assert "SECRET" not in await (await client.get("/queue")).text()
    with running(client.prompt_server):
        await receiver.until(1)
        assert "SECRET" not in await (await client.get(f"/history/{body['prompt_id']}")).text()
    assert b"SECRET" not in receiver.got[0][1]


# -- receivers that fail -----------------------------------------------------------------------------------


async def test_a_receiver_that_fails_twice_is_called_three_times_with_one_id(start, receiver):
    receiver.statuses = [500, 503]
    client = await start()
    await post(client, receiver.url)
    await receiver.until(3)
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1
    assert len({body for _, body in receiver.got}) == 1
    await asyncio.sleep(0.2)
    assert len(receiver.got) == 3 and client.prompt_server.webhooks.store.seconds_to_next() is None


async def test_a_dead_receiver_is_given_up_at_last_and_holds_up_nobody(start, receiver, caplog):
    client = await start()
    dead = f"http://127.0.0.1:{free_port()}/"
    for _ in range(3):
        await post(client, dead)
    await post(client, receiver.url)
    await receiver.until(1)
    store = client.prompt_server.webhooks.store
    while store.seconds_to_next() is not None:
        await asyncio.sleep(0.02)
    assert caplog.text.count("is given up") == 3 and "Connection refused" in caplog.text


async def test_a_receiver_that_is_gone_for_good_is_not_called_again(start, receiver):
    receiver.statuses = [410]
    client = await start()
    await post(client, receiver.url)
    await receiver.until(1)
    await asyncio.sleep(0.2)
    assert len(receiver.got) == 1


async def test_a_receiver_that_is_not_there_yet_gets_it_after_a_restart(start, receiver):
    receiver.statuses = [500] * 20
    client = await start(journal=True, pauses=[0.3] * 9)
    _, body = await post(client, {"url": receiver.url, "secret": "s"})
    await receiver.until(1)
    stop(client)
    receiver.statuses = []
    before = len(receiver.got)
    client = await start(runs=False, journal=True, pauses=[0.1])
    client.prompt_server.webhooks.start()
    await receiver.until(before + 1)
    headers, content = receiver.got[-1]
    assert json.loads(content)["id"] == body["prompt_id"]
    moment = int(headers["webhook-timestamp"])
    assert headers["webhook-signature"] == webhooks.signature("s", headers["webhook-id"], moment, content)


def stop(client):
    server = client.prompt_server
    server.webhooks.stop()
    server.prompt_queue.stop()
    server.prompt_queue.close()


async def test_a_prompt_that_waits_keeps_its_webhook_over_a_restart(start, receiver):
    client = await start(runs=False, journal=True)
    _, body = await post(client, receiver.url)
    stop(client)
    client = await start(journal=True)
    client.prompt_server.webhooks.start()
    assert [message["id"] for message in await receiver.until(1)] == [body["prompt_id"]]


async def test_an_end_that_was_not_told_before_a_kill_is_told_after_it(start, receiver):
    client = await start(journal=True)
    _, body = await post(client, receiver.url)
    await receiver.until(1)
    hook = Hook("h", body["prompt_id"], receiver.url, webhooks.EVENTS, None, "http://x")
    client.prompt_server.webhooks.store.add_hook(hook)  # as if the process had died before its message
    client.prompt_server.webhooks.store.add_hook(Hook("i", "never accepted", receiver.url, ("x",), None, ""))
    stop(client)
    client = await start(runs=False, journal=True)
    client.prompt_server.webhooks.start()
    assert [message["id"] for message in await receiver.until(2)] == [body["prompt_id"]] * 2
    assert client.prompt_server.webhooks.store.hooks() == []


async def test_a_prompt_that_is_not_accepted_leaves_no_webhook(start, receiver):
    client = await start(runs=False)
    client.prompt_server.prompt_queue.max_waiting = 1
    await post(client, receiver.url)
    assert (await post(client, receiver.url))[0] == 503
    assert len(client.prompt_server.webhooks.store.hooks()) == 1


# -- whom they may reach -----------------------------------------------------------------------------------


async def test_this_machine_is_not_called_unless_it_is_allowed(start, receiver, caplog):
    client = await start(hosts="any")
    status, _ = await post(client, receiver.url)
    assert status == 200  # a name can mean this machine at any time, so it is looked at when it is called
    while "is given up" not in caplog.text:
        await asyncio.sleep(0.01)
    assert "not public" in caplog.text and "--webhook-hosts 127.0.0.1" in caplog.text and receiver.got == []


async def test_redirects_are_followed_to_allowed_hosts_only(start, receiver, caplog):
    client = await start()
    receiver.statuses, receiver.location = [307], receiver.url.replace("/done", "/moved")
    await post(client, receiver.url)
    await receiver.until(2)
    assert receiver.paths == ["/done", "/moved"] and receiver.got[0][1] == receiver.got[1][1]
    receiver.statuses, receiver.location = [307], receiver.url.replace("127.0.0.1", "localhost")
    await post(client, receiver.url)
    while "localhost is not among the hosts of --webhook-hosts" not in caplog.text:
        await asyncio.sleep(0.01)
    assert len(receiver.got) == 3


async def test_webhooks_can_be_switched_off(start, receiver):
    client = await start(hosts="off")
    status, body = await post(client, receiver.url)
    assert (status, body["error"]["type"]) == (400, "invalid_webhook")
    assert "--webhook-hosts off" in body["error"]["details"]


@pytest.mark.parametrize(
    ("webhook", "text"),
    [
        (7, "must be an address"), ({}, "must be an address"), ({"url": 7}, "must be an address"),
        ("ftp://x/", "http(s)"), ("http://user:secret@x/", "without a user name"), ("http://", "http(s)"),
        ("http://x:99999/", "no address"), ("https://x/" + "y" * 2000, "2000 characters"),
        ({"url": "https://x/", "event": []}, "no field 'event'"),
        ({"url": "https://x/", "events": []}, "prompt.complete"),
        ({"url": "https://x/", "events": ["done"]}, "prompt.complete"),
        ({"url": "https://x/", "events": "prompt.failed"}, "prompt.complete"),
        ({"url": "https://x/", "secret": ""}, "1 to 500"), ({"url": "https://x/", "secret": 7}, "1 to 500"),
        ({"url": "https://x/", "secret": "whsec_!"}, "base64"),
    ],
)  # fmt: skip
def test_a_webhook_that_cannot_be_called_is_refused(webhook, text):
    with pytest.raises(InvalidRequestError) as refused:
        webhooks.read_wish({"webhook": webhook}, Hosts("--webhook-hosts"))
    assert refused.value.kind == "invalid_webhook" and text in refused.value.details
    assert "secret@" not in refused.value.details


def test_no_webhook_is_none():
    assert webhooks.read_wish({}, Hosts("x", "off")) is None
    assert webhooks.read_wish({"webhook": None}, Hosts("x", "off")) is None


async def test_a_refusal_comes_before_anything_is_queued(start):
    client = await start(runs=False)
    status, body = await post(client, "ftp://x")
    assert (status, body["error"]["type"]) == (400, "invalid_webhook")
    assert client.prompt_server.prompt_queue.get_tasks_remaining() == 0


# -- the file ----------------------------------------------------------------------------------------------


def test_the_file_is_for_its_owner_only_and_keeps_all(tmp_path):
    path = tmp_path / "hooks"
    store = WebhookStore(str(path))
    hook = Hook("1", "p", "http://x", ("prompt.failed",), "s", "http://me")
    store.add_hook(hook)
    assert path.stat().st_mode & 0o777 == 0o600
    store.close()
    store = WebhookStore(str(path))
    assert store.hooks("p") == [hook] and store.hooks("q") == []
    store.add_message(hook, Message("m", "http://x", b"body", "s"))
    assert store.hooks() == [] and store.due(9) == [Message("m", "http://x", b"body", "s")]
    assert store.due(9, but=["m"]) == store.due(9, but_hosts=["x"]) == []
    store.put_off(store.due(9)[0], 60)
    assert store.due(9) == [] and 50 < store.seconds_to_next() <= 60
    store.close()
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT tries FROM messages").fetchall() == [(1,)]


def test_a_damaged_file_is_set_aside(tmp_path, caplog):
    path = tmp_path / "hooks"
    path.write_bytes(b"this is no database, and long enough to be seen as one" * 100)
    store = WebhookStore(str(path))
    assert store.hooks() == [] and (tmp_path / "hooks.damaged-1").read_bytes().startswith(b"this is no")
    assert "damaged" in caplog.text
    store.close()


async def test_a_prompt_whose_webhook_cannot_be_written_down_is_not_accepted(start, receiver):
    client = await start(runs=False)
    await post(client, receiver.url)
    client.prompt_server.webhooks.store._db.execute("PRAGMA query_only=ON")  # as a full disk does
    status, body = await post(client, receiver.url)
    assert (status, body["error"]["type"]) == (507, "journal_full")
    assert "webhook cannot be written down" in body["error"]["details"]
    status, body = await submit(client, webhook=receiver.url)
    assert (status, body["error"]["code"]) == (507, "journal_full")
    assert client.prompt_server.prompt_queue.get_tasks_remaining() == 1
