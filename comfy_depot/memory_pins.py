"""Models that somebody wants to stay in memory: who, since when, and what they may take together.

A pin is a pattern of names ("checkpoints/sdxl*"), so it also holds a model that comes later, and one whose
file is replaced. There are three kinds:

    of the command line   --pin GLOB            holds at each start; a request lets it go until the next one
    of a group            --pin-group NAME=...  one group is active at a time
    by request            POST /depot/pin       kept in `memory_pins.json`, as is the active group

Every process that shares the folder sees a change: the file is read again when it has changed. A damaged
file is never written to; the pins of the command line hold all the same.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from fnmatch import translate
from pathlib import Path
from typing import Any

import folder_paths
from comfy_depot.errors import DepotError
from comfy_depot.locks import file_lock
from comfy_depot.replacing import replace_file

FILE_NAME = "memory_pins.json"
MOST_NAMED = 20  # models in an error message
log = logging.getLogger(__name__)


class MemoryPinsUnreadable(DepotError):
    """`memory_pins.json` is damaged; it is not overwritten, so nothing is lost."""


class NotPinned(DepotError):
    """What is to be let go is not pinned, or there is no such group."""


# --- pure ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pin:
    """A wish that models stay in memory."""

    pattern: str
    """"folder type/name", where `*`, `?` and `[...]` stand for parts of it."""
    by: str
    """Who wishes it, as it is shown: "--pin checkpoints/sdxl*", "group video", "POST /depot/pin by alice"."""
    since: float

    def holds(self, name: str) -> bool:
        """Whether it holds the model of this "folder type/name"."""
        return name == self.pattern or _expression(self.pattern).match(name) is not None


@functools.lru_cache(maxsize=512)
def _expression(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(translate(pattern))
    except re.error:  # a set such as [z-a], of which some versions make no expression: it means itself only
        return re.compile(re.escape(pattern) + r"\Z")


def pattern_of(folder: str, name: str) -> str:
    """The pattern of a folder type, by the name it has now, and a name or a glob."""
    return f"{folder_paths.map_legacy(folder)}/{name.replace(os.sep, '/')}"


def has_glob(pattern: str) -> bool:
    """Whether a pattern may stand for several names."""
    return any(sign in pattern for sign in "*?[")


def own_pattern(pattern: str) -> str:
    """A pattern of the command line with its folder type by the name it has now."""
    folder, _, name = pattern.partition("/")
    return pattern_of(folder, name)


@dataclass(frozen=True)
class Setup:
    """What the command line says."""

    patterns: tuple[str, ...] = ()
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    since: float = 0.0


@dataclass(frozen=True)
class State:
    """What requests have said."""

    pins: tuple[Pin, ...] = ()
    group: str | None = None
    """The active group, "" for none; None while nobody has chosen: the first one is."""
    group_since: float = 0.0
    released: frozenset[str] = frozenset()
    """Patterns of the command line that were let go. Not kept over a restart."""

    def pinned(self, pattern: str, by: str, now: float) -> State:
        """With one more pin; harmless where this one wishes it already."""
        released = self.released - {pattern}
        if any(pin.pattern == pattern and pin.by == by for pin in self.pins):
            return replace(self, released=released)
        return replace(self, pins=(*self.pins, Pin(pattern, by, now)), released=released)

    def unpinned(self, pattern: str, setup: Setup) -> State:
        """Without the pins of this pattern, whoever made them."""
        released = self.released | ({pattern} & set(setup.patterns))
        return replace(self, released=released,
                       pins=tuple(pin for pin in self.pins if pin.pattern != pattern))

    def switched(self, group: str, now: float) -> State:
        """With this group as the active one; "" for none."""
        return replace(self, group=group, group_since=now)

    def active_group(self, setup: Setup) -> str | None:
        """The group whose models are pinned now."""
        if self.group == "":
            return None
        return self.group if self.group in setup.groups else next(iter(setup.groups), None)

    def in_force(self, setup: Setup) -> tuple[Pin, ...]:
        """All pins: of the command line, of the active group, by request."""
        own = [Pin(pattern, f"--pin {pattern}", setup.since) for pattern in setup.patterns
               if pattern not in self.released]
        group = self.active_group(setup)
        if group is not None:
            own += [Pin(pattern, f"group {group}", max(self.group_since, setup.since))
                    for pattern in setup.groups[group]]
        return (*own, *self.pins)


@dataclass(frozen=True)
class Pinned:
    """A model that is pinned or would be: what it takes and who wishes it."""

    name: str
    size: int
    by: tuple[str, ...] = ()


def admit(sizes: Iterable[int], limit: float) -> list[bool]:
    """Which of these models, the first ones first, fit into `limit` bytes together."""
    taken, fit = 0, []
    for size in sizes:
        fit.append(taken + size <= limit)
        taken += size if fit[-1] else 0
    return fit


def listed(models: Sequence[Pinned]) -> str:
    """The pinned models as a sentence for people, the largest first."""
    if not models:
        return "No model is pinned in memory."
    ordered = sorted(models, key=lambda model: (-model.size, model.name))
    shown = [f"{model.name} ({in_words(model.size)}, by {', '.join(model.by)})"
             for model in ordered[:MOST_NAMED]]
    if len(ordered) > MOST_NAMED:
        shown.append(f"{len(ordered) - MOST_NAMED} more")
    total = in_words(sum(model.size for model in models))
    return f"Pinned in memory are {total}: {'; '.join(shown)}."


def in_words(size: float) -> str:
    """Bytes for people: "3.2 GB"."""
    unit, name = next((one for one in ((1e9, "GB"), (1e6, "MB")) if size >= one[0] / 10), (1e3, "kB"))
    return f"{size / unit:.1f} {name}"


# --- with the file ------------------------------------------------------------------------------------


class MemoryPins:
    """The pins of one state folder and one command line. Every method may be called from any thread."""

    def __init__(
        self, state_directory: Path, *, patterns: Iterable[str] = (),
        groups: Mapping[str, Iterable[str]] | None = None,
    ) -> None:
        self._file = state_directory / FILE_NAME
        self.setup = Setup(tuple(map(own_pattern, patterns)), {
            name: tuple(map(own_pattern, globs)) for name, globs in (groups or {}).items()}, time.time())
        self._lock = threading.RLock()
        self._state = State()
        self._read_as: object = None
        self.problem: str | None = None
        """Why the file cannot be used, for people."""
        self.refresh()

    @property
    def state(self) -> State:
        """What requests have said, as last read."""
        return self._state

    def all(self) -> tuple[Pin, ...]:
        """The pins in force."""
        return self._state.in_force(self.setup)

    def of(self, names: Iterable[str]) -> tuple[Pin, ...]:
        """The pins that hold a model of these names."""
        pins = self.all()
        return tuple(pin for pin in pins if any(map(pin.holds, names))) if pins else ()

    def groups(self) -> list[dict[str, Any]]:
        """The groups and which one is active."""
        active = self._state.active_group(self.setup)
        return [{"name": name, "patterns": list(patterns), "is_active": name == active}
                for name, patterns in self.setup.groups.items()]

    def refresh(self) -> bool:
        """Read the file again if another process has changed it; whether it had."""
        with self._lock:
            stamp = self._stamp()
            if stamp == self._read_as:
                return False
            try:
                self._take(self._read())
                self.problem = None
            except MemoryPinsUnreadable as error:
                self.problem = str(error)
                log.error("%s", error)
            self._read_as = stamp
            return True

    def change(self, function: Callable[[State], State]) -> None:
        """Make the state `function` of what it is. MemoryPinsUnreadable or OSError: nothing has changed."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._lock, file_lock(self._file.with_suffix(".lock"), on_wait=lambda: None, pause=0.01):
            self._take(self._read())
            after = function(self._state)
            replace_file(self._file, json.dumps(_as_json(after), indent=1), durable=True)
            self._state, self._read_as, self.problem = after, self._stamp(), None

    def _take(self, read: State) -> None:
        self._state = replace(read, released=self._state.released)

    def _stamp(self) -> object:
        try:
            found = os.stat(self._file)
        except OSError:
            return "none"
        return found.st_ino, found.st_size, found.st_mtime_ns

    def _read(self) -> State:
        try:
            return _from_json(json.loads(self._file.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return State()
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise MemoryPinsUnreadable(
                f"The pins in memory that {self._file} holds cannot be read ({error}). Those of the command "
                'line hold. Correct it (JSON: {"pins": [{"pattern", "by", "since"}], "group"}), or delete it '
                "and pin the models again."
            ) from error


def _as_json(state: State) -> dict[str, Any]:
    return {name: value for name, value in asdict(state).items() if name != "released"}


def _from_json(content: Any) -> State:
    pins = tuple(Pin(str(one["pattern"]), str(one["by"]), float(one["since"])) for one in content["pins"])
    group = content.get("group")
    return State(pins, None if group is None else str(group), float(content.get("group_since", 0.0)))
