"""The durable queue over HTTP and websockets. A second server on the same folder stands for the restart."""

import asyncio
import json
import logging
import shutil
import threading

import pytest

import nodes
from app import missed_events, queue_journal, worker
from comfy import interruption
from comfy.cli_args import args
from comfy_execution.queueing.journal import Journal, JournalError
from tests.fakes import tiny_pack
from tests.fakes.server_process import ROOT, ServerProcess
from tests.fakes.waiting import wait_until


@pytest.fixture
async def server(connect, echo):
    """A function that starts a server with a journal; `runs` gives it the thread that runs prompts."""
    nodes.NODE_CLASS_MAPPINGS.update(tiny_pack.NODE_CLASS_MAPPINGS)
    started, threads = [], []

    async def start(runs=False, **options):
        if started:
            die(started[-1])
        client = await connect(lambda server: queue_journal.attach(server, args), **options)
        started.append(client.prompt_server.prompt_queue)
        if runs:
            threads.append(run(client.prompt_server))
        return client

    yield start
    for queue in started:
        queue.stop()
        queue.set_flag("end", True)
        interruption.interrupt_current_processing()
    for thread in threads:
        await asyncio.to_thread(thread.join, 5)
    for queue in started:
        queue.close()
    interruption.interrupt_current_processing(False)


def die(queue):
    """Let the journal go as SIGKILL does."""
    if queue.durable is not None:
        queue.durable.journal.lock.close()


def run(server):
    """Run prompts until the queue is stopped."""
    runner = worker.Worker(server.prompt_queue, server)

    def work():
        while not server.prompt_queue.stopping:
            runner.run_next()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def graph(kind="TinyText", text="hi", **inputs):
    return {"1": {"class_type": kind, "inputs": {"text": text, **inputs}}}


def waiting(text="hi", seconds=30.0):
    return graph("TinyWait", text, seconds=seconds, dies=False)


async def post(client, prompt_id=None, prompt=None, **fields):
    body = {"prompt": prompt or graph(), "prompt_id": prompt_id, **fields}
    answer = await client.post("/prompt", json=body)
    return answer.status, await answer.json()


async def get(client, path):
    answer = await client.get(path)
    assert answer.status == 200
    return await answer.json()


async def history_of(client, prompt_id):
    for _ in range(1000):
        found = await get(client, f"/history/{prompt_id}")
        if found:
            return found[prompt_id]
        await asyncio.sleep(0.01)
    raise AssertionError(f"{prompt_id} has not ended")


async def runs(client, prompt_id):
    for _ in range(1000):
        if [item[1] for item in (await get(client, "/queue"))["queue_running"]] == [prompt_id]:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{prompt_id} does not run")


async def heard(socket, *, until):
    """Messages up to the one for which `until` is true; without `status` and progress."""
    messages = []
    while True:
        message = await socket.receive_json(timeout=10)
        if message["type"] not in ("status", "progress_state"):
            messages.append((message["type"], message["data"].get("node"), message["data"].get("prompt_id")))
        if until(message):
            return messages


def end_of(prompt_id):
    end = {"node": None, "prompt_id": prompt_id}
    return lambda message: (message["type"], message["data"]) == ("executing", end)


