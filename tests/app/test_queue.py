"""/prompt, /queue, /interrupt, /free, /history and /api/jobs. The test takes the part of the worker."""

import json
import uuid

import pytest

import execution
from app.worker import without_sensitive
from comfy import interruption

GRAPH = {"1": {"class_type": "Echo", "inputs": {"text": "hi"}, "_meta": {"title": "My echo"}}}


@pytest.fixture
async def client(connect, echo):
    """A client of a server that knows the Echo node."""
    yield await connect()
    interruption.interrupt_current_processing(False)


async def post(client, **body):
    return await (await client.post("/prompt", json={"prompt": GRAPH, **body})).json()


def finish(client, taken, *, success=True, messages=(), outputs=None):
    """Move a prompt that was taken from the queue to the history."""
    status = execution.PromptQueue.ExecutionStatus(
        status_str="success" if success else "error", completed=success, messages=list(messages)
    )
    result = {"outputs": outputs or {}, "meta": {}}
    client.prompt_server.prompt_queue.task_done(
        taken[1], result, status=status, process_item=without_sensitive
    )


async def waiting_ids(client):
    queue = await (await client.get("/queue")).json()
    return [item[1] for item in sorted(queue["queue_pending"])]


async def test_a_prompt_gets_an_id_and_a_place(client):
    answer = await post(client)
    assert set(answer) == {"prompt_id", "number", "node_errors"} and answer["node_errors"] == {}
    assert str(uuid.UUID(answer["prompt_id"])) == answer["prompt_id"]
    assert (await post(client))["number"] == answer["number"] + 1
    info = {"queue_remaining": 2, "paused": False}
    assert await (await client.get("/api/prompt")).json() == {"exec_info": info}


@pytest.mark.parametrize("own", ["6f1f7a52-3c6e-4a5b-9d0e-7b2f4c1a8e90", "my job 7", "x" * 200])
async def test_the_clients_own_id_is_kept(client, own):
    assert (await post(client, prompt_id=own))["prompt_id"] == own
    assert await waiting_ids(client) == [own]


async def test_an_id_of_null_means_none(client):
    assert uuid.UUID((await post(client, prompt_id=None))["prompt_id"])


async def test_a_queue_item_shows_all_but_the_tokens(client):
    tokens = {"auth_token_comfy_org": "secret", "api_key_comfy_org": "secret"}
    extra = {"extra_pnginfo": {"workflow": {"id": "w"}}, **tokens}
    answer = await post(client, client_id="me", extra_data=extra, prompt_id="p")
    ((number, prompt_id, graph, extra_data, outputs),) = (await (await client.get("/queue")).json())[
        "queue_pending"
    ]
    assert (number, prompt_id, graph, outputs) == (answer["number"], "p", GRAPH, ["1"])
    assert extra_data.pop("create_time") > 1_600_000_000_000
    assert extra_data == {"extra_pnginfo": {"workflow": {"id": "w"}}, "client_id": "me"}
    item, _ = client.prompt_server.prompt_queue.get(timeout=0)
    assert item[5] == tokens


async def test_lower_numbers_and_the_front_come_first(client):
    for prompt_id, fields in {"a": {}, "b": {}, "late": {"number": 99.5}, "c": {"front": True}}.items():
        await post(client, prompt_id=prompt_id, **fields)
    assert await waiting_ids(client) == ["c", "a", "b", "late"]


async def test_the_source_of_a_request_is_noted(client):
    await client.post("/prompt", json={"prompt": GRAPH}, headers={"Comfy-Usage-Source": "cli"})
    ((*_, extra_data, _outputs),) = (await (await client.get("/queue")).json())["queue_pending"]
    assert extra_data["comfy_usage_source"] == "cli"


async def test_only_the_wanted_outputs_run(client):
    graph = {**GRAPH, "2": {"class_type": "Echo", "inputs": {"text": "other"}}}
    await client.post("/prompt", json={"prompt": graph, "partial_execution_targets": ["2"]})
    ((*_, outputs),) = (await (await client.get("/queue")).json())["queue_pending"]
    assert outputs == ["2"]


