"""`/api/v2/jobs`: submit, idempotency, states, lists, cancel, errors."""

import asyncio
import contextlib
import json
import time

import pytest
from aiohttp import FormData

import nodes
from app import queue_journal, v2_shapes
from comfy.cli_args import args
from comfy_execution.jobs import normalize_outputs
from tests.fakes import running as fakes
from tests.fakes.running import running

WAIT = {"1": {"class_type": "Wait", "inputs": {"steps": 1, "fails": False}}}
ENDED = {"succeeded", "failed", "canceled"}


def waiting(steps=1, fails=False):
    return {"1": {"class_type": "Wait", "inputs": {"steps": steps, "fails": fails}}}


@pytest.fixture
async def start(connect, monkeypatch):
    """A function that gives a client of a server, whose prompts run if `runs`."""
    nodes.NODE_CLASS_MAPPINGS.update(fakes.NODES)
    async with contextlib.AsyncExitStack() as stack:

        async def begin(runs=True, **options):
            client = await connect(**options)
            if runs:
                stack.enter_context(running(client.prompt_server))
            return client

        yield begin


async def fetch(client, url):
    """The bytes behind an address that the server gave."""
    assert url.startswith(str(client.make_url("/")))
    answer = await client.get(url[len(str(client.make_url("/"))) - 1 :])
    assert answer.status == 200
    return await answer.read()


async def submit(client, workflow=WAIT, key=None, **fields):
    headers = {} if key is None else {"Idempotency-Key": key}
    answer = await client.post("/api/v2/jobs", json={"workflow": workflow, **fields}, headers=headers)
    return answer.status, await answer.json()


async def job_of(client, job_id):
    answer = await client.get(f"/api/v2/jobs/{job_id}")
    assert answer.status == 200
    return await answer.json()


async def ended(client, job_id, seconds=10):
    deadline = time.monotonic() + seconds
    while (job := await job_of(client, job_id))["status"] not in ENDED:
        assert time.monotonic() < deadline, job
        await asyncio.sleep(0.02)
    return job


# -- the life of a job -------------------------------------------------------------------------------------


async def test_a_job_goes_from_queued_to_succeeded_and_shows_what_it_made(start):
    client = await start()
    status, job = await submit(client)
    assert status == 201 and job["status"] in ("queued", "running")
    assert job["urls"]["self"] == str(client.make_url(f"/api/v2/jobs/{job['id']}"))
    done = await ended(client, job["id"])
    assert done["status"] == "succeeded" and done["error"] is None
    assert done["created_at"] <= done["started_at"] <= done["completed_at"]
    (output,) = done["outputs"]
    assert (output["node_id"], output["type"], output["job_id"]) == ("1", "text", job["id"])
    assert await fetch(client, output["url"]) == b"waited"


async def test_a_job_that_fails_says_which_node_and_why(start):
    client = await start()
    _, job = await submit(client, waiting(fails=True))
    error = (await ended(client, job["id"]))["error"]
    assert (error["code"], error["node_id"], error["class_type"]) == ("node_execution_error", "1", "Wait")
    assert "as it should" in error["message"] and "ValueError" in error["traceback"]


async def test_what_waits_has_a_place_and_what_runs_has_progress(start):
    client = await start(runs=False)
    _, first = await submit(client)
    _, second = await submit(client)
    _, urgent = await submit(client, priority=5)
    places = [(await job_of(client, one["id"]))["queue_position"] for one in (urgent, first, second)]
    assert places == [1, 2, 3]
    client.prompt_server.prompt_queue.get(timeout=1)
    job = await job_of(client, urgent["id"])
    assert (job["status"], job["queue_position"], job["progress"]["nodes_total"]) == ("running", None, 1)


async def test_prompts_of_the_plain_interface_are_jobs_too(start):
    client = await start()
    answer = await client.post("/prompt", json={"prompt": waiting(), "prompt_id": "my own / id"})
    assert answer.status == 200
    job = await ended(client, "my%20own%20%2F%20id")
    assert (job["id"], job["status"]) == ("my own / id", "succeeded")
    assert json.loads(await fetch(client, job["urls"]["self"]))["id"] == "my own / id"