@pytest.mark.slow
async def test_an_accepted_prompt_its_place_and_the_history_are_there_after_a_restart(server):
    client = await server(runs=True)
    assert (await post(client, "done"))[0] == 200
    entry = await history_of(client, "done")
    client.prompt_server.prompt_queue.set_paused(True)
    for prompt_id, priority in (("low", 0), ("high", 3)):
        assert (await post(client, prompt_id, priority=priority, tenant="me"))[0] == 200
    number = (await post(client, "third"))[1]["number"]
    client = await server()
    assert await get(client, "/history") == {"done": entry}
    shown = await get(client, "/queue")
    assert [item[1] for item in shown["queue_pending"]] == ["high", "low", "third"]
    assert shown["queue_pending"][0][3]["priority"] == 3
    assert (await get(client, "/prompt"))["exec_info"] == {"queue_remaining": 3, "paused": True}
    assert (await post(client, "fourth"))[1]["number"] > number
    listed = (await get(client, "/api/jobs?status=pending&sort_order=asc"))["jobs"]
    assert {(job["id"], job["queue_priority"], job["tenant"]) for job in listed if "tenant" in job} == {
        ("low", 0, "me"), ("high", 3, "me")
    }  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value"),
    [("priority", "high"), ("tenant", 3), ("timeout_seconds", -1), ("timeout_seconds", "x")],
)
async def test_bad_fields_are_refused_and_nothing_waits(server, field, value):
    client = await server()
    status, content = await post(client, **{field: value})
    assert status == 400 and content["error"]["type"] == f"invalid_{field}"
    assert (await post(client, extra_data={field: value}))[0] == 400
    assert (await get(client, "/prompt"))["exec_info"]["queue_remaining"] == 0


async def test_a_full_queue_answers_503_and_when_to_come_back(server):
    client = await server(max_queue=2)
    client.prompt_server.prompt_queue.run_times.extend([2.0, 5.0])
    answers = await asyncio.gather(*(client.post("/prompt", json={"prompt": graph()}) for _ in range(6)))
    refused = [answer for answer in answers if answer.status == 503]
    assert len(refused) == 4 and {answer.headers["Retry-After"] for answer in refused} == {"4"}
    error = (await refused[0].json())["error"]
    assert error["type"] == "queue_full" and "2 prompts wait already" in error["details"]
    assert (await get(client, "/prompt"))["exec_info"]["queue_remaining"] == 2


async def test_a_journal_without_room_answers_507_and_the_server_goes_on(server, monkeypatch):
    client = await server()
    monkeypatch.setattr("comfy_execution.queueing.journal.SECONDS_BETWEEN_LOOKS", 0)
    monkeypatch.setattr("comfy_execution.queueing.journal.FREE_BYTES_TO_KEEP", 1 << 60)
    status, content = await post(client, "lost")
    assert status == 507 and content["error"]["type"] == "journal_full"
    assert "Free some space" in content["error"]["details"]
    assert (await get(client, "/queue"))["queue_pending"] == []
    monkeypatch.setattr("comfy_execution.queueing.journal.FREE_BYTES_TO_KEEP", 0)
    assert (await post(client, "later"))[0] == 200


async def test_a_journal_that_fails_answers_503(server):
    client = await server()
    journal = client.prompt_server.prompt_queue.durable.journal
    journal.run(lambda db: db.execute("ALTER TABLE prompts RENAME TO gone"))
    assert (await post(client, "kept beside"))[0] == 200
    journal.flush()
    status, content = await post(client, "lost")
    assert status == 503 and content["error"]["type"] == "journal_failed"
    assert "cannot be used" in content["error"]["details"]
    answer = await client.get("/history")
    assert answer.status == 503 and "cannot be used" in (await answer.json())["error"]["details"]
    journal._connection.execute("ALTER TABLE gone RENAME TO prompts")
    assert (await post(client, "third"))[0] == 200
    waiting_ids = journal.read(lambda db: [row[0] for row in db.execute("SELECT prompt_id FROM prompts")])
    assert waiting_ids == ["kept beside", "third"]


@pytest.mark.slow
async def test_pausing_lets_the_running_prompt_end_and_starts_no_other(server):
    client = await server(runs=True)
    await post(client, "first", waiting(seconds=0.1))
    await runs(client, "first")
    await post(client, "second")
    assert await (await client.post("/depot/queue/pause")).json() == {"paused": True}
    await history_of(client, "first")
    await asyncio.sleep(0.05)
    assert [item[1] for item in (await get(client, "/queue"))["queue_pending"]] == ["second"]
    assert await (await client.post("/api/depot/queue/resume")).json() == {"paused": False}
    await history_of(client, "second")
    assert (await get(client, "/prompt"))["exec_info"] == {"queue_remaining": 0, "paused": False}


