"""`/api/v2/jobs/{id}/events`: the order of events, outputs before the end, coming back, limits."""

import asyncio
import base64
import io
import json

import pytest
from PIL import Image

import nodes
from app.routes import v2_events
from app.v2_events import EPOCH, JobLog, JobLogs, event_id, number_of
from protocol import BinaryEventTypes
from tests.app.test_v2_jobs import job_of, submit, waiting
from tests.fakes import running as fakes
from tests.fakes.running import running


@pytest.fixture
async def client(connect):
    """A client of a server whose prompts wait until `running`."""
    nodes.NODE_CLASS_MAPPINGS.update(fakes.NODES)
    return await connect()


async def read(answer, until=None):
    """(name, id, data) of the events of a stream, to its end or to the first of that name."""
    events, fields = [], {}
    async for line in answer.content:
        text = line.decode().rstrip("\n")
        if text:
            name, _, value = text.partition(": ")
            fields[name] = value
        elif "event" in fields:
            events.append((fields["event"], fields["id"], json.loads(fields["data"])))
            fields = {}
            if events[-1][0] == until:
                break
    return events


async def follow(client, job_id, last=None):
    headers = {} if last is None else {"Last-Event-ID": last}
    answer = await client.get(f"/api/v2/jobs/{job_id}/events", headers=headers)
    assert answer.status == 200 and answer.content_type == "text/event-stream"
    return answer


async def test_a_job_is_told_from_the_queue_to_its_end(client):
    _, job = await submit(client, waiting(steps=3))
    stream = await follow(client, job["id"])
    with running(client.prompt_server):
        events = await read(stream)
    assert events[0][::2] == ("status", {"status": "queued", "queue_position": 1})
    assert ("status", {"status": "running"}) in [event[::2] for event in events]
    assert events[-1][::2] == ("status", {"status": "succeeded"})
    (output,) = [data for name, _, data in events if name == "output"]
    (polled,) = (await job_of(client, job["id"]))["outputs"]
    assert output == {**polled, "url_expires_at": output["url_expires_at"]}
    for _, _, data in [event for event in events if event[0] == "progress"]:
        assert 0 <= data["value"] <= 1 and data["nodes_total"] == 1


async def test_progress_and_previews_come_twice_per_second_at_most(client, monkeypatch):
    monkeypatch.setattr(v2_events, "SECONDS_BETWEEN_PICTURES", 0.2)
    _, job = await submit(client, waiting(steps=60))
    stream = await follow(client, job["id"])
    with running(client.prompt_server):
        events = await read(stream)
    progress = [data for name, _, data in events if name == "progress" and data["step"]]
    previews = [data for name, _, data in events if name == "preview"]
    assert 1 <= len(previews) <= 8 and 1 <= len(progress) <= 8, "60 steps of 10 ms and more"
    assert [data["step"] for data in progress] == sorted({data["step"] for data in progress})
    assert progress[-1]["value"] == progress[-1]["step"] / 60 and progress[-1]["current_node"] == "1"
    picture = Image.open(io.BytesIO(base64.b64decode(previews[0]["data_base64"])))
    assert (picture.format, picture.size) == ("JPEG", (8, 8)) and previews[0]["node_id"] == "1"
    assert previews[0]["content_type"] == "image/jpeg"


async def test_a_failure_is_said_and_ends_the_stream(client):
    _, job = await submit(client, waiting(fails=True))
    stream = await follow(client, job["id"])
    with running(client.prompt_server):
        events = await read(stream)
    (log,) = [data for name, _, data in events if name == "log"]
    assert log["level"] == "error" and "Node 1 (Wait)" in log["message"] and "as it should" in log["message"]
    assert events[-1][::2] == ("status", {"status": "failed"})


async def test_who_comes_late_gets_the_outputs_and_the_end(client):
    _, job = await submit(client)
    with running(client.prompt_server):
        await read(await follow(client, job["id"]))
    events = await read(await follow(client, job["id"]))
    assert [event[0] for event in events] == ["output", "status"]
    client.prompt_server.job_logs.forget(job["id"])  # as after a restart
    events = await read(await follow(client, job["id"]))
    assert [event[0] for event in events] == ["output", "status"]


async def test_who_comes_back_gets_what_was_missed_and_nothing_twice(client):
    graph = {**waiting(), "2": {"class_type": "Wait", "inputs": {"steps": 2, "fails": False}}}
    _, job = await submit(client, graph)
    stream = await follow(client, job["id"])
    with running(client.prompt_server):
        before = await read(stream, until="output")
        stream.close()
        await asyncio.sleep(0.2)
        after = await read(await follow(client, job["id"], last=before[-1][1]))
    outputs = [data["id"] for name, _, data in before + after if name == "output"]
    assert len(outputs) == len(set(outputs)) == 2
    assert after[-1][::2] == ("status", {"status": "succeeded"})
    again = await read(await follow(client, job["id"], last=after[-1][1]))
    assert [event[::2] for event in again] == [("status", {"status": "succeeded"})]


async def test_an_id_of_another_process_is_as_none(client):
    _, job = await submit(client)
    with running(client.prompt_server):
        await read(await follow(client, job["id"]))
    events = await read(await follow(client, job["id"], last="00000000-7"))
    assert [event[0] for event in events] == ["output", "status"]