async def test_the_graph_that_ran_can_be_fetched(start):
    client = await start(runs=False)
    _, job = await submit(client)
    answer = await client.get(f"/api/v2/jobs/{job['id']}/workflow")
    assert await answer.json() == {"workflow": WAIT, "format": "api"}


@pytest.mark.parametrize("path", ["", "/workflow", "/events"])
async def test_an_unknown_job_is_404_in_the_shape_of_errors(start, path):
    client = await start(runs=False)
    answer = await client.get(f"/api/v2/jobs/nothing{path}")
    error = (await answer.json())["error"]
    assert (answer.status, error["code"], error["details"]) == (404, "not_found", None)


async def test_health_answers(start):
    client = await start(runs=False)
    assert await (await client.get("/api/v2/health")).json() == {"status": "healthy"}


# -- cancelling --------------------------------------------------------------------------------------------


async def cancel(client, job_id):
    answer = await client.post(f"/api/v2/jobs/{job_id}/cancel")
    assert answer.status == 200
    return await answer.json()


async def test_a_job_that_waits_is_canceled_and_stays_known(start):
    client = await start(runs=False)
    _, job = await submit(client, metadata={"run": "1"})
    assert (await cancel(client, job["id"]))["status"] == "canceled"
    assert (await job_of(client, job["id"]))["status"] == "canceled"
    assert client.prompt_server.prompt_queue.get_tasks_remaining() == 0


async def test_a_job_that_runs_is_canceling_then_canceled(start):
    client = await start()
    _, job = await submit(client, waiting(steps=2000))
    while (await job_of(client, job["id"]))["status"] != "running":
        await asyncio.sleep(0.01)
    assert (await cancel(client, job["id"]))["status"] in ("canceling", "canceled")
    assert (await ended(client, job["id"]))["status"] == "canceled"


async def test_cancelling_what_has_ended_changes_nothing(start):
    client = await start()
    _, job = await submit(client)
    await ended(client, job["id"])
    assert (await cancel(client, job["id"]))["status"] == "succeeded"
    assert (await client.post("/api/v2/jobs/nothing/cancel")).status == 404


async def test_a_plain_prompt_that_is_canceled_leaves_no_history(start):
    client = await start(runs=False)
    await client.post("/prompt", json={"prompt": waiting(), "prompt_id": "plain"})
    assert (await cancel(client, "plain"))["status"] == "canceled"
    assert await (await client.get("/history")).json() == {}


async def test_jobs_that_leave_with_the_whole_queue_are_canceled(start):
    client = await start(runs=False)
    _, job = await submit(client)
    await client.post("/queue", json={"clear": True})
    assert (await job_of(client, job["id"]))["status"] == "canceled"


# -- one key, one job --------------------------------------------------------------------------------------


async def test_the_same_key_and_request_give_the_same_job(start):
    client = await start(runs=False)
    first, second = await submit(client, key="k"), await submit(client, key="k")
    assert first[0] == second[0] == 201 and first[1]["id"] == second[1]["id"]
    assert client.prompt_server.prompt_queue.get_tasks_remaining() == 1


async def test_the_same_key_with_another_request_is_refused(start):
    client = await start(runs=False)
    _, job = await submit(client, key="k")
    status, body = await submit(client, waiting(steps=2), key="k")
    assert (status, body["error"]["code"]) == (422, "idempotency_key_reuse")
    assert body["error"]["details"] == {"job_id": job["id"]}


async def test_two_requests_with_one_key_at_once_make_one_job(start):
    client = await start(runs=False)
    answers = await asyncio.gather(*(submit(client, key="k") for _ in range(8)))
    assert {status for status, _ in answers} == {201} and len({job["id"] for _, job in answers}) == 1
    assert client.prompt_server.prompt_queue.get_tasks_remaining() == 1


