"""The interface of ComfyUI 0.33, route by route: what each request is answered with, by status, content type
and shape, as it is and below /api.
Shapes: `tests/fakes/shapes.py`.
"""

import io
import json
import shutil
import ssl
import struct
import subprocess

import aiohttp
import pytest
from PIL import Image
from yarl import URL

import execution
import nodes
from app.worker import without_sensitive
from comfy import interruption
from comfy.cli_args import args
from tests.fakes.shapes import ids, misfit, same

ECHO = {"1": {"class_type": "Echo", "inputs": {"text": "hi"}}}
DONE, WAITING = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
FAILED, STOPPED = "33333333-3333-4333-8333-333333333333", "44444444-4444-4444-8444-444444444444"
JSON, PLAIN, NONE, BYTES = "application/json", "text/plain", None, "application/octet-stream"
NUMBER = (int, float)


def write_model(path, metadata):
    header = json.dumps({"__metadata__": metadata}).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(header)) + header)


def picture_bytes(mode="RGBA", kind="PNG"):
    file = io.BytesIO()
    Image.new(mode, (8, 8), "red").save(file, kind)
    return file.getvalue()


def make_pack(base):
    """A node pack with everything that the web page asks packs for."""
    pack = base / "custom_nodes" / "surface_pack"
    for name, content in {
        "web/js/a.js": "1",
        "locales/en/main.json": '{"hello": "hi"}',
        "subgraphs/sub.json": '{"nodes": []}',
        "locales/fr/nodeDefs.json": '{"N": {}}',
        "example_workflows/one.json": "{}",
    }.items():
        (pack / name).parent.mkdir(parents=True, exist_ok=True)
        (pack / name).write_text(content)
    nodes.EXTENSION_WEB_DIRS["surface_pack"] = str(pack / "web")
    nodes.LOADED_MODULE_DIRS["surface_pack"] = str(pack)


@pytest.fixture
async def world(connect, echo, base):
    """A client of a server with a pack, models, pictures, and a prompt in each state."""
    make_pack(base)
    write_model(base / "models/checkpoints/m.safetensors", {"format": "pt"})
    write_model(base / "models/embeddings/e.safetensors", {})
    (base / "models/checkpoints/m.png").write_bytes(picture_bytes())
    for name in ("p.png", "evil.svg", "evil.html", "evil.js", "evil.xml", "plain.txt"):
        (base / "input" / name).write_bytes(picture_bytes() if name == "p.png" else b"<a/>")
    (base / "input" / "link.txt").symlink_to("/etc/passwd")
    (base / "output" / "o.png").write_bytes(picture_bytes())
    client = await connect()
    for prompt_id in (DONE, FAILED, STOPPED, WAITING):
        body = {
            "prompt": ECHO,
            "prompt_id": prompt_id,
            "extra_data": {"extra_pnginfo": {"workflow": {"id": "w"}}},
        }
        assert (await client.post("/prompt", json=body)).status == 200
    finish(client, True, [], {"1": {"images": [{"filename": "o.png", "subfolder": "", "type": "output"}]}})
    finish(client, False, [("execution_error", FAILURE)])
    finish(client, False, [("execution_interrupted", {"prompt_id": STOPPED, "node_id": "1"})])
    client.world = base
    yield client
    interruption.interrupt_current_processing(False)


FAILURE = {
    "prompt_id": FAILED,
    "node_id": "1",
    "node_type": "Echo",
    "exception_message": "no",
    "executed": [],
    "exception_type": "ValueError",
    "traceback": ["line"],
    "current_inputs": {},
    "current_outputs": [],
}


def finish(client, success, messages, outputs=None):
    """Take the next prompt and move it to the history, as the worker does."""
    queue = client.prompt_server.prompt_queue
    _, item_id = queue.get(timeout=1)
    start = ("execution_start", {"prompt_id": "x", "timestamp": 1000})
    status = execution.PromptQueue.ExecutionStatus(
        status_str="success" if success else "error",
        completed=success,
        messages=[start, *[(kind, {**data, "timestamp": 2000}) for kind, data in messages]],
    )
    meta = {"1": {"node_id": "1", "display_node": "1", "parent_node": None, "real_node_id": "1"}}
    result = {"outputs": outputs or {}, "meta": meta if outputs else {}}
    queue.task_done(item_id, result, status=status, process_item=without_sensitive)