async def test_a_job_that_is_cancelled_while_it_waits_ends_its_stream(client):
    _, job = await submit(client)
    stream = await follow(client, job["id"])
    await client.post(f"/api/jobs/{job['id']}/cancel")
    events = await asyncio.wait_for(read(stream), 5)
    assert events[-1][::2] == ("status", {"status": "canceled"})


async def test_cancelling_what_runs_is_told_before_its_end(client):
    _, job = await submit(client, waiting(steps=3000))
    stream = await follow(client, job["id"])
    with running(client.prompt_server):
        while (await job_of(client, job["id"]))["status"] != "running":
            await asyncio.sleep(0.01)
        await client.post(f"/api/v2/jobs/{job['id']}/cancel")
        events = await asyncio.wait_for(read(stream), 10)
    states = [data["status"] for name, _, data in events if name == "status"]
    assert states[-1] == "canceled" and states.count("running") <= 1


async def test_a_silent_stream_shows_that_it_lives_and_sees_an_end_that_nobody_told(client, monkeypatch):
    monkeypatch.setattr(v2_events, "SECONDS_BETWEEN_SIGNS", 0.05)
    _, job = await submit(client)
    stream = await follow(client, job["id"])
    while (line := await asyncio.wait_for(stream.content.readline(), 5)) != b": still there\n":
        assert line
    client.prompt_server.job_logs.forget(job["id"])
    with running(client.prompt_server):
        assert (await asyncio.wait_for(read(stream), 5))[-1][2] == {"status": "succeeded"}


async def test_too_many_streams_are_429(client, monkeypatch):
    monkeypatch.setattr(v2_events, "MOST_STREAMS", 1)
    _, job = await submit(client)
    stream = await follow(client, job["id"])
    await stream.content.readline()
    answer = await client.get(f"/api/v2/jobs/{job['id']}/events")
    assert (answer.status, answer.headers["Retry-After"]) == (429, "5")
    assert (await answer.json())["error"]["code"] == "too_many_streams"
    stream.close()
    await client.post(f"/api/v2/jobs/{job['id']}/cancel")
    while client.prompt_server.v2_streams:
        await asyncio.sleep(0.01)
    assert (await client.get(f"/api/v2/jobs/{job['id']}/events")).status == 200


# -- the log -----------------------------------------------------------------------------------------------


def test_progress_counts_nodes_and_the_steps_of_the_one_in_work():
    log = JobLog("p", 4)
    log.take("execution_cached", {"nodes": ["1"]})
    log.take("executing", {"node": "2"})
    log.take("progress", {"value": 1, "max": 2})
    about = log.progress()
    assert (about["value"], about["nodes_done"], about["current_node"]) == (0.375, 1, "2")
    assert (about["step"], about["steps"]) == (1, 2)
    log.take("executing", {"node": "3"})
    assert (log.progress()["value"], log.progress()["step"]) == (0.5, None)


def test_only_the_newest_progress_is_kept():
    log = JobLog("p", 1)
    log.take("executing", {"node": "1"})
    for value in range(1000):
        log.take("progress", {"value": value, "max": 1000})
    (event,) = log.since(0)
    assert (event.name, event.data["step"]) == ("progress", 999)


def test_strange_messages_of_packs_are_passed_over():
    log = JobLog("p", 1)
    odd = [("progress", {"value": "x", "max": None}), ("progress", {"value": float("nan"), "max": 2}),
           ("progress", {"value": 1, "max": float("inf")}), ("execution_cached", {"nodes": 7}),
           ("executed", {"output": 7}), ("odd", {})]  # fmt: skip
    for event, data in odd:
        log.take(event, data)
    assert log.since(0) == []


async def test_logs_belong_to_their_prompt(client):
    server = client.prompt_server
    logs = JobLogs(server)
    logs.tell("executing", {"node": "1", "prompt_id": "a"})
    mine = logs.begin("a", 1)
    logs.tell("executing", {"node": "1", "prompt_id": "b"})
    logs.tell("status", {"status": {}})
    logs.tell("custom", None)
    assert mine.number == 0
    server.last_prompt_id = "b"
    logs.tell(BinaryEventTypes.UNENCODED_PREVIEW_IMAGE, ("JPEG", None, 8))
    assert mine.number == 0
    about = {"prompt_id": "a", "node_id": "7"}
    logs.tell(BinaryEventTypes.PREVIEW_IMAGE_WITH_METADATA, (("JPEG", None, 8), about))
    assert mine.since(0)[0].data == ("7", ("JPEG", None, 8))


async def test_old_logs_make_room(client, monkeypatch):
    monkeypatch.setattr("app.v2_events.JOBS", 3)
    logs = JobLogs(client.prompt_server)
    for number in range(5):
        logs.begin(str(number), 1)
    assert [name for name in "01234" if logs.get(name)] == ["2", "3", "4"]


def test_ids_of_events():
    assert number_of(event_id(7)) == 7
    for text in (None, "", "7", f"{EPOCH}-", f"{EPOCH}-x", f"{EPOCH}-\u0667", "other-7"):
        assert number_of(text) is None
