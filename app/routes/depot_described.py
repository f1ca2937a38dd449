"""Descriptions of the depot's routes, which stand in `comfy_depot/*routes.py`."""

from __future__ import annotations

from app.routes.operations import (
    ANY,
    BYTES,
    NUMBER,
    OBJECT,
    TEXT,
    TRUTH,
    WHOLE,
    Operation,
    by_name,
    either,
    many,
    one_of,
    or_null,
    record,
)  # fmt: skip

ERROR = record({"error": record({"type": TEXT, "message": TEXT})})
BAD = {400: ERROR}
MODEL = {"folder": TEXT, "name": TEXT}
TRANSFER = record({
    **MODEL, "id": TEXT, "state": TEXT, "bytes_done": WHOLE, "bytes_total": or_null(WHOLE),
    "bytes_per_second": NUMBER, "source": or_null(TEXT), "error": or_null(TEXT),
})  # fmt: skip
ON_DISK = record({**MODEL, "tier": one_of("disk")})
BEGUN = record({"transfer": TRANSFER})
LISTED = record({**MODEL, "tier": TEXT}, {"size": or_null(WHOLE)})
PROBLEM = record({"file": TEXT, "line": or_null(WHOLE), "message": TEXT})
OFFER = record({**MODEL, "state": TEXT, "message": or_null(TEXT), "url": or_null(TEXT)})
OFFERS = record({"policy": TEXT, "hosts": many(TEXT), "offers": many(OFFER)})
LOOK = {"dry_run": TRUTH}
PIN = record({}, {**MODEL, **LOOK, "tier": one_of("disk", "memory"), "group": TEXT})
PINNED = {
    200: record(
        {"dry_run": TRUTH}, {"pinned": many(record(MODEL)), "pins": many(OBJECT), "models": many(OBJECT)}
    ),
    404: ERROR,
    409: ERROR,
    507: ERROR,
    **BAD,
}
WARMED = either(BEGUN, ON_DISK, record({"dry_run": TRUTH, "models": many(OBJECT)}))
OPERATIONS = {
    "GET /depot/models": Operation(
        "All models that are known, and where they are",
        {
            200: record(
                {
                    "models": many(LISTED),
                    "problems": many(PROBLEM),
                    "pinned": many(record(MODEL)),
                    "resident": many(OBJECT),
                    "dropped": many(OBJECT),
                    "memory": OBJECT,
                }
            ),
            **BAD,
        },
        query={"folder": TEXT, "tier": one_of("cloud", "downloading", "disk", "memory")},
    ),
    "GET /depot/search": Operation(
        "Models by name, hash or base model",
        {200: record({"models": many(OBJECT), "total": WHOLE, "is_complete": TRUTH}), **BAD},
        query={
            "name": TEXT,
            "hash": TEXT,
            "base_model": TEXT,
            "folder": TEXT,
            "limit": {"type": "integer", "minimum": 0},
            "offset": {"type": "integer", "minimum": 0},
            "metadata": one_of("true", "false", "1", "0"),
        },
    ),
    "POST /depot/fetch": Operation(
        "Bring a model to the disk",
        {200: ON_DISK, 202: BEGUN, 404: ERROR, 507: ERROR, **BAD},
        body=record(MODEL),
    ),
    "POST /depot/evict": Operation(
        "Delete models that a manifest can bring back",
        {
            200: record(
                {
                    "dry_run": TRUTH,
                    "bytes_freed": WHOLE,
                    "bytes_over": WHOLE,
                    "evicted": many(OBJECT),
                    "kept": many(OBJECT),
                }
            ),
            404: ERROR,
            409: ERROR,
            **BAD,
        },
        body=record({}, {**MODEL, **LOOK, "max_size": either(WHOLE, TEXT), "keep_days": NUMBER}),
    ),
    "POST /depot/pin": Operation("Keep a model, on the disk or in memory", PINNED, body=PIN),
    "POST /depot/unpin": Operation("Let a pinned model go again", PINNED, body=PIN),
    "GET /depot/groups": Operation("Groups of pinned models", {200: record({"groups": many(OBJECT)})}),
    "POST /depot/warm": Operation(
        "Bring or load models that nobody waits for yet",
        {200: WARMED, 202: WARMED, 404: ERROR, **BAD},
        body=record({}, {**MODEL, **LOOK, "tier": one_of("disk", "memory")}),
        needs_body=False,
    ),
    "GET /depot/transfers": Operation("Downloads under way", {200: record({"transfers": many(TRANSFER)})}),
    "DELETE /depot/transfers/{id}": Operation(
        "Stop a download", {200: record({"cancelled": TEXT}), 404: ERROR}
    ),
    "GET /depot/stats": Operation("Counts and sizes", {200: OBJECT}),
    "POST /depot/manifests/refresh": Operation(
        "Read the manifests again",
        {200: record({"models": WHOLE, "problems": many(PROBLEM), "lists": many(OBJECT)})},
    ),
    "POST /depot/manifests/import-templates": Operation(
        "Make a manifest of the models that the templates name",
        {200: record({"file": TEXT, "models": WHOLE, "state": TEXT}), 409: ERROR, **BAD},
        body=record({}, {"check": TRUTH}),
        needs_body=False,
    ),
    "GET /depot/offers": Operation("Models that workflows name", {200: OFFERS}),
    "POST /depot/offers": Operation(
        "Take up the models of a workflow",
        {200: record({"offers": many(OFFER)}), **BAD},
        body=record({"workflow": OBJECT}),
    ),
    "POST /depot/offers/accept": Operation(
        "Let a model of a workflow count", {200: OFFERS, 404: ERROR, **BAD}, body=record(MODEL)
    ),
    "POST /depot/offers/forget": Operation(
        "Take a model of a workflow out again", {200: OFFERS, 404: ERROR, **BAD}, body=record(MODEL)
    ),
    "GET /depot/log": Operation(
        "What was read, the newest first",
        {200: record({"accesses": many(OBJECT)}), **BAD},
        query={"limit": {"type": "integer", "minimum": 1, "maximum": 10000}},
    ),
    "POST /depot/verify": Operation(
        "Compare files with their manifests",
        {200: record({"models": WHOLE, "problems": many(TEXT)}), 409: ERROR, **BAD},
        body=record({}, {"hash": TRUTH}),
        needs_body=False,
    ),
    "POST /depot/replay": Operation(
        "What other policies would have done",
        {200: record({"results": many(OBJECT)}), 409: ERROR, **BAD},
        body=record({"size": either(WHOLE, TEXT)}, {"policy": TEXT}),
    ),
    "GET /depot/files": Operation(
        "A manifest of the models on this disk", {200: by_name(by_name(OBJECT)), 401: ERROR, 403: ERROR}
    ),
    "GET /depot/files/{folder}/{name:.+}": Operation(
        "A model for another node",
        {200: BYTES, 206: BYTES, 304: None, 401: ERROR, 403: ERROR, 404: ERROR, 416: None},
    ),
    "POST /assets/download": Operation(
        "Download a model by its url",
        {202: record({"task_id": TEXT, "status": TEXT, "message": TEXT}), 403: ERROR, **BAD},
        body=record({"source_url": TEXT}, {"tags": many(TEXT), "user_metadata": OBJECT}),
    ),
    "GET /tasks/{id}": Operation(
        "How far a download is",
        {200: record({"id": TEXT, "status": TEXT, "task_name": TEXT, "payload": ANY}), 404: ERROR},
    ),
    "DELETE /tasks/{id}": Operation(
        "Stop a download", {202: record({"id": TEXT, "status": TEXT}), 404: ERROR, 409: ERROR}
    ),
}