async def differences(client, table, prefixes=("", "/api")):
    """A sentence for each request of the table that is answered otherwise."""
    found = []
    for method, path, request, status, kind, shape in table:
        for prefix in prefixes:
            fields = {key: value() if callable(value) else value for key, value in (request or {}).items()}
            url = URL(f"http://127.0.0.1:{client.port}{prefix}{path}", encoded=True)
            answer = await client.session.request(method, url, allow_redirects=False, **fields)
            body = await answer.read()
            got = answer.headers.get("Content-Type", "").partition(";")[0] or None
            kinds = kind if isinstance(kind, tuple) else (kind,)
            wrong = None
            if answer.status != status:
                wrong = f"status {answer.status} and not {status}: {body[:200]!r}"
            elif got not in kinds and not (got == BYTES and NONE in kinds and not body):
                wrong = f"content type {got} and not {kind}"
            elif shape is not None:
                wrong = misfit(json.loads(body), shape)
            if wrong:
                found.append(f"{method} {prefix}{path} {request or ''}: {wrong}")
    return found


QUEUE_LENGTH = {"exec_info": {"queue_remaining": int, "paused": bool}}
ITEM = [object]
ENTRY = {
    "prompt": [object],
    "outputs": dict,
    "meta": dict,
    "reasons?": dict,
    "status": {"status_str": str, "completed": bool, "messages": [[object]]},
}
ERROR_FIELDS = {
    "node_id": str,
    "node_type": str,
    "exception_message": str,
    "exception_type": str,
    "traceback": [str],
    ...: 0,
}
JOB = {
    "id": str,
    "priority": NUMBER,
    "create_time": NUMBER,
    "outputs_count": int,
    "workflow_id?": str,
    "status": ("pending", "in_progress", "completed", "failed", "cancelled"),
    "previewable_outputs_count": int,
    "execution_start_time?": int,
    "execution_end_time?": int,
    "execution_error?": ERROR_FIELDS,
    "preview_output?": {"filename": str, "subfolder": str, "type": str, "nodeId": str, "mediaType": str},
}
PAGE = {"offset": int, "limit": (int, type(None)), "total": int, "has_more": bool}
JOBS = {"jobs": [JOB], "pagination": PAGE}
ERROR = {"error": str}
DETAIL = {
    **JOB,
    "outputs?": dict,
    "execution_status?": dict,
    "workflow?": {"prompt": dict, "extra_data": dict},
}

QUEUE = [
    ("GET", "/prompt", None, 200, JSON, QUEUE_LENGTH),
    ("GET", "/queue", None, 200, JSON, {"queue_running": [ITEM], "queue_pending": [ITEM]}),
    ("GET", "/history", None, 200, JSON, ids(ENTRY, 3)),
    ("GET", "/history?max_items=1", None, 200, JSON, ids(ENTRY)),
    ("GET", "/history?max_items=x", None, 400, PLAIN, None),
    ("GET", f"/history/{DONE}", None, 200, JSON, {DONE: ENTRY}),
    ("GET", "/history/unknown", None, 200, JSON, {}),
    ("POST", "/queue", {"json": {"delete": ["unknown"]}}, 200, NONE, None),
    ("POST", "/history", {"json": {"delete": ["unknown"]}}, 200, NONE, None),
    ("POST", "/interrupt", None, 200, NONE, None),
    ("POST", "/interrupt", {"json": {"prompt_id": "unknown"}}, 200, NONE, None),
    ("POST", "/free", {"json": {"unload_models": True, "free_memory": True}}, 200, NONE, None),
    ("PUT", "/prompt", None, 405, PLAIN, None),
    ("OPTIONS", "/prompt", None, 200, NONE, None),
]
JOB_ROUTES = [
    ("GET", "/api/jobs", None, 200, JSON, JOBS),
    (
        "GET",
        "/api/jobs?status=completed,failed&sort_by=execution_duration&sort_order=asc&limit=2&offset=0",
        None,
        200,
        JSON,
        {"jobs": [{**JOB, "status": ("completed", "failed")}], "pagination": {**PAGE, "limit": 2}},
    ),
    ("GET", "/api/jobs?workflow_id=none", None, 200, JSON, {"jobs": [0], "pagination": {**PAGE, "total": 0}}),
    ("GET", "/api/jobs?status=bad", None, 400, JSON, ERROR),
    ("GET", "/api/jobs?sort_by=bad", None, 400, JSON, ERROR),
    ("GET", "/api/jobs?sort_order=bad", None, 400, JSON, ERROR),
    ("GET", "/api/jobs?limit=0", None, 400, JSON, ERROR),
    ("GET", "/api/jobs?offset=x", None, 400, JSON, ERROR),
    (
        "GET",
        f"/api/jobs/{DONE}",
        None,
        200,
        JSON,
        {**DETAIL, "status": "completed", "outputs": dict, "execution_status": dict},
    ),
    (
        "GET",
        f"/api/jobs/{FAILED}",
        None,
        200,
        JSON,
        {**DETAIL, "status": "failed", "execution_error": ERROR_FIELDS},
    ),
    ("GET", f"/api/jobs/{STOPPED}", None, 200, JSON, {**DETAIL, "status": "cancelled"}),
    ("GET", f"/api/jobs/{WAITING}", None, 200, JSON, {**DETAIL, "status": "pending"}),
    ("GET", "/api/jobs/unknown", None, 404, JSON, {"error": "Job not found"}),
    ("GET", f"/api/jobs/{DONE}/assets", None, 404, (PLAIN, BYTES), None),
    ("POST", f"/api/jobs/{DONE}/cancel", None, 200, JSON, {"cancelled": False}),
    ("POST", "/api/jobs/unknown/cancel", None, 200, JSON, {"cancelled": False}),
    ("POST", "/api/jobs/cancel", {"json": {"job_ids": [DONE]}}, 200, JSON, {"cancelled": False}),
    ("POST", "/api/jobs/cancel", {"json": {"job_ids": "x"}}, 400, JSON, ERROR),
    ("POST", "/api/jobs/cancel", {"json": {"job_ids": [5]}}, 400, JSON, {**ERROR, "invalid_ids": [int]}),
    ("POST", "/api/jobs/cancel", {"data": b"x"}, 400, JSON, ERROR),
]
PROBLEM = {"type": str, "message": str, "details": str, "extra_info": dict}
REFUSAL = {"error": PROBLEM, "node_errors": dict}