@pytest.mark.parametrize(
    ("body", "kind", "part"),
    [
        ({}, "no_prompt", "No prompt provided"),
        ([1], "invalid_body", "must be a JSON object"),
        ({"prompt": []}, "invalid_prompt", "an object of nodes"),
        ({"prompt": GRAPH, "prompt_id": ""}, "invalid_prompt_id", "1 to 200 printable characters"),
        ({"prompt": GRAPH, "prompt_id": 7}, "invalid_prompt_id", "1 to 200 printable characters"),
        ({"prompt": GRAPH, "prompt_id": "x" * 201}, "invalid_prompt_id", "1 to 200 printable characters"),
        ({"prompt": GRAPH, "prompt_id": "a\nb"}, "invalid_prompt_id", "1 to 200 printable characters"),
        ({"prompt": GRAPH, "number": "first"}, "invalid_body", "number must be a number"),
        ({"prompt": GRAPH, "number": [1]}, "invalid_body", "number must be a number"),
        ({"prompt": GRAPH, "extra_data": [1]}, "invalid_body", "extra_data must be a JSON object"),
        ({"prompt": GRAPH, "partial_execution_targets": []}, "prompt_no_outputs", "no outputs"),
        ({"prompt": {}}, "prompt_no_outputs", "no outputs"),
        ({"prompt": {"1": {"class_type": "Unknown", "inputs": {}}}}, "missing_node_type", "Unknown"),
        (
            {"prompt": {"1": {"class_type": "Echo", "inputs": {}}}},
            "prompt_outputs_failed_validation",
            "failed",
        ),
    ],
)
async def test_a_bad_prompt_is_refused_with_its_reason(client, body, kind, part):
    answer = await client.post("/api/prompt", json=body)
    content = await answer.json()
    assert answer.status == 400
    assert set(content) == {"error", "node_errors"}
    assert set(content["error"]) == {"type", "message", "details", "extra_info"}
    assert content["error"]["type"] == kind
    assert part in content["error"]["message"]
    assert await waiting_ids(client) == []


async def test_a_body_that_is_no_json_is_refused(client):
    answer = await client.post("/prompt", data="{half")
    assert (answer.status, (await answer.json())["error"]["message"]) == (
        400,
        "The request's body is not JSON",
    )


async def test_a_missing_input_is_told_at_its_node(client):
    answer = await client.post("/prompt", json={"prompt": {"1": {"class_type": "Echo", "inputs": {}}}})
    (error,) = (await answer.json())["node_errors"]["1"]["errors"]
    assert error["type"] == "required_input_missing" and error["extra_info"]["input_name"] == "text"


async def test_packs_can_change_a_prompt_and_a_failing_one_is_passed_over(client, caplog):
    def fail(body):
        raise RuntimeError("a pack's mistake")

    client.prompt_server.add_on_prompt_handler(fail)
    client.prompt_server.add_on_prompt_handler(lambda body: {**body, "prompt_id": "changed"})
    assert (await post(client))["prompt_id"] == "changed"
    assert "a pack's mistake" in caplog.text


async def test_replaced_node_classes_are_rewritten_before_validation(client):
    from types import SimpleNamespace

    client.prompt_server.node_replace_manager.register(
        SimpleNamespace(old_node_id="Old", new_node_id="Echo", output_mapping=None,
                        input_mapping=[{"new_id": "text", "old_id": "words"}])
    )  # fmt: skip
    answer = await client.post(
        "/prompt", json={"prompt": {"1": {"class_type": "Old", "inputs": {"words": "x"}}}}
    )
    assert answer.status == 200


async def test_waiting_prompts_can_be_deleted_and_cleared(client):
    for prompt_id in "abc":
        await post(client, prompt_id=prompt_id)
    assert (await client.post("/queue", json={"delete": ["b", "unknown"]})).status == 200
    assert await waiting_ids(client) == ["a", "c"]
    assert (await client.post("/api/queue", json={"clear": True})).status == 200
    assert await waiting_ids(client) == []


