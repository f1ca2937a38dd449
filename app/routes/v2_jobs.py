"""`/api/v2/jobs`: the official SDK's way to run a workflow. A job is a prompt of the queue under its id."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import uuid
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from app import v2_shapes
from app.routes import answer, prompt
from app.routes.queue import cancel
from app.routes.v2_answers import (
    V2Error,
    bad_request,
    base_of,
    not_found,
    read_body,
    register_v2,
    unusable,
)
from comfy_execution.jobs import Job, Wish, get_job, normalize_outputs

KEY_SPACE = uuid.UUID("5b0b8d0e-6f0e-5d0a-9a51-2f1b6c6c8a41")
LONGEST_KEY = 255
MOST_PRIORITY = 1_000_000
MOST_JOBS, USUAL_JOBS = 100, 50
MOST_LABELS, LONGEST_LABEL_NAME, LONGEST_LABEL, LONGEST_TEXT = 16, 64, 512, 1024
FIELDS = frozenset({"workflow", "extra_data", "metadata", "priority", "webhook", "timeout_seconds"})
TOKEN = "api_key_comfy_org"
QUEUE_STATUS = {shown: own for own, shown in v2_shapes.STATUS.items()}
CODES = {"input_not_fetched": "input_not_fetched", "invalid_webhook": "invalid_webhook",
         "invalid_priority": "invalid_request", "invalid_timeout_seconds": "invalid_request"}
_locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()


@dataclass(frozen=True)
class Found:
    """A job that is known: as `/api/jobs` has it, its queue item, its place among those that wait."""

    job: Job
    item: tuple[Any, ...]
    position: int | None = None

    @property
    def own(self) -> Mapping[str, Any]:
        """What this interface has written into its extra data."""
        return v2_shapes.own_fields(self.item[3])


def find(server: Any, job_id: str) -> Found | None:
    """A job that waits, runs or has ended."""
    running, waiting = server.prompt_queue.get_current_queue_volatile()
    history = server.prompt_queue.get_history(prompt_id=job_id)  # second: jobs move from there to here
    job = get_job(job_id, running, waiting, history)
    if job is None:
        return None
    if job_id in history:
        return Found(job, tuple(history[job_id]["prompt"]))
    item = next(item for item in (*running, *waiting) if item[1] == job_id)
    place = next((place for place, one in enumerate(waiting, 1) if one is item), None)
    return Found(job, tuple(item[:5]), place)


def find_or_refuse(server: Any, request: web.Request) -> Found:
    """The job that a path names; 404 for none."""
    job_id = request.match_info["job_id"]
    found = find(server, job_id)
    if found is None:
        raise not_found(f"There is no job {job_id[:200]!r}.")
    return found


def status_of(server: Any, found: Found) -> str:
    """The state of a job."""
    status = v2_shapes.STATUS[found.job["status"]]
    log = server.job_logs.get(found.job["id"])
    return "canceling" if status == "running" and log is not None and log.is_canceling else status


def described(server: Any, found: Found, base: str) -> dict[str, Any]:
    """A job as clients see it now."""
    log, progress, outputs = server.job_logs.get(found.job["id"]), None, None
    if found.job["status"] == "in_progress":
        nothing = {"value": 0.0, "nodes_done": 0, "nodes_total": len(found.item[2])}
        progress = nothing if log is None else log.progress()
        outputs = {} if log is None else log.outputs
    return v2_shapes.describe_job(
        found.job, found.item[3], base, status=status_of(server, found), position=found.position,
        progress=progress, outputs=outputs,
    )


# -- submitting --------------------------------------------------------------------------------------------


def read_labels(metadata: Any) -> Any:
    """The labels of a job: up to 16 texts by name, or one text."""
    if isinstance(metadata, str):
        if len(metadata.encode("utf-8", "replace")) > LONGEST_TEXT:
            raise unusable(f"metadata has more than {LONGEST_TEXT} bytes.", "metadata_invalid")
        return metadata
    if not isinstance(metadata, dict):
        raise unusable("metadata must be an object of texts, or a text.", "metadata_invalid")
    if len(metadata) > MOST_LABELS:
        raise unusable(f"metadata has {len(metadata)} entries; {MOST_LABELS} may be.", "metadata_invalid")
    for name, text in metadata.items():
        if not 0 < len(name) <= LONGEST_LABEL_NAME or not isinstance(text, str) or len(text) > LONGEST_LABEL:
            raise unusable(
                f"metadata {name[:LONGEST_LABEL_NAME]!r}: names have 1 to {LONGEST_LABEL_NAME} characters, "
                f"values are texts of at most {LONGEST_LABEL}.", "metadata_invalid",
            )
    return metadata


def read_tokens(extra_data: Any) -> dict[str, Any]:
    """The one thing that a request may bring beside its workflow: the key for paid nodes."""
    if not isinstance(extra_data, dict) or set(extra_data) - {TOKEN}:
        raise bad_request(f"extra_data takes the field {TOKEN} only.")
    if any(not isinstance(value, str) for value in extra_data.values()):
        raise bad_request(f"extra_data.{TOKEN} must be a text.")
    return extra_data


def read_key(request: web.Request) -> str | None:
    """The request's Idempotency-Key."""
    key = request.headers.get("Idempotency-Key")
    if key is not None and not (0 < len(key) <= LONGEST_KEY and key.isascii() and key.isprintable()):
        raise bad_request(f"Idempotency-Key must have 1 to {LONGEST_KEY} printable ASCII characters.")
    return key


