"""Models that stay in memory: what a loader has read once is not read again.

    loader node -> comfy.sd.load_... -> (hook) Residents.load -> the model that is there, as a fresh clone
                                                              \\-> the loader itself, which reads the file

A model is known by its *key*: the content of its file (or files: text encoders may be two), the loader, the
loader's other arguments, and the devices and precisions of the moment. Node ids, file names, workflows and
users are no part of it. Content is the file's sha256 where the depot has computed it (`digests.py`), else the
file's stamp: device, inode, size and time of change.

Each caller gets a clone that shares the weights (`resident.py`). A model is *idle* when no clone is left. The
store keeps models within its budget; beyond that it only remembers them, so that a model is found as long as
anybody uses it. What goes first is decided by `drops.py`, which is pure.
"""

from __future__ import annotations

import functools
import gc
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import folder_paths
from comfy_depot import fresh
from comfy_depot.calls import NoKey, options_of
from comfy_depot.drops import Key, order, plan_drops
from comfy_depot.eviction import Stamp
from comfy_depot.memory_pins import Pinned, admit
from comfy_depot.placing import Placing
from comfy_depot.resident import Part, Resident

if TYPE_CHECKING:
    from comfy_depot.digests import Digests
    from comfy_depot.host import Host
    from comfy_depot.memory_pins import MemoryPins
    from comfy_depot.options import Budget

log = logging.getLogger(__name__)

DROPS_REMEMBERED = 50


@dataclass(frozen=True)
class _Call:
    """A loader's call whose result may be in memory."""

    run: Callable[[], Any]
    loader: str
    key: Key
    files: dict[str, Stamp]
    """Path -> what is there now."""

    @property
    def is_as_before(self) -> bool:
        """Whether the files are still those that the key was made of."""
        return all(_stamp_of(path) == stamp for path, stamp in self.files.items())


