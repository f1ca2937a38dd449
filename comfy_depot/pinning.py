"""Pins in memory carried out: which models a pattern means now, whether they fit, and what there is.

A change is planned first (`Plan`: what would be pinned and what it takes) and made in one step: what does not
fit into the budget raises OverBudget, and nothing has changed. Loading is the work of `warm_memory.py`.
"""

from __future__ import annotations

import difflib
import fnmatch
import itertools
import os
import posixpath
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import folder_paths
from comfy_depot import places
from comfy_depot.errors import DepotError, ModelUnavailable
from comfy_depot.eviction import Stamp
from comfy_depot.inventory import NOT_MODELS
from comfy_depot.memory_pins import NotPinned, Pin, Pinned, State, has_glob, in_words, listed, pattern_of

if TYPE_CHECKING:
    from comfy_depot.depot import Depot

UNTIL_RESTART = "The command line names it, so it is pinned again at the next start."
MOST_PINS = 1000
"""By request: each is looked up again and again."""
MOST_COMPARED = 5000  # names, for those that are near


class OverBudget(DepotError):
    """The models of a pin do not fit; `pinned` is what takes the room."""

    def __init__(self, message: str, pinned: Sequence[Pinned]) -> None:
        super().__init__(message)
        self.pinned = pinned


@dataclass(frozen=True)
class Target:
    """A known model that pins mean."""

    folder: str
    name: str
    path: str | None
    """Where it is on the disk."""
    size: int | None
    """Bytes: in memory if it is there, else of its file, else what the manifest says."""
    content: Hashable
    """Equal for models that are one in memory."""
    pins: tuple[Pin, ...]

    @property
    def title(self) -> str:
        """ "folder type/name"."""
        return f"{self.folder}/{self.name}"

    @property
    def by(self) -> tuple[str, ...]:
        """Who pins it, each once."""
        return tuple(dict.fromkeys(pin.by for pin in self.pins))


@dataclass(frozen=True)
class Plan:
    """What would be pinned after a change."""

    change: Callable[[State], State]
    pins: tuple[Pin, ...]
    targets: tuple[Target, ...]
    concerned: tuple[Target, ...]
    """The models that the change is about."""
    message: str | None = None

    @property
    def bytes(self) -> int:
        """What all of them take; models with one content count once."""
        return sum({target.content: target.size or 0 for target in self.targets}.values())

    def as_json(self) -> dict[str, Any]:
        """As the routes and `--json` give it."""
        return {
            "tier": "memory", "pinned_bytes": self.bytes, "message": self.message,
            "models": [{"folder": one.folder, "name": one.name, "bytes": one.size}
                       for one in self.concerned],
            "pins": [asdict(pin) for pin in self.pins],
        }


