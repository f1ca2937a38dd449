"""The download interface that ComfyUI's page has for servers with a model library of their own.

    POST   /api/assets/download {source_url, tags, user_metadata}    202 {task_id, status, message}
    GET    /api/tasks/{id}                          {id, task_name, status, payload, result, ...}
    DELETE /api/tasks/{id}                          202 {id, status: "cancelled"}; 409 when it has ended

An url that a manifest names is that model. Any other url is treated like a model that a workflow names: by
`--workflow-models`, without a token of this server; `user_metadata` may give `hash` and `hash_type` (SHA256).
Progress, a share of 1, is told by the websocket event `asset_download`.
"""

from __future__ import annotations

import asyncio
import datetime
import posixpath
import shlex
import threading
import time
import uuid
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from aiohttp import web

import folder_paths
from comfy_depot import places
from comfy_depot.errors import DepotError, DiskFull
from comfy_depot.workflow_models import without_download_flag

if TYPE_CHECKING:
    from comfy_depot.depot import Depot
    from comfy_depot.transfers import Transfer

EVENT = "asset_download"
_SECONDS_BETWEEN = 0.5
_REMEMBERED = 200
_FORM = ('Send {"source_url": "https://host/x.safetensors", "tags": ["models", "checkpoints"], '
         '"user_metadata": {"name": "x.safetensors"}}.')
_STATUS = {"done": "completed", "failed": "failed", "cancelled": "cancelled", "waiting": "created"}


@dataclass
class Task:
    """A download under the name that its client knows."""

    transfer: Transfer | None
    folder: str
    name: str
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    created: float = field(default_factory=time.time)
    ended: float | None = None

    @property
    def status(self) -> str:
        """created, running, completed, failed or cancelled."""
        return "completed" if self.transfer is None else _STATUS.get(self.transfer.state.value, "running")

    def as_json(self) -> dict[str, Any]:
        """The task as `GET /api/tasks/{id}` gives it: nothing of the url."""
        done = self.transfer.bytes_done if self.transfer else 0
        found: dict[str, Any] = {
            "id": self.id, "idempotency_key": self.id, "task_name": "download_file", "status": self.status,
            "payload": {"folder": self.folder, "name": self.name},
            "create_time": _moment(self.created), "started_at": _moment(self.created),
            "update_time": _moment(self.ended or time.time()),
        }
        if self.ended is not None:
            found["completed_at"] = _moment(self.ended)
        if self.transfer is not None and self.transfer.error is not None:
            found["error_message"] = str(self.transfer.error)
        if self.status == "completed":
            found["result"] = {"success": True, "filename": self.name, "bytes_downloaded": done}
        return found

    def event(self) -> dict[str, Any]:
        """What the page is told on the way."""
        transfer = self.transfer
        done, total = (transfer.bytes_done, transfer.bytes_total or 0) if transfer else (0, 0)
        share = 1 if self.status == "completed" else round(done / total, 3) if total else 0
        return {
            "task_id": self.id, "asset_name": self.name, "bytes_downloaded": done, "bytes_total": total,
            "progress": share, "status": self.status,
            "error": str(transfer.error) if transfer and transfer.error else None,
        }


class _Waits(DepotError):
    """The owner of the server has to take the model up first."""


class _Refused(DepotError):
    """The body is as it should be, and what it names is not fetched."""


