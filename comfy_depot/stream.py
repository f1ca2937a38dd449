"""A safetensors file becomes tensors while it arrives.

    aria2 --> partial --> header --> tensor, tensor, ... --> verified, published --> load_torch_file

A tensor is handed over as soon as the journal calls all pieces of its bytes complete. It is mapped from the
partial, which is the very file that later gets the final name, so nothing is copied and nothing is read
twice: memory holds the file once, as the page cache does anyway. Nobody gets a tensor before the whole file
is verified and stands under its name; when a verification fails, or the partial is thrown away, so are they.

`Streams` knows which files somebody waits for in order to load them (`wanted`); a download tells it what has
arrived (`see`), what was thrown away (`drop`) and what stands (`finish`); the loader takes the result, once.
What cannot be streamed has no result there, and is loaded as always.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comfy_depot import hashing
from comfy_depot.errors import WrongContent
from comfy_depot.eviction import Stamp
from comfy_depot.journal import Pieces
from comfy_depot.layout import Place

LEAST_TO_STREAM = 64 << 20  # bytes; a smaller file is loaded in a moment
SUFFIXES = (".safetensors", ".sft")
SECONDS_KEPT = 60.0  # a result that no loader has taken by then is let go
PAGE_BYTES = 4096
BYTES_AT_ONCE = 8 << 20  # of a tensor are read before the thread looks whether it is over
SECONDS_TO_END = 0.3  # for which a closed stream is waited for; a disk may hang for longer
WISHES = ("safe_load", "device", "return_metadata")  # what `load_torch_file` takes besides the file
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loaded:
    """What a loader gets: the state dict and the metadata of the header."""

    tensors: dict[str, Any]
    metadata: dict[str, str] | None


class Stream:
    """The tensors of one partial. A thread of its own takes them; `see` tells it what has arrived."""

    def __init__(self, partial: Path, name: str) -> None:
        self._partial = partial
        self._name = name
        self._change = threading.Condition()
        self._arrived: Pieces | None = None
        self._is_over = self._has_ended = False
        self._inode = os.stat(partial).st_ino
        self._error: WrongContent | None = None
        self._loaded: Loaded | None = None
        self.tensors: dict[str, Any] = {}
        """Those that have been handed over; for nobody's use before `finish`."""
        self._thread = threading.Thread(target=self._run, name="stream", daemon=True)
        self._thread.start()

    def see(self, arrived: Pieces) -> None:
        """These pieces will not change any more. Raises WrongContent when the header is none."""
        self._tell(arrived)
        if self._error is not None:
            raise self._error

    def finish(self, arrived: Pieces) -> Loaded | None:
        """All of it, now that the file is verified; None when it could not be streamed or was closed."""
        self._tell(arrived)
        with self._change:
            self._change.wait_for(lambda: self._is_over or self._has_ended)
            return self._loaded

    def close(self) -> None:
        """Throw everything away. A read that hangs is not waited for: what it brings is nobody's."""
        with self._change:
            self._is_over = True
            self.tensors, self._loaded = {}, None
            self._change.notify_all()
        self._thread.join(SECONDS_TO_END)

    @property
    def inode(self) -> int:
        """Of the partial whose tensors these are."""
        return self._inode

    def _tell(self, arrived: Pieces) -> None:
        with self._change:
            self._arrived = arrived
            self._change.notify_all()

    # -- the thread

    def _run(self) -> None:
        try:
            self._take_all()
        except WrongContent as error:
            self._error = error
        except Exception as error:  # the edge of the thread: the file is loaded as always then
            log.warning("%s is not loaded while it arrives, but at the end: %r", self._name, error)
        finally:
            with self._change:
                self._has_ended = True
                self._change.notify_all()

    def _take_all(self) -> None:
        header = self._header()
        if header is None:
            return
        from safetensors import safe_open  # imports torch, which a download alone does not need

        with safe_open(self._partial, framework="pt", device="cpu") as file:
            waiting = sorted(header.spans.items(), key=lambda item: item[1])
            arrived: Pieces | None = None
            while waiting:
                arrived = self._next(arrived)
                if arrived is None:
                    return
                left = []
                for key, span in waiting:
                    if not arrived.has(*span):
                        left.append((key, span))
                    elif not self._hand_over(key, file.get_tensor(key)):
                        return
                waiting = left
            self._complete(list(file.keys()), file.metadata())

    def _hand_over(self, key: str, tensor: Any) -> bool:
        """Read a mapped tensor's pages into memory and hand it over; False when it is over before."""
        for part in _parts(tensor):
            if self._is_over:
                return False
            _touch(part)
        with self._change:
            if not self._is_over:
                self.tensors[key] = tensor
            return not self._is_over

    def _complete(self, keys: list[str], metadata: dict[str, str] | None) -> None:
        with self._change:
            if not self._is_over:
                self._loaded = Loaded({key: self.tensors[key] for key in keys}, metadata)

    def _header(self) -> hashing.Header | None:
        """The header, as soon as it is there; None when there is an end before."""
        length: int | None = None
        arrived: Pieces | None = None
        while (arrived := self._next(arrived)) is not None:
            if length is None and arrived.has(0, 8):
                length = hashing.header_length(self._partial, self._name)
            if length is not None and arrived.has(0, 8 + length):
                return hashing.read_header(self._partial, self._name)
        return None

    def _next(self, before: Pieces | None) -> Pieces | None:
        """What has arrived, as soon as somebody has told something new; None when it is over."""
        with self._change:
            self._change.wait_for(lambda: self._is_over or self._arrived is not before)
            return None if self._is_over else self._arrived


