"""Room for a file whose size nobody tells: promised a step ahead of what arrives.

The gate lets no more through than is promised, so that the limit holds at every moment and not only at those
at which somebody looks. What the gate counts is never less than what stands in the file.
"""

from __future__ import annotations

from pathlib import Path

from comfy_depot.room import Room, Shortage

LEAST_STEP = 256 << 10
FIRST_STEP = 64 << 20
LARGEST_STEP = 1 << 30


class Growth:
    """The promise of one try at a file of unknown size."""

    def __init__(self, room: Room, partial: Path, *, size: int | None, may_evict: bool = True) -> None:
        """`size` is what the manifest says, if it does."""
        self._room = room
        self._may_evict = may_evict
        self._partial = partial
        self.bytes_promised = 0
        self.shortage: Shortage | None = None
        """Why there is no more room, once no promise is left; None before."""
        self._refused: Shortage | None = None
        if size is None or not self._grow_by(size + LEAST_STEP):
            self.see(0)

    def see(self, bytes_through: int) -> None:
        """So much has gone through the gate: promise more in time, as much as there is room for."""
        left = self.bytes_promised - bytes_through
        step = min(max(FIRST_STEP, self.bytes_promised // 8), LARGEST_STEP)
        if left > step // 2 or (left > 0 and self._refused is not None):
            return
        while step >= LEAST_STEP:
            if self._grow_by(step):
                return
            step //= 2
        if left <= 0:
            self.shortage = self._refused

    def _grow_by(self, step: int) -> bool:
        self._refused = self._room.promise(
            self._partial, self.bytes_promised + step, may_evict=self._may_evict)
        if self._refused is None:
            self.bytes_promised += step
        return self._refused is None