@pytest.mark.slow
async def test_a_server_can_be_started_paused(server, caplog):
    caplog.set_level(logging.INFO)
    client = await server(runs=True, start_paused=True)
    await post(client, "a")
    await asyncio.sleep(0.05)
    assert (await get(client, "/prompt"))["exec_info"] == {"queue_remaining": 1, "paused": True}
    assert "POST /depot/queue/resume" in caplog.text
    await client.post("/depot/queue/resume")
    await history_of(client, "a")


@pytest.mark.slow
@pytest.mark.parametrize("own", [True, False])
async def test_a_prompt_over_its_time_is_stopped_in_its_node(server, own):
    client = await server(runs=True, prompt_timeout=60.0 if own else 0.1)
    await post(client, "slow", waiting(), client_id="me", **({"timeout_seconds": 0.1} if own else {}))
    entry = await history_of(client, "slow")
    events = dict(entry["status"]["messages"])
    assert "execution_interrupted" not in events
    assert "stopped after 0.1 s: that is its time limit" in events["execution_error"]["exception_message"]
    assert [events["execution_error"][key] for key in ("node_id", "node_type")] == ["1", "TinyWait"]
    assert (await get(client, "/api/jobs/slow"))["status"] == "failed"
    await post(client, "next", timeout_seconds=30)
    assert (await history_of(client, "next"))["status"]["completed"]


async def test_a_time_limit_may_be_longer_than_the_clock(server, monkeypatch):
    failed = []
    monkeypatch.setattr(threading, "excepthook", failed.append)
    client = await server(runs=True)
    await post(client, "long", waiting(seconds=0.05), timeout_seconds=1e300)
    assert (await history_of(client, "long"))["status"]["status_str"] == "success" and not failed


async def test_the_tenant_is_the_user_when_there_are_several(server):
    client = await server(multi_user=True)
    client.prompt_server.user_manager.users["u1"] = "One"
    body = {"prompt": graph()}
    await client.post("/prompt", json=body, headers={"Comfy-User": "u1"})
    await client.post("/prompt", json=body, headers={"Comfy-User": "nobody"})
    await client.post("/prompt", json={**body, "tenant": "own"}, headers={"Comfy-User": "u1"})
    pending = (await get(client, "/queue"))["queue_pending"]
    assert sorted(item[3]["tenant"] for item in pending) == ["default", "own", "u1"]


@pytest.mark.slow
async def test_a_client_that_was_away_hears_what_it_missed_once_and_in_order(server):
    client = await server(runs=True)
    async with client.ws_connect("/ws?clientId=me") as socket:
        await post(client, "p", {**waiting(seconds=0.15), "2": graph(text="b")["1"]}, client_id="me")
        await heard(socket, until=lambda message: message["type"] == "executing")
    await history_of(client, "p")
    async with client.ws_connect("/ws?clientId=me") as socket, client.ws_connect("/ws?clientId=no") as other:
        missed = await heard(socket, until=end_of("p"))
        assert [kind for kind, *_ in missed][-2:] == ["execution_success", "executing"]
        assert [node for kind, node, _ in missed if kind == "executed"] == ["1", "2"]
        client.prompt_server.send_sync("last", {"node": "x"})
        assert await heard(socket, until=lambda message: message["type"] == "last") == [("last", "x", None)]
        assert await heard(other, until=lambda message: message["type"] == "last") == [("last", "x", None)]


@pytest.mark.slow
async def test_a_client_that_never_left_hears_nothing_twice(server):
    client = await server(runs=True)
    async with client.ws_connect("/ws?clientId=me") as socket:
        for prompt_id in ("a", "b"):
            await post(client, prompt_id, graph(text=prompt_id), client_id="me")
        messages = await heard(socket, until=end_of("b"))
        assert [prompt_id for kind, _, prompt_id in messages if kind == "executed"] == ["a", "b"]