@pytest.mark.parametrize("path", ["/queue", "/history", "/free"])
async def test_bodies_must_be_objects(client, path):
    answer = await client.post(path, data="[1]")
    assert (answer.status, await answer.text()) == (400, "The request's body must be a JSON object.")


async def test_a_running_prompt_is_shown_apart(client):
    await post(client, prompt_id="a")
    await post(client, prompt_id="b")
    client.prompt_server.prompt_queue.get(timeout=0)
    queue = await (await client.get("/queue")).json()
    assert [item[1] for item in queue["queue_running"]] == ["a"] and len(queue["queue_running"][0]) == 5
    assert [item[1] for item in queue["queue_pending"]] == ["b"]


@pytest.mark.parametrize(
    ("options", "interrupted"),
    [
        ({}, True),
        ({"json": {"prompt_id": "a"}}, True),
        ({"json": {"prompt_id": "b"}}, False),
        ({"data": "x"}, True),
    ],
)
async def test_interrupt_stops_what_runs_or_only_the_named_prompt(client, options, interrupted):
    await post(client, prompt_id="a")
    await post(client, prompt_id="b")
    client.prompt_server.prompt_queue.get(timeout=0)
    assert (await client.post("/interrupt", **options)).status == 200
    assert interruption.processing_interrupted() is interrupted


async def test_free_sets_flags_for_the_worker(client):
    await client.post("/free", json={"unload_models": True, "free_memory": False})
    await client.post("/free", json={"free_memory": True})
    assert client.prompt_server.prompt_queue.get_flags() == {"unload_models": True, "free_memory": True}


async def test_the_history_is_read_in_parts_and_deleted(client):
    queue = client.prompt_server.prompt_queue
    for prompt_id in ("a", "b", "c"):
        await post(client, prompt_id=prompt_id, extra_data={"auth_token_comfy_org": "secret"})
        finish(client, queue.get(timeout=0), outputs={"1": {"text": ["hi"]}})
    entry = (await (await client.get("/history/a")).json())["a"]
    assert entry["outputs"] == {"1": {"text": ["hi"]}}
    assert entry["status"] == {"status_str": "success", "completed": True, "messages": []}
    assert entry["prompt"][:3] == [0, "a", GRAPH] and len(entry["prompt"]) == 5
    assert list(await (await client.get("/api/history")).json()) == ["a", "b", "c"]
    assert list(await (await client.get("/history?max_items=2")).json()) == ["b", "c"]
    assert list(await (await client.get("/history?max_items=1&offset=0")).json()) == ["a"]
    assert await (await client.get("/history/unknown")).json() == {}
    assert (await client.get("/history?max_items=many")).status == 400
    await client.post("/history", json={"delete": ["b"]})
    assert list(await (await client.get("/history")).json()) == ["a", "c"]
    await client.post("/history", json={"clear": True})
    assert await (await client.get("/history")).json() == {}


async def run_four_jobs(client):
    """One job of each kind: completed, failed, running, waiting."""
    queue = client.prompt_server.prompt_queue
    workflow = {"extra_pnginfo": {"workflow": {"id": "w1"}}}
    await post(client, prompt_id="good", extra_data=workflow)
    picture = {"filename": "a.png", "subfolder": "", "type": "output"}
    times = [("execution_start", {"prompt_id": "good", "timestamp": 1000}),
             ("execution_success", {"prompt_id": "good", "timestamp": 3000})]  # fmt: skip
    finish(client, queue.get(timeout=0), outputs={"1": {"images": [picture]}}, messages=times)
    await post(client, prompt_id="bad")
    error = {
        "prompt_id": "bad", "node_id": "1", "node_type": "Echo", "executed": [],
        "exception_message": "no", "exception_type": "ValueError", "traceback": [], "timestamp": 5,
    }  # fmt: skip
    finish(client, queue.get(timeout=0), success=False, messages=[("execution_error", error)])
    await post(client, prompt_id="running")
    await post(client, prompt_id="waiting")
    queue.get(timeout=0)