def refused(kind, **extra):
    return {
        "error": {**PROBLEM, "type": kind, **({"extra_info": {**extra, ...: 0}} if extra else {})},
        "node_errors": {},
    }


def node_refused(kind, **extra):
    problem = {**PROBLEM, "type": kind, "extra_info": {**extra, ...: 0}}
    errors = ids({"errors": [problem], "dependent_outputs": [str], "class_type": str})
    return {"error": {**PROBLEM, "type": "prompt_outputs_failed_validation"}, "node_errors": errors}


def prompt(graph=ECHO, **fields):
    return {"json": {"prompt": graph, **fields}}


def node(**fields):
    return {"1": {"class_type": "Echo", "inputs": {}, **fields}}


LATENT = {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}}
BAD_VALUES = {"class_type": "EmptyImage", "inputs": {"width": 0, "height": 64, "batch_size": 1, "color": 0}}


def saved(source):
    save = {"class_type": "SaveImage", "inputs": {"filename_prefix": "a", "images": ["2", 0]}}
    return {"1": save, "2": source}


PROMPTS = [
    ("POST", "/prompt", prompt(), 200, JSON, {"prompt_id": str, "number": NUMBER, "node_errors": {}}),
    ("POST", "/prompt", prompt(number=3.5), 200, JSON, {"prompt_id": str, "number": 3.5, "node_errors": {}}),
    ("POST", "/prompt", prompt(partial_execution_targets=["1"]), 200, JSON, {"prompt_id": str, ...: 0}),
    ("POST", "/prompt", {"json": {}}, 400, JSON, refused("no_prompt")),
    ("POST", "/prompt", {"data": b"x"}, 400, JSON, REFUSAL),
    (
        "POST",
        "/prompt",
        prompt(node(class_type="Gone", _meta={"title": "T"})),
        400,
        JSON,
        refused("missing_node_type", node_id="1", class_type="Gone", node_title="T"),
    ),
    ("POST", "/prompt", prompt({"2": LATENT}), 400, JSON, refused("prompt_no_outputs")),
    ("POST", "/prompt", prompt(partial_execution_targets=[]), 400, JSON, refused("prompt_no_outputs")),
    ("POST", "/prompt", prompt(prompt_id=5), 400, JSON, refused("invalid_prompt_id")),
    ("POST", "/prompt", prompt(node()), 400, JSON, node_refused("required_input_missing", input_name="text")),
    (
        "POST",
        "/prompt",
        prompt(node(inputs={"text": ["2"]}) | {"2": LATENT}),
        400,
        JSON,
        node_refused("bad_linked_input", input_name="text", received_value=same(["2"])),
    ),
    (
        "POST",
        "/prompt",
        prompt(node(inputs={"text": ["2", 0]}) | {"2": LATENT}),
        400,
        JSON,
        node_refused(
            "return_type_mismatch", input_name="text", received_type="LATENT", linked_node=same(["2", 0])
        ),
    ),
    (
        "POST",
        "/prompt",
        prompt(saved(BAD_VALUES)),
        400,
        JSON,
        node_refused("value_smaller_than_min", input_name="width", received_value=0),
    ),
    (
        "POST",
        "/prompt",
        prompt(saved({**BAD_VALUES, "inputs": {**BAD_VALUES["inputs"], "width": 99999}})),
        400,
        JSON,
        node_refused("value_bigger_than_max", input_name="width", received_value=99999),
    ),
    (
        "POST",
        "/prompt",
        prompt(saved({**BAD_VALUES, "inputs": {**BAD_VALUES["inputs"], "width": "x"}})),
        400,
        JSON,
        node_refused("invalid_input_type", input_name="width", received_value="x", exception_message=str),
    ),
    (
        "POST",
        "/prompt",
        prompt(node(inputs={"text": ["1", 0]})),
        400,
        JSON,
        node_refused("dependency_cycle", cycle_nodes=[str]),
    ),
]
NODE = {
    "input": dict,
    "input_order": dict,
    "output": list,
    "output_is_list": [bool],
    "output_name": list,
    "name": str,
    "display_name": (str, type(None)),
    "description": str,
    "python_module": str,
    "category": str,
    "output_node": bool,
    "is_input_list": bool,
    "has_intermediate_output": bool,
    ...: 0,
}
DEVICE = {
    "name": str,
    "type": str,
    "index": (int, type(None)),
    "vram_total": int,
    "vram_free": int,
    "torch_vram_total": int,
    "torch_vram_free": int,
}
VERSION = (str, type(None))
SYSTEM = {
    "os": str,
    "ram_total": int,
    "ram_free": int,
    "comfyui_version": str,
    "required_frontend_version": VERSION,
    "installed_templates_version": VERSION,
    "required_templates_version": VERSION,
    "python_version": str,
    "pytorch_version": VERSION,
    "embedded_python": bool,
    "argv": [str],
    "deploy_environment": str,
    "comfy_package_versions": [{"name": str, "installed": VERSION, "required": VERSION}],
}
FLAGS = {
    "supports_preview_metadata": True,
    "max_upload_size": 100 * 1024 * 1024,
    "supports_model_type_tags": bool,
    "extension": {"manager": {"supports_v4": True, ...: 0}},
    "node_replacements": True,
    "assets": False,
    ...: 0,
}
MODEL = {"name": "m.safetensors", "pathIndex": 0, "size": int, "modified": float, "created": float}
SUBGRAPH = {"source": "custom_node", "name": "sub", "info": {"node_pack": "custom_nodes.surface_pack"}}
COVER = "/experiment/models/preview/checkpoints"
INFO = [
    ("GET", "/object_info", None, 200, JSON, ids(NODE)),
    ("GET", "/object_info/Echo", None, 200, JSON, {"Echo": NODE}),
    ("GET", "/object_info/None", None, 200, JSON, {}),
    ("GET", "/system_stats", None, 200, JSON, {"system": SYSTEM, "devices": [DEVICE]}),
    ("GET", "/features", None, 200, JSON, FLAGS),
    ("GET", "/extensions", None, 200, JSON, [str]),
    ("GET", "/embeddings", None, 200, JSON, ["e"]),
    ("GET", "/models", None, 200, JSON, [str]),
    ("GET", "/models/checkpoints", None, 200, JSON, ["m.safetensors"]),
    ("GET", "/models/none", None, 404, PLAIN, None),
    ("GET", "/experiment/models", None, 200, JSON, [{"name": str, "folders": [str], "extensions": [str]}]),
    ("GET", "/experiment/models/checkpoints", None, 200, JSON, [MODEL]),
    ("GET", "/experiment/models/none", None, 404, PLAIN, None),
    ("GET", f"{COVER}/0/m.safetensors", None, 200, "image/webp", None),
    ("GET", f"{COVER}/0/none.safetensors", None, 404, PLAIN, None),
    ("GET", f"{COVER}/9/m.safetensors", None, 404, PLAIN, None),
    ("GET", f"{COVER}/x/m.safetensors", None, 400, PLAIN, None),
    ("GET", f"{COVER}/0/..%2F..%2F..%2Finput%2Fp.png", None, 403, PLAIN, None),
    ("GET", "/view_metadata/checkpoints?filename=m.safetensors", None, 200, JSON, {"format": "pt"}),
    ("GET", "/view_metadata/checkpoints?filename=none.safetensors", None, 404, PLAIN, None),
    ("GET", "/view_metadata/checkpoints?filename=m.png", None, 404, PLAIN, None),
    ("GET", "/view_metadata/checkpoints", None, 404, PLAIN, None),
    ("GET", "/i18n", None, 200, JSON, {"en": {"main?": dict, "hello?": str}, "fr": {"nodeDefs": dict}}),
    ("GET", "/workflow_templates", None, 200, JSON, {"surface_pack": ["one"]}),
    ("GET", "/global_subgraphs", None, 200, JSON, ids(SUBGRAPH)),
    ("GET", "/global_subgraphs/unknown", None, 200, JSON, None),
    ("GET", "/node_replacements", None, 200, JSON, ids([object], 0)),
]
INTERNAL = [
    ("GET", "/internal/files/output", None, 200, JSON, ["o.png [output]"]),
    ("GET", "/internal/files/none", None, 400, JSON, ERROR),
    ("GET", "/internal/folder_paths", None, 200, JSON, ids([str])),
    ("GET", "/internal/logs", None, 200, JSON, str),
    (
        "GET",
        "/internal/logs/raw",
        None,
        200,
        JSON,
        {"entries": [{"t": str, "m": str}], "size": {"cols": int, "rows": int}},
    ),
    ("PATCH", "/internal/logs/subscribe", {"json": {"clientId": "c", "enabled": False}}, 200, NONE, None),
    ("PATCH", "/internal/logs/subscribe", {"json": {}}, 400, PLAIN, None),
    ("GET", "/api/internal/logs", None, 404, (PLAIN, BYTES), None),
]


