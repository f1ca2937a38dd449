"""JSON of long lists, kept in pieces.

A combo of 100,000 models is 5 MB of JSON and takes tens of milliseconds to encode, during which Python does
nothing else. It is encoded in blocks, and a block that is found again in a later list (the same one, one with
a file more, one with "None" before it) is not encoded again. Blocks are recognised by their content, so
whatever a node pack does to a list, its JSON is what `json.dumps` gives.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

LONG = 256
"""Shorter lists are left to `json.dumps`."""
BLOCK = 512
MOST_BLOCKS = 8192
MOST_LISTS = 16
MOST_BYTES = 32 << 20
"""Of whole lists. One that is asked for again is put together from its blocks in a few milliseconds."""

Encode = Callable[[list[Any]], bytes]


def names_as_json(names: list[str]) -> bytes:
    """The items of a JSON list."""
    return json.dumps(names)[1:-1].encode("ascii")


class EncodedLists:
    """Lists of hashable items, as JSON. Every method may be called from any thread."""

    def __init__(self, encode: Encode = names_as_json) -> None:
        self._encode = encode
        self._blocks: dict[Any, tuple[list[Any], bytes]] = {}  # by first item
        self._lists: dict[tuple[Any, ...], tuple[list[Any], bytes]] = {}  # by length, first and last item

    def json_of(self, items: list[Any]) -> bytes:
        """The list as JSON."""
        encoded = self.known(items) if items else b"[]"
        if encoded is None:
            encoded = b"[" + b", ".join(self._pieces(items)) + b"]"
            size = len(encoded) + sum(len(known) for _, known in self._lists.values())
            if len(self._lists) >= MOST_LISTS or size > MOST_BYTES:
                self._lists.clear()
            self._lists[_key(items)] = (list(items), encoded)
        return encoded

    def known(self, items: list[Any]) -> bytes | None:
        """The list as JSON if it was encoded before; not empty."""
        known = self._lists.get(_key(items))
        return known[1] if known is not None and known[0] == items else None

    def _pieces(self, items: list[Any]) -> list[bytes]:
        if len(self._blocks) > MOST_BLOCKS:
            self._blocks.clear()
        blocks, pieces, start = self._blocks, [], 0
        while start < len(items):
            known = blocks.get(items[start])
            if known is None or items[start:start + len(known[0])] != known[0]:
                block = items[start:self._end(items, start)]
                known = blocks[block[0]] = (block, self._encode(block))
            pieces.append(known[1])
            start += len(known[0])
        return pieces

    def _end(self, items: list[Any], start: int) -> int:
        """Where a new block ends: at its full size, or where a known one begins."""
        last = min(start + BLOCK, len(items))
        return next((end for end in range(start + 1, last) if items[end] in self._blocks), last)


def _key(items: list[Any]) -> tuple[Any, ...]:
    return len(items), items[0], items[-1]
