"""How fast a transfer is now, for people: bytes per second, averaged over the last seconds.

aria2's own number starts with what the first buffers give at once, over next to no time (five times the
link in the first second), and it jumps when one part of a file ends and another begins. So the bytes that are
there are what is measured.
"""

from __future__ import annotations

import math

SECONDS_OF_MEMORY = 3.0
"""What was seen so long ago counts a third."""
SECONDS_TO_KNOW = 0.25
"""Before so much was seen nothing is said."""
SECONDS_TO_FORGET = 5.0
"""After such a pause it begins anew."""


class ByteRate:
    """Told with `see` how many bytes are there. It begins with the first that come: what was there before,
    and the time until then, say nothing about the link.
    """

    def __init__(self) -> None:
        self._at = -math.inf
        self._done = 0
        self._is_moving = False
        self._bytes = self._seconds = 0.0  # both weighted with their age, so that the quotient is a mean

    def see(self, now: float, bytes_done: int) -> None:
        """So many bytes are there at a time (in seconds, of a clock that never goes back)."""
        seconds, came = now - self._at, max(0, bytes_done - self._done)  # fewer: a part is fetched again
        if seconds > SECONDS_TO_FORGET:
            self._is_moving, self._bytes, self._seconds = False, 0.0, 0.0
        elif self._is_moving:
            weight = math.exp(-seconds / SECONDS_OF_MEMORY)
            self._bytes = self._bytes * weight + came
            self._seconds = self._seconds * weight + seconds
        elif came:
            self._is_moving = True
        self._at, self._done = now, bytes_done

    @property
    def bytes_per_second(self) -> float:
        """The mean of the last seconds; 0 while it is not known."""
        return self._bytes / self._seconds if self._seconds >= SECONDS_TO_KNOW else 0.0