def read_job(body: Mapping[str, Any]) -> dict[str, Any]:
    """The body for POST /prompt that a job's body means."""
    if unknown := sorted(set(body) - FIELDS):
        advice = ' Send "webhook" to be called.' if "webhook_url" in unknown else ""
        raise unusable(f"A job has no field {unknown[0][:80]!r}.{advice}", "invalid_workflow")
    workflow, priority = body.get("workflow"), body.get("priority")
    if not isinstance(workflow, dict):
        raise unusable("workflow must be a graph in API format.", "invalid_workflow")
    if priority is not None:
        is_whole = isinstance(priority, int) and not isinstance(priority, bool)
        if not is_whole or abs(priority) > MOST_PRIORITY:
            raise unusable(f"priority must be a whole number from -{MOST_PRIORITY} to {MOST_PRIORITY}.")
    own: dict[str, Any] = {}
    if body.get("metadata") is not None:
        own["metadata"] = read_labels(body["metadata"])
    tokens = {} if body.get("extra_data") is None else read_tokens(body["extra_data"])
    passed = {name: body[name] for name in ("webhook", "timeout_seconds") if body.get(name) is not None}
    return {
        **passed, "prompt": workflow, "priority": priority,
        "extra_data": {**tokens, v2_shapes.EXTRA_FIELD: own},
    }


def digest_of(body: Mapping[str, Any]) -> str:
    """What tells one request from another; without the token, which is never written down."""
    told = {**body, "extra_data": None}
    return hashlib.blake2b(json.dumps(told, sort_keys=True).encode(), digest_size=16).hexdigest()


def references(graph: Any) -> Iterator[tuple[Any, Any, dict[str, Any]]]:
    """(container, place, reference) of everything in a graph that stands for an asset."""
    containers = [graph]
    while containers:
        container = containers.pop()
        entries = container.items() if isinstance(container, dict) else enumerate(container)
        for place, value in list(entries):
            if isinstance(value, dict) and value.get("__type") == "core/ASSET":
                yield container, place, value
            elif isinstance(value, (dict, list)):
                containers.append(value)


def input_name(server: Any, reference: Mapping[str, Any]) -> str | None:
    """What a loader node is given for a reference; None when there is no such file."""
    info = reference.get("info")
    if not isinstance(info, dict):
        return None
    asset_id, content_hash = info.get("id"), info.get("hash")
    if isinstance(asset_id, str):
        asset = server.asset_index.get(asset_id)
        if asset is not None:
            return asset.name if asset.is_there else None
        item = output_item(server, asset_id)
        if v2_shapes.file_of(item) is not None:
            return v2_shapes.annotated_name(item)
    if isinstance(content_hash, str) and (asset := server.asset_index.by_hash(content_hash)) is not None:
        return str(asset.name)
    return None


def output_item(server: Any, asset_id: str) -> Any:
    """What a node of a job has shown, by the id of the output; None when there is nothing."""
    ref = v2_shapes.output_ref(asset_id)
    if ref is None:
        return None
    history = server.prompt_queue.get_history(prompt_id=ref.job_id)
    if ref.job_id in history:
        outputs = normalize_outputs(history[ref.job_id].get("outputs") or {})  # as they are listed
        return v2_shapes.item_of(ref, outputs)
    log = server.job_logs.get(ref.job_id)
    return None if log is None else v2_shapes.item_of(ref, log.outputs)


