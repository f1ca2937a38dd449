"""The sha256 of the user's own models, computed while nothing else is to be done (`--depot-hash idle`).

A thread of the lowest priority reads the files that nobody has verified (`unhashed.py`), at most
BYTES_PER_SECOND, and notes their sha256 under their stamp, where downloads note theirs. Between two portions
of a MiB it looks whether a prompt or a download has come; then it stops and has no file open. It goes on
with a file where it was left, and after a restart from the file's beginning.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from comfy_depot import background, unhashed
from comfy_depot.eviction import Stamp
from comfy_depot.file_digest import FileChanged, FileDigest
from comfy_depot.locks import file_lock
from comfy_depot.unhashed import Library, ModelFile

if TYPE_CHECKING:
    from comfy_depot.depot import Depot

LOCK_NAME = "hashing.lock"
PAUSE_SECONDS = 5.0
"""Between looks; at two in a row nothing else must be going on."""
BYTES_PER_SECOND = 100 << 20
"""A disk has more, and so has a core; others shall not feel it, and fans shall not hear it."""
SECONDS_BETWEEN_GLANCES = 0.05
"""At prompts and downloads, while a file is read."""
SECONDS_TO_SETTLE = 60.0
"""A file that was changed so lately may still be written, in the same tick of the clock."""
SECONDS_TO_RETRY = 600.0
SECONDS_OF_A_SURVEY = 60.0
"""What nobody tells of is found after so long."""
SHARE_OF_SURVEYS = 0.05
"""A survey that takes long comes less often."""
SECONDS_ASIDE = 3.0
log = logging.getLogger(__name__)


class _Elsewhere(Exception):
    """Another process with the same state folder does it."""


class Hasher:
    """Computes what is not known, in idle time. Every method may be called from any thread."""

    def __init__(
        self, depot: Depot, *, pause: float = PAUSE_SECONDS, bytes_per_second: float = BYTES_PER_SECOND
    ) -> None:
        self._depot = depot
        self._pause = pause
        self._rate = bytes_per_second
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._portion = threading.Lock()  # held while a file is opened, read or closed
        self._reading: tuple[ModelFile, FileDigest] | None = None
        self._is_working = self._was_idle = self._is_free = self._has_failed = False
        self._glanced_at = self._aside_until = self._free_at = 0.0
        self._refused: dict[Stamp, float] = {}
        """{file that could not be read: when it may be tried again}"""
        self._surveyed = threading.Lock()  # guards what follows
        self._library: Library | None = None
        self._version: object = None
        self._surveyed_at = self._seconds_to_survey = 0.0

    def start(self) -> None:
        """Begin, unless `--depot-hash off`."""
        if self._depot.options.depot_hash == "idle":
            self._thread = threading.Thread(target=self._run, name="depot-hash", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stop. A read from a disk that hangs is not waited for."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join(2)

    def stand_aside(self) -> None:
        """Have no file open for some seconds: somebody looks which files are in use and may go."""
        if self._thread is None:
            return
        self._aside_until = time.monotonic() + SECONDS_ASIDE
        if self._portion.acquire(timeout=1.0):  # else the disk hangs
            try:
                if self._reading is not None:
                    self._reading[1].release()
            finally:
                self._portion.release()

    def stats(self) -> dict[str, Any]:
        """What is known, what is to be done, and what is being read."""
        library, reading = self._survey(), self._reading
        current = None
        if reading is not None:
            file, digest = reading
            current = {"folder": file.folder, "name": file.name, "size": file.stamp.size,
                       "bytes_done": digest.position}
        left = list(library.unhashed)
        return {
            "mode": self._depot.options.depot_hash, "state": self._state(is_done=not left),
            "files_known": library.files_known, "bytes_known": library.bytes_known,
            "files_to_do": len(left), "bytes_to_do": sum(stamp.size for stamp in left), "current": current,
        }

    def _state(self, *, is_done: bool) -> str:
        if self._thread is None:
            return "off" if self._depot.options.depot_hash == "off" else "not running"
        if self._is_working:
            return "reading"
        if is_done:
            return "done"
        return "on battery" if background.is_on_battery() else "waiting"

    # -- the thread

    def _run(self) -> None:
        background.lower_priority()
        while not self._closed.wait(self._pause):
            try:
                self.look()
                self._has_failed = False
            except Exception as error:  # the thread must outlive whatever a host or a file system does
                if not self._has_failed:
                    log.error("No sha256 is computed in idle time: %r", error)
                self._has_failed = True

    def look(self) -> None:
        """Read what is to be read, as long as nothing else is to be done."""
        was_idle = self._was_idle
        self._was_idle = self._depot.index.indexer.is_complete and self._is_idle()
        if not (was_idle and self._was_idle) or time.monotonic() < self._aside_until:
            return
        with contextlib.suppress(_Elsewhere), self._alone():
            while (file := self._next_file()) is not None:
                if not (self._may_go_on() and self._hash(file)):
                    self._was_idle = time.monotonic() < self._aside_until  # for a moment only
                    return

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One process with this state folder reads at a time."""
        def give_up() -> None:
            raise _Elsewhere

        folder = self._depot.options.depot_dir
        folder.mkdir(parents=True, exist_ok=True)
        with file_lock(folder / LOCK_NAME, on_wait=give_up):
            yield

    def _next_file(self) -> ModelFile | None:
        """What is to be read now; a file that was begun is read to its end first."""
        files = self._survey().unhashed
        if self._reading is not None and self._reading[0].stamp in files:
            return self._reading[0]
        now, ticks = time.time(), time.monotonic()
        for file in files.values():
            age = now - file.stamp.changed_ns / 1e9
            is_settled = not 0 <= age < SECONDS_TO_SETTLE  # what is written now gets no date in the future
            if is_settled and self._refused.get(file.stamp, 0.0) <= ticks:
                return file
        return None

    def _hash(self, file: ModelFile) -> bool:
        """Whether it is done with, however that ended; False when something else has to be done."""
        self._is_working = True
        try:
            # A download may have noted it meanwhile.
            if self._depot.digests.of(file.stamp) is None and not self._read(file):
                return False
        except (FileChanged, OSError) as error:
            log.debug("The sha256 of %s is not computed now: %r", file.path, error)
            self._refused[file.stamp] = time.monotonic() + SECONDS_TO_RETRY
        else:
            with self._surveyed:
                if self._library is not None:
                    self._library.learn(file.stamp)
        finally:
            self._is_working = False
        self._reading = None
        return True

    def _read(self, file: ModelFile) -> bool:
        """Read what is left of a file and note its digest; False when it was not read to its end."""
        with self._portion:
            digest = self._begin(file)
        try:
            while not digest.is_complete:
                if not self._may_go_on():
                    return False
                with self._portion:
                    if (began := time.monotonic()) < self._aside_until:
                        return False
                    count = digest.advance()
                self._pace(began, count)
        finally:
            with self._portion:
                digest.release()
        if not self._depot.digests.note(digest.stamp, digest.sha256):
            self._aside_until = time.monotonic() + SECONDS_TO_RETRY  # else it would be read again and again
            raise OSError("the index cannot be written")
        return True

    def _begin(self, file: ModelFile) -> FileDigest:
        """The digest of a file, where it was left."""
        if self._reading is None or self._reading[0] != file:
            digest = FileDigest(file.path)
            if digest.stamp != file.stamp:
                digest.release()
                raise FileChanged
            self._reading = file, digest
        return self._reading[1]

    def _may_go_on(self) -> bool:
        now = time.monotonic()
        if self._closed.is_set() or now < self._aside_until:
            return False
        if now - self._glanced_at >= SECONDS_BETWEEN_GLANCES:
            self._glanced_at, self._is_free = now, self._is_idle()
        return self._is_free

    def _is_idle(self) -> bool:
        depot = self._depot
        return not (depot.active_transfers() or depot.host.queued_prompts(1) or background.is_on_battery())

    def _pace(self, began: float, count: int) -> None:
        """Wait as long as the rate asks for, looking for what else there is to do."""
        self._free_at = max(began, self._free_at) + count / self._rate
        while (left := self._free_at - time.monotonic()) > 0 and self._may_go_on():
            self._closed.wait(min(left, SECONDS_BETWEEN_GLANCES))

    # -- what is known

    def _survey(self) -> Library:
        """The library as it is; looked at anew when files have changed, or after a while."""
        with self._surveyed:
            begun, version = time.monotonic(), unhashed.version(self._depot)
            age = begun - self._surveyed_at
            is_stale = version != self._version and age > self._seconds_to_survey / SHARE_OF_SURVEYS
            if self._library is None or is_stale or age > SECONDS_OF_A_SURVEY:
                self._library, self._version = unhashed.survey(self._depot), version
                self._surveyed_at = time.monotonic()
                self._seconds_to_survey = self._surveyed_at - begun
                known = self._library.unhashed
                self._refused = {stamp: at for stamp, at in self._refused.items() if stamp in known}
            return self._library
