"""A model that is a member of an archive: the `Download` that waits for its bytes instead of fetching a file.

Whoever holds the archive's lease (`bundles.py`) hands the member to all who wait for it: `begin`, `take` for
each chunk, `accept` at the end. The bytes go into the partial of the model itself, beside its destination,
and pass the same checks as any file.
"""

from __future__ import annotations

import contextlib
import enum
import hashlib
import threading
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

from comfy_depot import sources
from comfy_depot.archives import Member
from comfy_depot.download import MOST_RESTARTS, NO_ROOM, Changed, Download, FilledUp
from comfy_depot.errors import DepotError, DownloadFailed, TransferCancelled, WrongContent

if TYPE_CHECKING:
    from comfy_depot.bundles import Bundles


class Use(enum.Enum):
    """What is left of an archive when nobody waits for it any more is of use for this."""

    NONE = enum.auto()
    RESUME = enum.auto()
    """The next try goes on from it."""
    OTHERS = enum.auto()
    """It is whole, and its other members cannot be fetched without it."""


@dataclass(eq=False)
class MemberDownload(Download):
    """The work of one transfer whose file is inside an archive."""

    bundles: Bundles = field(kw_only=True)
    is_served: bool = False
    """Whether the holder of the lease is done with it: it lies verified in its partial, or was refused."""
    refusal: DepotError | None = None
    archive_is_for: Use = Use.RESUME

    __hash__ = object.__hash__
    __eq__ = object.__eq__

    def __post_init__(self) -> None:
        self._alone = threading.Lock()  # against writing for somebody who has left
        self._has_left = False
        self._file: IO[bytes] | None = None
        self._is_unverified = False
        self._digest: Any = None

    @property
    def member(self) -> str:
        """The name in the archive."""
        assert self.entry.bundle is not None
        return self.entry.bundle.member

    # -- on the thread of the transfer

    def _from(self, url: str) -> None:
        with self.bundles.wanting(self) as lease:
            for _ in range(MOST_RESTARTS):
                self.is_served, self.refusal, self._has_left = False, None, False
                self.progress.tell(state="waiting")
                with self.services.leases.hold(lease, on_wait=self.progress.check):
                    if not self.is_served:
                        self.bundles.lead(self, url)
                if not isinstance(self.refusal, FilledUp):  # then room is made for the next try
                    break
            if self.refusal is not None:
                raise self.refusal
            self._publish()

    def leave(self) -> None:
        """Take no more bytes."""
        with self._alone:
            self._has_left = True
            self._give_up()

    # -- on the thread of whoever holds the archive's lease

    @property
    def is_waiting(self) -> bool:
        """Whether it still wants its bytes."""
        return not self._has_left and self.refusal is None

    def refuse(self, error: DepotError) -> None:
        """It gets nothing, for this reason."""
        with self._alone:
            self.refusal = self.refusal or error
            self._give_up()

    def begin(self, member: Member) -> None:
        """A member that it waits for comes now."""
        with self._alone, self._refusing():
            self._stop_if_asked()
            if member.problem is not None:
                raise self.wrong(f"its member '{self.member}' is refused: {member.problem}.")
            if self.entry.size is not None and member.size != self.entry.size:
                raise self.wrong(
                    f"its member '{self.member}' has {member.size} bytes and the manifest promises "
                    f"{self.entry.size}. Correct the manifest or choose another url."
                )
            self._discard_partial()
            self._promise_room(member.size)
            self._is_unverified = True
            self._file = open(self.place.partial, "wb", buffering=0)  # noqa: SIM115 - closed by _close
            self._digest = hashlib.sha256() if self.entry.sha256 else None
            self.progress.tell(state="unpacking", bytes_done=0, bytes_total=member.size, bytes_per_second=0)

    def take(self, chunk: bytes) -> None:
        """The next bytes."""
        with self._alone, self._refusing():
            if self._file is None:
                return
            self._stop_if_asked()
            rest = memoryview(chunk)
            while rest:
                rest = rest[self._file.write(rest) :]
            if self._digest is not None:
                self._digest.update(chunk)
            self.progress.tell(bytes_done=self.progress.bytes_done + len(chunk))

    def accept(self, url: str, *, was_resumed: bool) -> None:
        """All has come: verify it. Raises Changed when parts from two tries may be why it is wrong."""
        with self._alone, self._refusing():
            if self._file is None:
                return
            self._close()
            try:
                self._verify(url)
            except WrongContent:
                if was_resumed:
                    raise Changed from None
                self._quarantine()
                raise
            self._is_unverified = False

    def wrong(self, reason: str, url: str | None = None) -> WrongContent:
        """The error of an archive or a member that cannot be used."""
        where = sources.shown(url or self.entry.urls[0])
        return WrongContent(f"'{self.entry.key}': the archive {where} is refused: {reason}")

    def _refusing(self) -> _Refusing:
        return _Refusing(self)

    def _stop_if_asked(self) -> None:
        if self._has_left or self.progress.stopped():
            raise TransferCancelled("The transfer was stopped. Fetch it again to go on.")

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None

    def _give_up(self) -> None:
        """Half a member is of no use to anybody."""
        self._close()
        if self._is_unverified:
            self._is_unverified = False
            with contextlib.suppress(OSError):
                self._discard_partial()

    def _shown(self, url: str) -> str:
        return f"{sources.shown(url)} (member '{self.member}')"

    def _sha256(self) -> str:
        return str(self._digest.hexdigest())


@dataclass
class _Refusing:
    """What goes wrong with one model is its own affair: the others who wait for the archive go on."""

    want: MemberDownload

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        if not isinstance(error, (DepotError, OSError)):
            return False
        want = self.want
        if not isinstance(error, DepotError):
            error = want._full_by_now() if error.errno in NO_ROOM else want._disk_error(error)
        want.refusal = error
        want._give_up()
        return True


def same_for(want: MemberDownload, error: DownloadFailed, leader: MemberDownload) -> DownloadFailed:
    """An error of the archive in the words of another who waits for it."""
    text = str(error).replace(f"'{leader.entry.key}'", f"'{want.entry.key}'")
    return error if want is leader else type(error)(text)
