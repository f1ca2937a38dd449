"""Models that come to a device and leave it: what is noted of that, and what pinned models are spared.

    load_models_gpu(models)     -> Placing.place: notes the moves, and says what is pinned when memory is full
      free_memory(bytes, dev)   -> Placing.free: pinned models stay; notes which others went, and for whom

Both functions may be upstream's own: nothing is asked of a model but what every ModelPatcher has. A pinned
model is known by `is_pinned` on its torch module, which the store sets.
"""

from __future__ import annotations

import contextlib
import inspect
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from comfy_depot.memory_pins import in_words, listed
from comfy_depot.resident import HOST_MEMORY, Move, Part

if TYPE_CHECKING:
    from comfy_depot.residency import Residents

EVERYTHING = 1e29
"""So many bytes are asked for by whoever wants all models gone."""
OUT_OF_MEMORY = frozenset({"OutOfMemoryError", "NotEnoughMemory", "MemoryError"})
WHAT_TO_DO = ("They stay in memory. To let one go: POST /depot/unpin with "
              '{"tier": "memory", "folder": ..., "name": ...}, or python -m comfy_depot unpin --memory '
              "FOLDER/NAME. Or make the picture or the batch smaller, or set a smaller --pin-budget.")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory has run out, of a device or of the machine. On the CPU torch says it in words only."""
    if OUT_OF_MEMORY.intersection(kind.__name__ for kind in type(error).__mro__):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)


def is_pinned(patcher: Any) -> bool:
    """Whether the model of a patcher stays where it is."""
    return getattr(getattr(patcher, "model", None), "is_pinned", False) is True


class _Here(threading.local):
    """What the calling thread is about."""

    wanted: Sequence[Any] = ()
    """The patchers that are being brought to a device."""


class Placing:
    """What the store knows of places. Every method may be called from any thread."""

    is_pinned = staticmethod(is_pinned)

    def __init__(self, residents: Residents) -> None:
        self._residents = residents
        self._here = _Here()
        self._purpose = ""
        self.moves = self.bytes_moved = 0
        """Since the start."""

    @contextlib.contextmanager
    def purpose(self, text: str) -> Iterator[None]:
        """What models are brought to devices for now where no node runs, in whatever thread that is done."""
        self._purpose = text
        try:
            yield
        finally:
            self._purpose = ""

    def place(self, function: Callable[..., Any], models: Any, *args: Any, **kwargs: Any) -> Any:
        """`load_models_gpu(models, ...)`. Where memory does not suffice the error lists the pinned ones."""
        models = list(models)
        outer, self._here.wanted = self._here.wanted, models
        started = time.perf_counter()
        try:
            with self.explaining():
                return function(models, *args, **kwargs)
        finally:
            self._here.wanted = outer
            self._settle([*models, *_loaded(function)], self._why_placed(), time.perf_counter() - started)

    def free(self, function: Callable[..., Any], memory_required: float, device: Any, keep_loaded: Any,
             *args: Any, **kwargs: Any) -> Any:
        """`free_memory(memory_required, device, keep_loaded, ...)`; pinned models are among those to keep."""
        patchers = _loaded(function)
        keep = [*keep_loaded, *(entry for entry in _entries(function) if is_pinned(entry.model))]
        started = time.perf_counter()
        try:
            return function(memory_required, device, keep, *args, **kwargs)
        finally:
            self._settle(patchers, self._why_freed(memory_required, device), time.perf_counter() - started)

    @contextlib.contextmanager
    def explaining(self) -> Iterator[None]:
        """Let an error of full memory say what is pinned."""
        try:
            yield
        except Exception as error:
            told = self.advice(error)
            if told:
                error.args = (f"{error}\n{told}", *error.args[1:])
            raise

    def advice(self, error: BaseException) -> str:
        """What is pinned and what to do, for an error of full memory that does not say it yet; else ""."""
        pinned = self._residents.pinned() if is_out_of_memory(error) else []
        return f"{listed(pinned)} {WHAT_TO_DO}" if pinned and WHAT_TO_DO not in str(error) else ""

    def stats(self) -> dict[str, int]:
        """How often weights went from one device to another, and how many bytes."""
        return {"moves": self.moves, "bytes_moved": self.bytes_moved}

    # Inside.

    def _why_placed(self) -> str:
        return f"needed {self._where()}" if self._where() else "asked for outside of a node"

    def _why_freed(self, memory_required: float, device: Any) -> str:
        if memory_required >= EVERYTHING:
            return "all models were to leave their devices"
        names = self._residents.names_of(self._here.wanted)
        target = f"for {', '.join(names)}" if names else f"on {device}"
        return f"{in_words(memory_required)} were needed {target} {self._where()}".rstrip()

    def _where(self) -> str:
        node = self._residents.host.current_node()
        return self._purpose if node is None else f"in node {node.node_id} of prompt {node.prompt_id}"

    def _settle(self, patchers: Iterable[Any], why: str, seconds: float) -> None:
        """Note what has moved since the last look. The time is that of all of them, by their bytes."""
        found = [(model, part, step) for model, part in self._residents.parts_of(patchers)
                 for step in _steps(part)]
        total = sum(size for _, _, (_, _, size) in found)
        for model, _, (from_, to, size) in found:
            share = seconds * size / max(1, total)
            model.moves.appendleft(Move(time.time(), from_, to, size, share, why))
        self.moves += len(found)
        self.bytes_moved += total


def _steps(part: Part) -> list[tuple[str, str, int]]:
    """(from, to, bytes) of each move of a part since it was last looked at."""
    before, now = part.position, part.position_now()
    part.position = now
    if before[0] == now[0]:
        change = now[1] - before[1]
        before, now = (before[0], max(0, -change)), (now[0], max(0, change))
    steps = ((before[0], HOST_MEMORY, before[1]), (HOST_MEMORY, now[0], now[1]))
    return [step for step in steps if step[2]]


def _entries(function: Callable[..., Any]) -> list[Any]:
    """What the module that a function stands in has as its list of loaded models."""
    return list(getattr(inspect.unwrap(function), "__globals__", {}).get("current_loaded_models", ()))


def _loaded(function: Callable[..., Any]) -> list[Any]:
    return [patcher for patcher in (entry.model for entry in _entries(function)) if patcher is not None]
