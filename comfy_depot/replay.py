"""Replay a trace of model uses: what each eviction policy would have had to fetch on a disk of a given size.

A trace is CSV with a header. Columns: `time` (seconds, or ISO 8601), the model (`folder` and `name`, as
`python -m comfy_depot log --csv` writes, or one of `key`, `model`, `name`, `object`), and `size` or `bytes`.
"""

from __future__ import annotations

import argparse
import csv
import heapq
import math
import time
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from comfy_depot.access import USES, Access
from comfy_depot.options import Budget, parse_size
from comfy_depot.policies import POLICIES, Key, SimulatedCache

_KEYS = ("key", "model", "name", "object")
_TENANTS = ("tenant", "user", "user_id")
_SIZES = ("size", "bytes")
_FORM = "Write the columns time,key,size, or use what `python -m comfy_depot log --csv` prints."


OFFLINE = ("belady", "bound")
"""What `replay` knows besides the policies; see there."""

COLUMNS = ("disk", "policy", "object misses", "byte misses", "misses", "bytes missed", "to lru", "seconds")
"""Of `rows`."""


@dataclass
class Trace:
    """Uses in the order of time, column by column: a million of them take 24 MB."""

    keys: list[Key] = field(default_factory=list)
    """Each model once; `models` are places in this list."""
    times: array[float] = field(default_factory=lambda: array("d"))
    models: array[int] = field(default_factory=lambda: array("l"))
    sizes: array[int] = field(default_factory=lambda: array("q"))

    @classmethod
    def of(cls, uses: Iterable[tuple[float, Key, int]]) -> Trace:
        """A trace from (time, key, size), in any order. A size of 0 is one that nobody knew."""
        trace, places = cls(), dict[Key, int]()
        last_time, is_sorted = -math.inf, True
        for when, key, size in uses:
            place = places.setdefault(key, len(places))
            trace.times.append(when)
            trace.models.append(place)
            trace.sizes.append(size)
            is_sorted, last_time = is_sorted and when >= last_time, when
        trace.keys = list(places)
        return trace._in_order(is_sorted)._with_sizes()

    def __len__(self) -> int:
        return len(self.times)

    def __iter__(self) -> Iterator[tuple[float, Key, int]]:
        keys = self.keys
        for when, place, size in zip(self.times, self.models, self.sizes):
            yield when, keys[place], size

    def distinct_bytes(self) -> int:
        """Bytes of all models together."""
        return sum(dict(zip(self.models, self.sizes)).values())

    def _in_order(self, is_sorted: bool) -> Trace:
        if is_sorted:
            return self
        if len(self) and self.times[0] > self.times[-1]:  # newest first, as the log prints
            for column in (self.times, self.models, self.sizes):
                column.reverse()
        order = sorted(range(len(self)), key=self.times.__getitem__)
        return Trace(self.keys, array("d", (self.times[row] for row in order)),
                     array("l", (self.models[row] for row in order)),
                     array("q", (self.sizes[row] for row in order)))

    def _with_sizes(self) -> Trace:
        """Give a use without a size the size that its model has elsewhere."""
        if 0 in self.sizes:
            known = {place: size for place, size in zip(self.models, self.sizes) if size}
            self.sizes = array("q", (size or known.get(place, 0)
                                     for place, size in zip(self.models, self.sizes)))
        return self


def of_log(accesses: Iterable[Access]) -> Trace:
    """The trace of an access log."""
    return Trace.of((access.time, (access.folder, access.name), access.bytes)
                    for access in accesses if access.is_use)


def read_csv(lines: Iterable[str], *, shown_as: str) -> Trace:
    """A trace from the lines of a CSV file; ValueError names the line and says what to write."""
    return Trace.of((when, key, size) for when, key, size, _ in read_uses(lines, shown_as=shown_as))


def read_uses(lines: Iterable[str], *, shown_as: str) -> Iterator[tuple[float, Key, int, str]]:
    """(time, key, size, tenant) of each line, as `read_csv` understands it. Without a column `tenant` (or
    `user`) all are of one.
    """
    reader = csv.reader(lines)
    header = [column.strip().lower() for column in next(reader, [])]
    try:
        when = header.index("time")
        name = next(header.index(column) for column in _KEYS if column in header)
        size = next(header.index(column) for column in _SIZES if column in header)
    except (ValueError, StopIteration):
        raise ValueError(f"{shown_as}: the first line names no time, model and size. {_FORM}") from None
    folder = header.index("folder") if "folder" in header else None
    outcome = header.index("outcome") if "outcome" in header else None
    tenant = next((header.index(column) for column in _TENANTS if column in header), None)
    for row in reader:
        if row:
            try:
                if outcome is not None and row[outcome] not in USES:
                    continue
                key = (row[folder] if folder is not None else "", row[name])
                yield _seconds(row[when]), key, _bytes(row[size]), "" if tenant is None else row[tenant]
            except (ValueError, IndexError) as error:
                raise ValueError(f"{shown_as}, line {reader.line_num}: {error}. {_FORM}") from None


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = datetime.fromisoformat(text.strip().replace("Z", "+00:00")).timestamp()
    if not math.isfinite(seconds):
        raise ValueError(f"'{text}' is no time")
    return seconds