def _parts(tensor: Any) -> Sequence[Any]:
    """The bytes of a tensor in portions."""
    import torch

    with contextlib.suppress(RuntimeError):  # a kind of number that cannot be seen as bytes
        parts: Sequence[Any] = tensor.reshape(-1).view(torch.uint8).split(BYTES_AT_ONCE)
        return parts
    return ()


def _touch(part: Any) -> None:
    """Have the pages of mapped bytes read into this process's memory."""
    part[::PAGE_BYTES].sum()


class Streams:
    """The streams of this process, by the file's final path. Every method may be called from any thread."""

    def __init__(self, *, is_on: bool = True) -> None:
        self._is_on = is_on
        self._lock = threading.Lock()
        self._wanted: Counter[Path] = Counter()
        """How many wait for each file."""
        self._running: dict[Path, Stream] = {}
        self._ready: dict[Stamp, Loaded] = {}

    # The one who waits for a file, and its loader.

    @contextlib.contextmanager
    def wanted(self, file: Path) -> Iterator[None]:
        """Meanwhile somebody waits for this file in order to load it. Several may; when the last of them
        leaves early, what came is thrown away.
        """
        if not self._is_on or file.suffix.lower() not in SUFFIXES:
            yield
            return
        with self._lock:
            self._wanted[file] += 1
        try:
            yield
        finally:
            with self._lock:
                self._wanted[file] -= 1
                left = None if self._wanted[file] else self._running.pop(file, None)
                self._wanted += Counter()  # without files for which nobody waits
            if left is not None:
                left.close()

    def load(self, function: Callable[..., Any], ckpt: Any, *args: Any, **kwargs: Any) -> Any:
        """What `load_torch_file(ckpt, ...)` returns: without reading the file again if it was streamed."""
        wishes = {**dict(zip(WISHES, args, strict=False)), **kwargs}
        loaded = None if _wants_copies(function) or wishes.keys() - set(WISHES) else self.take(ckpt)
        if loaded is None:
            return function(ckpt, *args, **kwargs)
        tensors, device = loaded.tensors, wishes.get("device")
        if device is not None:
            tensors = {key: tensor.to(device) for key, tensor in tensors.items()}
        return (tensors, loaded.metadata) if wishes.get("return_metadata") else tensors

    def take(self, file: str | os.PathLike[str]) -> Loaded | None:
        """The tensors of a file that was streamed, once, if it is still that file."""
        if not self._ready:
            return None
        with contextlib.suppress(OSError), self._lock:
            return self._ready.pop(Stamp.of(os.stat(file)), None)
        return None

    # The download.

    def see(self, place: Place, name: str, arrived: Pieces) -> None:
        """What of a partial has arrived. Raises WrongContent when its header is none."""
        with self._lock:
            if place.file not in self._wanted or arrived.size < LEAST_TO_STREAM:
                return
            stream = self._running.get(place.file)
            if stream is None:
                stream = self._running[place.file] = Stream(place.partial, name)
        stream.see(arrived)

    def drop(self, file: Path) -> None:
        """The partial is thrown away, and its tensors with it; another may follow."""
        with self._lock:
            stream = self._running.pop(file, None)
        if stream is not None:
            stream.close()

    def finish(self, place: Place) -> None:
        """The file is verified and stands under its name: its loader may take the tensors."""
        with self._lock:
            stream = self._running.get(place.file)
        if stream is None:
            return
        with contextlib.suppress(OSError):  # it is gone again
            found = os.stat(place.file)
            loaded = stream.finish(Pieces(found.st_size).others()) if found.st_ino == stream.inode else None
            if loaded is not None:
                self._keep(place.file, stream, Stamp.of(found), loaded)
        self.drop(place.file)

    def _keep(self, file: Path, stream: Stream, stamp: Stamp, loaded: Loaded) -> None:
        """For the loader, unless the last one who waited for it has left meanwhile."""
        with self._lock:
            if self._running.get(file) is not stream:
                return
            self._ready[stamp] = loaded
        timer = threading.Timer(SECONDS_KEPT, self._let_go, (stamp, weakref.ref(loaded)))
        timer.daemon = True
        timer.start()

    def _let_go(self, stamp: Stamp, loaded: weakref.ref[Loaded]) -> None:
        """The timer must not keep what a loader has taken: a mapped file is not evicted."""
        with self._lock:
            if self._ready.get(stamp) is loaded():
                self._ready.pop(stamp, None)


def _wants_copies(load_torch_file: Callable[..., Any]) -> bool:
    """Whether a node pack has switched mapping off in the loader's module."""
    return bool(getattr(sys.modules.get(load_torch_file.__module__), "DISABLE_MMAP", False))