class Residents:
    """The models in memory. Every method may be called from any thread; one model is loaded at a time."""

    def __init__(
        self, budget: Budget, *, host: Host, digests: Digests,
        local_path: Callable[[str, str], str | None], pins: MemoryPins | None = None,
        pin_budget: Budget | None = None,
    ) -> None:
        self._budget = budget
        self._pins = pins
        self._pin_budget = pin_budget
        self.host = host
        self.placing = Placing(self)
        self._digests = digests
        self._local_path = local_path
        self._loading = threading.RLock()
        self._lock = threading.RLock()
        self._models: dict[Key, Resident] = {}
        self._drops: deque[dict[str, Any]] = deque(maxlen=DROPS_REMEMBERED)
        self._counts = {"loads": 0, "hits": 0, "drops": 0}
        self._seconds_to_load = 0.0

    @functools.cached_property
    def budget(self) -> int:
        """Bytes that the models may take before one is let go."""
        return self._budget.of(self.host.bytes_allowed)

    @functools.cached_property
    def pin_limit(self) -> float:
        """Bytes that pinned models may take together."""
        return float("inf") if self._pin_budget is None else self._pin_budget.of(self.host.bytes_of_device)

    # What the hooks call.

    def load(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], *, parameter: str,
        folder: str | None = None,
    ) -> Any:
        """What `function(*args, **kwargs)` returns, as clones of what is in memory if it is there.

        `parameter` names the argument with the file: a path, or several, or with `folder` a name in that
        folder type.
        """
        def run() -> Any:
            return function(*args, **kwargs)

        if fresh.is_wanted():
            return run()
        try:
            names, options = options_of(function, parameter, args, kwargs)
        except NoKey:
            return run()
        files = self._stamps_of(names, folder)
        if files is None:  # no file: the loader says so, whatever is in memory
            self._forget_files_that_are_gone()
            return run()
        content = tuple(self._digests.of(stamp) or stamp for stamp in files.values())
        key = (content, options, self.host.load_settings())
        call = _Call(run, function.__qualname__, key, files)
        found = self._give(call)
        if found is None:
            self._learn_contents()
            with self._loading:
                found = self._give(call) or self._load(call)
        elif folder is not None:
            folder_paths.get_full_path(folder, names[0])  # the loader would have asked, which is logged
        return found[0]

    def make_room(self, bytes_wanted: float, device: Any) -> None:
        """Let go of idle models that unloading does not take off this device, until so much is free."""
        with self._lock:
            stuck = [model for model in self._idle()
                     if all(base.load_device == base.offload_device == device for base in model.held)]
            for standing in plan_drops((model.standing() for model in stuck), 0):
                if self.host.bytes_free(device) > bytes_wanted:
                    break
                self._drop(self._models[standing.key], f"memory was needed on {device}")

    def free_idle(self, why: str = "memory was to be freed", *, most: int | None = None) -> bool:
        """Let go of the models that nobody uses, or of the first so many; returns whether there were any."""
        if not self._models:  # as when an executor is made at the start
            return False
        gc.collect()  # a clone in a reference cycle is no user any more
        with self._lock:
            idle = [model.standing() for model in self._idle()]
            for standing in sorted(idle, key=order)[:most]:
                self._drop(self._models[standing.key], why)
        gc.collect()  # their modules refer to each other, and their files are mapped until they are gone
        with self._lock:
            self._purge()
        return bool(idle)

    # What pins and the devices ask.

    def apply_pins(self) -> None:
        """Hold what is pinned now, as far as it fits into the budget of pins, and nothing else."""
        if self._pins is None:
            return
        limit = self.pin_limit
        with self._lock:
            for model in self._models.values():
                model.pins = ()
            for model in self._askable():
                model.pins = self._pins.of(model.names)
            wished = sorted((model for model in self._models.values() if model.pins),
                            key=lambda model: (not model.is_pinned, min(pin.since for pin in model.pins)))
            fits = admit((model.size for model in wished), limit)
            pinned = {model.key for model, is_in in zip(wished, fits, strict=True) if is_in}
            for model in self._models.values():
                if model.is_pinned != (model.key in pinned):
                    model.mark(model.key in pinned)
                if model.is_pinned:
                    model.hold()
            self._hold_budget()

    def recognise(self, path: str) -> None:
        """Give a file's name to the models in memory that have its content."""
        stamp = _stamp_of(path)
        if stamp is None:
            return
        content = self._digests.of(stamp) or stamp
        with self._lock:
            for model in self._askable():
                if stamp in model.stamps or content in model.key[0]:
                    model.paths.add(os.path.abspath(path))
                    model.stamps.add(stamp)

    def pinned(self) -> list[Pinned]:
        """The pinned models in memory."""
        with self._lock:
            return [Pinned(model.title, model.size, tuple(model.pinned_by))
                    for model in self._models.values() if model.is_pinned]

    def parts_of(self, patchers: Iterable[Any]) -> list[tuple[Resident, Part]]:
        """The models in memory that these patchers work with, each part once."""
        modules = (getattr(patcher, "model", None) for patcher in patchers)
        wanted = {id(module) for module in modules if module is not None}
        with self._lock:
            return [(model, part) for model in self._models.values() for part in model.parts
                    if part is not None and id(part.module) in wanted]

    def names_of(self, patchers: Iterable[Any]) -> list[str]:
        """The names of the models that patchers work with, as far as they are kept here."""
        return list(dict.fromkeys(model.title for model, _ in self.parts_of(patchers)))

    # What eviction and the routes ask.

    def is_resident(self, stamp: Stamp) -> bool:
        """Whether the content of this file is in memory."""
        with self._lock:
            return any(stamp in model.stamps and model.bases() for model in self._models.values())

    def models(self) -> list[dict[str, Any]]:
        """The models in memory, last used first."""
        with self._lock:
            self._purge()
            found = sorted(self._models.values(), key=lambda model: -model.last_used)
            return [model.as_json() for model in found]

    def drops(self) -> list[dict[str, Any]]:
        """What was let go, and why; the newest first."""
        with self._lock:
            return list(reversed(self._drops))

    def names(self) -> set[str]:
        """Each "folder type/name" of the models that can be given out."""
        with self._lock:
            return {name for model in self._askable() for name in model.names}

    def find(self, name: str, path: str | None) -> tuple[int, bool] | None:
        """(bytes, whether it is pinned) of the model in memory that has this "folder type/name" and what is
        at `path` now; of any of that name when the file is gone. None when there is none.
        """
        stamp = None if path is None else _stamp_of(path)
        with self._lock:
            found = [model for model in self._askable() if (
                name in model.names if path is None or stamp is None
                else stamp in model.stamps and os.path.abspath(path) in model.paths)]
            best = max(found, key=lambda model: (model.is_pinned, model.size), default=None)
            return None if best is None else (best.size, best.is_pinned)

    def memory_stats(self) -> dict[str, Any]:
        """What models in memory have cost so far, and what is pinned."""
        pinned = self.pinned()
        return {"loads": self._counts["loads"], "seconds_to_load": round(self._seconds_to_load, 3),
                "evictions": self._counts["drops"], **self.placing.stats(),
                "pinned_models": len(pinned), "pinned_bytes": sum(model.size for model in pinned)}

    def stats(self) -> dict[str, int]:
        """Counts since the start, and bytes now."""
        with self._lock:
            self._purge()
            size = sum(model.size for model in self._models.values())
            counts = {"models": len(self._models), "bytes": size, **self._counts}
        return {**counts, "budget": self.budget}

    def close(self) -> None:
        """Let go of everything."""
        with self._lock:
            for model in self._models.values():
                model.mark(False)
            self._models.clear()

    # Inside.

    def _idle(self) -> list[Resident]:
        """The models that are kept although nobody uses them and nobody has pinned them."""
        return [model for model in self._models.values()
                if model.held and model.is_idle and not model.is_pinned]

    def _askable(self) -> list[Resident]:
        """The models that can be given to whoever asks."""
        return [model for model in self._models.values()
                if model.bases() and model.is_there and not model.is_outdated]

    def _stamps_of(self, names: list[str], folder: str | None) -> dict[str, Stamp] | None:
        """Path -> what is there now; None where a file is not there."""
        files = {}
        for name in names:
            path = name if folder is None else self._find(folder, name)
            stamp = None if path is None else _stamp_of(path)
            if path is None or stamp is None:
                return None
            files[os.path.abspath(path)] = stamp
        return files

    def _find(self, folder: str, name: str) -> str | None:
        """The path of a model; a running node has it fetched."""
        here = self._local_path(folder, name)
        return here if here is not None else folder_paths.get_full_path(folder, name)

    def _learn_contents(self) -> None:
        """What was loaded when only the file's stamp was known is known by its sha256 once there is one."""
        for model in list(self._models.values()):
            content, options, settings = model.key
            known = tuple((self._digests.of(part) or part) if isinstance(part, Stamp) else part
                          for part in content)
            if known != content:
                with self._lock:
                    self._rename(model, (known, options, settings))

    def _rename(self, model: Resident, key: Key) -> None:
        if self._models.get(model.key) is not model:  # gone since
            return
        if key not in self._models:
            del self._models[model.key]
            model.key, self._models[key] = key, model
            return
        going, staying = model, self._models[key]
        if model.is_pinned and not staying.is_pinned:
            going, staying = staying, model
            going.key, staying.key = staying.key, going.key
            self._models[going.key], self._models[staying.key] = going, staying
        staying.paths |= going.paths
        staying.stamps |= going.stamps
        going.is_outdated = True
        if going.held:
            self._drop(going, "a model with the same content is in memory")
        self.apply_pins()

    def _give(self, call: _Call) -> tuple[Any] | None:
        """(what the loader would return,) from memory, or None."""
        with self._lock:
            model = self._models.get(call.key)
            if model is None:
                return None
            bases = model.bases()  # held while clones are made
            if not model.is_there:
                return None
            given = model.give(self._user())
            model.hits += 1
            self._counts["hits"] += 1
            self._note_use(model, call)
            del bases
            return (given,)

    def _load(self, call: _Call) -> tuple[Any]:
        """Let the loader read the file, keep what it gives, and give clones of that."""
        with self._lock:
            self._forget_files_that_are_gone()
            self._forget_what_was_replaced(call)
            idle = [model.standing() for model in self._idle()]
            size = sum(stamp.size for stamp in call.files.values())
            in_use = sum(model.size for model in self._models.values()
                         if not model.is_idle and not model.is_pinned)
            for standing in plan_drops(idle, self.budget - in_use - size):
                self._drop(self._models[standing.key], "over the budget")
        started = time.perf_counter()
        with self.placing.explaining():
            loaded = call.run()
        seconds = time.perf_counter() - started
        is_tuple = isinstance(loaded, tuple)
        try:
            parts = [None if one is None else Part(one) for one in (loaded if is_tuple else (loaded,))]
        except NoKey:  # something that cannot be cloned: whoever asked gets it, and nobody else
            return (loaded,)
        for part in parts:
            fresh.reload_alone(None if part is None else part.base())
        if not call.is_as_before:  # replaced while it was read
            return (loaded,)
        with self._lock:
            model = Resident(call.key, call.loader, is_tuple, parts, seconds)
            model.mark(False)
            before = self._models.get(call.key)
            if before is not None:
                model.keep_what_is_used(before)
            self._models[call.key] = model
            self._counts["loads"] += 1
            self._seconds_to_load += seconds
            given = model.give(self._user())
            self._note_use(model, call, is_new=True)
            return (given,)

    def _note_use(self, model: Resident, call: _Call, *, is_new: bool = False) -> None:
        """It is used now: kept, if the budget allows it."""
        model.last_used = time.time()
        model.hold()
        if is_new or not call.files.keys() <= model.paths:
            model.paths.update(call.files)
            self.apply_pins()
        model.stamps.update(call.files.values())
        self._hold_budget()
        self._purge()

    def _user(self) -> str | None:
        """For whom a clone is made: the tenant of the prompt, else the prompt."""
        node = self.host.current_node()
        return None if node is None else node.tenant or f"prompt {node.prompt_id}"

    def _hold_budget(self) -> None:
        held = [other.standing() for other in self._models.values() if other.held]
        for standing in plan_drops(held, self.budget):
            self._drop(self._models[standing.key], "over the budget")

    def _forget_files_that_are_gone(self) -> None:
        with self._lock:
            for model in list(self._models.values()):
                if model.held and not model.is_pinned and not any(map(os.path.exists, model.paths)):
                    self._drop(model, "its file is gone")

    def _forget_what_was_replaced(self, call: _Call) -> None:
        """Another content has taken the place of a file: nobody can ask for the old one by that path."""
        for model in list(self._models.values()):
            replaced = [path for path, stamp in call.files.items()
                        if path in model.paths and stamp not in model.stamps]
            model.paths.difference_update(replaced)
            if replaced and len(model.paths) < len(model.key[0]):
                model.is_outdated = True
                if model.held:
                    self._drop(model, "its file was replaced")

    def _drop(self, model: Resident, why: str) -> None:
        """Stop keeping a model. Its memory is free when its last user has let go of it."""
        model.held = []
        if model.is_pinned:
            model.mark(False)
        self._counts["drops"] += 1
        self._drops.append({
            "names": model.names, "bytes": model.size, "why": why, "time": time.time(),
            "in_use": not model.is_idle,
        })
        log.info("%s (%.0f MB) is not kept in memory any longer: %s.",
                 model.title, model.size / 1e6, why)

    def _purge(self) -> None:
        """Forget models of which nothing is left."""
        for key in [key for key, model in self._models.items() if not model.bases()]:
            del self._models[key]


def _stamp_of(path: str) -> Stamp | None:
    try:
        return Stamp.of(os.stat(path))
    except OSError:
        return None