def form(**fields):
    def make():
        made = aiohttp.FormData()
        for name, value in fields.items():
            extra = {"filename": value[0]} if isinstance(value, tuple) else {}
            made.add_field(name, value[1] if extra else value, **extra)
        return made

    return {"data": make}


REFERENCE = json.dumps({"filename": "p.png", "type": "input", "subfolder": ""})
PICTURE = picture_bytes()
STORED = {"name": "u.png", "subfolder": "", "type": "input"}
FILES = [
    ("POST", "/upload/image", form(image=("u.png", PICTURE)), 200, JSON, STORED),
    (
        "POST",
        "/upload/image",
        form(image=("u.png", PICTURE), type="temp", subfolder="s", overwrite="true"),
        200,
        JSON,
        {"name": "u.png", "subfolder": "s", "type": "temp"},
    ),
    ("POST", "/upload/image", form(image=("u.png", PICTURE), type="bad"), 400, PLAIN, None),
    ("POST", "/upload/image", form(image=("u.png", PICTURE), subfolder="../.."), 400, PLAIN, None),
    ("POST", "/upload/image", form(image=("", PICTURE)), 400, PLAIN, None),
    ("POST", "/upload/image", form(other="x"), 400, PLAIN, None),
    ("POST", "/upload/image", {"json": {}}, 400, PLAIN, None),
    (
        "POST",
        "/upload/mask",
        form(image=("k.png", PICTURE), original_ref=REFERENCE, subfolder="clipspace"),
        200,
        JSON,
        {"name": str, "subfolder": "clipspace", "type": "input"},
    ),
    ("POST", "/upload/mask", form(image=("k.png", PICTURE)), 400, PLAIN, None),
    ("POST", "/upload/mask", form(image=("k.png", b"no"), original_ref=REFERENCE), 400, PLAIN, None),
    ("GET", "/view?filename=o.png", None, 200, "image/png", None),
    ("GET", "/view?filename=p.png&type=input", None, 200, "image/png", None),
    ("GET", "/view?filename=p.png%20[input]", None, 200, "image/png", None),
    ("GET", "/view?filename=p.png&type=input&preview=webp;80", None, 200, "image/webp", None),
    ("GET", "/view?filename=p.png&type=input&preview=jpeg;80", None, 200, "image/jpeg", None),
    ("GET", "/view?filename=p.png&type=input&channel=rgb", None, 200, "image/png", None),
    ("GET", "/view?filename=p.png&type=input&channel=a", None, 200, "image/png", None),
    ("GET", "/view?filename=p.png&type=input", {"headers": {"Range": "bytes=0-3"}}, 206, "image/png", None),
    ("HEAD", "/view?filename=p.png&type=input", None, 200, "image/png", None),
    ("GET", "/view", None, 404, PLAIN, None),
    ("GET", "/view?filename=none.png", None, 404, PLAIN, None),
    ("GET", "/view?filename=/etc/passwd", None, 400, PLAIN, None),
    ("GET", "/view?filename=../p.png", None, 400, PLAIN, None),
    ("GET", "/view?filename=p.png&type=bad", None, 400, PLAIN, None),
    ("GET", "/view?filename=p.png&subfolder=../..&type=input", None, 403, PLAIN, None),
    ("GET", "/view?filename=link.txt&type=input", None, 403, PLAIN, None),
    ("GET", "/view?filename=plain.txt&type=input&preview=webp", None, 400, PLAIN, None),
    ("GET", f"/view?filename=blake3:{'0' * 64}", None, 404, PLAIN, None),  # there are no assets
]
INFO_OF_FILE = {"path": str, "size": int, "modified": int, "created": int}
USER_FILES = [
    ("POST", "/userdata/a.json", {"data": b"{}"}, 200, JSON, "a.json"),
    (
        "POST",
        "/userdata/w%2Fb.json?full_info=true",
        {"data": b"{}"},
        200,
        JSON,
        {**INFO_OF_FILE, "path": "w/b.json"},
    ),
    ("POST", "/userdata/a.json?overwrite=false", {"data": b"{}"}, 409, PLAIN, None),
    ("POST", "/userdata/..%2F..%2Fx", {"data": b""}, 403, PLAIN, None),
    ("POST", "/userdata/w", {"data": b""}, 400, PLAIN, None),
    ("GET", "/userdata/a.json", None, 200, JSON, {}),
    ("GET", "/userdata/none.json", None, 404, PLAIN, None),
    ("GET", "/userdata/..%2F..%2Finput%2Fp.png", None, 403, PLAIN, None),
    ("GET", "/userdata?dir=w", None, 200, JSON, ["b.json"]),
    ("GET", "/userdata?dir=.&recurse=true&split=true", None, 200, JSON, [[str]]),
    ("GET", "/userdata?dir=w&full_info=true", None, 200, JSON, [INFO_OF_FILE]),
    ("GET", "/userdata", None, 400, PLAIN, None),
    ("GET", "/userdata?dir=none", None, 404, PLAIN, None),
    ("GET", "/userdata?dir=..", None, 403, PLAIN, None),
    (
        "GET",
        "/v2/userdata",
        None,
        200,
        JSON,
        [{"name": str, "path": str, "type": ("file", "directory"), "size?": int, "modified?": float}],
    ),
    ("GET", "/v2/userdata?path=none", None, 404, PLAIN, None),
    ("GET", "/v2/userdata?path=..", None, 400, PLAIN, None),
    ("POST", "/userdata/a.json/move/c.json", None, 200, JSON, "c.json"),
    ("POST", "/userdata/none/move/c.json", None, 404, PLAIN, None),
    ("POST", "/userdata/c.json/move/w%2Fb.json?overwrite=false", None, 409, PLAIN, None),
    ("DELETE", "/userdata/c.json", None, 204, NONE, None),
    ("DELETE", "/userdata/c.json", None, 404, PLAIN, None),
]
USERS = [
    ("GET", "/users", None, 200, JSON, {"storage": "server", "migrated": bool}),
    ("POST", "/settings", {"json": {"A.b": 1}}, 200, NONE, None),
    ("POST", "/settings/X.y", {"data": b'"v"'}, 200, NONE, None),
    ("GET", "/settings", None, 200, JSON, {"A.b": 1, "X.y": "v", ...: 0}),
    ("GET", "/settings/X.y", None, 200, JSON, "v"),
    ("GET", "/settings/none", None, 200, JSON, type(None)),
    ("POST", "/settings", {"data": b"x"}, 400, PLAIN, None),
    ("POST", "/settings/X.y", {"data": b"x"}, 400, PLAIN, None),
]
DISABLED = {"error": {"code": "SERVICE_DISABLED", "message": str, "details": dict}}
UUID = "00000000-0000-4000-8000-000000000000"
ASSETS = [
    (method, path, None, 503, JSON, None if method == "HEAD" else DISABLED)
    for method, path in (
        ("GET", "/api/assets"),
        ("POST", "/api/assets"),
        ("POST", "/api/assets/from-hash"),
        ("HEAD", "/api/assets/hash/x"),
        ("GET", f"/api/assets/{UUID}"),
        ("PUT", f"/api/assets/{UUID}"),
        ("DELETE", f"/api/assets/{UUID}"),
        ("GET", f"/api/assets/{UUID}/content"),
        ("POST", f"/api/assets/{UUID}/tags"),
        ("DELETE", f"/api/assets/{UUID}/tags"),
        ("GET", "/api/tags"),
        ("GET", "/api/assets/tags/refine"),
        ("POST", "/api/assets/seed"),
        ("GET", "/api/assets/seed/status"),
        ("POST", "/api/assets/seed/cancel"),
        ("POST", "/api/assets/prune"),
    )
]
STATIC = [
    ("GET", "/", None, 200, "text/html", None),
    ("GET", "/index.html", None, 200, "text/html", None),
    ("GET", "/scripts/app.js", None, 200, ("text/javascript", "application/javascript"), None),
    (
        "GET",
        "/extensions/surface_pack/js/a.js",
        None,
        200,
        ("text/javascript", "application/javascript"),
        None,
    ),
    ("GET", "/extensions/surface_pack/..%2F..%2Fsubgraphs%2Fsub.json", None, 404, PLAIN, None),
    ("GET", "/api/workflow_templates/surface_pack/one.json", None, 200, JSON, {}),
    ("GET", "/api/workflow_templates/surface_pack/none.json", None, 404, PLAIN, None),
    ("GET", "/templates/index.json", None, 200, JSON, [dict]),
    ("GET", "/templates/none.json", None, 404, PLAIN, None),
    ("GET", "/docs/Echo/en.md", None, 200, "text/markdown", None),
    ("GET", "/jobs", None, 404, (PLAIN, BYTES), None),
    ("GET", "/ws", None, 400, PLAIN, None),
]