def put_assets_in(server: Any, graph: dict[str, Any]) -> None:
    """Replace references to assets by the names of their files. 422 `missing_asset` for those gone."""
    missing = []
    for container, place, reference in references(graph):
        name = input_name(server, reference)
        if name is None:
            info = reference.get("info")
            missing.append(str(info.get("id"))[:200] if isinstance(info, dict) else "one without info")
        else:
            container[place] = name
    if missing:
        raise unusable(
            f"The workflow names assets that are not there: {', '.join(missing[:10])}. Upload them again.",
            "missing_asset", missing_ids=missing,
        )


def refused(status: int, body: Mapping[str, Any]) -> V2Error:
    """The error that a refusal of POST /prompt means here."""
    error = body.get("error") or {}
    kind, message = str(error.get("type")), str(error.get("message"))
    details = error.get("details")
    if details and details != message:
        message = f"{message}: {details}"
    if kind == "queue_full":
        return V2Error(429, kind, message, retry_after=error["extra_info"]["retry_after"])
    if status != 400:
        return V2Error(status, kind, message)
    return unusable(message, CODES.get(kind, "invalid_workflow"), node_errors=body.get("node_errors") or {})


def lock_of(job_id: str) -> asyncio.Lock:
    """One request per id at a time, so that two with one key do not both make the job."""
    lock = _locks.get(job_id)
    if lock is None:
        lock = _locks[job_id] = asyncio.Lock()
    return lock


async def post_job(server: Any, request: web.Request) -> web.Response:
    body, key = await read_body(request), read_key(request)
    wanted = read_job(body)
    try:
        digest = digest_of(body)
    except RecursionError:
        raise bad_request("The request's body is nested too deeply.") from None
    job_id = str(uuid.uuid4())
    if key is not None:  # the id is made of the key: who sends it again, after a restart too, finds the job
        job_id = str(uuid.uuid5(KEY_SPACE, f"{prompt.user_of(server, request)}\n{key}"))
    async with lock_of(job_id):
        if (known := find(server, job_id)) is not None:
            return replayed(server, known, digest, base_of(request))
        wanted["extra_data"][v2_shapes.EXTRA_FIELD]["request"] = digest
        return await submit(server, request, {**wanted, "prompt_id": job_id, "client_id": job_id})


def replayed(server: Any, known: Found, digest: str, base: str) -> web.Response:
    """The job that this key has made before; 422 when it was another request."""
    if known.own.get("request") != digest:
        raise unusable(
            "This Idempotency-Key was sent before with another request. Choose a new key for a new job.",
            "idempotency_key_reuse", job_id=known.job["id"],
        )
    response = answer(described(server, known, base), status=201)
    response.headers["Idempotent-Replayed"] = "true"
    return response


async def submit(server: Any, request: web.Request, body: dict[str, Any]) -> web.Response:
    """Queue a job; 201 with the job."""
    put_assets_in(server, body["prompt"])
    job_id = body["prompt_id"]
    log = server.job_logs.begin(job_id, len(body["prompt"]))
    response = await prompt.submit(server, request, body)
    if response.status != 200:
        server.job_logs.forget(job_id)
        raise refused(response.status, json.loads(response.text or "{}"))
    found = find(server, job_id)
    if found is None:  # cancelled in the same moment
        raise not_found(f"The job {job_id} was cancelled before it could be shown.")
    log.nodes_total = len(found.item[2])
    return answer(described(server, found, base_of(request)), status=201)


# -- looking -----------------------------------------------------------------------------------------------


def page_size(text: str | None) -> int:
    """The query's `limit`."""
    size = int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 6 else 0
    if text is None:
        return USUAL_JOBS
    if not 1 <= size <= MOST_JOBS:
        raise bad_request(f"limit must be a whole number from 1 to {MOST_JOBS}.")
    return size


