"""`POST /prompt` with a workflow as the web page saves it."""

import pytest

import nodes
from tests.fakes import running as fakes


@pytest.fixture
async def client(connect):
    """A client of a server that knows a node that counts and one that shows."""
    nodes.NODE_CLASS_MAPPINGS.update(fakes.NODES)
    return await connect()


def saved(**more):
    """Two nodes that are linked: the second takes its steps from the first."""
    outputs = [{"links": [7], "type": "INT"}]
    first = {"id": 1, "type": "Wait", "widgets_values": [3, False], "outputs": outputs}
    second = {
        "id": 2, "type": "Wait", "widgets_values": [9, True],
        "inputs": [{"name": "steps", "type": "INT", "link": 7, "widget": {"name": "steps"}}],
    }
    return {"nodes": [first, second], "links": [[7, 1, 0, 2, 0, "INT"]], "last_node_id": 2, **more}


async def post(client, prompt, **fields):
    answer = await client.post("/prompt", json={"prompt": prompt, **fields})
    return answer.status, await answer.json()


async def test_a_saved_workflow_becomes_the_prompt_that_the_page_would_send(client):
    status, body = await post(client, saved(id="my-workflow"))
    assert status == 200, body
    (item,) = client.prompt_server.prompt_queue.get_current_queue()[1]
    assert item[2]["1"]["inputs"] == {"steps": 3, "fails": False}
    assert item[2]["2"]["inputs"] == {"steps": ["1", 0], "fails": True}
    assert item[3]["extra_pnginfo"]["workflow"]["id"] == "my-workflow"


async def test_the_workflow_that_a_request_brings_stays(client):
    extra_data = {"extra_pnginfo": {"workflow": {"id": "other"}, "x": 1}, "y": 2}
    assert (await post(client, saved(), extra_data=extra_data))[0] == 200
    (item,) = client.prompt_server.prompt_queue.get_current_queue()[1]
    assert item[3]["extra_pnginfo"] == {"workflow": {"id": "other"}, "x": 1} and item[3]["y"] == 2


async def test_jobs_take_saved_workflows_too(client):
    answer = await client.post("/api/v2/jobs", json={"workflow": saved()})
    job = await answer.json()
    assert answer.status == 201, job
    ran = await (await client.get(f"/api/v2/jobs/{job['id']}/workflow")).json()
    assert ran["workflow"]["2"]["inputs"]["steps"] == ["1", 0]


async def test_what_is_wrong_in_it_is_said(client):
    unknown = saved()
    unknown["nodes"][0]["type"] = "Nothing"
    status, body = await post(client, unknown)
    assert status == 400 and "Nothing" in str(body["error"])
    odd = [saved(links=7), saved(links=[["x"]]), saved(definitions=7)]
    for workflow in ({"nodes": []}, {"nodes": [7]}, *odd):
        status, body = await post(client, workflow)
        assert status in (200, 400) and (status == 200 or body["error"]["message"]), workflow


async def test_a_workflow_that_contains_itself_is_refused(client):
    inner = {"id": "a", "nodes": [{"id": 1, "type": "a"}], "links": []}
    status, body = await post(client, {"nodes": inner["nodes"], "definitions": {"subgraphs": [inner]}})
    assert (status, body["error"]["type"]) == (400, "invalid_workflow")
    assert "export it for the API" in body["error"]["details"]


async def test_extra_pnginfo_that_is_no_object_is_refused(client):
    status, body = await post(client, saved(), extra_data={"extra_pnginfo": 7})
    assert (status, body["error"]["type"]) == (400, "invalid_workflow")
