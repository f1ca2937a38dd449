"""docs/openapi.json describes every route, and the server does what it says."""

import json
import subprocess
import sys

import pytest
from aiohttp import web

from app import openapi
from app.routes import operations
from app.routes.operations import Operation
from tests.fakes.source_tree import ROOT


@pytest.mark.slow
def test_the_description_is_current_and_complete():
    done = subprocess.run([sys.executable, "scripts/generate_openapi.py", "--check"], cwd=ROOT,
                          capture_output=True, text=True, timeout=60)  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "")


def test_a_route_without_a_description_is_named_with_the_place_for_it():
    (sentence,) = openapi.problems([("GET", "/new/{id}")], {})
    assert "'GET /new/{id}' has no description" in sentence
    assert "OPERATIONS" in sentence and "app/routes/" in sentence


def test_a_description_without_a_route_is_named():
    (sentence,) = openapi.problems([], {"GET /gone": Operation("Gone", {200: None})})
    assert "'GET /gone'" in sentence and "no such route" in sentence


@pytest.mark.parametrize(
    ("path", "template"),
    [("/a/{b}", "/a/{b}"), ("/a/{b:.*}", "/a/{b}"), ("/a/{b:[0-9]{2}}/c", "/a/{b}/c"),
     ("/a{tail:(/.*)?}", "/a{tail}"), ("/a/{b:x/y}/{c:.+}", "/a/{b}/{c}")],
)  # fmt: skip
def test_a_path_loses_what_its_parameters_may_look_like(path, template):
    assert openapi.template_of(path) == template


def test_an_operation_says_what_is_taken_and_answered():
    about = Operation(
        "Does it", {200: operations.record({"n": operations.WHOLE}), 404: operations.REASON},
        query={"q": operations.TEXT}, needs_query=("q",), body=operations.form({"image": operations.FILE}),
        path={"id": operations.WHOLE},
    )  # fmt: skip
    entry = openapi.described("POST", "/things/{id}", about)
    assert entry["summary"] == "Does it" and entry["tags"] == ["things"]
    assert entry["operationId"] == "post_things_id"
    assert entry["parameters"] == [
        {"name": "id", "in": "path", "required": True, "schema": {"type": "integer"}},
        {"name": "q", "in": "query", "schema": {"type": "string"}, "required": True},
    ]
    assert list(entry["requestBody"]["content"]) == ["multipart/form-data"]
    assert sorted(entry["responses"]) == ["200", "403", "404", "413"]
    assert entry["responses"]["200"]["content"]["application/json"]["schema"]["required"] == ["n"]
    assert list(entry["responses"]["404"]["content"]) == ["text/plain"]
    assert "content" not in entry["responses"]["403"]


async def test_the_server_gives_its_description_and_leaves_out_what_packs_add(connect):
    def add(server):
        @server.routes.get("/some_pack/hello")
        async def hello(request):
            return web.Response()

    client = await connect(add)
    found = await (await client.get("/openapi.json")).json()
    written = json.loads((ROOT / "docs" / "openapi.json").read_text(encoding="utf-8"))
    depot = {path for path in written["paths"] if path.startswith(("/depot", "/tasks", "/assets"))}
    assert set(written["paths"]) - set(found["paths"]) <= depot  # the depot has not been started here
    assert set(found["paths"]) <= set(written["paths"])
    assert all(found["paths"][path] == written["paths"][path] for path in found["paths"])
    assert found["servers"] == [{"url": "/"}, {"url": "/api"}]
    assert found["paths"]["/internal/logs"]["servers"] == [{"url": "/"}]


@pytest.mark.slow
def test_no_generated_request_makes_the_server_fail_or_answer_otherwise_than_described(tmp_path):
    pytest.importorskip("schemathesis", reason="pip install -r requirements-dev.txt brings schemathesis")
    from tests.fakes.server_process import ServerProcess

    with ServerProcess(tmp_path / "base", "--disable-api-nodes") as server:
        checks = ("not_a_server_error", "status_code_conformance", "content_type_conformance",
                  "response_schema_conformance")  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json",
             "--url", server.url, "--exclude-path-regex", "^/(ws$|api/assets|api/tags)",
             "--checks", ",".join(checks), "--max-examples", "5", "--max-time", "30", "--no-color",
             "--suppress-health-check", "all"],
            cwd=tmp_path, capture_output=True, text=True, timeout=180,
        )  # fmt: skip
        assert server.process.poll() is None
    assert done.returncode == 0, done.stdout[-8000:]
    assert "failures" not in done.stdout.splitlines()[-1]