async def test_after_a_restart_clients_hear_how_their_prompts_ended(server):
    client = await server(runs=True)
    await post(client, "ended", client_id="me")
    await history_of(client, "ended")
    await post(client, "running", waiting(), client_id="me")
    await runs(client, "running")
    client.prompt_server.prompt_queue.stopping = True  # its worker is dead from here on
    client = await server()
    client.prompt_server.prompt_queue.taken = lambda: None
    async with client.ws_connect("/ws?clientId=me") as socket:
        assert await heard(socket, until=end_of("ended")) == [
            ("executed", "1", "ended"), ("execution_success", None, "ended"), ("executing", None, "ended")
        ]  # fmt: skip
    interruption.interrupt_current_processing()
    async with client.ws_connect("/ws?clientId=me") as socket, client.ws_connect("/ws?clientId=you") as other:
        client.prompt_server.send_sync("last", {})
        assert await heard(socket, until=lambda message: message["type"] == "last") == [("last", None, None)]
        assert await heard(other, until=lambda message: message["type"] == "last") == [("last", None, None)]


@pytest.mark.slow
async def test_a_restart_tells_no_end_again_to_a_client_that_heard_it(server):
    client = await server(runs=True)
    async with client.ws_connect("/ws?clientId=me") as socket:
        await post(client, "bad", waiting(), client_id="me", timeout_seconds=0.05)
        assert ("execution_error", None, "bad") in await heard(socket, until=end_of("bad"))
    await post(client, "good", client_id="me")
    await history_of(client, "good")
    await post(client, "other", client_id="you")
    await history_of(client, "other")
    for mine, yours in (({"good"}, {"other"}), (set(), set())):
        client = await server()
        async with client.ws_connect("/ws?clientId=me") as one, client.ws_connect("/ws?clientId=you") as two:
            client.prompt_server.send_sync("last", {"prompt_id": None})
            for socket, prompts in ((one, mine), (two, yours)):
                messages = await heard(socket, until=lambda message: message["type"] == "last")
                assert {prompt_id for _, _, prompt_id in messages} == {None, *prompts}


@pytest.mark.slow
async def test_a_cleared_history_does_not_hide_later_ends(server):
    client = await server(runs=True)
    async with client.ws_connect("/ws?clientId=me") as socket:
        for prompt_id in ("a", "b"):
            await post(client, prompt_id, client_id="me")
            await heard(socket, until=end_of(prompt_id))
    await client.post("/history", json={"clear": True})
    client = await server(runs=True)
    await post(client, "c", client_id="me")
    await history_of(client, "c")
    client = await server()
    async with client.ws_connect("/ws?clientId=me") as socket:
        assert {prompt_id for *_, prompt_id in await heard(socket, until=end_of("c"))} == {"c"}


@pytest.mark.slow
async def test_ends_are_told_for_some_minutes_after_a_start_only(server, monkeypatch):
    client = await server(runs=True)
    await post(client, "a", client_id="me")
    await history_of(client, "a")
    client = await server()
    monkeypatch.setattr(missed_events, "SECONDS_KEPT", 0.0)
    async with client.ws_connect("/ws?clientId=me") as socket:
        client.prompt_server.send_sync("last", {})
        assert await heard(socket, until=lambda message: message["type"] == "last") == [("last", None, None)]


