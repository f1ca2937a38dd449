"""Nodes that run again although upstream's cache holds their results.

Upstream finds a result by a signature: the class and the inputs of a node and of all that it depends on, and
what `IS_CHANGED` has answered for each. A forced node gets a word of its own into that answer, its *epoch*:
the signature is another one, also of all that depend on the node, so they run, and their results are stored
as usual. The epoch is remembered, so that the next request that does not force finds the forced result. It is
remembered only of nodes that have run, and never of a request with `"cache": "off"`.

What upstream memoises (`node["is_changed"]`, `IsChangedCache.is_changed`) stays as it is: the epoch is put to
the answer on its way out.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

from comfy_depot.upstream import core
from comfy_depot.upstream.force_request import InvalidRequest, Request, read_request

MOST_REMEMBERED = 20_000
log = logging.getLogger(__name__)
Key = tuple[str, str, str]
"""(node id, class type, digest of the inputs that are no links)"""

_asking: ContextVar[bool] = ContextVar("depot_asks_is_changed", default=False)


class Epochs:
    """The epoch of the last forced result of each node. Every method may be called from any thread."""

    def __init__(self, most: int = MOST_REMEMBERED) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._epochs: OrderedDict[Key, str] = OrderedDict()
        self._expand_into_outputs: OrderedDict[tuple[str, str], None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._epochs)

    def of(self, key: Key) -> str | None:
        """The epoch whose result counts; None for a node that was never forced."""
        with self._lock:
            found = self._epochs.get(key)
            if found is not None:
                self._epochs.move_to_end(key)
            return found

    def remember(self, keys: Iterable[Key], epoch: str) -> None:
        """These nodes have run in this epoch."""
        with self._lock:
            for key in keys:
                self._epochs[key] = epoch
                self._epochs.move_to_end(key)
            while len(self._epochs) > self._most:
                self._epochs.popitem(last=False)

    def note_output_inside(self, node_id: str, class_type: str) -> None:
        """Among what this node expands into is a node that saves or shows."""
        with self._lock:
            self._expand_into_outputs[node_id, class_type] = None
            while len(self._expand_into_outputs) > self._most:
                self._expand_into_outputs.popitem(last=False)

    def has_output_inside(self, node_id: str, class_type: str) -> bool:
        """Whether that was so when the node ran last."""
        return (node_id, class_type) in self._expand_into_outputs


epochs = Epochs()


@dataclass
class Run:
    """A prompt that runs, and what of it is forced."""

    prompt_id: str
    request: Request = field(default_factory=Request)
    tenant: str | None = None
    epoch: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Never an earlier one: results may outlive this process in caches that packs bring."""
    decided: dict[str, str | None] = field(default_factory=dict)
    """{node id: its epoch}"""
    forced: dict[str, Key] = field(default_factory=dict)

    def epoch_of(self, dynprompt: Any, node_id: str) -> str | None:
        """The epoch of a node in this run."""
        if node_id not in self.decided:
            self.decided[node_id] = self._decide(dynprompt, node_id)
        return self.decided[node_id]

    def _decide(self, dynprompt: Any, node_id: str) -> str | None:
        node = dynprompt.get_node(node_id)
        class_type, parent = node["class_type"], dynprompt.get_parent_node_id(node_id)
        if parent is not None and _is_output(class_type):
            _note_output_inside(dynprompt, parent)
        if not self.request.asks and not len(epochs):
            return None
        key = key_of(node_id, node)
        if not self._is_forced(dynprompt, node_id, class_type, parent):
            return epochs.of(key)
        self.forced[node_id] = key
        return self.epoch

    def _is_forced(self, dynprompt: Any, node_id: str, class_type: str, parent: str | None) -> bool:
        request = self.request
        if request.asks_for_all or not request.names.isdisjoint((node_id, class_type)):
            return True
        if request.outputs:
            return _is_output(class_type) or epochs.has_output_inside(node_id, class_type)
        while parent is not None:  # what a forced node expands into is forced with it
            if parent in self.forced:
                return True
            parent = dynprompt.get_parent_node_id(parent)
        return False


