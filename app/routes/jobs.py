"""Queue and history as one list of jobs: /api/jobs, which the web page reads."""

from __future__ import annotations

import sys
from typing import Any

from aiohttp import web

from app.routes import answer, register
from app.routes.operations import NUMBER, OBJECT, TEXT, TRUTH, WHOLE, Operation, many, or_null, record
from app.routes.queue import without_sensitive
from comfy_execution.jobs import JobStatus, Wish, get_job

SORT_KEYS = ("created_at", "execution_duration")
SORT_ORDERS = ("asc", "desc")


class BadQuery(ValueError):
    """A query parameter that cannot be followed; the text is for the client."""


def status_filter(text: str | None) -> frozenset[str] | None:
    """The wanted states of a comma-separated text."""
    wanted = [part.strip().lower() for part in (text or "").split(",") if part.strip()]
    unknown = [status for status in wanted if status not in JobStatus.ALL]
    if unknown:
        raise BadQuery(
            f"Invalid status value(s): {', '.join(unknown)}. Valid values: {', '.join(JobStatus.ALL)}"
        )
    return frozenset(wanted) or None


def one_of(name: str, text: str, allowed: tuple[str, ...]) -> str:
    """A query value that must be one of a few words."""
    if text.lower() not in allowed:
        raise BadQuery(f"{name} must be " + " or ".join(f"'{word}'" for word in allowed))
    return text.lower()


def integer(name: str, text: str) -> int:
    """A query value that must be a whole number."""
    try:
        number = int(text)
        if abs(number) > sys.maxsize:
            raise ValueError("no list is so long")
        return number
    except ValueError:
        raise BadQuery(f"{name} must be an integer") from None


def read_query(query: Any) -> Wish:
    """The jobs that a query asks for."""
    limit = integer("limit", query["limit"]) if "limit" in query else None
    if limit is not None and limit <= 0:
        raise BadQuery("limit must be a positive integer")
    return Wish(
        statuses=status_filter(query.get("status")),
        workflow_id=query.get("workflow_id"),
        sort_by=one_of("sort_by", query.get("sort_by", SORT_KEYS[0]), SORT_KEYS),
        sort_order=one_of("sort_order", query.get("sort_order", "desc"), SORT_ORDERS),
        limit=limit,
        offset=max(0, integer("offset", query.get("offset", "0"))),
    )


async def get_jobs(server: Any, request: web.Request) -> web.Response:
    try:
        wish = read_query(request.query)
    except BadQuery as error:
        return web.json_response({"error": str(error)}, status=400)
    jobs, total = server.prompt_queue.jobs_page(wish)
    pagination = {
        "offset": wish.offset,
        "limit": wish.limit,
        "total": total,
        "has_more": wish.offset + len(jobs) < total,
    }
    return answer({"jobs": jobs, "pagination": pagination})


async def get_one_job(server: Any, request: web.Request) -> web.Response:
    job_id = request.match_info["job_id"]
    running, pending = map(without_sensitive, server.prompt_queue.get_current_queue_volatile())
    job = get_job(job_id, running, pending, server.prompt_queue.get_history(prompt_id=job_id))
    if job is None:
        return web.json_response({"error": "Job not found"}, status=404)
    return answer(job)


def add_routes(routes: web.RouteTableDef, server: Any) -> None:
    """Routes of the jobs; cancelling is with the queue."""
    register(routes, server, [("GET", "/api/jobs", get_jobs), ("GET", "/api/jobs/{job_id}", get_one_job)])


STATUS = {"type": "string", "enum": list(JobStatus.ALL)}
JOB = record(
    {"id": TEXT, "status": STATUS, "priority": NUMBER, "create_time": NUMBER},
    {
        "execution_start_time": NUMBER,
        "execution_end_time": NUMBER,
        "execution_error": OBJECT,
        "workflow_id": TEXT,
        "outputs_count": or_null(WHOLE),
        "previewable_outputs_count": or_null(WHOLE),
        "preview_output": or_null(OBJECT),
    },
)
DETAIL = {"allOf": [JOB, record({}, {"outputs": OBJECT, "execution_status": OBJECT, "workflow": OBJECT})]}
PAGE = record({"offset": WHOLE, "limit": or_null(WHOLE), "total": WHOLE, "has_more": TRUTH})
ERROR = record({"error": TEXT})
OPERATIONS = {
    "GET /api/jobs": Operation(
        "Queue and history as one list",
        {200: record({"jobs": many(JOB), "pagination": PAGE}), 400: ERROR},
        query={
            "status": {"type": "string", "description": "States with commas between them."},
            "workflow_id": TEXT,
            "sort_by": {"type": "string", "enum": list(SORT_KEYS)},
            "sort_order": {"type": "string", "enum": list(SORT_ORDERS)},
            "limit": {"type": "integer", "minimum": 1},
            "offset": WHOLE,
        },
    ),
    "GET /api/jobs/{job_id}": Operation(
        "One job with its outputs and its workflow", {200: DETAIL, 404: ERROR}
    ),
}
