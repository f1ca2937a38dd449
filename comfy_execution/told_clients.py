"""Up to which of its prompts each client was told how they ended, in memory that survives the process.

A slot per client: a digest of its name, and the number of the end in the history. Ends of one client are told
in their order, so one number is enough; it costs no system call. The clients that were told last have a slot.
"""

from __future__ import annotations

import hashlib
import struct
from collections import OrderedDict
from typing import Protocol

SLOT = struct.Struct("<8sQ")


class Memory(Protocol):
    """Bytes that can be read and written in place."""

    def __getitem__(self, part: slice) -> bytes: ...

    def __setitem__(self, part: slice, content: bytes) -> None: ...


class ToldClients:
    """The slots in `memory[start:stop]`."""

    def __init__(self, memory: Memory, start: int, stop: int) -> None:
        self._memory = memory
        self._ends: OrderedDict[bytes, int] = OrderedDict()
        self._places: dict[bytes, int] = {}
        self._free: list[int] = []
        found = []
        for place in range(start, stop - SLOT.size + 1, SLOT.size):
            client, ended = SLOT.unpack(memory[place : place + SLOT.size])
            if ended:
                found.append((ended, client, place))
            else:
                self._free.append(place)
        for ended, client, place in sorted(found):
            self._ends[client], self._places[client] = ended, place

    def last_end(self, client: str) -> int:
        """The number of the last end that the client was told; 0 if it is not known."""
        return self._ends.get(_digest(client), 0)

    def highest(self) -> int:
        """The highest number of all."""
        return max(self._ends.values(), default=0)

    def note(self, client: str, ended: int) -> None:
        """The client was told of this end."""
        key = _digest(client)
        if ended <= self._ends.get(key, 0):
            return
        place = self._places.get(key)
        if place is None:
            place = self._free.pop() if self._free else self._places.pop(self._ends.popitem(last=False)[0])
            self._places[key] = place
        self._ends[key] = ended
        self._ends.move_to_end(key)
        self._memory[place : place + SLOT.size] = SLOT.pack(key, ended)


def _digest(client: str) -> bytes:
    return hashlib.blake2b(client.encode("utf-8", "surrogatepass"), digest_size=8).digest()
