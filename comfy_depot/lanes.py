"""Who may use the link: downloads that somebody waits for go before those that are made ahead.

All bytes of all downloads pass the gate (`gate.py`), so they are held back there, within milliseconds; the
limits of aria2 take a second and more to act. Each download has a class, 0 being the most urgent. While one
of a class is at work, all less urgent ones together get a twentieth of what it gets. That is wrong where the
urgent one cannot use the whole link, because its source limits each connection. So the `Governor` lets the
others have a little more now and then, and looks whether the urgent one becomes slower. While it does not
they get more and more; when it does they get their twentieth again at once, and the next try is made later.

What the system has received for a connection that nobody reads from has used the link all the same. So
connections that may have to give way have narrow buffers.

Standard library only: this runs in the process of the gate.
"""

from __future__ import annotations

import collections
import math
import threading
import time
from collections.abc import Callable

FLOOR_SHARE = 0.05
LEAST_RATE = 64 << 10  # bytes per second: a connection that brings nothing is given up sooner or later
STEPS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, math.inf)  # times what the urgent class gets
WIDE_STEP = 3
STEP_SECONDS = 0.5
LOOK_SECONDS = 0.25
FIRST_PAUSE, LONGEST_PAUSE = 1.5, 12.0
SLOWED = 0.8  # of its rate before: the urgent class has been slowed down
TICK_SECONDS = 0.05
CHUNK_BYTES = 1 << 14
HELD_BYTES = 1 << 15  # of a connection, in the system's buffer: it comes although nobody reads it
LONGEST_TURN = 10.0  # seconds; aria2 gives up a connection that is silent for 20


class Governor:
    """What the less urgent classes may take together, from what the urgent class gets meanwhile."""

    def __init__(self, now: float) -> None:
        self.rate: float = LEAST_RATE
        """Bytes per second."""
        self.pause = FIRST_PAUSE
        self._step = -1
        self._top = len(STEPS) - 1
        """The highest step that has not slowed the urgent class down so far."""
        self._gave_way = False
        """Whether this step is lower than one that slowed the urgent class down."""
        self._found = -1
        """The step at which the urgent download before was not slowed down."""
        self._since = now
        self._undisturbed = 0.0
        self._samples: collections.deque[tuple[float, int]] = collections.deque([(now, 0)])

    def restart(self, now: float) -> None:
        """Another urgent download has come: what was found out may be out of date."""
        total = self._samples[-1][1]
        self.pause = FIRST_PAUSE
        if self._step >= 0:
            self._found = self._step
        self._samples = collections.deque([(now, total)])
        self._fall_back(now)

    def look(self, now: float, bytes_urgent: int) -> float:
        """The rate from now on. `bytes_urgent` is all that the urgent class got so far."""
        self._samples.append((now, bytes_urgent))
        while len(self._samples) > 2 and self._samples[1][0] <= now - FIRST_PAUSE:
            self._samples.popleft()
        seconds = now - self._since
        settling = STEP_SECONDS - LOOK_SECONDS if self._gave_way else 0.0
        if seconds >= settling + LOOK_SECONDS:
            got = self._got(now, min(seconds - settling, STEP_SECONDS))
            self._undisturbed = max(self._undisturbed, got)
            if self._step < 0:
                self._stay_low(now, seconds)
            elif got < SLOWED * self._undisturbed:
                self._give_way(now)
            elif seconds >= (STEP_SECONDS if self._step < self._top else self.pause):
                self._gave_way = False
                if self._step >= WIDE_STEP:  # on a full link it would have been slowed down by now
                    self.pause = max(FIRST_PAUSE, self.pause / 2)
                self._go_up(now)
        return self.rate

    def _give_way(self, now: float) -> None:
        """The urgent class became slower: back to where it was not, to the floor if that is not enough."""
        self.pause = min(2 * self.pause, LONGEST_PAUSE)
        self._top, self._found = max(0, self._step - 1), -1
        if self._step >= WIDE_STEP and not self._gave_way:
            self._step, self._gave_way = self._step - WIDE_STEP, True
            self._go_up(now)
        else:
            self._fall_back(now)

    def _stay_low(self, now: float, seconds: float) -> None:
        self.rate = max(LEAST_RATE, FLOOR_SHARE * self._got(now, STEP_SECONDS))
        if self._undisturbed and self._found > 0 and seconds >= STEP_SECONDS:  # as it was before
            self._step, self._found = self._found - 1, -1
            self._go_up(now)
            return
        if seconds < (FIRST_PAUSE if self._top > 0 else self.pause):
            return
        if self._undisturbed:
            self._top = self._top if self._top > 0 else len(STEPS) - 1
            self._go_up(now)
        else:  # its source is silent, and nobody is in its way
            self.rate = math.inf

    def _go_up(self, now: float) -> None:
        self._step = min(self._step + 1, len(STEPS) - 1)
        self._top = max(self._top, self._step)
        self._since = now
        self.rate = max(LEAST_RATE, STEPS[self._step] * self._undisturbed)

    def _fall_back(self, now: float) -> None:
        self.rate = max(LEAST_RATE, FLOOR_SHARE * self._undisturbed)
        self._step, self._since, self._undisturbed, self._gave_way = -1, now, 0.0, False

    def _got(self, now: float, seconds: float) -> float:
        """Bytes per second of the urgent class in the last `seconds`."""
        start = next((one for one in reversed(self._samples) if one[0] <= now - seconds), self._samples[0])
        elapsed = now - start[0]
        return (self._samples[-1][1] - start[1]) / elapsed if elapsed > 0 else 0.0


