"""Inputs that a prompt names by URL or brings along: `"image": "https://..."`, `"data:image/png;base64,.."`.

Only fields that take an upload (pictures, videos, sounds, 3D files) are looked at. What is fetched passes the
depot's gate, has a limit of size and time, must be what the field takes by its own first bytes, and becomes a
file that is called by its content (`content_store`). The prompt then names that file: it is validated, queued
and kept in the history with it, so a run after a restart does not depend on the URL.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

from aiohttp import web

import nodes
from app import content_store, guarded_http
from app.content_kinds import kind_of
from app.content_store import Receiver, Stored, TooLargeError
from app.routes import answer
from comfy.cli_args import args
from comfy_execution.node_facts import find_input

log = logging.getLogger(__name__)

TAKES = {
    "image_upload": frozenset({"image"}),
    "animated_image_upload": frozenset({"image", "video"}),
    "video_upload": frozenset({"video", "image"}),
    "audio_upload": frozenset({"audio", "video"}),
    "file_upload": frozenset({"model", "image", "video", "audio"}),
}
"""Families of files by the option that marks an upload. Animations are pictures, videos have sound."""
MODELS_OF_SHAPES = frozenset({".glb", ".gltf", ".obj", ".stl", ".fbx", ".usdz", ".ply", ".splat"})
MOST_FETCHES = 32
AT_ONCE = 4
SECONDS_BETWEEN_MESSAGES = 0.25
SHORTEST_BARE_BASE64 = 64
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")


class FetchError(Exception):
    """An input cannot be had; the text says why."""


@dataclass(frozen=True)
class Wanted:
    """An input of a node that holds no name of a file."""

    node_id: str
    class_type: str
    name: str
    value: str
    takes: frozenset[str]

    @property
    def is_url(self) -> bool:
        """Is it to be fetched, and not brought along?"""
        return self.value[:8].lower().startswith(("http://", "https://"))

    @property
    def shown(self) -> str:
        """The value for messages and logs."""
        return guarded_http.shown(self.value) if self.is_url else self.value[:40] + "…"


def looks_foreign(value: Any) -> bool:
    """Can this value not be the name of a file? Asked for each input of each prompt."""
    if not isinstance(value, str):
        return False
    if value[:8].lower().startswith(("http://", "https://", "data:")):
        return True
    start = "".join(value[:600].split())
    if len(start) < SHORTEST_BARE_BASE64 or _BASE64.fullmatch(start) is None:
        return False
    # A long name has the same letters: what it decodes to must begin as a file does.
    return kind_of(base64.b64decode(start.rstrip("=")[: len(start.rstrip("=")) // 4 * 4])) is not None


def upload_option(class_def: Any, name: str) -> str | None:
    """Which option of this input says that it takes an upload."""
    try:
        spec = find_input(class_def.INPUT_TYPES(), name)
    except Exception:  # a pack's class can fail in any way, and validation will name it
        return None
    return None if spec is None else next((flag for flag in TAKES if spec.options.get(flag)), None)


def find_wanted(prompt: Mapping[str, Any]) -> Iterator[Wanted]:
    """The inputs of a prompt that have to be fetched or decoded. The prompt is not validated yet."""
    for node_id, node in prompt.items():
        inputs = node.get("inputs") if isinstance(node, dict) else None
        for name, value in list(inputs.items()) if isinstance(inputs, dict) else ():
            if not looks_foreign(value):
                continue
            class_def = nodes.NODE_CLASS_MAPPINGS.get(str(node.get("class_type")))
            flag = None if class_def is None else upload_option(class_def, name)
            if flag is not None:
                yield Wanted(node_id, str(node["class_type"]), name, value, TAKES[flag])


# -- one input ---------------------------------------------------------------------------------------------


def extension_for(receiver: Receiver, wanted: Wanted) -> str:
    """The ending for what has come; FetchError when the field does not take it."""
    kind = kind_of(receiver.head)
    if kind is not None and kind.family in wanted.takes:
        return kind.extension
    by_name = content_store.extension_of(urlsplit(wanted.value).path) if wanted.is_url else ""
    if kind is None and "model" in wanted.takes and by_name in MODELS_OF_SHAPES:
        return by_name
    families = ", ".join(sorted(wanted.takes))
    found = "a web page" if kind is not None and kind.family == "page" else kind.mime if kind else "unknown"
    raise FetchError(f"it is no {families} file (it is {found})")


def decode(wanted: Wanted) -> bytes:
    """The bytes of a data URL or of bare base64."""
    head, comma, content = wanted.value.partition(",")
    is_data_url = wanted.value[:5].lower() == "data:"
    if is_data_url and not comma:
        raise FetchError("the data URL has no comma")
    try:
        if is_data_url and not head.lower().endswith(";base64"):
            return unquote_to_bytes(content)
        return base64.b64decode("".join((content if is_data_url else wanted.value).split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise FetchError(f"it is no base64 ({error})") from None


def most_bytes() -> int:
    """The largest input that is fetched."""
    return int(args.max_input_size * (1 << 20))


def take(wanted: Wanted, report: Callable[[int, int | None], None]) -> Stored:
    """Fetch or decode an input and store it. Raises FetchError."""
    limit = most_bytes()
    try:
        with Receiver(limit) as receiver:
            if wanted.is_url:
                _download(wanted, receiver, report)
            else:
                receiver.write(decode(wanted))
            return receiver.keep(extension_for(receiver, wanted))
    except TooLargeError:
        raise FetchError(
            f"it has more than {limit:,} bytes. To allow it, start the server with a larger --max-input-size"
        ) from None
    except OSError as error:
        raise FetchError(f"it cannot be written to the input folder ({error.strerror})") from None


def _download(wanted: Wanted, receiver: Receiver, report: Callable[[int, int | None], None]) -> None:
    hosts = guarded_http.hosts_of(args, "--input-hosts", args.input_hosts)
    try:
        with guarded_http.request("GET", wanted.value, hosts, seconds=args.input_timeout) as origin:
            if origin.status != 200:
                raise FetchError(f"the answer was {origin.status}")
            if origin.size is not None and origin.size > (receiver.most_bytes or 0):
                raise TooLargeError
            for piece in origin.pieces():
                receiver.write(piece)
                report(receiver.size, origin.size)
            report(receiver.size, receiver.size)
    except (guarded_http.RefusedError, guarded_http.UnreachableError) as error:
        raise FetchError(str(error)) from None


class Reporter:
    """Tells the client of a prompt how far a download is: `input_progress` {url, value, max, prompt_id}."""

    def __init__(self, server: Any, body: Mapping[str, Any], wanted: Wanted) -> None:
        extra_data = body.get("extra_data") or {}
        self._client = body.get("client_id") or extra_data.get("client_id")
        self._about = {"url": wanted.shown, "node": wanted.node_id, "prompt_id": body.get("prompt_id")}
        self._server, self._next = server, 0.0

    def __call__(self, value: int, total: int | None) -> None:
        now = time.monotonic()
        if self._client is not None and (now >= self._next or value == total):
            self._next = now + SECONDS_BETWEEN_MESSAGES
            self._server.send_sync(
                "input_progress", {**self._about, "value": value, "max": total}, str(self._client)
            )


# -- a prompt ----------------------------------------------------------------------------------------------


def refusal(problems: list[tuple[Wanted, str]]) -> web.Response:
    """400, in the shape of a failed validation."""
    node_errors: dict[str, Any] = {}
    for wanted, text in problems:
        of_node = node_errors.setdefault(
            wanted.node_id, {"errors": [], "dependent_outputs": [], "class_type": wanted.class_type}
        )
        of_node["errors"].append({
            "type": "input_not_fetched", "message": "An input cannot be fetched",
            "details": f"{wanted.name}: {wanted.shown}: {text}.",
            "extra_info": {"input_name": wanted.name, "received_value": wanted.shown},
        })  # fmt: skip
    first, text = problems[0]
    details = f"Node {first.node_id} ({first.class_type}), {first.name}: {first.shown}: {text}."
    error = {
        "type": "input_not_fetched", "message": "An input cannot be fetched", "details": details,
        "extra_info": {},
    }  # fmt: skip
    return answer({"error": error, "node_errors": node_errors}, status=400)


async def replace_in(
    server: Any, body: Mapping[str, Any], prompt: Mapping[str, Any]
) -> web.Response | None:
    """Fetch the inputs of a prompt and name their files in it; or the refusal when one cannot be had."""
    found = list(find_wanted(prompt))
    if not found:
        return None
    by_value: dict[tuple[str, frozenset[str]], list[Wanted]] = {}
    for wanted in found:
        by_value.setdefault((wanted.value, wanted.takes), []).append(wanted)
    if len(by_value) > MOST_FETCHES:
        return refusal([(found[0], f"the prompt names {len(by_value)} inputs; {MOST_FETCHES} may be")])
    places = asyncio.Semaphore(AT_ONCE)

    async def take_one(same: list[Wanted]) -> tuple[list[Wanted], Stored | FetchError]:
        async with places:
            try:
                return same, await asyncio.to_thread(take, same[0], Reporter(server, body, same[0]))
            except FetchError as error:
                return same, error

    taken = await asyncio.gather(*(take_one(same) for same in by_value.values()))
    problems = [(wanted, str(result)) for same, result in taken if isinstance(result, FetchError)
                for wanted in same]
    if problems:
        return refusal(problems)
    for same, result in taken:
        for wanted in same:
            prompt[wanted.node_id]["inputs"][wanted.name] = result.name
        log.info("Input %s is %s (%d bytes).", same[0].shown, result.name, result.size)
    return None
