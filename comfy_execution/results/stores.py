"""Stores of results, one class per cache mode.

    RetainingCache   results of all workflows, as far as a limit on RAM allows
    ClassicCache     what the running prompt uses
    LRUCache         the N results used last
    NullCache        nothing

Each has the small interface of `ClassicCache`: `begin` a prompt, `expand` a node into others, `get`, `put`.
"""

from __future__ import annotations

import gc
import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, NamedTuple

from comfy_execution.results.budget import Kept, Plan, plan_drops, total_bytes
from comfy_execution.results.retention import DEVICE_BYTES, GIGABYTE, LARGE, SLACK, Ledger, Limit
from comfy_execution.results.signatures import Signature
from comfy_execution.results.size import ENTRY_BYTES, is_small, measure

MOST_RESULTS = 20_000
"""Whatever the budget: what is known of a small result takes more room than the result itself."""

NOTED_SECONDS = 0.001
"""What a dropped result takes to come back makes those that depend on it dearer if it is so much."""
SURPLUS = 0.02
"""So many of them go at once when there are too many."""
CANDIDATES = 2
"""Among how many times the number that must go the rule chooses."""

_NO_BLOCKS: dict[int, int] = {}


class CacheEntry(NamedTuple):
    """What a node gave: `outputs` is a list of values per slot; `ui` is {"meta": ..., "output": ...} or
    None.
    """

    ui: dict[str, Any] | None
    outputs: list[Any]


class Computed(NamedTuple):
    """How a result came to be: seconds, the results it was made from, and whether its key can come again."""

    seconds: float = 0.0
    sources: tuple[Signature, ...] = ()
    is_lasting: bool = True


class ClassicCache:
    """Keeps what the running prompt uses."""

    needs_signatures = True

    def __init__(self) -> None:
        self._entries: dict[Signature, CacheEntry] = {}
        self._signatures: dict[str, Signature] = {}
        self._in_use: set[Signature] = set()
        self._hidden: set[Signature] = set()
        self._fresh: set[Signature] = set()
        """Stored by the running prompt."""
        self.on_drop: Callable[[Iterable[Signature], str], None] = lambda signatures, cause: None
        """Is told which results are dropped, and why (one of `reasons.DROP_CAUSES`)."""

    def _start(self, signatures: dict[str, Signature]) -> None:
        self._signatures = signatures
        self._hidden, self._fresh = set(), set()

    def begin(self, signatures: dict[str, Signature], inner: Iterable[Signature]) -> None:
        """A prompt begins. `signatures`: of its nodes, by id; `inner`: of nodes inside known expansions."""
        self._start(signatures)
        self._in_use = set(signatures.values())
        gone = self._entries.keys() - self._in_use.union(inner)
        for signature in gone:
            del self._entries[signature]
        self.on_drop(gone, "workflow")

    def expand(self, now: Iterable[Signature], gone: Iterable[Signature]) -> None:
        """A node expanded: results of inner nodes that did not come again are dropped."""
        self._in_use.update(now)
        dropped = [key for key in gone if key not in self._in_use and key in self._entries]
        for signature in dropped:
            del self._entries[signature]
        self.on_drop(dropped, "workflow")

    def hide(self, node_ids: Iterable[str]) -> None:
        """The running prompt must not use the results of these nodes that are stored from earlier ones."""
        found = {self._signatures[node_id] for node_id in node_ids if node_id in self._signatures}
        self._hidden |= found - self._fresh

    def is_hidden(self, node_id: str) -> bool:
        """Must the result of this node, or of an equal one, not be used?"""
        return self._signatures.get(node_id) in self._hidden

    def get(self, node_id: str) -> CacheEntry | None:
        """The stored result of a node of the prompt, or None."""
        signature = self._signatures.get(node_id)
        return None if signature is None or signature in self._hidden else self._entries.get(signature)

    def get_local(self, node_id: str) -> CacheEntry | None:
        """The same as `get`, under the name that the execution list asks by."""
        return self.get(node_id)

    def put(self, node_id: str, entry: CacheEntry, computed: Computed = Computed()) -> None:
        """Store the result of a node of the prompt."""
        signature = self._signatures.get(node_id)
        if signature is not None:
            self._entries[signature] = entry
            self._fresh.add(signature)
            self._hidden.discard(signature)

    def all_node_ids(self) -> set[str]:
        """The nodes of the prompt whose result is stored and may be used."""
        usable = self._entries.keys() - self._hidden if self._hidden else self._entries
        return {node_id for node_id, key in self._signatures.items() if key in usable}

    def forget(self) -> None:
        """Drop everything: somebody asked for it."""
        self.on_drop(list(self._entries), "free")
        self._entries.clear()

    def note_unused(self) -> None:
        """The running prompt uses none of the results."""
        self._in_use = set()

    def drop_models(self) -> bool:
        """Drop the results that hold models and that the running prompt does not use: somebody needs the room
        that these models take elsewhere. False if there are none.
        """
        return self.drop_with_models(self._entries.keys() - self._in_use, "models")

    def drop_with_models(self, signatures: Iterable[Signature], cause: str) -> bool:
        """Drop those of these results that hold models. False if there are none."""
        some = [(key, self._entries[key]) for key in signatures if key in self._entries]
        gone = [key for key, entry in some if not is_small(entry.outputs) and measure(*entry).has_models]
        for signature in gone:
            self._remove(signature)
        self.on_drop(gone, cause)
        return bool(gone)

    def _remove(self, signature: Signature) -> None:
        self._entries.pop(signature, None)

    @property
    def bytes_used(self) -> int | None:
        """What the results hold of RAM, if this mode measures it."""
        return None

    @property
    def bytes_allowed(self) -> int | None:
        """How much they may hold, if that is a number."""
        return None

    def __len__(self) -> int:
        return len(self._entries)


