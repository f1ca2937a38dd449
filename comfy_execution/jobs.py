"""Jobs: one view of waiting, running and finished prompts, for `/api/jobs`.

Pure functions on the data of the queue and the history. The web UI parses their result strictly, and one
bad element makes it discard the whole list: so every job has `id`, `status` and `create_time`, keys without
a value are left out, and an execution error has all its text fields.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from comfy_execution.queueing import schedule

CANCEL_RUNNING: Final = "running"
CANCEL_PENDING: Final = "pending"
CANCEL_TERMINAL: Final = "terminal"
CANCEL_UNKNOWN: Final = "unknown"

PREVIEWABLE_MEDIA_TYPES = frozenset({"images", "video", "audio", "3d", "text"})
THREE_D_EXTENSIONS = (".obj", ".fbx", ".gltf", ".glb", ".usdz")
TEXT_EXTENSIONS = (".txt", ".md", ".json")
TEXT_PREVIEW_MAX_LENGTH = 1024
FILE_TEXTS = frozenset({"filename", "subfolder", "type", "mediaType", "format"})
FILE_TYPES = ("input", "output", "temp")

Job = dict[str, Any]
QueueEntry = tuple[Any, ...]


class JobStatus:
    """What a job is doing."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    ALL = [PENDING, IN_PROGRESS, COMPLETED, FAILED, CANCELLED]


SORT_KEYS = ("created_at", "execution_duration")


def validate_job_id(value: object) -> str:
    """A job id that clients may name: a UUID in lower case with hyphens, because ids are compared as text.
    Raises ValueError for anything else.
    """
    if not isinstance(value, str):
        raise ValueError(f"A job id must be a text, not {type(value).__name__}.")
    try:
        is_canonical = str(uuid.UUID(value)) == value
    except ValueError:
        is_canonical = False
    if not is_canonical:
        raise ValueError(
            f"{value!r} is no UUID in lower case with hyphens. Send the id that POST /prompt answered."
        )
    return value


# -- outputs -----------------------------------------------------------------------------------------------


def has_3d_extension(filename: str) -> bool:
    """Does this name a 3D model?"""
    return filename.lower().endswith(THREE_D_EXTENSIONS)


def normalize_output_item(item: Any) -> Mapping[str, Any] | None:
    """An output item as a file, or None. A string is a file only if it names a 3D model."""
    if isinstance(item, Mapping):
        return item
    if isinstance(item, str) and has_3d_extension(item):
        return {"filename": item, "type": "output", "subfolder": "", "mediaType": "3d"}
    return None


def _items(outputs: Mapping[str, Any]) -> Iterable[tuple[str, str, Any]]:
    """(node, media type, item) of all lists. "animated" is a flag about images and holds no items."""
    for node_id, by_type in outputs.items():
        if isinstance(by_type, Mapping):
            for media_type, items in by_type.items():
                if media_type != "animated" and isinstance(items, list):
                    for item in items:
                        yield node_id, media_type, item


def _file_name(item: Mapping[str, Any]) -> str:
    return str(item.get("filename") or "").lower()


def is_previewable(media_type: str, item: Mapping[str, Any]) -> bool:
    """Can the web UI show this item: by its media type, its MIME format, or its file name?"""
    if media_type in PREVIEWABLE_MEDIA_TYPES:
        return True
    if str(item.get("format") or "").startswith(("video/", "audio/")):
        return True
    return _file_name(item).endswith(THREE_D_EXTENSIONS + TEXT_EXTENSIONS)


def _is_text(media_type: str, item: Mapping[str, Any]) -> bool:
    return media_type == "text" or _file_name(item).endswith(TEXT_EXTENSIONS)