class Pinning:
    """Pins of one depot. Every method may be called from any thread."""

    def __init__(self, depot: Depot) -> None:
        self._depot = depot
        self._pins = depot.memory_pins
        self._one_at_a_time = threading.Lock()

    @property
    def budget(self) -> int | None:
        """Bytes that pinned models may take together; None without a limit but the memory."""
        limit = self._depot.residents.pin_limit
        return None if limit == float("inf") else int(limit)

    # Plans.

    def plan_pin(self, folder: str, name: str, by: str) -> Plan:
        """Pin a model or all of a glob. ModelUnavailable when nobody knows such a name, OverBudget."""
        pattern = pattern_of(folder, name)
        if len(self._pins.state.pins) >= MOST_PINS:
            raise OverBudget(f"{MOST_PINS} patterns are pinned by request; no more can be. Unpin some.", [])
        concerned = self.targets([Pin(pattern, by, 0.0)])
        if not concerned:
            if not has_glob(pattern):
                raise ModelUnavailable(self._depot.explain_missing(folder, name))
            raise ModelUnavailable(self.warning(pattern))
        plan = self._plan(lambda state: state.pinned(pattern, by, time.time()), concerned)
        return self._checked(plan, pattern)

    def plan_unpin(self, folder: str, name: str) -> Plan:
        """Let the pins of this pattern go, whoever made them. NotPinned says what holds it instead."""
        pattern, pins = pattern_of(folder, name), self._pins.all()
        gone = [pin for pin in pins if pin.pattern == pattern and not self._is_of_group(pin)]
        if not gone:
            raise NotPinned(self._why_not_unpinned(pattern, pins))
        is_own = any(pin.by == f"--pin {pattern}" for pin in gone)
        plan = self._plan(lambda state: state.unpinned(pattern, self._pins.setup), self.targets(gone))
        return replace(plan, message=UNTIL_RESTART if is_own else None)

    def plan_group(self, group: str, *, is_on: bool = True) -> Plan:
        """Make a group the active one instead of another, or let it go."""
        groups = self._pins.setup.groups
        if group not in groups:
            known = f"There are: {', '.join(groups)}." if groups else "Name one: --pin-group NAME=GLOB,..."
            raise NotPinned(f"There is no group '{group[:60]}' of pinned models. {known}")
        concerned = self.targets([Pin(pattern, f"group {group}", 0.0) for pattern in groups[group]])
        if not is_on:
            if self._pins.state.active_group(self._pins.setup) != group:
                raise NotPinned(f"The group '{group}' is not the active one, so it is not pinned.")
            return self._plan(lambda state: state.switched("", time.time()), concerned)
        if not concerned:
            raise ModelUnavailable(self.warning(groups[group][0]))
        return self._checked(self._plan(lambda state: state.switched(group, time.time()), concerned),
                             f"the group '{group}'")

    def carry_out(self, change: Callable[[], Plan], *, is_dry_run: bool) -> Plan:
        """Plan a change, and make it unless it is a dry run."""
        with self._one_at_a_time:
            self._pins.refresh()
            plan = change()
            if is_dry_run:
                return plan
            self._pins.change(plan.change)
        self._depot.residents.apply_pins()
        self._depot.warm_memory.wake()
        return plan

    def _plan(self, function: Callable[[State], State], concerned: Sequence[Target]) -> Plan:
        pins = function(self._pins.state).in_force(self._pins.setup)
        return Plan(function, pins, tuple(self.targets(pins)), tuple(concerned))

    def _checked(self, plan: Plan, what: str) -> Plan:
        limit = self._depot.residents.pin_limit
        is_given = limit != float("inf")
        if not is_given:
            limit = self._depot.host.bytes_of_device()
        if plan.bytes <= limit:
            return plan
        pinned = [Pinned(one.title, one.size or 0, one.by) for one in self.targets(self._pins.all())]
        room = f"--pin-budget is {in_words(limit)}" if is_given else f"the device has {in_words(limit)}"
        raise OverBudget(
            f"{what} cannot be pinned: all pinned models would take {in_words(plan.bytes)}, and {room}. "
            f"Nothing has changed. {listed(pinned)} Unpin one, or start with a larger --pin-budget.", pinned)

    def _is_of_group(self, pin: Pin) -> bool:
        return pin.by == f"group {self._pins.state.active_group(self._pins.setup)}"

    def _why_not_unpinned(self, pattern: str, pins: Sequence[Pin]) -> str:
        holding = [pin for pin in pins if pin.holds(pattern)]
        if not holding:
            return (f"'{pattern}' is not pinned in memory. What is: GET /depot/models, or python -m "
                    "comfy_depot pin --memory")
        first = holding[0]
        group = first.by.removeprefix("group ")
        advice = (f'switch to another group, or unpin {{"group": "{group}"}}' if self._is_of_group(first)
                  else f"unpin that pattern, '{first.pattern}'")
        return f"'{pattern}' is held by {first.by} ('{first.pattern}'): {advice}."

    # Names.

    def targets(self, pins: Sequence[Pin]) -> list[Target]:
        """The known models that pins mean, those of the first pins first."""
        in_memory = self._depot.residents.names() if pins else set()  # also those whose file is gone
        names = {pin.pattern for pin in pins
                 if not has_glob(pin.pattern) and (pin.pattern in in_memory or self._is_known(pin.pattern))}
        globs = [pin for pin in pins if has_glob(pin.pattern)]
        names.update(name for name in itertools.chain(in_memory, self._names_like(globs))
                     if any(pin.holds(name) for pin in globs))
        meant = {name: tuple(pin for pin in pins if pin.holds(name)) for name in names}
        first = {name: pins.index(holding[0]) for name, holding in meant.items()}
        return [self._target(name, meant[name]) for name in sorted(names, key=lambda one: (first[one], one))]

    def warning(self, pattern: str) -> str:
        """What to say of a pattern that means no known model."""
        folder, _, glob = pattern.partition("/")
        if folder not in places.table() and not has_glob(folder):
            return f"No model can be pinned as '{pattern}': {places.unknown_type(folder)}"
        plain = glob.replace("*", "").replace("?", "")
        compared = len(plain) if has_glob(glob) else None
        begins = {name[:compared]: name for name in itertools.islice(self._names_in(folder), MOST_COMPARED)}
        near = [begins[begin] for begin in difflib.get_close_matches(plain, begins, n=3)]
        advice = f"Near: {', '.join(near)}. " if near else ""
        return (f"No known model is called '{pattern}'. {advice}Such a model is pinned when it comes: on the "
                "disk, or in a manifest.")

    def without_models(self, targets: Iterable[Target]) -> list[Pin]:
        """The pins in force that mean none of the known models `targets`."""
        meaning = {pin for target in targets for pin in target.pins}
        return [pin for pin in self._pins.all() if pin not in meaning]

    def _names_like(self, globs: Sequence[Pin]) -> Iterator[str]:
        """The names of the folder types in which globs look."""
        kinds = {glob.pattern.partition("/")[0] for glob in globs}
        for kind in sorted(places.table()) if kinds else ():
            if kind not in NOT_MODELS and any(fnmatch.fnmatchcase(kind, wanted) for wanted in kinds):
                yield from (f"{kind}/{name}" for name in self._names_in(kind))

    def _names_in(self, kind: str) -> Iterable[str]:
        if kind not in places.table():
            return ()
        return (name.replace(os.sep, "/") for name in folder_paths.get_filename_list(kind))

    def _is_known(self, title: str) -> bool:
        folder, _, name = title.partition("/")
        if posixpath.normpath(f"/{name}") != f"/{name}":  # lists show each model by one name
            return False
        return (folder in places.table() and self._depot.local_path(folder, name) is not None
                or self._depot.catalogue.find(folder, name) is not None)

    def _target(self, title: str, pins: tuple[Pin, ...]) -> Target:
        folder, _, name = title.partition("/")
        depot, path = self._depot, self._depot.local_path(folder, name)
        in_memory = depot.residents.find(title, path)
        entry = depot.catalogue.find(folder, name)
        size = None if entry is None else entry.size
        content: Hashable = title if entry is None else entry.sha256 or title
        try:
            stamp = None if path is None else Stamp.of(os.stat(path))
        except OSError:  # gone since
            stamp = None
        if stamp is not None:
            size, content = stamp.size, depot.digests.of(stamp) or stamp
        return Target(folder, name, path, in_memory[0] if in_memory else size, content, pins)

    # What there is.

    def outlook(self) -> list[dict[str, Any]]:
        """The groups, the models that each means, and why one that is not active could not become it now."""
        found = []
        for group in self._pins.groups():
            meant = self.targets([Pin(pattern, "", 0.0) for pattern in group["patterns"]])
            problem = None
            try:
                if not group["is_active"]:
                    self.plan_group(group["name"])
            except DepotError as error:
                problem = str(error)
            found.append({**group, "problem": problem, "models": [
                {"folder": one.folder, "name": one.name, "bytes": one.size} for one in meant]})
        return found

    def report(self) -> dict[str, Any]:
        """What is pinned, by whom, and how far it is: "memory" of `GET /depot/models`."""
        depot, pins = self._depot, self._pins.all()
        by_pin: dict[Pin, list[dict[str, Any]]] = {pin: [] for pin in pins}
        for target in self.targets(pins):
            for pin in target.pins:
                by_pin[pin].append(depot.warm_memory.state_of(target).as_json())
        return {
            "budget": self.budget,
            "pinned_bytes": sum(model.size for model in depot.residents.pinned()),
            "pins": [{**asdict(pin), "models": models,
                      "warning": None if models else self.warning(pin.pattern)}
                     for pin, models in by_pin.items()],
            "groups": self._pins.groups(), "problem": self._pins.problem,
            "warming": [model.as_json() for model in depot.warm_memory.asked()],
            "devices": depot.host.memory_report(),
        }