@pytest.mark.parametrize(
    ("table", "prefixes"),
    [
        (QUEUE, ("", "/api")),
        (JOB_ROUTES, ("", "/api")),
        (PROMPTS, ("", "/api")),
        (INFO, ("", "/api")),
        (INTERNAL, ("",)),
        (FILES, ("", "/api")),
        (USERS, ("", "/api")),
        (ASSETS, ("",)),
        (STATIC, ("",)),
        (USER_FILES, ("",)),
        (USER_FILES, ("/api",)),
    ],
    ids=[
        "queue",
        "jobs",
        "prompts",
        "info",
        "internal",
        "files",
        "users",
        "assets",
        "static",
        "user-files",
        "user-files-api",
    ],
)
async def test_every_request_is_answered_as_agreed(world, table, prefixes):
    assert await differences(world, table, prefixes) == []


async def test_a_subgraph_comes_with_its_workflow_as_text(world):
    (subgraph_id,) = await (await world.get("/global_subgraphs")).json()
    subgraph = await (await world.get(f"/api/global_subgraphs/{subgraph_id}")).json()
    assert misfit(subgraph, {**SUBGRAPH, "data": '{"nodes": []}'}) is None


async def test_cancelling_what_waits_is_true_once(world):
    first = await (await world.post(f"/api/jobs/{WAITING}/cancel")).json()
    assert (first, await (await world.post(f"/api/jobs/{WAITING}/cancel")).json()) == (
        {"cancelled": True},
        {"cancelled": False},
    )