def wanted_statuses(text: str | None) -> frozenset[str] | None:
    """The query's `status`, as the queue calls them; None for all."""
    words = [word.strip() for word in (text or "").split(",") if word.strip()]
    if unknown := [word for word in words if word not in v2_shapes.STATUSES]:
        raise bad_request(f"There is no status {unknown[0][:80]!r}: {', '.join(v2_shapes.STATUSES)}.")
    own = {"in_progress" if word == "canceling" else QUEUE_STATUS.get(word, "none") for word in words}
    return frozenset(own) or None


def wanted_labels(query: Any) -> dict[str, str]:
    """The query's `metadata[name]=text`, all of which a job must have."""
    return {
        name[len("metadata[") : -1]: text
        for name, text in query.items()
        if name.startswith("metadata[") and name.endswith("]")
    }


def rank(job: Mapping[str, Any]) -> tuple[float, str]:
    """Newest first, by time and id: a place that no job before or behind it moves."""
    return float(job.get("create_time") or 0), str(job["id"])


def cursor_after(job: Mapping[str, Any]) -> str:
    """What a client sends to go on behind this job."""
    return base64.urlsafe_b64encode(json.dumps(rank(job)).encode()).decode()


def read_cursor(text: str) -> tuple[float, str]:
    """The place that a cursor names."""
    try:
        moment, job_id = json.loads(base64.urlsafe_b64decode(text))
        return float(moment), str(job_id)
    except (ValueError, TypeError):
        raise bad_request("cursor must be the next_cursor of an answer.") from None


async def get_jobs(server: Any, request: web.Request) -> web.Response:
    query = request.query
    size, labels = page_size(query.get("limit")), wanted_labels(query)
    wish = Wish(statuses=wanted_statuses(query.get("status")))
    behind = read_cursor(query["cursor"]) if query.get("cursor") else None

    def look() -> list[Job]:
        jobs, _ = server.prompt_queue.jobs_page(wish)
        return sorted((job for job in jobs if has_labels(job, labels)), key=rank, reverse=True)

    jobs = await asyncio.to_thread(look)
    left = [job for job in jobs if behind is None or rank(job) < behind]
    body: dict[str, Any] = {"jobs": [summary(server, job, base_of(request)) for job in left[:size]]}
    if len(left) > size:
        body["next_cursor"] = cursor_after(left[size - 1])
    return answer(body)


def has_labels(job: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Does a job carry all of these?"""
    own = job.get("metadata")
    return not labels or isinstance(own, dict) and all(own.get(name) == text for name, text in labels.items())


def summary(server: Any, job: Job, base: str) -> dict[str, Any]:
    """A job of the list."""
    shown = v2_shapes.describe_summary(job, base)
    log = server.job_logs.get(job["id"])
    is_canceling = shown["status"] == "running" and log is not None and log.is_canceling
    return {**shown, "status": "canceling"} if is_canceling else shown


async def get_one_job(server: Any, request: web.Request) -> web.Response:
    return answer(described(server, find_or_refuse(server, request), base_of(request)))


async def get_workflow(server: Any, request: web.Request) -> web.Response:
    """The graph that ran, with files in the place of assets."""
    return answer({"workflow": find_or_refuse(server, request).item[2], "format": "api"})


async def post_cancel(server: Any, request: web.Request) -> web.Response:
    """Ask a job to stop; one that has ended stays as it is."""
    found = find_or_refuse(server, request)
    job_id = found.job["id"]
    if found.job["status"] in ("pending", "in_progress"):
        server.job_logs.follow(job_id, len(found.item[2]))
        if cancel(server, job_id):
            server.job_logs.canceling(job_id)
    after = find(server, job_id)
    if after is None:  # a prompt of another interface: it leaves nothing behind
        return answer({**described(server, found, base_of(request)), "status": "canceled"})
    return answer(described(server, after, base_of(request)))


async def get_health(server: Any, request: web.Request) -> web.Response:
    return answer({"status": "healthy"})


def add_routes(routes: web.RouteTableDef, server: Any) -> None:
    """Routes of the jobs; their events are in `v2_events`."""
    register_v2(
        routes,
        server,
        [
            ("GET", "/api/v2/health", get_health),
            ("POST", "/api/v2/jobs", post_job),
            ("GET", "/api/v2/jobs", get_jobs),
            ("GET", "/api/v2/jobs/{job_id}", get_one_job),
            ("GET", "/api/v2/jobs/{job_id}/workflow", get_workflow),
            ("POST", "/api/v2/jobs/{job_id}/cancel", post_cancel),
        ],
    )
