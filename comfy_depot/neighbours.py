"""Processes that share a state folder: what each has promised to its downloads, and what each has in use.

    <state folder>/room/
    ├── lock                    held by whoever promises room or evicts, one at a time
    ├── 5f1c0e2a.json           one process: its promises; locked as long as it lives, however it dies
    ├── 5f1c0e2a.asks           what that process is about to evict
    └── 5f1c0e2a.9b0d11c7       the answer of process 9b0d11c7: what of it must stay

Nobody else is asked: a process with a state folder of its own is seen by the room that it takes and by the
files that it has open.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from comfy_depot.eviction import LocalModel, Stamp
from comfy_depot.locks import is_marked
from comfy_depot.replacing import replace_file

SECONDS_BETWEEN_LOOKS = 0.1
SECONDS_TO_ANSWER = 3.0
NO_ANSWER = "another depot process, which may use it, does not answer"

WhyBusy = Callable[[Sequence[LocalModel]], Mapping[str, str]]
"""For some models: {path: why it must stay} as far as this process is concerned."""


class Neighbours:
    """This process among those that share its state folder. Every method may be called from any thread.

    With `why_busy` a thread of its own answers what the others ask.
    """

    def __init__(self, state_directory: Path, *, why_busy: WhyBusy | None = None) -> None:
        self._folder = state_directory / "room"
        self._name = secrets.token_hex(4)
        self._why_busy = why_busy
        self._fd: int | None = None
        self._lock = threading.RLock()
        self._depth = 0
        self._closed = threading.Event()
        self._answering: threading.Thread | None = None

    def start(self) -> None:
        """Be known to the others from now on; the first promise does that as well."""
        with self.alone():
            pass

    def close(self) -> None:
        """Leave; what was promised is free again."""
        self._closed.set()
        if self._answering is not None:
            self._answering.join(5)
        with self._lock:
            if self._fd is not None:
                with contextlib.suppress(OSError):
                    self._file.unlink()
                os.close(self._fd)
                self._fd = None

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else promises or evicts meanwhile, in no process. A thread may enter again."""
        with self._lock:
            if self._depth:
                yield
                return
            self._folder.mkdir(parents=True, exist_ok=True)
            fd = os.open(self._folder / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                self._depth = 1
                self._join()
                yield
            finally:
                self._depth = 0
                os.close(fd)

    def tell(self, promises: Mapping[Path, int]) -> None:
        """Let the others know what is promised here; only inside of `alone`."""
        if self._fd is None:  # closed
            return
        content = json.dumps({"answers": self._why_busy is not None,
                              "promises": {os.fspath(path): size for path, size in promises.items()}})
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, content.encode("utf-8", "surrogateescape"), 0)

    def promises(self) -> dict[Path, int]:
        """What the others have promised; only inside of `alone`."""
        return {Path(path): int(size) for _, other in self._others()
                for path, size in other.get("promises", {}).items()}

    def ask(self, models: Sequence[LocalModel]) -> dict[str, str]:
        """{path: why it must stay} of models that others use; only inside of `alone`."""
        asked = [name for name, other in self._others() if other.get("answers")]
        if not asked or not models:
            return {}
        question, found = self._folder / f"{self._name}.asks", dict[str, str]()
        _write(question, [_as_json(model) for model in models])
        deadline = time.monotonic() + SECONDS_TO_ANSWER
        try:
            for name in asked:
                answer = self._folder / f"{self._name}.{name}"
                while not answer.exists() and time.monotonic() < deadline and self._is_alive(name):
                    time.sleep(SECONDS_BETWEEN_LOOKS / 10)
                if answer.exists():
                    found.update(json.loads(answer.read_bytes().decode("utf-8", "surrogateescape")))
                    answer.unlink()
                elif self._is_alive(name):
                    found.update((model.path, NO_ANSWER) for model in models)
        finally:
            question.unlink(missing_ok=True)
        return found

    @property
    def _file(self) -> Path:
        return self._folder / f"{self._name}.json"

    def _join(self) -> None:
        if self._fd is not None or self._closed.is_set():
            return
        self._fd = os.open(self._file, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        self.tell({})
        if self._why_busy is not None:
            self._answering = threading.Thread(target=self._answer, name="depot-neighbours", daemon=True)
            self._answering.start()

    def _others(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """(name, content) of each living process; what the dead have left is removed."""
        for file in sorted(self._folder.glob("*.json")):
            if file == self._file:
                continue
            if self._is_alive(file.stem):
                yield file.stem, json.loads(file.read_bytes().decode("utf-8", "surrogateescape") or "{}")
            else:
                for left in self._folder.glob(f"{file.stem}.*"):
                    left.unlink(missing_ok=True)

    def _is_alive(self, name: str) -> bool:
        return is_marked(self._folder / f"{name}.json")

    def _answer(self) -> None:
        """Until closed: say what of that which another is about to evict is in use here."""
        assert self._why_busy is not None
        while not self._closed.wait(SECONDS_BETWEEN_LOOKS):
            for question in self._folder.glob("*.asks"):
                answer = question.with_name(f"{question.stem}.{self._name}")
                if question.stem == self._name or answer.exists():
                    continue
                with contextlib.suppress(OSError, ValueError):  # taken back meanwhile
                    asked = json.loads(question.read_bytes().decode("utf-8", "surrogateescape"))
                    _write(answer, self._why_busy([_as_model(one) for one in asked]))
                    if not question.exists():
                        answer.unlink(missing_ok=True)


def _write(file: Path, content: object) -> None:
    """Nobody reads a half."""
    replace_file(file, json.dumps(content).encode("utf-8", "surrogateescape"), tag=secrets.token_hex(4))


def _as_json(model: LocalModel) -> dict[str, Any]:
    stamp = model.stamp
    return {"keys": [model.key, *model.aliases], "path": model.path,
            "stamp": [stamp.device, stamp.inode, stamp.size, stamp.changed_ns]}


def _as_model(content: Mapping[str, Any]) -> LocalModel:
    first, *others = ((str(folder), str(name)) for folder, name in content["keys"])
    return LocalModel(*first, content["path"], Stamp(*content["stamp"]), 0.0, aliases=frozenset(others))