async def test_a_refused_request_does_not_use_its_key_up(start):
    client = await start(runs=False)
    assert (await submit(client, {"1": {"class_type": "Nothing", "inputs": {}}}, key="k"))[0] == 422
    assert (await submit(client, key="k"))[0] == 201


async def test_a_key_is_known_after_a_restart(connect, base):
    nodes.NODE_CLASS_MAPPINGS.update(fakes.NODES)

    async def start():
        return await connect(lambda server: queue_journal.attach(server, args))

    client = await start()
    _, job = await submit(client, key="k", metadata={"run": "1"})
    client.prompt_server.prompt_queue.close()
    client = await start()
    status, again = await submit(client, key="k", metadata={"run": "1"})
    assert (status, again["id"], again["metadata"]) == (201, job["id"], {"run": "1"})
    assert (await submit(client, key="k"))[1]["error"]["code"] == "idempotency_key_reuse"
    client.prompt_server.prompt_queue.close()


async def test_a_key_that_is_none_is_refused(start):
    client = await start(runs=False)
    for key in ("", "x" * 256, "caf\u00e9"):
        status, body = await submit(client, key=key)
        assert (status, body["error"]["code"]) == (400, "invalid_request"), key
        assert "Idempotency-Key" in body["error"]["message"]


# -- refusals ----------------------------------------------------------------------------------------------


REFUSED = [
    ({"workflow": None}, 422, "invalid_workflow", "API format"),
    ({"workflow": []}, 422, "invalid_workflow", "API format"),
    ({"workflow": {}}, 422, "invalid_workflow", "no outputs"),
    ({"workflow": {"1": {"class_type": "Nothing", "inputs": {}}}}, 422, "invalid_workflow", "Nothing"),
    ({"webhook_url": "https://example.com"}, 422, "invalid_workflow", '"webhook"'),
    ({"inputs": {}}, 422, "invalid_workflow", "'inputs'"),
    ({"webhook": "ftp://example.com"}, 422, "invalid_webhook", "http(s)"),
    ({"priority": 1.5}, 422, "invalid_request", "whole number"),
    ({"priority": True}, 422, "invalid_request", "whole number"),
    ({"priority": 10**7}, 422, "invalid_request", "whole number"),
    ({"timeout_seconds": -1}, 422, "invalid_request", "timeout_seconds"),
    ({"extra_data": {"client_id": "x"}}, 400, "invalid_request", "api_key_comfy_org"),
    ({"extra_data": {"api_key_comfy_org": None}}, 400, "invalid_request", "must be a text"),
    ({"metadata": 7}, 422, "metadata_invalid", "object of texts"),
    ({"metadata": {"a": 7}}, 422, "metadata_invalid", "'a'"),
    ({"metadata": {"a" * 65: "x"}}, 422, "metadata_invalid", "64"),
    ({"metadata": {str(n): "x" for n in range(17)}}, 422, "metadata_invalid", "17 entries"),
    ({"metadata": "x" * 1025}, 422, "metadata_invalid", "1024 bytes"),
]


async def test_what_cannot_be_a_job_is_refused_with_code_and_reason(start):
    client = await start(runs=False)
    for fields, status, code, text in REFUSED:
        answer = await client.post("/api/v2/jobs", json={"workflow": WAIT, **fields})
        error = (await answer.json())["error"]
        assert (answer.status, error["code"]) == (status, code) and text in error["message"], (fields, error)
    assert client.prompt_server.prompt_queue.get_tasks_remaining() == 0


async def test_a_body_that_is_no_json_object_is_refused(start):
    client = await start(runs=False)
    for content, text in ((b"{", "not JSON"), (b"[1]", "JSON object")):
        answer = await client.post("/api/v2/jobs", data=content)
        error = (await answer.json())["error"]
        assert (answer.status, error["code"]) == (400, "invalid_request") and text in error["message"]