class LRUCache(ClassicCache):
    """Keeps the `max_size` results used last. What the running prompt uses is never dropped, even if it is
    more.
    """

    def __init__(self, max_size: int = 100) -> None:
        super().__init__()
        self.max_size = max_size
        self._entries: OrderedDict[Signature, CacheEntry] = OrderedDict()

    def begin(self, signatures: dict[str, Signature], inner: Iterable[Signature]) -> None:
        """A prompt begins: the oldest results go until the rest fits."""
        self._start(signatures)
        self._in_use = set(signatures.values()).union(inner)
        in_use = [key for key in dict.fromkeys((*signatures.values(), *inner)) if key in self._entries]
        for signature in in_use:
            self._entries.move_to_end(signature)
        too_many = len(self._entries) - max(self.max_size, len(in_use))
        self.on_drop([self._entries.popitem(last=False)[0] for _ in range(too_many)], "budget")

    def expand(self, now: Iterable[Signature], gone: Iterable[Signature]) -> None:
        """Results of inner nodes age like any other."""

    def put(self, node_id: str, entry: CacheEntry, computed: Computed = Computed()) -> None:
        """Store a result as the one used last."""
        super().put(node_id, entry)
        signature = self._signatures.get(node_id)
        if signature is not None:
            self._entries.move_to_end(signature)