class Tasks:
    """The downloads that were asked for in this way, the newest of them."""

    def __init__(self, depot: Depot) -> None:
        self._depot = depot
        self._lock = threading.Lock()
        self._by_id: OrderedDict[str, Task] = OrderedDict()

    def start(self, body: dict[str, Any]) -> Task:
        """Begin the download that a body asks for; ValueError and DepotError say why not."""
        folder, name = self._model_of(body)
        is_there = self._depot.local_path(folder, name) is not None
        task = Task(None if is_there else self._depot.start_fetch(folder, name), folder, name)
        if is_there:
            task.ended = task.created
        with self._lock:
            self._by_id[task.id] = task
            while len(self._by_id) > _REMEMBERED:
                self._by_id.popitem(last=False)
        threading.Thread(target=self._tell, args=(task,), name="depot-task", daemon=True).start()
        return task

    def get(self, number: str) -> Task | None:
        """A task by its id."""
        with self._lock:
            return self._by_id.get(number)

    def _model_of(self, body: dict[str, Any]) -> tuple[str, str]:
        """The (folder, name) of the model; a new url is offered like one of a workflow."""
        url, tags, metadata = body.get("source_url"), body.get("tags", []), body.get("user_metadata") or {}
        if not isinstance(url, str) or not isinstance(tags, list) or not isinstance(metadata, dict):
            raise ValueError("'source_url' is no text, 'tags' no list or 'user_metadata' no object.")
        for entry in self._depot.catalogue:
            if url in entry.urls or without_download_flag(url) in entry.urls:
                return entry.folder, entry.name
        wanted = [tag.removeprefix("model_type:") for tag in (metadata.get("model_type"), *tags)
                  if isinstance(tag, str)]
        known = [folder_paths.map_legacy(tag) for tag in wanted]
        folder = next((tag for tag in known if tag in places.table() and tag != "custom_nodes"), None)
        if folder is None and not isinstance(metadata.get("model_type"), str):
            raise ValueError("No tag is a folder type such as checkpoints or loras.")
        name = metadata.get("filename") or metadata.get("name")
        if not isinstance(name, str) or not posixpath.splitext(name)[1]:
            name = posixpath.basename(unquote(urlsplit(url).path))
        digest = {key: metadata[key] for key in ("hash", "hash_type") if key in metadata}
        folder = folder or known[0]  # which is no folder type: the offer is refused, and says why
        self._offer({"directory": folder, "name": name, "url": url, **digest})
        return folder, name

    def _offer(self, model: dict[str, Any]) -> None:
        (offer,) = self._depot.offers.offer({"models": [model]})
        title, url = f"{offer.folder}/{offer.name}", model["url"]
        if offer.state == "refused":
            raise _Refused(f"'{title}' is refused: {offer.message}")
        if offer.state == "known":
            entry = self._depot.catalogue.find(offer.folder, offer.name)
            if entry is None or without_download_flag(url) not in entry.urls:
                raise _Refused(f"'{title}' is another model here. Choose another name.")
        if offer.state == "pending":
            raise _Waits(
                f"Models from {offer.url} wait until the owner of this server takes them up. To do that: "
                f"python -m comfy_depot offers --accept {shlex.quote(title)}, or --workflow-hosts.")

    def _tell(self, task: Task) -> None:
        transfer = task.transfer
        while transfer is not None and not transfer.is_finished:
            self._depot.host.send(EVENT, task.event())
            time.sleep(_SECONDS_BETWEEN)
        task.ended = task.ended or time.time()
        self._depot.host.send(EVENT, task.event())


def add_routes(routes: web.RouteTableDef, depot: Depot) -> None:
    """Add the routes."""
    from comfy_depot.routes import _BadBody, _body_of, _error

    tasks = Tasks(depot)

    async def download(request: web.Request) -> web.Response:
        try:
            task = await asyncio.to_thread(tasks.start, await _body_of(request, _FORM))
        except _BadBody as error:
            return _error(400, error.kind, str(error))
        except _Waits as error:
            return _error(403, "waits_for_owner", str(error))
        except DiskFull as error:
            return _error(507, "disk_full", str(error))
        except DepotError as error:
            return _error(400, "refused", str(error))
        except ValueError as error:
            return _error(400, "refused", f"{error} {_FORM}")
        return web.json_response({"task_id": task.id, "status": task.status,
                                  "message": f"{task.folder}/{task.name}"}, status=202)

    async def show(request: web.Request) -> web.Response:
        task = tasks.get(request.match_info["id"])
        return _unknown(request) if task is None else web.json_response(task.as_json())

    async def stop(request: web.Request) -> web.Response:
        task = tasks.get(request.match_info["id"])
        if task is None:
            return _unknown(request)
        if task.transfer is None or not depot.transfers.cancel(task.transfer.id):
            return _error(409, "has_ended", f"The download of {task.folder}/{task.name} has ended already.")
        return web.json_response({"id": task.id, "status": "cancelled"}, status=202)

    def _unknown(request: web.Request) -> web.Response:
        message = f"There is no task '{request.match_info['id'][:80]}'. GET /depot/transfers lists downloads."
        return _error(404, "no_task", message)

    routes.post("/assets/download")(download)
    routes.get("/tasks/{id}")(show)
    routes.delete("/tasks/{id}")(stop)


def _moment(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).isoformat().replace("+00:00", "Z")
