"""Which models leave the disk: a plan that can be read first, then carried out.

`plan_eviction` is pure: files in, a `Plan` out, nothing is touched. `Plan.execute()` is the only code that
deletes a model. What must never go (see `survey.py`) comes in as `LocalModel.kept`, with its reason; in which
order the others go is up to a policy (see `policies.py` and `history.py`).
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from comfy_depot.policies import Key

log = logging.getLogger(__name__)

SECONDS_PER_DAY = 86_400


@dataclass(frozen=True)
class Stamp:
    """What tells that the file under a path is still the same one."""

    device: int
    inode: int
    size: int
    changed_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        """The stamp of a file whose status was read."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


@dataclass(frozen=True)
class LocalModel:
    """A model file on the disk."""

    folder: str
    name: str
    path: str
    stamp: Stamp
    last_used: float
    """Seconds since 1970: its last access, or its arrival when it was never used."""
    is_own: bool = True
    """Whether the depot can bring exactly this file back, so that it counts towards the size limit."""
    kept: str | None = None
    """Why it must stay; None when it may go."""
    aliases: frozenset[Key] = frozenset()
    """Other (folder type, name) pairs that mean the same file."""
    occupied: int | None = None
    """Bytes on the disk, where that is not the length of the file: a partial has holes."""
    beside: tuple[str, ...] = ()
    """Files that are of no use without this one and go with it."""

    @property
    def key(self) -> Key:
        """(folder type, name)."""
        return self.folder, self.name

    @property
    def size(self) -> int:
        """Bytes on the disk."""
        return self.stamp.size if self.occupied is None else self.occupied


@dataclass(frozen=True)
class Limits:
    """What is asked for: limits for all models, or models by name."""

    max_size: int | None = None
    """Bytes that the depot's own models may take."""
    keep_days: float | None = None
    """Days without use after which a model goes."""
    names: Collection[Key] | None = None
    """Only these, whatever their age."""

    def __post_init__(self) -> None:
        if self.names is None and self.max_size is None and self.keep_days is None:
            raise ValueError("No limit is given. Give a size, a number of days, or both.")
        if self.names is not None and not self.max_size is self.keep_days is None:
            raise ValueError("Models by name and limits do not go together. Ask for the one or the other.")
        if self.max_size is not None and self.max_size < 0:
            raise ValueError(f"max_size is {self.max_size}. Give 0 or more bytes.")
        if self.keep_days is not None and not 0 <= self.keep_days < float("inf"):
            raise ValueError(f"keep_days is {self.keep_days}. Give 0 or more days.")


@dataclass(frozen=True)
class Verdict:
    """One file with the reason why it goes or stays."""

    model: LocalModel
    reason: str


def _nothing_new(model: LocalModel) -> str | None:
    return None


@dataclass(frozen=True)
class Plan:
    """What goes and what stays. `execute()` carries it out and returns what became of it."""

    going: tuple[Verdict, ...] = ()
    staying: tuple[Verdict, ...] = ()
    own_bytes: int = 0
    """What the depot's own models take before anything goes."""
    max_size: int | None = None
    """The size limit, if one was given."""
    recheck: Callable[[LocalModel], str | None] = field(default=_nothing_new, repr=False, compare=False)
    """Asked right before a file is deleted: why it must stay after all, or None."""

    @property
    def bytes_freed(self) -> int:
        """Bytes of all files that go."""
        return sum(verdict.model.size for verdict in self.going)

    @property
    def bytes_over(self) -> int:
        """Bytes above the size limit that are not freed, because what takes them must stay."""
        return 0 if self.max_size is None else max(0, self.own_bytes - self.bytes_freed - self.max_size)

    def __str__(self) -> str:
        return "\n".join([
            *(_line("goes", verdict) for verdict in self.going),
            *(_line("stays", verdict) for verdict in self.staying),
            f"{self.bytes_freed} bytes of {len(self.going)} models freed.",
        ])

    def as_json(self) -> dict[str, Any]:
        """The plan as the route and `--json` give it."""
        return {
            "bytes_freed": self.bytes_freed,
            "bytes_over": self.bytes_over,
            "evicted": [_as_json(verdict) for verdict in self.going],
            "kept": [_as_json(verdict) for verdict in self.staying],
        }

    def execute(self) -> Plan:
        """Delete what goes; the plan as it turned out, with what had to stay after all among the staying."""
        gone, stayed = [], []
        for verdict in self.going:
            problem = self.recheck(verdict.model) or _delete(verdict.model)
            if problem is None:
                gone.append(verdict)
                log.info("Evicted %s/%s: %s.", *verdict.model.key, verdict.reason)
            else:
                stayed.append(Verdict(verdict.model, problem))
        return replace(self, going=tuple(gone), staying=(*stayed, *self.staying))