async def test_jobs_are_queue_and_history_in_one_list(client):
    await run_four_jobs(client)
    answer = await (await client.get("/api/jobs")).json()
    states = {job["id"]: job["status"] for job in answer["jobs"]}
    assert states == {"good": "completed", "bad": "failed", "running": "in_progress", "waiting": "pending"}
    assert answer["pagination"] == {"offset": 0, "limit": None, "total": 4, "has_more": False}
    assert all(isinstance(job["create_time"], int) for job in answer["jobs"])
    good = next(job for job in answer["jobs"] if job["id"] == "good")
    assert good["preview_output"]["filename"] == "a.png" and good["preview_output"]["nodeId"] == "1"
    assert (good["outputs_count"], good["workflow_id"]) == (1, "w1")
    bad = next(job for job in answer["jobs"] if job["id"] == "bad")
    assert bad["execution_error"]["exception_message"] == "no"


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("status=completed,failed", {"good", "bad"}),
        ("status=PENDING", {"waiting"}),
        ("status=cancelled", set()),
        ("workflow_id=w1", {"good"}),
        ("status=", {"good", "bad", "running", "waiting"}),
    ],
)
async def test_jobs_can_be_filtered(client, query, ids):
    await run_four_jobs(client)
    answer = await (await client.get("/api/jobs?" + query)).json()
    assert {job["id"] for job in answer["jobs"]} == ids


async def test_jobs_come_in_pages(client):
    await run_four_jobs(client)
    answer = await (await client.get("/api/jobs?limit=3&offset=-5")).json()
    assert len(answer["jobs"]) == 3
    assert answer["pagination"] == {"offset": 0, "limit": 3, "total": 4, "has_more": True}
    answer = await (
        await client.get("/api/jobs?limit=3&offset=3&sort_by=execution_duration&sort_order=asc")
    ).json()
    assert len(answer["jobs"]) == 1 and answer["pagination"]["has_more"] is False


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("status=done", "Invalid status value(s): done."),
        ("sort_by=name", "sort_by must be 'created_at' or 'execution_duration'"),
        ("sort_order=up", "sort_order must be 'asc' or 'desc'"),
        ("limit=0", "limit must be a positive integer"),
        ("limit=x", "limit must be an integer"),
        ("offset=x", "offset must be an integer"),
    ],
)
async def test_bad_job_queries_are_refused(client, query, error):
    answer = await client.get("/api/jobs?" + query)
    assert answer.status == 400
    assert error in (await answer.json())["error"]


async def test_one_job_comes_with_its_workflow_and_outputs(client):
    await run_four_jobs(client)
    job = await (await client.get("/api/jobs/good")).json()
    assert job["workflow"]["prompt"] == GRAPH
    assert job["workflow"]["extra_data"]["extra_pnginfo"] == {"workflow": {"id": "w1"}}
    assert job["outputs"]["1"]["images"][0]["filename"] == "a.png"
    assert job["execution_status"]["status_str"] == "success"
    assert (await (await client.get("/api/jobs/waiting")).json())["status"] == "pending"
    answer = await client.get("/api/jobs/unknown")
    assert (answer.status, await answer.json()) == (404, {"error": "Job not found"})
    assert (await client.get("/jobs")).status == 404


@pytest.mark.parametrize(
    ("prompt_id", "cancelled", "interrupted"),
    [("waiting", True, False), ("running", True, True), ("good", False, False), ("unknown", False, False)],
)
async def test_a_job_is_cancelled_whether_it_waits_or_runs(client, prompt_id, cancelled, interrupted):
    await run_four_jobs(client)
    answer = await client.post(f"/api/jobs/{prompt_id}/cancel")
    assert await answer.json() == {"cancelled": cancelled}
    assert interruption.processing_interrupted() is interrupted
    assert await waiting_ids(client) == ([] if prompt_id == "waiting" else ["waiting"])