def begin(prompt_id: str, fields: Mapping[str, Any], *, tenant: str | None = None) -> Run:
    """A run with the request in the extra data of a prompt."""
    try:
        request = read_request(fields)
    except InvalidRequest as error:  # it came another way than by POST /prompt
        log.warning("The prompt %s runs without force: %s.", prompt_id, error)
        request = Request()
    if getattr(core.arguments(), "force", False):
        request = replace(request, every=True, outputs=False, names=frozenset())
    return Run(prompt_id, request, tenant)


def end(run: Run, executor: Any, *, is_through: bool) -> None:
    """Remember the epochs of what has run; after `"cache": "off"` take the results out instead."""
    if run.request.cache == "off":
        for cache in (getattr(executor.caches, name, None) for name in ("outputs", "ui")):
            if cache is not None:
                take_out(cache)
        return
    if not run.forced:
        return
    keys = list(run.forced.values())
    if not is_through or not getattr(executor, "success", False):
        has_run = _executed(getattr(executor, "status_messages", ())) if is_through else set()
        keys = [key for key in keys if key[0] in has_run]
    epochs.remember(keys, run.epoch)


def take_out(cache: Any) -> None:
    """Remove the results of the last prompt from one of upstream's caches."""
    keys = getattr(getattr(cache, "cache_key_set", None), "keys", None)
    for key in list((keys or {}).values()):
        for name in ("cache", "used_generation", "timestamps", "children"):
            getattr(cache, name, {}).pop(key, None)
    for inner in list(getattr(cache, "subcaches", {}).values()):
        if inner is not cache and getattr(inner, "dynprompt", None) is cache.dynprompt:
            take_out(inner)


def get(
    method: Callable[..., Any], cache: Any, run: Run | None, node_id: str, *args: Any, **kwargs: Any
) -> Any:
    """What `IsChangedCache.get(node_id)` answers, with the epoch of the node; awaitable if that is."""
    epoch = None if run is None else run.epoch_of(cache.dynprompt, node_id)
    is_known = node_id in cache.is_changed  # nearly always: each node is asked about often
    if is_known and epoch is None:
        return method(cache, node_id, *args, **kwargs)
    asking = contextlib.nullcontext if is_known else _ask
    with asking():
        answer = method(cache, node_id, *args, **kwargs)
    if hasattr(answer, "__await__"):
        return _later(answer, epoch, asking)
    return answer if epoch is None else [answer, epoch]


async def _later(answer: Any, epoch: str | None, asking: Callable[[], Any]) -> Any:
    with asking():
        found = await answer
    return found if epoch is None else [found, epoch]


@contextlib.contextmanager
def _ask() -> Iterator[None]:
    before = _asking.set(True)
    try:
        yield
    finally:
        _asking.reset(before)


def is_asking() -> bool:
    """Whether `IS_CHANGED` of a node is being asked: the node does not run yet, and perhaps never will."""
    return _asking.get()


def key_of(node_id: str, node: Mapping[str, Any]) -> Key:
    """What an epoch is remembered by."""
    constants = {name: value for name, value in node["inputs"].items() if not _is_link(value)}
    text = json.dumps(constants, sort_keys=True, default=repr)
    return node_id, node["class_type"], hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _is_link(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)


def _is_output(class_type: str) -> bool:
    class_def = core.nodes().NODE_CLASS_MAPPINGS.get(class_type)
    return getattr(class_def, "OUTPUT_NODE", False) is True


def _note_output_inside(dynprompt: Any, node_id: str | None) -> None:
    while node_id is not None:
        epochs.note_output_inside(node_id, dynprompt.get_node(node_id)["class_type"])
        node_id = dynprompt.get_parent_node_id(node_id)


def _executed(messages: Iterable[Any]) -> set[str]:
    """The nodes that a failed or stopped run got to, by what it has told."""
    found: set[str] = set()
    for _, data in messages:
        found.update(data.get("executed") or ())
    return found