SAFE = {"X-Content-Type-Options": "nosniff"}
DOWNLOAD = {**SAFE, "Content-Type": BYTES, "Vary": "Sec-Fetch-Dest", "Cache-Control": "no-store"}
HEADERS = [
    ("/view?filename=p.png&type=input", {}, {**SAFE, "Content-Disposition": 'filename="p.png"'}),
    ("/view?filename=p.png&type=input&preview=webp", {}, SAFE),
    *[
        (
            f"/view?filename=evil.{end}&type=input",
            {},
            {**DOWNLOAD, "Content-Disposition": f'attachment; filename="evil.{end}"'},
        )
        for end in ("svg", "html", "js", "xml")
    ],
    (
        "/view?filename=evil.svg&type=input",
        {"Sec-Fetch-Dest": "image"},
        {**SAFE, "Content-Type": "image/svg+xml", "Vary": "Sec-Fetch-Dest", "Cache-Control": "no-store"},
    ),
    ("/view?filename=evil.html&type=input", {"Sec-Fetch-Dest": "image"}, DOWNLOAD),
    ("/userdata/x.html", {}, {**SAFE, "Content-Type": BYTES, "Content-Disposition": "attachment"}),
    ("/userdata/user.css", {}, {**SAFE, "Content-Type": "text/css", "Content-Disposition": "inline"}),
    ("/scripts/app.js", {}, {"Cache-Control": "no-store"}),
    ("/templates/index.json", {}, {"Cache-Control": "no-store"}),
    ("/templates/index_logo.json", {}, {"Cache-Control": "no-store"}),
    ("/none.js", {}, {"Cache-Control": "no-store"}),
    ("/none.png", {}, {"Cache-Control": "public, max-age=3600"}),
    ("/extensions/surface_pack/a.png", {}, {"Cache-Control": "public, max-age=86400"}),
    ("/", {}, {"Cache-Control": "no-store, must-revalidate"}),
]