def normalize_outputs(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """Outputs as the detail of a job gives them: names of 3D files as files, nothing for None."""

    def normalized(media_type: str, items: Any) -> Any:
        if media_type == "animated" or not isinstance(items, list):
            return items
        return [normalize_output_item(item) or item for item in items if item is not None]

    return {
        node_id: {media_type: normalized(media_type, items) for media_type, items in by_type.items()}
        if isinstance(by_type, Mapping)
        else by_type
        for node_id, by_type in outputs.items()
    }


def _preview_rank(media_type: str, item: Mapping[str, Any]) -> int:
    """Saved pictures first, then other pictures, then saved texts."""
    if _is_text(media_type, item):
        return 2
    return 0 if item.get("type") == "output" else 1


def _text_preview(text: str) -> dict[str, Any]:
    if len(text) <= TEXT_PREVIEW_MAX_LENGTH:
        return {"content": text}
    return {"content": text[:TEXT_PREVIEW_MAX_LENGTH], "truncated": True}


def _strict(file: Mapping[str, Any]) -> dict[str, Any]:
    """What of a file the web UI accepts: packs write what they like, and its texts must be texts."""
    kept = {key: value for key, value in file.items() if key not in FILE_TEXTS or isinstance(value, str)}
    if kept.get("type") not in FILE_TYPES:
        kept.pop("type", None)
    return kept


def get_outputs_summary(outputs: Mapping[str, Any]) -> tuple[int, dict[str, Any] | None]:
    """(number of output files, the best one to show). Plain text counts as no file; it is shown last."""
    count = 0
    best: tuple[int, dict[str, Any] | None] = (4, None)
    for node_id, media_type, item in _items(outputs):
        file = normalize_output_item(item)
        if file is not None:
            count += 1
            if is_previewable(media_type, file) and _preview_rank(media_type, file) < best[0]:
                preview = {"mediaType": media_type, **_strict(file), "nodeId": node_id}
                best = (_preview_rank(media_type, file), preview)
        elif media_type == "text" and item is not None and best[0] > 3:
            text = item[0] if isinstance(item, tuple) and item else item
            best = (3, {**_text_preview(str(text)), "nodeId": node_id, "mediaType": media_type})
    return count, best[1]


def count_previewable_outputs(outputs: Mapping[str, Any]) -> int:
    """How many output files the web UI can show."""
    files = ((media_type, normalize_output_item(item)) for _, media_type, item in _items(outputs))
    return sum(1 for media_type, file in files if file is not None and is_previewable(media_type, file))


# -- jobs --------------------------------------------------------------------------------------------------


def _present(job: Job) -> Job:
    return {key: value for key, value in job.items() if value is not None}


def _describe_item(item: QueueEntry) -> Job:
    """What a queue item says about its job. (number, id, graph, extra data, ...)"""
    extra_data = item[3] or {}
    pnginfo = extra_data.get("extra_pnginfo")
    workflow = pnginfo.get("workflow") if isinstance(pnginfo, Mapping) else None
    workflow_id = workflow.get("id") if isinstance(workflow, Mapping) else None
    return {
        "id": item[1],
        "priority": item[0],
        "create_time": extra_data.get("create_time", 0),
        "workflow_id": None if workflow_id is None else str(workflow_id),
        "schedule": {name: extra_data.get(name) for name in schedule.FIELDS},
        "metadata": _labels(extra_data.get("comfy_api_v2")),
    }


def _labels(of_request: Any) -> Any:
    """What a client of the v2 interface has written on its job."""
    return of_request.get("metadata") if isinstance(of_request, Mapping) else None


def _show_schedule(about: Job) -> Job:
    """What the request said about its turn. `priority` is the number of the queue item already."""
    shown = dict(about["schedule"])
    shown["queue_priority"] = shown.pop("priority")
    shown["metadata"] = about["metadata"]
    return shown


def normalize_queue_item(item: QueueEntry, status: str) -> Job:
    """The job of a waiting or running prompt."""
    about = _describe_item(item)
    return _present({
        "id": about["id"],
        "status": status,
        "priority": about["priority"],
        "create_time": about["create_time"],
        "outputs_count": 0,
        "previewable_outputs_count": 0,
        "workflow_id": about["workflow_id"],
        **_show_schedule(about),
    })


def _messages(status: Mapping[str, Any] | None) -> dict[str, Mapping[str, Any]]:
    """The data of a prompt's events, by name; the last one of each."""
    found = {}
    for entry in (status or {}).get("messages") or []:
        if isinstance(entry, (list, tuple)) and len(entry) >= 2 and isinstance(entry[1], Mapping):
            found[str(entry[0])] = entry[1]
    return found


def _status_of(status: Mapping[str, Any] | None, messages: Mapping[str, Any]) -> str:
    if (status or {}).get("status_str") != "error":
        return JobStatus.COMPLETED
    return JobStatus.CANCELLED if "execution_interrupted" in messages else JobStatus.FAILED


def _complete_error(error: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """An execution error with every field that the web UI insists on."""
    if error is None:
        return None
    texts = {key: str(error.get(key) or "") for key in
             ("node_id", "node_type", "exception_message", "exception_type")}
    return {**error, **texts, "traceback": [str(line) for line in error.get("traceback") or []]}


def normalize_history_item(
    prompt_id: str, history_item: Mapping[str, Any], include_outputs: bool = False
) -> Job:
    """The job of a finished prompt; `include_outputs` adds what only its detail has."""
    item = history_item["prompt"]
    about = _describe_item(item)
    status = history_item.get("status")
    messages = _messages(status)
    ends = [messages[name].get("timestamp") for name in
            ("execution_success", "execution_error", "execution_interrupted") if name in messages]
    outputs = history_item.get("outputs") or {}
    count, preview = get_outputs_summary(outputs)
    job = _present({
        "id": prompt_id,
        "status": _status_of(status, messages),
        "priority": about["priority"],
        "create_time": about["create_time"],
        "execution_start_time": messages.get("execution_start", {}).get("timestamp"),
        "execution_end_time": ends[-1] if ends else None,
        "execution_error": _complete_error(messages.get("execution_error")),
        "outputs_count": count,
        "previewable_outputs_count": count_previewable_outputs(outputs),
        "preview_output": preview,
        "workflow_id": about["workflow_id"],
        **_show_schedule(about),
    })
    if include_outputs:
        job["outputs"] = normalize_outputs(outputs)
        job["execution_status"] = status
        job["workflow"] = {"prompt": item[2], "extra_data": item[3]}
    return job


def duration_of(job: Job) -> Any:
    """How long a job ran, in milliseconds; 0 while that is not known."""
    start, end = job.get("execution_start_time"), job.get("execution_end_time")
    return end - start if start and end else 0


def apply_sorting(jobs: Iterable[Job], sort_by: str, sort_order: str) -> list[Job]:
    """Jobs by "created_at" or "execution_duration", "asc" or "desc"."""

    def created(job: Job) -> Any:
        return job.get("create_time") or 0

    key = duration_of if sort_by == "execution_duration" else created
    return sorted(jobs, key=key, reverse=sort_order == "desc")


@dataclass(frozen=True)
class Wish:
    """Which jobs a client wants to see, and in which order. None asks for all."""

    statuses: frozenset[str] | None = None
    workflow_id: str | None = None
    sort_by: str = "created_at"
    sort_order: str = "desc"
    limit: int | None = None
    offset: int = 0

    def wants(self, job: Job) -> bool:
        """Is this job one of them?"""
        if self.statuses is not None and job["status"] not in self.statuses:
            return False
        return not self.workflow_id or job.get("workflow_id") == self.workflow_id

    def page_of(self, jobs: Iterable[Job]) -> tuple[list[Job], int]:
        """(the page, how many there are in all)."""
        found = apply_sorting(filter(self.wants, jobs), self.sort_by, self.sort_order)
        start = max(0, self.offset)
        return found[start : None if self.limit is None else start + self.limit], len(found)


def get_job(
    prompt_id: str, running: Iterable[QueueEntry], queued: Iterable[QueueEntry], history: Mapping[str, Any]
) -> Job | None:
    """The detail of one job, or None."""
    if prompt_id in history:
        return normalize_history_item(prompt_id, history[prompt_id], include_outputs=True)
    for items, status in ((running, JobStatus.IN_PROGRESS), (queued, JobStatus.PENDING)):
        for item in items:
            if item[1] == prompt_id:
                return normalize_queue_item(item, status)
    return None


def get_all_jobs(
    running: Iterable[QueueEntry],
    queued: Iterable[QueueEntry],
    history: Mapping[str, Any],
    status_filter: Iterable[str] | None = None,
    workflow_id: str | None = None,
    sort_by: str = "created_at",
    sort_order: str = "desc",
    limit: int | None = None,
    offset: int = 0,
) -> tuple[list[Job], int]:
    """(one page of jobs, how many there are in all). The status of a finished job is known from its
    history.
    """
    statuses = None if status_filter is None else frozenset(status_filter)
    wish = Wish(statuses, workflow_id, sort_by, sort_order, limit, offset)
    jobs = [normalize_queue_item(item, JobStatus.IN_PROGRESS) for item in running]
    jobs += [normalize_queue_item(item, JobStatus.PENDING) for item in queued]
    if statuses is None or statuses & {JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED}:
        jobs += [normalize_history_item(prompt_id, entry) for prompt_id, entry in history.items()]
    return wish.page_of(jobs)


# -- cancelling --------------------------------------------------------------------------------------------


def classify_job_for_cancel(
    prompt_id: str, running: Iterable[QueueEntry], queued: Iterable[QueueEntry], history: Mapping[str, Any]
) -> str:
    """Where a job is: one of the CANCEL_ names."""
    if any(item[1] == prompt_id for item in running):
        return CANCEL_RUNNING
    if any(item[1] == prompt_id for item in queued):
        return CANCEL_PENDING
    return CANCEL_TERMINAL if prompt_id in history else CANCEL_UNKNOWN


def cancel_job(
    prompt_id: str,
    running: Iterable[QueueEntry],
    queued: Iterable[QueueEntry],
    history: Mapping[str, Any],
    interrupt: Callable[[str], bool],
    dequeue: Callable[[str], bool],
) -> str:
    """Stop a job wherever it is. Says where it really was: `interrupt` and `dequeue` answer whether they
    found it, and a job may have moved on since the lists were taken.
    """
    place = classify_job_for_cancel(prompt_id, running, queued, history)
    if place == CANCEL_PENDING and dequeue(prompt_id):
        return CANCEL_PENDING
    if place in (CANCEL_PENDING, CANCEL_RUNNING):
        return CANCEL_RUNNING if interrupt(prompt_id) else CANCEL_UNKNOWN
    return place