async def test_a_body_of_any_depth_is_answered(start):
    client = await start(runs=False)
    for depth in (150, 400, 700, 960, 5000):
        value = "[" * depth + "]" * depth
        text = f'{{"workflow": {{"1": {{"class_type": "Wait", "inputs": {{"steps": {value}}}}}}}}}'
        answer = await client.post("/api/v2/jobs", data=text, headers={"Idempotency-Key": "k"})
        assert answer.status in (400, 422), depth


async def test_a_body_over_the_limit_is_413(start):
    client = await start(runs=False, max_upload_size=0.01)
    status, body = await submit(client, metadata={"a": "x" * 20000})
    assert (status, body["error"]["code"]) == (413, "payload_too_large")


async def test_errors_of_nodes_are_in_the_details(start):
    client = await start(runs=False)
    graph = {"1": {"class_type": "Wait", "inputs": {"steps": "many", "fails": False}}}
    status, body = await submit(client, graph)
    errors = body["error"]["details"]["node_errors"]["1"]["errors"]
    assert status == 422 and errors[0]["extra_info"]["input_name"] == "steps"


async def test_a_full_queue_is_429_with_the_time_to_come_back(start):
    client = await start(runs=False)
    client.prompt_server.prompt_queue.max_waiting = 1
    await submit(client)
    answer = await client.post("/api/v2/jobs", json={"workflow": WAIT})
    assert answer.status == 429 and int(answer.headers["Retry-After"]) >= 1
    assert (await answer.json())["error"]["code"] == "queue_full"


async def test_the_token_for_paid_nodes_shows_nowhere(start):
    client = await start()
    _, job = await submit(client, extra_data={"api_key_comfy_org": "SECRET"})
    await ended(client, job["id"])
    for path in (f"/api/v2/jobs/{job['id']}", f"/history/{job['id']}", "/api/v2/jobs"):
        assert "SECRET" not in await (await client.get(path)).text()


# -- assets in a graph -------------------------------------------------------------------------------------


async def test_assets_and_outputs_of_other_jobs_go_into_a_graph(start):
    client = await start()
    form = FormData()
    form.add_field("file_path", "in.png")
    form.add_field("file", b"\x89PNG\r\n\x1a\n not really", filename="in.png", content_type="image/png")
    asset = await (await client.post("/api/v2/assets", data=form)).json()
    made = []
    for reference in ({"id": asset["id"]}, {"id": "gone", "hash": asset["hash"]}, None):
        info = reference or {"id": made[-1]["outputs"][0]["id"]}
        graph = {"1": {"class_type": "Copy", "inputs": {"image": {"__type": "core/ASSET", "info": info}}}}
        status, job = await submit(client, graph)
        assert status == 201, job
        made.append(await ended(client, job["id"]))
        output = next(one for one in made[-1]["outputs"] if one["type"] == "image")
        assert await fetch(client, output["url"]) == b"\x89PNG\r\n\x1a\n not really"
        assert output["size_bytes"] == 19 and output["content_type"] == "image/png"
    ran = (await (await client.get(f"/api/v2/jobs/{made[-1]['id']}/workflow")).json())["workflow"]
    assert ran["1"]["inputs"]["image"] == "copy_0.png [output]"  # the second job had a stored result


async def test_a_reference_to_nothing_is_named(start):
    client = await start(runs=False)
    for info in ({"id": "nothing"}, {}, None, {"id": 7}, {"id": "out_AAAA"}):
        reference = {"__type": "core/ASSET", "info": info}
        status, body = await submit(client, {"1": {"class_type": "Copy", "inputs": {"image": reference}}})
        assert (status, body["error"]["code"]) == (422, "missing_asset"), info
        assert len(body["error"]["details"]["missing_ids"]) == 1