async def test_headers_that_keep_browsers_safe_and_fresh(world):
    (world.world / "custom_nodes/surface_pack/web/a.png").write_bytes(PICTURE)
    for name in ("x.html", "user.css"):
        await world.post(f"/userdata/{name}", data=b"a")
    wrong = []
    for path, sent, expected in HEADERS:
        answer = await world.get(URL(path, encoded=True), headers=sent)
        wrong += [
            f"{path}: {name} is {answer.headers.get(name)}"
            for name, value in expected.items()
            if answer.headers.get(name) != value
        ]
    assert wrong == []


UNKNOWN = [
    ("GET", "/settings", 401),
    ("GET", "/settings/a", 401),
    ("POST", "/settings", 401),
    ("POST", "/settings/a", 401),
    ("GET", "/userdata?dir=w", 403),
    ("GET", "/v2/userdata", 403),
    ("GET", "/userdata/a", 403),
    ("POST", "/userdata/a", 403),
    ("DELETE", "/userdata/a", 403),
    ("POST", "/userdata/a/move/b", 403),
]


async def test_with_several_users_strangers_are_refused(connect):
    client = await connect(multi_user=True)
    user = await (await client.post("/api/users", json={"username": "Ann"})).json()
    assert (
        misfit(await (await client.get("/users")).json(), {"storage": "server", "users": {user: "Ann"}})
        is None
    )
    got = [
        (method, path, (await client.request(method, path, json={}, headers={"Comfy-User": "eve"})).status)
        for method, path, _ in UNKNOWN
    ]
    assert got == UNKNOWN
    assert (await client.get("/settings", headers={"Comfy-User": user})).status == 200