def _bytes(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        pass
    if not text.strip():
        return 0
    try:
        return parse_size(text)
    except argparse.ArgumentTypeError as error:
        raise ValueError(str(error).split(". ")[0]) from None


@dataclass(frozen=True)
class Result:
    """What one policy would have fetched. "belady" and "bound" know the future and are there to compare."""

    policy: str
    disk_bytes: int
    uses: int
    bytes_used: int
    """Bytes of all uses together."""
    misses: float
    bytes_missed: float
    seconds: float
    """That the replay took."""

    @property
    def object_miss_ratio(self) -> float:
        """The share of uses that had to wait for a download."""
        return self.misses / self.uses if self.uses else 0.0

    @property
    def byte_miss_ratio(self) -> float:
        """The same, weighted with sizes."""
        return self.bytes_missed / self.bytes_used if self.bytes_used else 0.0

    def as_json(self) -> dict[str, Any]:
        """The result as `--json` gives it."""
        return {**asdict(self), "object_miss_ratio": self.object_miss_ratio,
                "byte_miss_ratio": self.byte_miss_ratio}


def disk_bytes(trace: Trace, budget: Budget) -> int:
    """A size in bytes; a share is one of all models in the trace together."""
    return budget.of(trace.distinct_bytes)


def replay(trace: Trace, size: int, policy: str) -> Result:
    """Run a trace through a policy of `policies.POLICIES`, or through "belady" or "bound"."""
    begin = time.perf_counter()
    misses: float
    bytes_missed: float
    if policy == "bound":
        misses, bytes_missed = _bound(trace, size)
    elif policy == "belady":
        misses, bytes_missed = _belady(trace, size)
    else:
        cache, misses, bytes_missed = SimulatedCache(POLICIES[policy](size), size), 0, 0
        for when, key, bytes_of_use in trace:
            if not cache.use(when, key, bytes_of_use):
                misses += 1
                bytes_missed += bytes_of_use
    return Result(policy, size, len(trace), sum(trace.sizes), misses, bytes_missed,
                  time.perf_counter() - begin)


def _next_uses(models: Sequence[int]) -> array[int]:
    """For each use the row of the next use of that model; the number of rows when there is none."""
    found, coming = array("l", bytes(array("l").itemsize * len(models))), dict[int, int]()
    for row in range(len(models) - 1, -1, -1):
        found[row] = coming.get(models[row], len(models))
        coming[models[row]] = row
    return found


def _belady(trace: Trace, size: int) -> tuple[int, int]:
    """Misses and bytes missed when the model whose next use is farthest goes first."""
    misses = bytes_missed = used = 0
    kept: dict[int, tuple[int, int]] = {}  # {model: (next use, size)}
    heap: list[tuple[int, int]] = []  # (-next use, model)
    rows = zip(trace.models, trace.sizes, _next_uses(trace.models))
    for model, wanted, coming in rows:
        before = kept.get(model)
        if before is None:
            misses += 1
            bytes_missed += wanted
            if wanted > size:
                continue
            used += wanted
            while used > size:
                farthest, going = heapq.heappop(heap)
                if going in kept and kept[going][0] == -farthest:
                    used -= kept.pop(going)[1]
        kept[model] = coming, wanted if before is None else before[1]
        heapq.heappush(heap, (-coming, model))
    return misses, bytes_missed


def _bound(trace: Trace, size: int) -> tuple[float, float]:
    """Misses and bytes missed that no policy can go below.

    A hit needs its bytes to be kept from one use to the next. All policies have size x rows of that to
    spend; the bound spends it on the cheapest hits and does not ask that they fit at every moment (PFOO-L;
    Berger, Beckmann, Harchol-Balter 2018).
    """
    rows = zip(_next_uses(trace.models), trace.sizes)
    hits = [(coming - row, kept) for row, (coming, kept) in enumerate(rows)
            if coming < len(trace) and kept <= size]
    supply = float(size) * len(trace)
    saved = _spend(supply, sorted((length, length * kept, 1.0 * kept) for length, kept in hits))
    hit = _spend(supply, sorted((length * kept, length * kept, 1.0) for length, kept in hits))
    return len(trace) - hit, sum(trace.sizes) - saved


def _spend(supply: float, wishes: Iterable[tuple[float, float, float]]) -> float:
    """The value of (rank, cost, value) wishes in the order given, the last one in part."""
    gained = 0.0
    for _, cost, value in wishes:
        if cost > supply:
            return gained + value * supply / cost
        supply -= cost
        gained += value
    return gained


def rows(results: Sequence[Result]) -> Iterator[tuple[str, ...]]:
    """Results as a table: the ratio to LRU is of the bytes missed at the same size."""
    lru = {one.disk_bytes: one.bytes_missed for one in results if one.policy == "lru"}
    for one in results:
        base = lru.get(one.disk_bytes)
        ratio = f"{one.bytes_missed / base:.3f}" if base else ""
        yield (str(one.disk_bytes), one.policy, f"{one.object_miss_ratio:.4f}", f"{one.byte_miss_ratio:.4f}",
               f"{one.misses:.0f}", f"{one.bytes_missed:.0f}", ratio, f"{one.seconds:.1f}")