class RetainingCache(ClassicCache):
    """Keeps results of all workflows as far as the limit allows. What goes first is `budget`'s rule."""

    def __init__(self, limit: Limit) -> None:
        super().__init__()
        self.limit = limit
        self._ledger = Ledger()
        self._prompt = 0
        self._passing: set[Signature] = set()
        """Results whose key never comes again: the next prompt drops them."""
        self._elsewhere: set[Signature] = set()
        """Results with tensors on other devices, which may come back to RAM."""
        self._all_in_use = False
        """The running prompt uses all that is left: there is nothing to choose from."""
        self._unchecked_until = 0
        """Nothing can have to be dropped while the results are smaller than this."""

    def begin(self, signatures: dict[str, Signature], inner: Iterable[Signature]) -> None:
        """A prompt begins; results that it does not use go if there is too much."""
        self._start(signatures)
        self._in_use = set(signatures.values()).union(inner)
        self._prompt += 1
        self._all_in_use = False
        for signature in self._passing:
            self._remove(signature)
        self._passing.clear()
        for signature in self._elsewhere:
            kept, size = self._ledger.kept[signature], measure(*self._entries[signature])
            self._ledger.add(signature, replace(kept, own_bytes=size.own, blocks=size.blocks))
        self._touch(self._in_use)
        self._shed()
        if self._ledger.device_bytes > DEVICE_BYTES:
            self._shed_elsewhere()

    def expand(self, now: Iterable[Signature], gone: Iterable[Signature]) -> None:
        """Results of inner nodes age like any other."""
        self._in_use.update(now)
        self._touch(now)

    def put(self, node_id: str, entry: CacheEntry, computed: Computed = Computed()) -> None:
        """Store a result, and make room for it."""
        signature = self._signatures.get(node_id)
        if signature is not None:
            self._fresh.add(signature)
            self._hidden.discard(signature)
            self.keep(signature, entry, computed)

    def find(self, signature: Signature) -> CacheEntry | None:
        """A stored result, of whichever prompt."""
        return self._entries.get(signature)

    def keep(self, signature: Signature, entry: CacheEntry, computed: Computed = Computed()) -> None:
        """Store a result of whichever prompt, and make room for it."""
        self._entries[signature] = entry
        seconds, sources, is_lasting = computed
        if entry.ui is None and is_small(entry.outputs):
            kept = Kept(ENTRY_BYTES, seconds, _NO_BLOCKS, self._prompt, sources)
        else:
            size = measure(entry.outputs, entry.ui)
            kept = Kept(size.own, seconds, size.blocks, self._prompt, sources, device_bytes=size.device)
            (self._elsewhere.add if size.is_elsewhere else self._elsewhere.discard)(signature)
        if not is_lasting:
            self._passing.add(signature)
        ledger = self._ledger
        ledger.add(signature, kept)
        has_too_many = len(self._entries) > MOST_RESULTS and not self._all_in_use
        if ledger.bytes >= self._unchecked_until or has_too_many:
            self._shed()
        if ledger.device_bytes > DEVICE_BYTES:
            self._shed_elsewhere()

    def forget(self) -> None:
        """Drop everything: somebody asked for it."""
        super().forget()
        self._ledger.clear()
        self._elsewhere.clear()
        self._passing.clear()

    @property
    def bytes_used(self) -> int | None:
        """What the results hold of RAM."""
        return self._ledger.bytes

    @property
    def bytes_allowed(self) -> int | None:
        """The budget, if it is a number."""
        return self.limit.size

    def _touch(self, signatures: Iterable[Signature]) -> None:
        """The running prompt uses these: they go to the end of the ledger."""
        known, now = self._ledger.kept, self._prompt
        for signature in signatures:
            kept = known.pop(signature, None)
            if kept is not None:
                kept.used = now
                known[signature] = kept

    def _shed(self) -> None:
        """Drop results until the rest is within the limit."""
        ledger = self._ledger
        stays = self.limit.others(ledger.bytes)
        if len(self._entries) > MOST_RESULTS and not self._all_in_use:
            self._shed_oldest()
        if ledger.bytes > stays and not self._all_in_use:
            plan = plan_drops(ledger.kept, stays, in_use=self._in_use, now=self._prompt)
            self._drop(plan)
            self._all_in_use = plan.bytes_after > stays
        excess = ledger.bytes - self.limit.active(ledger.bytes)
        for least in (LARGE, 0):
            if excess > 0:
                large = {key: kept for key, kept in ledger.kept.items() if kept.total_bytes >= least}
                before = ledger.bytes
                self._drop(plan_drops(large, total_bytes(large) - excess, now=self._prompt))
                excess -= before - ledger.bytes
        self._unchecked_until = max(ledger.bytes + self.limit.step, self.limit.size or 0)

    def _shed_oldest(self) -> None:
        """There are too many: drop some of those that were used longest ago. To choose among all of them
        takes long, and age decides between so many anyway.
        """
        too_many = len(self._entries) - int(MOST_RESULTS * (1 - SURPLUS))
        known = self._ledger.kept
        oldest = {key: known[key] for key in itertools.islice(known, CANDIDATES * too_many)}
        most = len(oldest) - too_many
        self._drop(plan_drops(oldest, float("inf"), in_use=self._in_use, now=self._prompt, most=most))
        self._all_in_use = len(self._entries) > MOST_RESULTS

    def _shed_elsewhere(self) -> None:
        """The same rule for what results hold on other devices."""
        held = {
            key: replace(kept, own_bytes=kept.device_bytes, blocks=_NO_BLOCKS)
            for key, kept in self._ledger.kept.items()
            if kept.device_bytes
        }
        most = DEVICE_BYTES * (1 - SLACK)
        self._drop(plan_drops(held, most, in_use=self._in_use, now=self._prompt))

    def _drop(self, plan: Plan) -> None:
        before = self._ledger.bytes
        for signature in plan.drops:
            self._remove(signature)
        dear = {key: seconds for key, seconds in plan.seconds.items() if seconds >= NOTED_SECONDS}
        for kept in self._ledger.kept.values() if dear else ():
            for source in kept.sources:
                if source in dear:
                    kept.gone = {**(kept.gone or {}), source: dear[source]}
        if plan.drops:
            self.on_drop(plan.drops, "budget")
        if before - self._ledger.bytes > GIGABYTE:
            gc.collect()  # objects of models refer to each other, and so much is worth the search

    def _remove(self, signature: Signature) -> None:
        self._entries.pop(signature, None)
        self._ledger.remove(signature)
        self._elsewhere.discard(signature)


class NullCache(ClassicCache):
    """Keeps nothing."""

    needs_signatures = False

    def put(self, node_id: str, entry: CacheEntry, computed: Computed = Computed()) -> None:
        """Nothing is stored."""
