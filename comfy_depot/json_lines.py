"""On which line a key of a JSON text stands: what `json` does not tell and an error message needs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],]|\n')


def key_lines(text: str) -> Iterator[tuple[tuple[str, ...], int]]:
    """Every key of a valid JSON text as (path of keys, line), in the order in which they stand.

    Lists add nothing to a path, and a key that stands twice is given twice.
    """
    line = 1
    path: list[str | None] = []  # one item per open object ("" before its first key) or list (None)
    key_is_next = False
    for match in _TOKEN.finditer(text):
        token = match.group()
        if token == "\n":
            line += 1
        elif token in "{[":
            path.append("" if token == "{" else None)
            key_is_next = token == "{"
        elif token in "}]":
            path.pop()
            key_is_next = False
        elif token == ",":
            key_is_next = path[-1] is not None
        elif key_is_next:
            path[-1] = json.loads(token)
            key_is_next = False
            yield tuple(key for key in path if key is not None), line
