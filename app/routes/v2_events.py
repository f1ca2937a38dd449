"""`/api/v2/jobs/{id}/events`: what happens to one job, as server-sent events.

First comes what is: `status`, the outputs that are there, the progress. Then what happens, `progress` and
`preview` twice per second at most, `output` and `log` at once, and at the end, after all outputs, the last
`status`. Each event has an id; a client that comes back with it in `Last-Event-ID` gets what it has missed.
"""

from __future__ import annotations

import asyncio
import base64
import struct
import time
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

import protocol
from app import v2_shapes
from app.routes.v2_answers import V2Error, base_of, register_v2
from app.routes.v2_jobs import Found, described, find, find_or_refuse
from app.v2_events import Event, JobLog, event_id, number_of

MOST_STREAMS = 64
PICTURES = ("progress", "preview")
SECONDS_BETWEEN_PICTURES = 0.5
SECONDS_BETWEEN_SIGNS = 15.0
MIME = {1: "image/jpeg", 2: "image/png"}
HEADERS = {
    "Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no",
    "X-Content-Type-Options": "nosniff",
}  # fmt: skip


def frame(name: str, data: Any, number: int) -> bytes:
    """One event as it goes over the line."""
    return f"event: {name}\nid: {event_id(number)}\ndata: {protocol.to_json(data)}\n\n".encode()


async def preview_data(node_id: str, picture: Any) -> dict[str, Any]:
    """A preview as clients get it: a file in base64."""
    body = await asyncio.to_thread(protocol.encode_preview, picture)
    (kind,) = struct.unpack(">I", body[:4])
    return {
        "node_id": node_id, "content_type": MIME.get(kind, "image/jpeg"),
        "data_base64": base64.b64encode(body[4:]).decode("ascii"),
    }  # fmt: skip


class Stream:
    """The events of one job for one client."""

    def __init__(self, server: Any, log: JobLog, base: str, last: int | None) -> None:
        self.server, self.log, self.base = server, log, base
        self.number = log.number if last is None else min(last, log.number)
        self.is_new = last is None
        self.outputs_sent: set[str] = set()
        for event in () if last is None else log.shown_until(self.number):
            self.new_outputs(v2_shapes.outputs_of(log.prompt_id, event.data, base), event.number)
        self.next_picture = 0.0
        self.wake = asyncio.Event()

    async def frames(self) -> AsyncIterator[bytes]:
        """Everything until the job is over; comments while nothing happens."""
        self.log.waiters.add(self.wake)
        try:
            found = find(self.server, self.log.prompt_id)
            if self.is_new and found is not None and found.job["status"] in ("pending", "in_progress"):
                for part in self.now(found):
                    yield part
            while not self.is_over(found):
                self.wake.clear()
                async for part in self.news():
                    yield part
                found = find(self.server, self.log.prompt_id)
                if not self.is_over(found) and not await self.something_new():
                    yield b": still there\n\n"
                    found = find(self.server, self.log.prompt_id)
            async for part in self.rest(found):
                yield part
        finally:
            self.log.waiters.discard(self.wake)

    def is_over(self, found: Found | None) -> bool:
        """Has the job ended, also where nobody said so?"""
        return found is None or v2_shapes.STATUS[found.job["status"]] in v2_shapes.TERMINAL

    def now(self, found: Found) -> list[bytes]:
        """How things stand."""
        job = described(self.server, found, self.base)
        status = {"status": job["status"]}
        if job["queue_position"] is not None:
            status["queue_position"] = job["queue_position"]
        parts = [frame("status", status, self.number), *self.new_outputs(job["outputs"], self.number)]
        if job["progress"] is not None:
            parts.append(frame("progress", job["progress"], self.number))
        return parts

    async def news(self) -> AsyncIterator[bytes]:
        """What has happened since; pictures and progress when it is their time."""
        is_time, events = time.monotonic() >= self.next_picture, self.log.since(self.number)
        kept = [event for event in events if event.name not in PICTURES]
        for event in events if is_time else kept:
            if event.name in PICTURES:
                self.next_picture = time.monotonic() + SECONDS_BETWEEN_PICTURES
            for part in await self.parts_of(event):
                yield part
        self.number = max([self.number, *(event.number for event in (events if is_time else kept))])

    async def parts_of(self, event: Event) -> list[bytes]:
        """An event as it is sent."""
        if event.name == "output":
            shown = v2_shapes.outputs_of(self.log.prompt_id, event.data, self.base)
            return self.new_outputs(shown, event.number)
        if event.name == "preview":
            return [frame("preview", await preview_data(*event.data), event.number)]
        return [] if event.name == "end" else [frame(event.name, event.data, event.number)]

    def new_outputs(self, outputs: list[dict[str, Any]], number: int) -> list[bytes]:
        """Outputs that this client has not got."""
        new = [output for output in outputs if output["id"] not in self.outputs_sent]
        self.outputs_sent.update(output["id"] for output in new)
        return [frame("output", output, number) for output in new]

    async def something_new(self) -> bool:
        """Wait for the next event, or for the time of a picture that is held back. False after a while."""
        held = any(event.number > self.number for event in self.log.newest.values())
        seconds = max(0.0, self.next_picture - time.monotonic()) if held else SECONDS_BETWEEN_SIGNS
        try:
            await asyncio.wait_for(self.wake.wait(), seconds)
        except asyncio.TimeoutError:
            return held
        return True

    async def rest(self, found: Found | None) -> AsyncIterator[bytes]:
        """The end: what was said last, all outputs, and the last status."""
        for event in self.log.since(self.number):
            if event.name == "log":
                yield frame("log", event.data, event.number)
        number, status = max(self.number, self.log.number), "canceled"
        if found is not None:
            job = described(self.server, found, self.base)
            status = job["status"]
            for part in self.new_outputs(job["outputs"], number):
                yield part
        yield frame("status", {"status": status}, number)


async def get_events(server: Any, request: web.Request) -> web.StreamResponse:
    """The stream. A client that has lost its line gets what it has missed."""
    found = find_or_refuse(server, request)
    if server.v2_streams >= MOST_STREAMS:
        raise V2Error(
            429, "too_many_streams", f"{MOST_STREAMS} clients follow events. Ask for the job instead.",
            retry_after=5,
        )
    log = server.job_logs.follow(found.job["id"], len(found.item[2]))
    stream = Stream(server, log, base_of(request), number_of(request.headers.get("Last-Event-ID")))
    response = web.StreamResponse(headers=HEADERS)
    server.v2_streams += 1
    try:
        await response.prepare(request)
        async for part in stream.frames():
            await response.write(part)
        await response.write_eof()
    except ConnectionResetError:  # the client has left
        pass
    finally:
        server.v2_streams -= 1
    return response


def add_routes(routes: web.RouteTableDef, server: Any) -> None:
    """The stream of events."""
    server.v2_streams = 0
    register_v2(routes, server, [("GET", "/api/v2/jobs/{job_id}/events", get_events)])