@pytest.mark.slow
async def test_a_prompt_that_needs_a_lost_token_says_so(server):
    class NeedsToken(tiny_pack.TinyText):
        @classmethod
        def INPUT_TYPES(cls):
            return {"required": {}, "hidden": {"key": "API_KEY_COMFY_ORG"}}

        def run(self, key):
            return {"ui": {"text": [str(key)]}, "result": ("",)}

    nodes.NODE_CLASS_MAPPINGS["NeedsToken"] = NeedsToken
    client = await server()
    tokens = {"extra_data": {"api_key_comfy_org": "secret"}}
    await post(client, "needs", {"1": {"class_type": "NeedsToken", "inputs": {}}}, **tokens)
    await post(client, "does not", **tokens)
    client = await server(runs=True)
    (_, data), = (await history_of(client, "needs"))["status"]["messages"]  # fmt: skip
    assert "Node 1 (NeedsToken) needs the token" in data["exception_message"]
    assert (await history_of(client, "does not"))["status"]["completed"]


async def test_a_second_server_on_a_folder_gets_a_journal_of_its_own(base, caplog):
    caplog.set_level(logging.INFO)
    first = queue_journal.open_journal(args)
    second = queue_journal.open_journal(args)
    assert (first.path.name, second.path.name) == ("queue.db", "queue-2.db")
    assert "is used by another server. This one gets its own" in caplog.text
    args.journal = str(first.path)
    with pytest.raises(JournalError, match="used by another server"):
        queue_journal.open_journal(args)
    args.journal = "off"
    assert queue_journal.open_journal(args) is None
    first.close()
    second.close()


async def test_a_file_that_is_no_journal_of_ours_is_set_aside(base, caplog):
    args.journal = str(base / "elsewhere.db")
    (base / "elsewhere.db").write_text("a letter to a friend" * 100)
    journal = queue_journal.open_journal(args)
    assert isinstance(journal, Journal) and journal.set_aside.read_text().startswith("a letter")
    journal.close()


@pytest.mark.parametrize(
    "option", ["--max-queue=0", "--prompt-timeout=-1", "--max-deaths=x", "--prompt-timeout=x"]
)
def test_options_that_cannot_be_followed_are_refused(option, capsys):
    from comfy import cli_args

    with pytest.raises(SystemExit):
        cli_args.build_parser().parse_args([option])
    assert "is not a" in capsys.readouterr().err


def has_done(attempt, node_id):
    """Whether an attempt's file says that a node has finished."""
    entries = [json.loads(line)[1] for line in attempt.read_bytes().split(b"\n") if line.endswith(b"}]")]
    return {"done": node_id} in entries


def running_in(server):
    return [item[1] for item in server.get_json("/queue")["queue_running"]]


@pytest.mark.slow
def test_a_killed_server_goes_on_where_it_was(tmp_path):
    """The whole program: SIGKILL in the middle of a node, and later SIGTERM."""
    shutil.copytree(ROOT / "tests/fakes/tiny_pack", tmp_path / "custom_nodes/tiny_pack")
    server = ServerProcess(tmp_path)
    save = graph("TinySave", "saved", seconds=0.0)
    with server:
        prompt = {**save, "2": waiting(seconds=30.0)["1"]}
        for number, prompt_id in enumerate(("running", "next")):
            body = {"prompt": prompt, "prompt_id": prompt_id, "number": number}
            assert server.request("POST", "/prompt", body)[0] == 200
        wait_until(lambda: has_done(tmp_path / "user/__queue/queue.db.attempt", "1"))
        server.kill()
        server.start()
        shown = server.get_json("/queue")
        assert [item[1] for item in shown["queue_running"] + shown["queue_pending"]] == ["running", "next"]
        wait_until(lambda: running_in(server) == ["running"])
        server.request("POST", "/interrupt", {"prompt_id": "running"})
        entry = server.wait_for_history("running")
        assert entry["outputs"]["1"]["files"] == ["tiny_00001_.txt"]
        wait_until(lambda: running_in(server) == ["next"])
        assert server.stop() == 0
    journal = Journal(tmp_path / "user/__queue/queue.db")
    query = "SELECT prompt_id, ended, deaths FROM prompts ORDER BY sequence"
    rows = journal.read(lambda db: db.execute(query).fetchall())
    journal.close()
    assert rows == [("running", 1, 1), ("next", None, 0)]
    assert entry["status"]["completed"] is False
