"""The web server: one aiohttp application that serves the web page, the API and the websocket.

The routes stand in `app/routes/`, one file per topic. They are collected in `PromptServer.routes`, where
node packs add theirs, and mounted by `add_routes()` twice: as they are, and below /api.

Any thread may send: `send_sync` puts a message into the loop's queue, `publish_loop` hands them to the
clients' lines in order.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import uuid  # noqa: F401 - packs take it from here
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import aiohttp
from aiohttp import web

import execution
import protocol
from app import job_ends
from app.app_settings import AppSettings
from app.client_line import ClientLine
from app.custom_node_manager import CustomNodeManager
from app.frontend_management import FrontendManager
from app.middleware import chosen_header_setters, chosen_middlewares
from app.missed_events import MissedEvents
from app.model_manager import ModelFileManager
from app.node_replace_manager import NodeReplaceManager
from app.routes import (
    assets,
    description,
    history,
    internal,
    jobs,
    models,
    object_info,
    packs,
    prompt,
    queue,
    static,
    system,
    upload,
    userdata,
    users,
    v2_assets,
    v2_events,
    v2_jobs,
    view,
    websocket,
)
from app.subgraph_manager import SubgraphManager
from app.user_manager import UserManager
from app.v2_assets import AssetIndex
from app.v2_events import JobLogs
from app.webhooks import Webhooks
from comfy.cli_args import args
from comfy_api import feature_flags, node_replacements
from comfy_execution.progress import MessageBudget
from protocol import BinaryEventTypes
from comfy_depot import hooks as depot

TOPICS = (
    websocket,
    static,
    prompt,
    queue,
    history,
    jobs,
    object_info,
    view,
    upload,
    users,
    userdata,
    models,
    packs,
    system,
    assets,
    v2_jobs,
    v2_events,
    v2_assets,
    description,
)

STATUS_AT_ONCE, STATUS_PER_SECOND = 100, 50
"""A queue may change a thousand times per second, and everybody is told."""

PromptHandler = Callable[[dict[str, Any]], dict[str, Any]]


def twins_below_api(routes: web.RouteTableDef) -> web.RouteTableDef:
    """The same routes with /api before their paths. Folders of files have no twin."""
    twins = web.RouteTableDef()
    for route in routes:
        if isinstance(route, web.RouteDef):
            twins.route(route.method, "/api" + route.path, **route.kwargs)(route.handler)
    return twins


def tls_context() -> ssl.SSLContext | None:
    """Encryption with the certificate of the command line, if there is one."""
    if not (args.tls_keyfile and args.tls_certfile):
        return None
    context = ssl.SSLContext(protocol=ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certfile=args.tls_certfile, keyfile=args.tls_keyfile)
    return context


class PromptServer:
    """The server; node packs reach it as `PromptServer.instance`."""

    instance: ClassVar[PromptServer]

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        PromptServer.instance = self
        feature_flags.apply_arguments(args)
        self.loop = loop
        self.messages: asyncio.Queue[tuple[Any, Any, str | None]] = asyncio.Queue()
        self._outbox: deque[tuple[Any, Any, str | None]] = deque()
        self._outbox_is_noticed = False
        self._status_is_due = False
        self._status_budget = MessageBudget(STATUS_AT_ONCE, STATUS_PER_SECOND)
        self.supports = ["custom_nodes_from_web"]
        self.number = 0
        self.client_id: str | None = None
        self.cache_stats: Callable[[], dict[str, Any]] = dict  # the worker puts its own here and there
        self.let_models_go: Callable[[], bool] = bool
        self.between_prompts: Callable[[Callable[[], None]], None] = lambda act: act()
        self.prompt_succeeded: Callable[[dict[str, Any], list[str]], None] = lambda graph, outputs: None
        self._last_node_id: str | None = None
        self.last_prompt_id: str | None = None
        self.client_session: aiohttp.ClientSession | None = None
        self.on_prompt_handlers: list[PromptHandler] = []
        self.sockets: dict[str, web.WebSocketResponse] = {}
        self.sockets_metadata: dict[str, dict[str, Any]] = {}
        self.lines: dict[web.WebSocketResponse | None, ClientLine] = {}
        self.missed = MissedEvents()
        self.web_root = args.front_end_root or FrontendManager.init_frontend(args.front_end_version)
        self._make_parts()
        self.app = web.Application(
            client_max_size=round(args.max_upload_size * feature_flags.MEGABYTE),
            middlewares=chosen_middlewares(args),
        )
        self.app.on_response_prepare.extend(chosen_header_setters(args))
        self.routes = web.RouteTableDef()
        for topic in TOPICS:
            topic.add_routes(self.routes, self)

    def _make_parts(self) -> None:
        self.user_manager = UserManager()
        self.settings = AppSettings(self.user_manager)
        self.model_file_manager = ModelFileManager()
        self.custom_node_manager = CustomNodeManager()
        self.subgraph_manager = SubgraphManager()
        self.node_replace_manager = NodeReplaceManager()
        node_replacements.send_replacements_to(self.node_replace_manager.register)
        self.log_subscribers = internal.LogSubscribers(self)
        self.prompt_queue = execution.PromptQueue(self)
        self.job_logs, self.webhooks, self.asset_index = JobLogs(self), Webhooks(self), AssetIndex()
        job_ends.attach(self)

    # Starting

    async def setup(self) -> None:
        """What needs a running loop: the session that node packs use for requests of their own."""
        self.client_session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None))

    def add_routes(self) -> None:
        """Mount every route.

        Called once, after the depot has started and the node packs have added theirs.
        """
        depot.add_routes(self.routes)
        self.app.add_subapp("/internal", internal.create_application(self))
        self.app.add_routes(twins_below_api(self.routes))
        self.app.add_routes(self.routes)
        static.mount_files(self.app, self)

    async def start(
        self, address: str, port: int, verbose: bool = True, call_on_start: Callable | None = None
    ) -> None:
        """Listen on one address."""
        await self.start_multi_address([(address, port)], call_on_start, verbose)

    async def start_multi_address(
        self,
        addresses: Iterable[tuple[str, int]],
        call_on_start: Callable | None = None,
        verbose: bool = True,
    ) -> None:
        """Listen on each (host, port); OSError when one is taken.

        `call_on_start(scheme, address, port)` is told the first.
        """
        encryption = tls_context()
        scheme = "https" if encryption else "http"
        self.runner = runner = web.AppRunner(self.app, access_log=None)
        await runner.setup()
        for address, port in addresses:
            await web.TCPSite(runner, address, port, ssl_context=encryption).start()
            if not hasattr(self, "address"):
                self.address, self.port = address, port
            if verbose:
                host = f"[{address}]" if ":" in address else address
                logging.info("To see the GUI go to: %s://%s:%s", scheme, host, port)
        if call_on_start is not None:
            call_on_start(scheme, self.address, self.port)

    # Prompts

    @property
    def last_node_id(self) -> str | None:
        """The node in work."""
        return self._last_node_id

    @last_node_id.setter
    def last_node_id(self, node_id: str | None) -> None:
        self._last_node_id = node_id
        self.prompt_queue.note_node(node_id)

    def get_queue_info(self) -> dict[str, Any]:
        """What a status message holds: the number of prompts that wait or run, and whether the queue is
        paused.
        """
        queue = self.prompt_queue
        return {"exec_info": {"queue_remaining": queue.get_tasks_remaining(), "paused": queue.paused}}

    def queue_updated(self) -> None:
        """Tell every client how long the queue is: now, or soon if they were told often just before."""
        depot.queue_changed()
        if not self.sockets or self._status_is_due or self.loop.is_closed():
            return
        if self._status_budget.take():
            self._send_status()
        else:
            self._status_is_due = True
            self.loop.call_soon_threadsafe(self.loop.call_later, 1 / STATUS_PER_SECOND, self._send_status)

    def _send_status(self) -> None:
        self._status_is_due = False
        self.send_sync("status", {"status": self.get_queue_info()})

    def add_on_prompt_handler(self, handler: PromptHandler) -> None:
        """Let `handler` see, and change, the body of every POST /prompt."""
        self.on_prompt_handlers.append(handler)

    def trigger_on_prompt(self, json_data: dict[str, Any]) -> dict[str, Any]:
        """The body after all handlers; one that fails is said in the log and passed over."""
        for handler in self.on_prompt_handlers:
            try:
                json_data = handler(json_data)
            except Exception:  # a pack's handler can raise anything, and must not stop others' prompts
                logging.exception("A pack's handler for new prompts failed and is passed over.")
        return json_data

    # Messages

    def send_sync(self, event: Any, data: Any, sid: str | None = None) -> None:
        """Send from any thread: to one client, or to all.

        A named event carries JSON, a number carries bytes.
        """
        self.job_logs.tell(event, data)
        is_heard = self.sockets if sid is None else sid in self.sockets or self.missed.awaits(sid)
        if not is_heard or self.loop.is_closed():
            return
        self._outbox.append((event, data, sid))
        if not self._outbox_is_noticed:  # one wake-up of the loop for all messages that come meanwhile
            self._outbox_is_noticed = True
            self.loop.call_soon_threadsafe(self._take_outbox)

    def _take_outbox(self) -> None:
        self._outbox_is_noticed = False
        while self._outbox:
            self.messages.put_nowait(self._outbox.popleft())

    def send_progress_text(self, text: str | bytes | bytearray, node_id: str, sid: str | None = None) -> None:
        """Show a text below a node."""
        self.send_sync(BinaryEventTypes.TEXT, protocol.encode_text(text, node_id), sid)

    async def publish_loop(self) -> None:
        """Send what `send_sync` put aside, in order, forever."""
        while True:
            event, data, sid = await self.messages.get()
            try:
                await self.send(event, data, sid)
            except Exception:  # a pack can send what cannot be encoded; the messages behind it must go on
                logging.exception("Message %r could not be sent.", event)

    async def send(self, event: Any, data: Any, sid: str | None = None) -> None:
        """Send in whichever form the event has."""
        if not self.sockets if sid is None else sid not in self.sockets:
            if sid is not None:
                self.missed.keep(event, data, sid)
            return  # nobody listens, so nothing is encoded: a script may poll the history instead
        if event == BinaryEventTypes.UNENCODED_PREVIEW_IMAGE:
            await self.send_image(data, sid)
        elif event == BinaryEventTypes.PREVIEW_IMAGE_WITH_METADATA and isinstance(data, tuple):
            await self.send_image_with_metadata(*data, sid=sid)
        elif isinstance(data, (bytes, bytearray)):
            await self.send_bytes(event, data, sid)
        else:
            await self.send_json(event, data, sid)

    async def send_image(self, image_data: tuple, sid: str | None = None) -> None:
        """Send a preview (format, picture, longest side)."""
        body = await asyncio.to_thread(protocol.encode_preview, image_data)
        await self.send_bytes(BinaryEventTypes.PREVIEW_IMAGE, body, sid)

    async def send_image_with_metadata(
        self, image_data: tuple, metadata: dict | None = None, sid: str | None = None
    ) -> None:
        """Send a preview together with what it belongs to."""
        body = await asyncio.to_thread(protocol.encode_preview_with_metadata, image_data, metadata)
        await self.send_bytes(BinaryEventTypes.PREVIEW_IMAGE_WITH_METADATA, body, sid)

    def encode_bytes(self, event: int, data: bytes | bytearray) -> bytes:
        """A binary message."""
        return protocol.encode_event(event, data)

    async def send_bytes(self, event: int, data: bytes | bytearray, sid: str | None = None) -> None:
        """Send a binary message to one client, or to all."""
        self._deliver(self.encode_bytes(event, data), sid)

    async def send_json(self, event: str, data: Any, sid: str | None = None) -> None:
        """Send a JSON message {type, data} to one client, or to all."""
        self._deliver(protocol.encode_json(event, data), sid, self.missed.when_sent(event, data, sid))

    def _deliver(
        self, message: str | bytes, sid: str | None, when_sent: Callable[[], None] | None = None
    ) -> None:
        for name in list(self.sockets) if sid is None else [sid]:
            line = self.lines.get(self.sockets.get(name))
            if line is not None:
                line.put(message, when_sent)
