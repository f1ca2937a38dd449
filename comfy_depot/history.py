"""What the eviction policy knows: the access log, read into it once and followed from then on.

The log is the memory of the policy over restarts, and it is shared: what another process wrote counts too.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

from comfy_depot import access
from comfy_depot.eviction import LocalModel
from comfy_depot.policies import POLICIES, Key, Policy

MOST_USES = 200_000
"""How far back the log is read. A few hundred uses per model are as good as all."""


class History:
    """A policy that has seen every use in the log of one state folder. May be asked from any thread."""

    def __init__(self, state_directory: Path, policy: str) -> None:
        self._state_directory = state_directory
        self._name = policy
        self._policy: Policy | None = None
        self._row = 0
        self._time = float("-inf")
        self._on_disk: set[Key] = set()
        self._lock = threading.Lock()

    def order(self, models: Sequence[LocalModel], *, size: int) -> list[Key]:
        """The keys of the models, which are all that are on the disk now, in the order in which they should
        go, on a disk where they may take `size` bytes together. The log must have been flushed.
        """
        with self._lock:
            if self._policy is None:
                self._policy = POLICIES[self._name](size)
            self._follow_log(self._policy, models)
            there = {model.key for model in models}
            for key in self._on_disk - there:
                self._policy.gone(key)
            self._on_disk &= there
            return list(self._policy.first_to_go())

    def _follow_log(self, policy: Policy, models: Iterable[LocalModel]) -> None:
        """Feed what is new in the log, and the arrival of models that were never used."""
        main_name = {alias: model.key for model in models for alias in model.aliases}
        self._row, accesses = access.read_since(self._state_directory, self._row, limit=MOST_USES)
        uses: list[tuple[float, Key, int, bool]] = []
        for one in accesses:
            key = main_name.get((one.folder, one.name), (one.folder, one.name))
            uses.append((one.time, key, one.bytes, one.outcome != "hit"))
        known = self._on_disk.union(key for _, key, _, _ in uses)
        uses += [(model.last_used, model.key, model.size, True) for model in models if model.key not in known]
        for time, key, size, is_arrival in sorted(uses, key=lambda use: use[0]):
            if is_arrival:  # it had left, whether anybody told the policy or not
                policy.gone(key)
            self._time = max(self._time, time)
            policy.use(self._time, key, size)
            self._on_disk.add(key)