def plan_eviction(
    models: Iterable[LocalModel], limits: Limits, *, now: float, order: Iterable[Key] | None = None,
    recheck: Callable[[LocalModel], str | None] = _nothing_new,
) -> Plan:
    """What to evict so that the limits hold. Models that `order` leaves out go first, the longest unused one
    before the others; without any order that is all of them.
    """
    considered = [model for model in models if _is_asked_for(model, limits)]
    may_go = {model.key: model for model in considered if model.kept is None}
    reasons: dict[Key, str] = {}
    for model in may_go.values():
        days = (now - model.last_used) / SECONDS_PER_DAY
        if limits.names is not None:
            reasons[model.key] = "asked for by name"
        elif limits.keep_days is not None and days > limits.keep_days:
            reasons[model.key] = f"not used for {days:.1f} days"
    own_bytes = sum(model.size for model in considered if model.is_own)
    if limits.max_size is not None:
        over = own_bytes - limits.max_size - sum(may_go[key].size for key in reasons)
        for key in _order(may_go, order or ()):
            if over > 0 and key not in reasons and may_go[key].size > 0:
                reasons[key] = "over the size limit"
                over -= may_go[key].size
    going = tuple(Verdict(may_go[key], reason) for key, reason in reasons.items())
    staying = tuple(
        Verdict(model, model.kept or "within the limits")
        for model in considered if model.kept is not None or model.key not in reasons
    )
    return Plan(going, staying, own_bytes, limits.max_size, recheck)


def plan_room(
    models: Iterable[LocalModel], *, bytes_over: int, device: int, bytes_on_device: int, order: Iterable[Key],
    recheck: Callable[[LocalModel], str | None] = _nothing_new,
) -> Plan:
    """What to evict so that the own models take `bytes_over` less and `bytes_on_device` more are free on a
    device; nothing when that cannot be reached.
    """
    considered = list(models)
    may_go = {model.key: model for model in considered if model.kept is None and model.size > 0}
    going: list[Verdict] = []
    for key in _order(may_go, order):
        model = may_go[key]
        helps_device = model.stamp.device == device and bytes_on_device > 0
        if helps_device or bytes_over > 0:
            going.append(Verdict(model, "room is needed for a download"))
            bytes_over -= model.size
            bytes_on_device -= model.size if model.stamp.device == device else 0
    if bytes_over > 0 or bytes_on_device > 0:
        going.clear()
    gone = {verdict.model.key for verdict in going}
    staying = tuple(Verdict(model, model.kept or "nothing is gained") for model in considered
                    if model.key not in gone)
    return Plan(tuple(going), staying, recheck=recheck)


def _is_asked_for(model: LocalModel, limits: Limits) -> bool:
    if limits.names is None:
        return True
    return model.key in limits.names or not model.aliases.isdisjoint(limits.names)


def _order(models: dict[Key, LocalModel], order: Iterable[Key]) -> list[Key]:
    """The keys of `models` in the order in which they go."""
    places = {key: place for place, key in enumerate(order)}
    return sorted(models, key=lambda key: (places.get(key, -1), models[key].last_used, key))


def _delete(model: LocalModel) -> str | None:
    """Delete a file when it is still the one that was planned for; why it stays, or None when it is gone."""
    try:
        if Stamp.of(os.lstat(model.path)) != model.stamp:
            return "it has changed since the plan was made"
        os.unlink(model.path)
        for path in model.beside:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
    except FileNotFoundError:  # somebody else was quicker
        return None
    except OSError as error:  # no right to delete it, or a system that does not delete open files
        return f"it could not be deleted: {error.strerror or error}"
    return None


def _line(what: str, verdict: Verdict) -> str:
    model = verdict.model
    return f"{what}: {model.folder}/{model.name} ({model.size} bytes): {verdict.reason}"


def _as_json(verdict: Verdict) -> dict[str, Any]:
    model = verdict.model
    return {"folder": model.folder, "name": model.name, "size": model.size, "last_used": model.last_used,
            "reason": verdict.reason}
