"""Webhooks: how a prompt ended is posted to an address that its request names.

    "webhook": "https://example.com/done"
    "webhook": {"url": "https://example.com/done", "events": ["prompt.complete"], "secret": "whsec_..."}

A webhook is written down before its prompt is accepted, and its message before it is sent: both survive the
process (`webhooks_store`); sending and trying again is the work of `webhooks_sender`. Messages are signed as
https://www.standardwebhooks.com describes: `webhook-id`, `webhook-timestamp`, and in `webhook-signature` the
HMAC-SHA256 of id, timestamp and body.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import logging
import os
import sqlite3
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import protocol
from app import guarded_http, v2_shapes
from app.webhooks_sender import Sender
from app.webhooks_store import Hook, Message, WebhookStore
from comfy.cli_args import args
from comfy_execution.errors import InvalidRequestError
from comfy_execution.jobs import get_job
from comfy_execution.queueing.journal import JournalFullError

log = logging.getLogger(__name__)

COMPLETE, FAILED, CANCELLED = EVENTS = ("prompt.complete", "prompt.failed", "prompt.cancelled")
EVENT_OF = {"completed": COMPLETE, "failed": FAILED, "cancelled": CANCELLED}
FIELDS = frozenset({"url", "events", "secret"})
SECRET_VARIABLE = "WEBHOOK_SECRET"
LONGEST_URL = 2000
LONGEST_SECRET = 500


@dataclass(frozen=True)
class Wish:
    """What a request asks for."""

    url: str
    events: tuple[str, ...] = EVENTS
    secret: str | None = None


def key_of(secret: str) -> bytes:
    """The key that a secret stands for: `whsec_` and base64, or a text as it is. ValueError for others."""
    if not secret.startswith("whsec_"):
        return secret.encode("utf-8")
    try:
        return base64.b64decode(secret[6:], validate=True)
    except binascii.Error as error:
        raise ValueError(f"after whsec_ there must be base64 ({error})") from None


def signature(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """The value of the header `webhook-signature`."""
    content = f"{message_id}.{timestamp}.".encode() + body
    digest = hmac.new(key_of(secret), content, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode("ascii")


def _refusal(details: str) -> InvalidRequestError:
    return InvalidRequestError("invalid_webhook", "The webhook cannot be called", details, {})


def read_wish(body: Mapping[str, Any], hosts: guarded_http.Hosts) -> Wish | None:
    """The webhook of a request, or None. Raises InvalidRequestError (`invalid_webhook`)."""
    given = body.get("webhook")
    if given is None:
        return None
    fields = {"url": given} if isinstance(given, str) else given
    if not isinstance(fields, dict) or not isinstance(fields.get("url"), str):
        raise _refusal('webhook must be an address, or {"url": ..., "events": [...], "secret": ...}.')
    if unknown := sorted(set(fields) - FIELDS):
        raise _refusal(f"It has no field {unknown[0][:80]!r}. The fields are: {', '.join(sorted(FIELDS))}.")
    if len(fields["url"]) > LONGEST_URL:
        raise _refusal(f"Its url has more than {LONGEST_URL} characters.")
    events, secret = fields.get("events", list(EVENTS)), fields.get("secret")
    if not isinstance(events, list) or not events or any(event not in EVENTS for event in events):
        raise _refusal(f"events must be a list of: {', '.join(EVENTS)}.")
    if secret is not None and not (isinstance(secret, str) and 0 < len(secret) <= LONGEST_SECRET):
        raise _refusal(f"secret must be a text of 1 to {LONGEST_SECRET} characters.")
    try:
        hosts.check(fields["url"])
        key_of(secret or "")
    except guarded_http.RefusedError as error:
        raise _refusal(f"{error}.") from None
    except ValueError as error:
        raise _refusal(f"secret: {error}.") from None
    return Wish(fields["url"], tuple(events), secret)


class Webhooks:
    """The webhooks of a server. `start` lets them be sent; until then they are only written down."""

    def __init__(self, server: Any, *, pauses: Iterable[float] | None = None) -> None:
        self._server = server
        self._store: WebhookStore | None = None
        self._sender: Sender | None = None
        self._pauses = pauses

    @property
    def store(self) -> WebhookStore:
        """What is written down: beside the queue's journal, without one in memory."""
        if self._store is None:
            durable = self._server.prompt_queue.durable
            self._store = WebhookStore(None if durable is None else f"{durable.journal.path}.webhooks")
        return self._store

    def hosts(self) -> guarded_http.Hosts:
        """Who may be called."""
        return guarded_http.hosts_of(args, "--webhook-hosts", args.webhook_hosts)

    def start(self) -> None:
        """Send what a process before has left, and what comes."""
        for hook in self.store.hooks():
            if hook.prompt_id in self._server.prompt_queue.history:
                self._tell(hook)
            elif not self._waits(hook.prompt_id):
                self.store.drop(hook.id)
        options = {} if self._pauses is None else {"pauses": tuple(self._pauses)}
        self._sender = Sender(self.store, self.hosts, sign=self._headers, **options)
        self._sender.start()

    def stop(self) -> None:
        """Send nothing more; what is written down stays."""
        if self._sender is not None:
            self._sender.stop()
        if self._store is not None:
            self._store.close()
        self._sender = self._store = None

    def _waits(self, prompt_id: str) -> bool:
        running, waiting = self._server.prompt_queue.get_current_queue_volatile()
        return any(item[1] == prompt_id for item in (*running, *waiting))

    # -- prompts -------------------------------------------------------------------------------------------

    def read_wish(self, body: Mapping[str, Any]) -> Wish | None:
        """The webhook of a request, or None. Raises InvalidRequestError."""
        return read_wish(body, self.hosts())

    async def expect(self, prompt_id: str, body: Mapping[str, Any], base: str) -> Hook | None:
        """A prompt is about to be queued: write its webhook down. `base` is the server's address. Raises
        JournalFullError.
        """
        wish = self.read_wish(body)
        if wish is None:
            return None
        if self._sender is None:
            self.start()
        hook = Hook(uuid.uuid4().hex, prompt_id, wish.url, wish.events, wish.secret, base)
        try:
            await asyncio.to_thread(self.store.add_hook, hook)
        except sqlite3.Error as error:
            raise JournalFullError(
                f"The webhook cannot be written down ({error}). Make room on the disk of the journal, or "
                "send the prompt without a webhook."
            ) from None
        return hook

    async def forget(self, hook: Hook | None) -> None:
        """The prompt was not accepted."""
        if hook is not None:
            await asyncio.to_thread(self.store.drop, hook.id)

    def prompt_ids(self) -> set[str]:
        """The prompts whose end somebody waits for."""
        return set() if self._store is None else {hook.prompt_id for hook in self._store.hooks()}

    def ended(self, prompt_id: str) -> None:
        """A prompt is in the history: its webhooks become messages."""
        for hook in self._hooks_of(prompt_id):
            self._tell(hook)

    def removed(self, prompt_id: str) -> None:
        """A prompt was taken out of the queue before it ran."""
        for hook in self._hooks_of(prompt_id):
            self._tell(hook, cancelled=True)

    def _hooks_of(self, prompt_id: str) -> list[Hook]:
        return [] if self._store is None else self._store.hooks(prompt_id)

    def _tell(self, hook: Hook, *, cancelled: bool = False) -> None:
        history = {} if cancelled else self._server.prompt_queue.get_history(prompt_id=hook.prompt_id)
        job = get_job(hook.prompt_id, (), (), history) or {"status": "cancelled", "create_time": 0}
        event = EVENT_OF[job["status"]]
        if event not in hook.events:
            self.store.drop(hook.id)
            return
        body = protocol.to_json(message_of(event, hook, job)).encode("utf-8")
        self.store.add_message(hook, Message(f"msg_{hook.id}", hook.url, body, hook.secret))
        if self._sender is not None:
            self._sender.wake()

    def _headers(self, message: Message, timestamp: int) -> dict[str, str]:
        headers = {
            "Content-Type": "application/json", "webhook-id": message.id, "webhook-timestamp": str(timestamp)
        }
        secret = message.secret or os.environ.get(SECRET_VARIABLE)
        if secret:
            headers["webhook-signature"] = signature(secret, message.id, timestamp, message.body)
        return headers


def message_of(event: str, hook: Hook, job: Mapping[str, Any]) -> dict[str, Any]:
    """What is posted."""
    return {
        "type": event,
        "timestamp": datetime.now(timezone.utc).isoformat(),
        "id": hook.prompt_id,
        "prompt_id": hook.prompt_id,
        "status": v2_shapes.STATUS[job["status"]],
        "outputs": v2_shapes.outputs_of(hook.prompt_id, job.get("outputs") or {}, hook.base),
        "error": v2_shapes.error_of(job),
        "urls": v2_shapes.links(hook.prompt_id, hook.base),
    }
