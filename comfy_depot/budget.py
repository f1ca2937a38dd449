"""Eviction by itself: before a transfer that needs room, and in idle time.

Both ask the processes that share the state folder before anything is deleted, and so does eviction by hand.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from comfy_depot import survey
from comfy_depot.errors import DepotError
from comfy_depot.eviction import Limits, LocalModel, Plan, plan_eviction, plan_room
from comfy_depot.room import Held

if TYPE_CHECKING:
    from comfy_depot.depot import Depot

IDLE_SECONDS = 60.0
MOST_NAMED = 20  # models in an error message
_BLOCK = 4096
log = logging.getLogger(__name__)


def agree(depot: Depot, plan_for: Callable[[Sequence[LocalModel]], Plan],
          models: Sequence[LocalModel]) -> Plan:
    """The plan for `models` when no process that shares the state folder objects any more."""
    while True:
        plan = plan_for(models)
        objections = depot.neighbours.ask([verdict.model for verdict in plan.going])
        if not objections:
            return plan
        models = [replace(model, kept=objections.get(model.path, model.kept)) for model in models]


def why_busy(depot: Depot) -> Callable[[Sequence[LocalModel]], Mapping[str, str]]:
    """What a neighbour is told that asks: {path: why it must stay because of this process}."""

    def answer(models: Sequence[LocalModel]) -> dict[str, str]:
        busy = survey.Busy(depot)
        reasons = {model.path: busy.reason(model) for model in models}
        return {path: reason for path, reason in reasons.items() if reason is not None}

    return answer


class Budget:
    """Makes room for transfers: the `Evictor` of `room.py`."""

    def __init__(self, depot: Depot) -> None:
        self._depot = depot

    def make_room(self, *, device: int, bytes_on_device: int, max_size: int | None,
                  coming: frozenset[str]) -> Held:
        """Evict what the policy names. Nothing goes when even all that may go would not be enough."""
        models = [replace(model, occupied=_on_whole_blocks(model))
                  for model in survey.local_models(self._depot)
                  if os.path.realpath(model.path) not in coming]
        own = sum(model.size for model in models if model.is_own)
        over = 0 if max_size is None else own - max_size
        if over <= 0 and bytes_on_device <= 0:
            return Held(own)
        order = self._depot.history.order(models, size=self._size_for_policy(own, bytes_on_device))

        def plan_for(considered: Sequence[LocalModel]) -> Plan:
            return plan_room(considered, bytes_over=over, device=device, bytes_on_device=bytes_on_device,
                             order=order, recheck=survey.recheck(self._depot))

        plan = agree(self._depot, plan_for, models).execute()
        return Held(own - plan.bytes_freed, tuple(self._kept(plan)))

    def _size_for_policy(self, own: int, bytes_short: int) -> int:
        limit = self._depot.options.depot_max_size
        return max(own - bytes_short, 1) if limit is None else limit

    def _kept(self, plan: Plan) -> list[str]:
        """What must stay of the depot's own models, largest first."""
        kept = [verdict for verdict in plan.staying if verdict.model.is_own and verdict.model.kept]
        kept.sort(key=lambda verdict: -verdict.model.size)
        named = [f"{'/'.join(verdict.model.key)} ({verdict.reason})" for verdict in kept[:MOST_NAMED]]
        return [*named, f"and {len(kept) - MOST_NAMED} more"] if len(kept) > MOST_NAMED else named


def _on_whole_blocks(model: LocalModel) -> int:
    return -(-model.size // _BLOCK) * _BLOCK


class IdleEviction:
    """A thread that holds `--depot-max-size` and `--depot-keep-days` while nothing else is to be done."""

    def __init__(self, depot: Depot, *, pause: float = IDLE_SECONDS) -> None:
        self._depot = depot
        self._pause = pause
        self._closed = threading.Event()
        self._has_failed = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, when there is a limit to hold."""
        options = self._depot.options
        if options.depot_max_size is None and options.depot_keep_days is None:
            return
        self._thread = threading.Thread(target=self._run, name="depot-idle-eviction", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop; a deletion under way is finished first."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join(10)

    def _run(self) -> None:
        while not self._closed.wait(self._pause):
            try:
                if not self._depot.active_transfers() and not self._depot.host.models_in_use():
                    hold_limits(self._depot)
                self._has_failed = False
            except (DepotError, OSError, sqlite3.Error) as error:
                if not self._has_failed:
                    log.error("Models are not evicted in idle time: %s", error)
                self._has_failed = True


def hold_limits(depot: Depot) -> Plan:
    """Evict what is over the limits of the options, now."""
    limits = Limits(max_size=depot.options.depot_max_size, keep_days=depot.options.depot_keep_days)
    with depot.neighbours.alone():
        return depot.plan_eviction(limits).execute()


def plan_by_hand(depot: Depot, limits: Limits, models: Sequence[LocalModel]) -> Plan:
    """What to evict so that the limits hold, with the policy's order and the neighbours' consent."""
    order = None if limits.max_size is None else depot.history.order(models, size=limits.max_size)

    def plan_for(considered: Sequence[LocalModel]) -> Plan:
        return plan_eviction(considered, limits, now=time.time(), order=order, recheck=survey.recheck(depot))

    with depot.neighbours.alone():
        return agree(depot, plan_for, models)