async def test_many_jobs_are_cancelled_at_once(client):
    await run_four_jobs(client)
    answer = await client.post("/api/jobs/cancel", json={"job_ids": ["good", "waiting", "running"]})
    assert await answer.json() == {"cancelled": True}
    assert interruption.processing_interrupted() and await waiting_ids(client) == []
    for nothing in (["good"], []):
        answer = await client.post("/api/jobs/cancel", json={"job_ids": nothing})
        assert await answer.json() == {"cancelled": False}


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("{half", "must be valid JSON"),
        ("[]", "must be a list"),
        ('{"job_ids": "a"}', "must be a list"),
        ('{"job_ids": ["a", 7]}', "must be texts"),
    ],
)
async def test_bad_cancel_requests_are_refused(client, body, error):
    answer = await client.post("/api/jobs/cancel", data=body)
    assert answer.status == 400
    assert error in (await answer.json())["error"]


async def test_what_a_node_shows_cannot_make_history_or_jobs_unreadable(client):
    """A picture's size as NaN, or an object: one such value would hide every other prompt."""
    await post(client, prompt_id="odd")
    shown = {"images": [{"filename": "a.png", "type": "output", "size": float("nan"), "object": ...}]}
    finish(client, client.prompt_server.prompt_queue.get(timeout=0), outputs={"1": shown})
    for path in ("/history", "/history/odd", "/api/jobs", "/api/jobs/odd"):
        text = await (await client.get(path)).text()
        assert "odd" in str(json.loads(text, parse_constant=pytest.fail)), path


async def test_nan_in_a_prompt_is_null(client):
    """Python's clients can send it; every list that shows it would be unreadable for browsers."""
    body = '{"prompt": {"1": {"class_type": "Echo", "inputs": {"text": "a", "x": NaN}}}, "prompt_id": "p"}'
    assert (await client.post("/prompt", data=body)).status == 200
    text = await (await client.get("/queue")).text()
    assert json.loads(text, parse_constant=pytest.fail)["queue_pending"][0][2]["1"]["inputs"]["x"] is None


@pytest.mark.parametrize(
    "extra", [{"extra_pnginfo": ["a"]}, {"extra_pnginfo": "a"}, {"extra_pnginfo": {"workflow": "a"}}]
)
async def test_a_prompt_with_odd_extra_data_does_not_hide_the_other_jobs(client, extra):
    await post(client, extra_data=extra)
    assert len((await (await client.get("/api/jobs")).json())["jobs"]) == 1


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/prompt", "[" * 100_000),
        ("/prompt", {"prompt": GRAPH, "number": 10**400}),
        ("/prompt", json.dumps({"prompt": GRAPH, "number": 7}).replace("7}", "1e999}")),
        ("/prompt", {"prompt": GRAPH, "client_id": ["a"]}),
        ("/prompt", {"prompt": GRAPH, "extra_data": {"client_id": {}}}),
        ("/prompt", {"prompt": GRAPH, "partial_execution_targets": 5}),
        ("/prompt", {"prompt": GRAPH, "partial_execution_targets": "1"}),
        ("/prompt", {"prompt": GRAPH, "partial_execution_targets": [["1"]]}),
        ("/queue", {"delete": 5}),
        ("/queue", {"delete": "abc", "clear": True}),
        ("/history", {"delete": [["a"]]}),
        ("/history", {"delete": [{"a": 1}]}),
        ("/history", "[" * 100_000),
    ],
)
async def test_a_body_of_the_wrong_form_is_refused_and_changes_nothing(client, path, body):
    await post(client, prompt_id="stays")
    answer = await client.post(path, data=body if isinstance(body, str) else json.dumps(body))
    assert answer.status == 400 and await answer.text()
    assert await waiting_ids(client) == ["stays"]


async def test_an_unknown_encoding_is_refused(client):
    headers = {"Content-Type": "application/json; charset=klingon"}
    answer = await client.post("/prompt", data=b"{}", headers=headers)
    assert answer.status == 400 and "klingon" in await answer.text()


@pytest.mark.parametrize("query", ["max_items=" + "9" * 30, "offset=" + "9" * 30])
async def test_numbers_beyond_any_list_are_refused(client, query):
    assert (await client.get("/history?" + query)).status == 400
    assert (await client.get("/api/jobs?" + query.replace("max_items", "limit"))).status == 400


async def test_interrupt_without_a_readable_body_interrupts(client):
    assert (await client.post("/interrupt", data="[" * 100_000)).status == 200
    assert interruption.processing_interrupted()