MESSAGES = {
    "status": {"status": QUEUE_LENGTH, "sid?": str},
    "feature_flags": FLAGS,
}


async def test_a_line_begins_with_the_queue_and_the_flags(client):
    for path in ("/ws", "/api/ws"):
        async with client.ws_connect(f"{path}?clientId=me") as socket:
            await socket.send_json({"type": "feature_flags", "data": {"supports_preview_metadata": True}})
            told = [await socket.receive_json(timeout=5) for _ in MESSAGES]
        assert [message["type"] for message in told] == list(MESSAGES)
        assert [misfit(message["data"], MESSAGES[message["type"]]) for message in told] == [None, None]
        assert told[0]["data"]["sid"] == "me"


async def test_flags_of_the_command_line_are_told(connect):
    client = await connect(feature_flag=["show_signin_button=true", "mine=5", "bare"])
    flags = await (await client.get("/features")).json()
    assert (flags["show_signin_button"], flags["mine"], flags["bare"]) == (True, "5", "true")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """(key file, certificate file) for localhost, made now."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes the certificate, is not installed")
    folder = tmp_path_factory.mktemp("tls")
    key, made = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "1",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost",
            "-keyout",
            key,
            "-out",
            made,
        ],
        check=True,
        capture_output=True,
    )
    return key, made


async def test_the_server_speaks_https_with_its_certificate(base, certificate, unused_tcp_port):
    import asyncio

    from server import PromptServer

    args.tls_keyfile, args.tls_certfile = map(str, certificate)
    server = PromptServer(asyncio.get_running_loop())
    server.add_routes()
    told = []
    await server.start_multi_address(
        [("127.0.0.1", unused_tcp_port)], lambda *place: told.append(place), verbose=False
    )
    trusting = ssl.create_default_context(cafile=certificate[1])
    async with aiohttp.ClientSession() as session:
        url = f"https://localhost:{unused_tcp_port}"
        async with session.get(f"{url}/features", ssl=trusting) as answer:
            assert (answer.status, answer.url.scheme) == (200, "https")
        async with session.ws_connect(f"{url.replace('https', 'wss')}/ws", ssl=trusting) as socket:
            assert (await socket.receive_json())["type"] == "status"
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await session.get(f"{url}/features")  # nobody vouches for it
        with pytest.raises(aiohttp.ClientError):
            await session.get(url.replace("https", "http"))
    assert told == [("https", "127.0.0.1", unused_tcp_port)]


def test_every_route_of_the_description_is_in_the_tables():
    """A route that is new has to be put down here too, or belongs to the depot."""
    from app import openapi

    paths = {
        row[1].partition("?")[0]
        for table in (QUEUE, JOB_ROUTES, PROMPTS, INFO, INTERNAL, FILES, USERS, ASSETS, STATIC, USER_FILES)
        for row in table
    }

    def is_called(path):
        parts = openapi.template_of(path).split("/")
        return any(
            len(parts) == len(called := one.split("/"))
            and all("{" in part or part == other for part, other in zip(parts, called, strict=True))
            for one in paths
        )

    own = [key.split(" ", 1)[1] for key in openapi.tables()]
    tested_elsewhere = ("/depot/", "/tasks/", "/assets/download", "/openapi.json", "/api/v2/", "/v2/")
    silent = [
        path
        for path in own
        if not path.startswith(tested_elsewhere)
        and "{path" not in path
        and "{filename" not in path
        and "{tail" not in path
        and not is_called(path)
    ]
    assert silent == []


@pytest.mark.parametrize(
    ("value", "shape"),
    [
        (True, int),
        (1, str),
        ({}, {"a": int}),
        ({"a": 1, "b": 2}, {"a": int}),
        ([1, "x"], [int]),
        ({"x": 1}, ids(str)),
        ({}, ids(str)),
        ("a", ("b", "c")),
        (["2", 1], same(["2", 0])),
        ({"a": {"b": None}}, {"a": {"b": str}}),
        (None, {"a": int}),
    ],
)
def test_what_has_another_shape_is_noticed(value, shape):
    assert misfit(value, shape) is not None
