"""In which order the pieces of a file come: all at once, or window after window from the start on.

aria2 divides what is missing among its connections, so that the start of a file is complete only at the very
end, and a sha256, which must be computed from the start on, could not begin before. Here the missing part
is cut into windows, the last ones smaller than the others: aria2 is told of each that all else is there
already. The next window begins just before the one before ends, so that no connection waits.

    |----- 0 -----|----- 1 -----|----- 2 -----|----- 3 -----|----- 4 -----|-- 5 --|- 6 -|
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from comfy_depot.aria2 import PIECE_BYTES
from comfy_depot.journal import BLOCK_BYTES, Pieces, control_file
from comfy_depot.layout import Place

LEAST_PIECES = 16  # of the last windows
FULL_PIECES = 64  # of the others, at least
MOST_WINDOWS = 24
SHARE = 1 / 16  # of what is missing, and no more than half of what is left
LARGE_SHARE = 1 / 2  # where requests are counted, since each window costs one per connection
MOST_SECONDS_AHEAD = 0.4
LEAST_SECONDS_AHEAD = 0.1


@dataclass(eq=False)
class Window:
    """Pieces that one download of aria2 brings; `file` is the partial or a link to it."""

    file: Path
    wanted: Pieces
    blocks: dict[int, int]
    gid: str = ""
    status: dict[str, str] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        """Whether aria2 has all of it."""
        return self.status.get("status") == "complete"

    @property
    def is_running(self) -> bool:
        """Whether aria2 works at it."""
        return bool(self.gid) and not self.is_complete

    @property
    def bytes_wanted(self) -> int:
        """Bytes of its pieces."""
        return self.wanted.bytes_done

    @property
    def bytes_done(self) -> int:
        """What of it has arrived."""
        if self.is_complete:
            return self.bytes_wanted
        if not int(self.status.get("totalLength", 0)):
            return sum(self.blocks.values()) * BLOCK_BYTES
        elsewhere = self.wanted.size - self.bytes_wanted
        return max(0, int(self.status["completedLength"]) - elsewhere)

    @property
    def pieces_done(self) -> int:
        """The bits of its pieces that are complete, as a number."""
        if self.is_complete:
            return self.wanted.number
        return int(self.status.get("bitfield") or "0", 16) & self.wanted.number

    def write_control(self) -> None:
        """Tell aria2 that everything but this window is there."""
        control = self.file.with_name(self.file.name + ".aria2")
        control.write_bytes(control_file(self.wanted.others(), self.blocks))


def plan_windows(
    place: Place, kept: Pieces, blocks: dict[int, int], *, in_order: bool, only: Pieces | None = None,
    share: float = SHARE,
) -> list[Window]:
    """The windows of what is missing; one when no order is asked for or there is little to come.

    With `only` nothing else is wanted. Each window is at most a `share` of it, and half of what is left.
    """
    rest = [index for index in range(kept.count)
            if index not in kept and (only is None or index in only)]
    cuts: list[list[int]] = []
    most = max(FULL_PIECES, math.ceil(len(rest) * share))
    while in_order and len(rest) >= 2 * LEAST_PIECES and len(cuts) < MOST_WINDOWS - 1:
        count = min(most, len(rest) // 2)
        cuts.append(rest[:count])
        rest = rest[count:]
    windows = []
    for file, indices in zip(names(place), [*cuts, rest], strict=False):
        wanted = Pieces(kept.size)
        for index in indices:
            wanted.add(index)
        windows.append(Window(file, wanted, {i: count for i, count in blocks.items() if i in wanted}))
    return windows


def names(place: Place) -> Iterator[Path]:
    """The names of the partial, one for each window."""
    yield place.partial
    for number in range(1, MOST_WINDOWS):
        yield place.partial.with_name(f"{place.partial.name}.{number}")


def link(windows: list[Window]) -> bool:
    """Give the partial the names of all windows; whether this file system can."""
    for window in windows[1:]:
        try:
            window.file.unlink(missing_ok=True)
            os.symlink(windows[0].file.name, window.file)
        except OSError:
            return False
    return True


def remove(place: Place) -> None:
    """Remove the further names of the partial and what aria2 was told of them."""
    for file in list(names(place))[1:]:
        for path in (file, file.with_name(file.name + ".aria2")):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def status_of_all(windows: list[Window], kept: Pieces) -> dict[str, str]:
    """What aria2 would say if all windows were one download."""
    pieces = Pieces(kept.size)
    pieces.number = kept.number
    for window in windows:
        pieces.number |= window.pieces_done
    return {
        "completedLength": str(kept.bytes_done + sum(window.bytes_done for window in windows)),
        "totalLength": str(kept.bytes_done + sum(window.bytes_wanted for window in windows)),
        "downloadSpeed": str(sum(int(w.status.get("downloadSpeed", 0)) for w in windows if w.is_running)),
        "bitfield": pieces.hex,
    }


def is_time_for_next(
    running: list[Window], connections: int, bytes_per_second: float, seconds_to_answer: float
) -> bool:
    """Whether so little is left of the running windows that connections will soon have nothing to do.

    The connections of the next window need as long as the source takes to answer.
    """
    left = sum(window.bytes_wanted - window.bytes_done for window in running)
    ahead = min(MOST_SECONDS_AHEAD, LEAST_SECONDS_AHEAD + 2 * seconds_to_answer)
    return left <= max(connections * PIECE_BYTES, int(bytes_per_second * ahead))
