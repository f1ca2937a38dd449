"""The shapes of the v2 interface (`/api/v2`): jobs, outputs, links, states. Pure functions on jobs as
`comfy_execution.jobs` describes them.
"""

from __future__ import annotations

import base64
import binascii
import json
import mimetypes
import os
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple
from urllib.parse import quote

import folder_paths
from app.safe_paths import inside

STATUS = {
    "pending": "queued", "in_progress": "running", "completed": "succeeded", "failed": "failed",
    "cancelled": "canceled",
}  # fmt: skip
STATUSES = ("queued", "running", "succeeded", "canceling", "canceled", "failed", "expired")
TERMINAL = frozenset({"succeeded", "canceled", "failed", "expired"})
EXTRA_FIELD = "comfy_api_v2"
"""Where a job keeps its labels and the digest of its request, in the extra data of its prompt."""
KEPT = timedelta(days=365)
"""Jobs are kept by number (--history-size) and not by time; clients want a date all the same."""
_OUTPUT = "out_"
_KINDS = {"images": "image", "gifs": "video", "video": "video", "audio": "audio", "text": "text",
          "latents": "latent"}


class OutputRef(NamedTuple):
    """One thing that a node of a job showed."""

    job_id: str
    node_id: str
    key: str
    index: int


def moment(milliseconds: Any) -> str | None:
    """A time of the queue as ISO text; None for none."""
    if not isinstance(milliseconds, (int, float)) or isinstance(milliseconds, bool):
        return None
    try:
        return datetime.fromtimestamp(milliseconds / 1000, timezone.utc).isoformat()
    except (OverflowError, OSError, ValueError):
        return None


def kept_until(now: datetime | None = None) -> str:
    """When a link or a job may be gone."""
    return ((now or datetime.now(timezone.utc)) + KEPT).isoformat()


def links(job_id: str, base: str) -> dict[str, str]:
    """Where to go on from a job."""
    here = f"{base}/api/v2/jobs/{quote(job_id, safe='')}"
    return {"self": here, "events": f"{here}/events", "cancel": f"{here}/cancel"}


def content_url(asset_id: str, base: str) -> str:
    """Where the bytes of an asset are."""
    return f"{base}/api/v2/assets/{asset_id}/content"


# -- outputs -----------------------------------------------------------------------------------------------


def output_id(ref: OutputRef) -> str:
    """The id of an output: its place in the history, so it needs no list of its own and cannot name any other
    file.
    """
    return _OUTPUT + base64.urlsafe_b64encode(json.dumps(ref).encode("utf-8")).decode().rstrip("=")


def output_ref(asset_id: str) -> OutputRef | None:
    """The output that an id names; None when it is no such id."""
    if not asset_id.startswith(_OUTPUT):
        return None
    text = asset_id[len(_OUTPUT) :]
    try:
        fields = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (ValueError, binascii.Error):
        return None
    types = [type(field) for field in fields] if isinstance(fields, list) else []
    return OutputRef(*fields) if types == [str, str, str, int] and fields[3] >= 0 else None


def item_of(ref: OutputRef, outputs: Mapping[str, Any]) -> Any:
    """What an output's node has shown at its place; None when there is nothing."""
    by_key = outputs.get(ref.node_id)
    items = by_key.get(ref.key) if isinstance(by_key, Mapping) else None
    if not isinstance(items, list) or ref.index >= len(items):
        return None
    return items[ref.index]


def file_of(item: Any) -> str | None:
    """The path of the file that an item names, inside of its folder; None when there is none."""
    if not isinstance(item, Mapping) or not isinstance(item.get("filename"), str):
        return None
    folder = folder_paths.get_directory_by_type(str(item.get("type") or "output"))
    if folder is None:
        return None
    path = inside(folder, str(item.get("subfolder") or ""), item["filename"])
    return path if path is not None and os.path.isfile(path) else None


def annotated_name(item: Mapping[str, Any]) -> str:
    """The item as a loader node takes it: `folder/name.png [output]`."""
    subfolder = str(item.get("subfolder") or "")
    name = f"{subfolder}/{item['filename']}" if subfolder else str(item["filename"])
    return f"{name} [{item.get('type') or 'output'}]"


def _kind(key: str, mime: str) -> str:
    family = mime.partition("/")[0]
    return family if family in ("image", "video", "audio") else _KINDS.get(key, "file")


