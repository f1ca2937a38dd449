"""Why a node ran, or did not: kept in the history, and sent when the node starts.

A reason is `{"reason": word}`. Two words say more:

    changed   "inputs": own inputs whose value, or whose link, is another one than when the node ran last
              "upstream": ids of linked nodes that are not what they were
              "is_changed": true, if the value of IS_CHANGED is another one
              "models": models that it names and that have other bytes now, if there are any
    dropped   "why": what made room for what (see DROP_CAUSES), when that is known

Plain reasons are shared objects: nobody changes them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from comfy_execution.graph_utils import is_link
from comfy_execution.results.signatures import NoStableContentError, Signature, Signatures, canonical, digest

CACHED = "cached"
"""It did not run: its stored result was used."""
FORCED = "forced"
"""The request asked for it (`force`)."""
NOT_READ = "not read"
"""Stored results were not looked at (`cache`, `--cache-none`)."""
CHANGED = "changed"
"""It, or something it depends on, is not what it was when it ran last."""
DROPPED = "dropped"
"""It ran before just like this, but the result was not kept."""
NEVER_RAN = "never ran"
"""It is new here."""

DROP_CAUSES = ("budget", "free", "workflow", "models", "replaced")
"""The limit of the cache was reached; POST /free; only the last workflow's results are kept; the models in it
had to leave a full disk; the models in it have other bytes now.
"""

Reason = dict[str, Any]
PLAIN: Mapping[str, Reason] = {
    word: {"reason": word} for word in (CACHED, FORCED, NOT_READ, DROPPED, NEVER_RAN)
}
DROPPED_FOR: Mapping[str, Reason] = {cause: {"reason": DROPPED, "why": cause} for cause in DROP_CAUSES}

_NO_CONTENTS: Mapping[str, str] = MappingProxyType({})
REMEMBERED_INPUTS = 100_000
REMEMBERED_DROPS = 50_000
LONGEST_REMEMBERED_TEXT = 64

NodeKey = tuple[str, str]
"""(node id, class name)"""


# Each node that runs makes these; plain tuples are made in half the time of named ones.
_LastRun = tuple[Signature, dict[str, Any], Any, Mapping[str, str]]
"""A node as it was when it ran last: (signature, a trace of each input, a trace of IS_CHANGED, contents of
the models that it names).
"""
# The trace of a link is (source, slot, signature of the source); that of a long text has two elements.


def _trace(value: Any) -> Any:
    """Something small that is equal for equal values; what has no stable content equals nothing."""
    kind = type(value)
    if kind is str:
        return value if len(value) <= LONGEST_REMEMBERED_TEXT else (hash(value), len(value))
    if kind is int or kind is bool or value is None:
        return value
    try:
        return digest([canonical(value)])
    except NoStableContentError:
        return object()


def _equal(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)


class PastRuns:
    """What each node was when it ran last, and why results are gone; both up to a limit, newest first."""

    def __init__(self, limit: int = REMEMBERED_INPUTS) -> None:
        """`limit` counts nodes and their inputs."""
        self._limit = limit
        self._size = 0
        self._runs: OrderedDict[NodeKey, _LastRun] = OrderedDict()
        self._drops: OrderedDict[Signature, str] = OrderedDict()

    def why(self, node: NodeKey, signatures: Signatures) -> Reason:
        """Why a node runs that has no stored result."""
        signature = signatures.by_node[node[0]]
        cause = self._drops.get(signature)
        if cause is not None:
            return DROPPED_FOR[cause]
        before = self._runs.get(node)
        if before is None:
            return PLAIN[NEVER_RAN]
        return PLAIN[DROPPED] if before[0] == signature else _difference(before, node[0], signatures)

    def note(self, node: NodeKey, signatures: Signatures) -> tuple[Signature, ...]:
        """A node has run. Returns the signatures of the nodes it is linked to."""
        before = self._runs.pop(node, None)
        sources: list[Signature] = []
        now = self._runs[node] = _last_run(node[0], signatures, sources)
        if before is None:
            self._size += 1 + len(now[1])
        else:
            self._size += len(now[1]) - len(before[1])
        while self._size > self._limit:
            _, oldest = self._runs.popitem(last=False)
            self._size -= 1 + len(oldest[1])
        return tuple(sources)

    def note_drops(self, signatures: Iterable[Signature], cause: str) -> None:
        """These results are gone; `cause` is one of DROP_CAUSES."""
        for signature in signatures:
            self._drops[signature] = cause
            self._drops.move_to_end(signature)
        while len(self._drops) > REMEMBERED_DROPS:
            self._drops.popitem(last=False)


def _last_run(node_id: str, signatures: Signatures, sources: list[Signature]) -> _LastRun:
    """The node as it is now. `sources` receives the signatures of the nodes it is linked to."""
    known, changed = signatures.by_node, signatures.changed
    inputs: dict[str, Any] = {}
    for name, value in signatures.dynprompt.get_node(node_id)["inputs"].items():
        if type(value) is list and is_link(value):
            source = known.get(value[0])
            inputs[name] = (value[0], value[1], source)
            if source is not None:
                sources.append(source)
        else:
            inputs[name] = _trace(value)
    trace = _trace(changed[node_id]) if node_id in changed else None
    return known[node_id], inputs, trace, signatures.contents.get(node_id, _NO_CONTENTS)


def _difference(before: _LastRun, node_id: str, signatures: Signatures) -> Reason:
    """The reason `changed`, with what is different."""
    _, old, was_changed, past_contents = before
    _, new, is_changed, contents = _last_run(node_id, signatures, [])
    inputs: list[str] = []
    upstream: dict[str, None] = {}
    for name in {**new, **old}:
        if name not in new or name not in old:
            inputs.append(name)
            continue
        one, other = old[name], new[name]
        if not (type(one) is type(other) is tuple and len(one) == len(other) == 3):
            if not _equal(one, other):
                inputs.append(name)
        elif one[1] != other[1] or (one[0] != other[0] and one[2] != other[2]):
            inputs.append(name)
        elif one[2] != other[2]:
            upstream[other[0]] = None
    reason: Reason = {"reason": CHANGED, "inputs": inputs, "upstream": list(upstream)}
    if not _equal(was_changed, is_changed):
        reason["is_changed"] = True
    models = [name for name, past in past_contents.items() if contents.get(name, past) != past]
    if models:
        reason["models"] = models
    return reason