class Lane:
    """One connection's right to bytes: the class of its download, which may change while it runs."""

    def __init__(self, lanes: Lanes, owner: str, urgency: int) -> None:
        self.lanes, self.owner, self.urgency = lanes, owner, urgency
        self.is_shut = False

    def take(self, wish: int) -> int:
        """How many bytes may be read now, at most `wish`; waits until it is one at least."""
        if self.urgency == self.lanes.most_urgent:
            return wish
        return self.lanes.wait_for_turn(self, wish)

    def took(self, count: int) -> None:
        """So many were read."""
        if self.lanes.is_contended and self.urgency == self.lanes.most_urgent:
            self.lanes.count(count)

    @property
    def buffer_bytes(self) -> int:
        """How much may wait to be read; 0: what the system thinks best."""
        return 0 if self.urgency == 0 else HELD_BYTES

    def move(self, urgency: int) -> None:
        """It has become more or less urgent."""
        self.lanes.change(self, urgency)

    def leave(self) -> None:
        """Its download has ended."""
        self.is_shut = True
        self.lanes.change(self, None)


class Lanes:
    """The classes of one gate. Every method may be called from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.most_urgent = 0
        """Of the downloads at work now."""
        self.is_contended = False
        """Whether there are several classes at work."""
        self._clock = clock
        self._change = threading.Condition()
        self._lanes: set[Lane] = set()
        self._bytes_urgent = 0
        self._governor = Governor(clock())
        self._free_at: dict[int, float] = {}
        """{class: when its next bytes may come}"""
        self._epoch = 0
        self._thread: threading.Thread | None = None

    def enter(self, owner: str, urgency: int) -> Lane:
        """A download of `owner` begins."""
        lane = Lane(self, owner, urgency)
        self.change(lane, urgency)
        return lane

    def change(self, lane: Lane, urgency: int | None) -> None:
        """Set the class of a lane; None takes it out."""
        with self._change:
            owners = self._owners()
            self._lanes.discard(lane)
            if urgency is not None:
                lane.urgency = urgency
                self._lanes.add(lane)
            classes = {one.urgency for one in self._lanes}
            self.most_urgent = min(classes, default=0)
            self.is_contended = len(classes) > 1
            if self._owners() - owners or not self.is_contended:
                self._governor.restart(self._clock())
            if self.is_contended and self._thread is None:
                self._thread = threading.Thread(target=self._govern, name="lanes", daemon=True)
                self._thread.start()
            self._begin_anew()

    def count(self, count: int) -> None:
        """The urgent class got so many bytes."""
        with self._change:
            self._bytes_urgent += count

    def wait_for_turn(self, lane: Lane, wish: int) -> int:
        """See `Lane.take`, for a lane that is not the most urgent."""
        count = min(wish, CHUNK_BYTES)
        with self._change:
            while not lane.is_shut:
                rate, now, epoch = self._rate(lane.urgency), self._clock(), self._epoch
                if math.isinf(rate):
                    return wish
                turn = min(max(now, self._free_at.get(lane.urgency, now)), now + LONGEST_TURN)
                self._free_at[lane.urgency] = turn + count / rate
                while (left := turn - self._clock()) > 0 and epoch == self._epoch and not lane.is_shut:
                    self._change.wait(left)
                if epoch == self._epoch:
                    return count
        return wish

    def _begin_anew(self) -> None:
        """Who waits for a turn asks again."""
        self._epoch += 1
        self._free_at.clear()
        self._change.notify_all()

    def _rate(self, urgency: int) -> float:
        if urgency <= self.most_urgent:
            return math.inf
        is_next = not any(self.most_urgent < one.urgency < urgency for one in self._lanes)
        return self._governor.rate if is_next else LEAST_RATE

    def _owners(self) -> set[str]:
        return {one.owner for one in self._lanes if one.urgency == self.most_urgent}

    def _govern(self) -> None:
        """Until nothing competes any more: look how the urgent class fares."""
        while True:
            with self._change:
                if not self.is_contended:
                    self._thread = None
                    return
                before = self._governor.rate
                rate = self._governor.look(self._clock(), self._bytes_urgent)
                if rate > 1.5 * before:
                    self._begin_anew()
            time.sleep(TICK_SECONDS)
