"""Descriptions of the v2 routes, which stand in `v2_jobs.py`, `v2_events.py` and `v2_assets.py`."""

from __future__ import annotations

from app.routes.operations import (
    ANY,
    BYTES,
    FILE,
    NUMBER,
    OBJECT,
    TEXT,
    TRUTH,
    WHOLE,
    Operation,
    Raw,
    by_name,
    form,
    many,
    or_null,
    record,
)
from app.v2_shapes import STATUSES

ERROR = record({"error": record({"code": TEXT, "message": TEXT, "details": or_null(OBJECT)})})
STATUS = {"type": "string", "enum": list(STATUSES)}
LINKS = by_name(TEXT)
OUTPUT = record({"id": TEXT, "url": TEXT, "job_id": TEXT, "name": TEXT, "content_type": TEXT})
PROGRESS = record({"value": NUMBER, "nodes_done": WHOLE, "nodes_total": WHOLE})
JOB = record(
    {
        "id": TEXT,
        "status": STATUS,
        "created_at": TEXT,
        "started_at": or_null(TEXT),
        "completed_at": or_null(TEXT),
        "queue_position": or_null(WHOLE),
        "progress": or_null(PROGRESS),
        "outputs": many(OUTPUT),
        "error": or_null(OBJECT),
        "metrics": OBJECT,
        "urls": LINKS,
    },
    {"metadata": ANY, "outputs_reused": TRUTH, "expires_at": or_null(TEXT)},
)
SUMMARY = record(
    {"id": TEXT, "status": STATUS, "create_time": TEXT, "update_time": TEXT, "urls": LINKS}, {"metadata": ANY}
)
ASSET = record(
    {"id": TEXT, "url": TEXT, "content_type": TEXT, "size_bytes": WHOLE},
    {"hash": or_null(TEXT), "file_path": TEXT, "created_at": TEXT, "created_new": TRUTH, "tags": many(TEXT)},
)
WANTED = record(
    {"workflow": OBJECT},
    {
        "extra_data": OBJECT,
        "metadata": ANY,
        "priority": WHOLE,
        "webhook": ANY,
        "timeout_seconds": NUMBER,
    },
)
UPLOAD = form(
    {"file": FILE, "file_path": TEXT}, {"tags": many(TEXT), "expected_hash": TEXT, "content_type": TEXT}
)
MISSING = {404: ERROR}
BAD = {400: ERROR, 422: ERROR}
OPERATIONS = {
    "GET /api/v2/health": Operation("Whether the server answers", {200: record({"status": TEXT})}),
    "POST /api/v2/jobs": Operation(
        "Run a workflow; the same Idempotency-Key makes one job",
        {201: JOB, 404: ERROR, 413: ERROR, 429: ERROR, 503: ERROR, 507: ERROR, **BAD},
        body=WANTED,
    ),
    "GET /api/v2/jobs": Operation(
        "Jobs, the newest first",
        {200: record({"jobs": many(SUMMARY)}, {"next_cursor": TEXT}), **BAD},
        query={
            "status": {"type": "string", "description": "States with commas between them."},
            "limit": {"type": "integer", "minimum": 1, "maximum": 100},
            "cursor": TEXT,
        },
    ),
    "GET /api/v2/jobs/{job_id}": Operation("One job", {200: JOB, **MISSING}),
    "GET /api/v2/jobs/{job_id}/workflow": Operation(
        "The graph of a job", {200: record({"workflow": OBJECT, "format": TEXT}), **MISSING}
    ),
    "POST /api/v2/jobs/{job_id}/cancel": Operation("Ask a job to stop", {200: JOB, **MISSING}),
    "GET /api/v2/jobs/{job_id}/events": Operation(
        "What happens to a job, as server-sent events",
        {200: Raw("text/event-stream"), 429: ERROR, **MISSING},
    ),
    "POST /api/v2/assets": Operation(
        "Store a file that workflows take in",
        {200: ASSET, 201: ASSET, 409: ERROR, 413: ERROR, **BAD},
        body=UPLOAD,
    ),
    "POST /api/v2/assets/from-hash": Operation(
        "An asset of bytes that are here already", {200: ASSET, **BAD, **MISSING}, body=record({"hash": TEXT})
    ),
    "HEAD /api/v2/assets/by-hash/{hash}": Operation("Whether these bytes are here", {200: None, 404: None}),
    "GET /api/v2/assets/{asset_id}": Operation("An upload or an output", {200: ASSET, **MISSING}),
    "DELETE /api/v2/assets/{asset_id}": Operation("Delete an upload", {204: None, **MISSING}),
    "GET /api/v2/assets/{asset_id}/content": Operation(
        "The bytes of an upload or an output", {200: BYTES, 206: BYTES, 304: None, 416: None, **MISSING}
    ),
}