def describe_output(ref: OutputRef, item: Any, base: str, *, full: bool = True) -> dict[str, Any] | None:
    """An output as clients see it; None for what is neither a file nor a text."""
    if isinstance(item, str) and ref.key == "text":
        name, kind, mime = f"{ref.node_id}_{ref.index}.txt", "text", "text/plain"
        size = len(item.encode("utf-8", "replace"))
    elif isinstance(item, Mapping) and isinstance(item.get("filename"), str):
        name = item["filename"]
        mime = mimetypes.guess_type(name)[0] or "application/octet-stream"
        kind = _kind(ref.key, mime)
        path = file_of(item) if full else None
        size = 0 if path is None else os.path.getsize(path)
    else:
        return None
    asset_id = output_id(ref)
    return {
        "node_id": ref.node_id, "name": name, "type": kind, "content_type": mime, "size_bytes": size,
        "id": asset_id, "hash": None, "url": content_url(asset_id, base), "url_expires_at": kept_until(),
        "job_id": ref.job_id,
    }  # fmt: skip


def items(job_id: str, outputs: Mapping[str, Any]) -> Iterator[tuple[OutputRef, Any]]:
    """Everything that the nodes of a job have shown."""
    for node_id, by_key in outputs.items():
        if isinstance(by_key, Mapping):
            for key, shown in by_key.items():
                if isinstance(shown, list) and key != "animated":
                    for index, item in enumerate(shown):
                        yield OutputRef(job_id, str(node_id), str(key), index), item


def outputs_of(job_id: str, outputs: Mapping[str, Any], base: str) -> list[dict[str, Any]]:
    """The outputs of a job."""
    described = (describe_output(ref, item, base) for ref, item in items(job_id, outputs))
    return [output for output in described if output is not None]


# -- jobs --------------------------------------------------------------------------------------------------


def error_of(job: Mapping[str, Any]) -> dict[str, Any] | None:
    """Why a job failed."""
    if job.get("status") != "failed":
        return None
    error = job.get("execution_error") or {}
    lines = error.get("traceback")
    return {
        "code": "node_execution_error",
        "message": str(error.get("exception_message") or "The job failed."),
        "node_id": error.get("node_id") or None,
        "class_type": error.get("node_type") or None,
        "traceback": "".join(map(str, lines)) if isinstance(lines, list) and lines else None,
    }


def own_fields(extra_data: Any) -> Mapping[str, Any]:
    """What the v2 interface has written into the extra data of a prompt."""
    found = extra_data.get(EXTRA_FIELD) if isinstance(extra_data, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def was_stored(job: Mapping[str, Any]) -> bool:
    """Did any result come from the cache?"""
    messages = (job.get("execution_status") or {}).get("messages") or ()
    return any(
        len(one) == 2 and one[0] == "execution_cached" and isinstance(one[1], Mapping) and one[1].get("nodes")
        for one in messages
    )


def describe_job(
    job: Mapping[str, Any], extra_data: Any, base: str, *, status: str | None = None,
    position: int | None = None, progress: Mapping[str, Any] | None = None,
    outputs: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A job as clients see it. `outputs` are those of a job that runs; a finished one has its own."""
    state = status or STATUS[job["status"]]
    start, end = job.get("execution_start_time"), job.get("execution_end_time")
    created = job.get("create_time") or 0
    shown = outputs if outputs is not None else job.get("outputs") or {}
    own = own_fields(extra_data)
    body = {
        "id": job["id"],
        "status": state,
        "created_at": moment(created),
        "started_at": moment(start),
        "completed_at": moment(end) if state in TERMINAL else None,
        "expires_at": kept_until(),
        "queue_position": position,
        "progress": progress,
        "outputs": outputs_of(job["id"], shown, base),
        "outputs_reused": was_stored(job),
        "error": error_of(job),
        "metrics": {
            "queue_ms": start - created if start and created else None,
            "execution_ms": end - start if start and end else None,
        },
        "urls": links(job["id"], base),
    }
    return {**body, **{name: own[name] for name in ("metadata",) if name in own}}


def describe_summary(job: Mapping[str, Any], base: str) -> dict[str, Any]:
    """A job as a list shows it."""
    changed = job.get("execution_end_time") or job.get("execution_start_time") or job.get("create_time") or 0
    return {
        "id": job["id"],
        "status": STATUS[job["status"]],
        "create_time": moment(job.get("create_time") or 0),
        "update_time": moment(changed),
        "metadata": job.get("metadata", {}),
        "urls": links(job["id"], base),
    }