def test_outputs_of_3d_files_are_files_and_texts_are_texts(base):
    (base / "output" / "mesh.glb").write_bytes(b"glTF")
    by_key = {"result": [None, "mesh.glb"], "text": ["one", "two"], "animated": [True]}
    outputs = normalize_outputs({"5": by_key})
    shown = v2_shapes.outputs_of("j", outputs, "http://x")
    assert [(one["name"], one["type"], one["size_bytes"]) for one in shown] == [
        ("mesh.glb", "file", 4), ("5_0.txt", "text", 3), ("5_1.txt", "text", 3),
    ]  # fmt: skip
    ref = v2_shapes.output_ref(shown[0]["id"])
    assert v2_shapes.file_of(v2_shapes.item_of(ref, outputs)) == str(base / "output" / "mesh.glb")


# -- lists -------------------------------------------------------------------------------------------------


async def pages(client, **query):
    """All jobs of a list, page by page."""
    found = []
    while True:
        body = await (await client.get("/api/v2/jobs", params=query)).json()
        found.append([job["id"] for job in body["jobs"]])
        if "next_cursor" not in body:
            return found
        query["cursor"] = body["next_cursor"]


async def test_a_list_goes_on_where_it_stopped_although_jobs_come(start):
    client = await start(runs=False)
    ids = []
    for _ in range(5):
        ids.append((await submit(client))[1]["id"])
        await asyncio.sleep(0.002)  # times have milliseconds
    first = await (await client.get("/api/v2/jobs?limit=2")).json()
    await submit(client)
    query = {"limit": 2, "cursor": first["next_cursor"]}
    second = await (await client.get("/api/v2/jobs", params=query)).json()
    assert [job["id"] for page in (first, second) for job in page["jobs"]] == ids[:0:-1]
    assert [len(page) for page in await pages(client, limit=4)] == [4, 2]


async def test_a_list_shows_states_and_labels_and_filters_by_them(start):
    client = await start()
    _, good = await submit(client, metadata={"run": "7", "who": "a"})
    _, bad = await submit(client, waiting(fails=True), metadata={"run": "7"})
    _, plain = await submit(client)
    for job in (good, bad, plain):
        await ended(client, job["id"])
    assert await pages(client, status="failed") == [[bad["id"]]]
    assert await pages(client, status="queued,running") == [[]]
    assert await pages(client, **{"metadata[run]": "7"}) == [[bad["id"], good["id"]]]
    assert await pages(client, **{"metadata[run]": "7", "metadata[who]": "a"}) == [[good["id"]]]
    body = await (await client.get("/api/v2/jobs?status=succeeded&limit=1&metadata[run]=7")).json()
    (job,) = body["jobs"]
    assert (job["status"], job["metadata"]) == ("succeeded", {"run": "7", "who": "a"})
    assert job["create_time"] <= job["update_time"]


async def test_a_list_that_cannot_be_given_is_refused(start):
    client = await start(runs=False)
    queries = ["limit=0", "limit=101", "limit=x", "limit=-1", "status=done", "cursor=x", "cursor=W10="]
    for query in queries:
        answer = await client.get(f"/api/v2/jobs?{query}")
        assert (answer.status, (await answer.json())["error"]["code"]) == (400, "invalid_request"), query


# -- ids of outputs ----------------------------------------------------------------------------------------


def test_the_id_of_an_output_names_its_place_and_nothing_else():
    ref = v2_shapes.OutputRef("j", "9:1", "images", 2)
    assert v2_shapes.output_ref(v2_shapes.output_id(ref)) == ref
    for text in ("", "out_", "out_!!", "out_WzFd", "9f8a", "out_" + "W10"):
        assert v2_shapes.output_ref(text) is None


@pytest.mark.parametrize(
    "item", [{"filename": "../secret.png"}, {"filename": "x.png", "subfolder": "../.."}, {"filename": 7},
             "x.png", {"filename": "x.png", "type": "models"}]
)  # fmt: skip
def test_what_a_node_shows_leads_out_of_no_folder(base, item):
    (base / "secret.png").write_bytes(b"x")
    assert v2_shapes.file_of(item) is None
