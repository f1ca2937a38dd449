"""A few bytes here and there of a file at a source, each by a request with a range.

For the directory of an archive and members so small that aria2 would not be worth its start. What was read
is kept, so that nothing is asked for twice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from comfy_depot import sources
from comfy_depot.archives import Scattered
from comfy_depot.manifest import Entry
from comfy_depot.sources import Busy, Remote

FIRST_AHEAD, MOST_AHEAD = 4 << 10, 256 << 10
MOST_REQUESTS = 100
BYTES_PER_REQUEST = 16 << 20  # of a large file: so much could be fetched whole in the time of a request
MOST_BYTES = 64 << 20


class SourceChanged(Exception):
    """The source does not serve the file any more that was looked at."""


class RemoteBytes:
    """`archives.Bytes` of a source that honours ranges. `before_each` is called before a request and may
    raise."""

    def __init__(
        self, entry: Entry, remote: Remote, *, allow_hosts: Iterable[str], before_each: Callable[[], None]
    ) -> None:
        self.size = remote.validator.size or 0
        self._entry, self._remote = entry, remote
        self._allow_hosts, self._before_each = tuple(allow_hosts), before_each
        self._chunks: dict[int, bytes] = {}
        self._bytes = self._requests = 0
        self._ahead, self._last_end = FIRST_AHEAD, 0

    def read_at(self, offset: int, count: int) -> bytes:
        """`count` bytes, or fewer at the end; asks for more than that where reading goes on nearby."""
        end = min(offset + count, self.size)
        found = bytearray()
        while (position := offset + len(found)) < end:
            piece = self._known(position, end)
            found += piece or self._read_ahead(position, end)
        return bytes(found)

    def _known(self, position: int, end: int) -> bytes:
        for start, chunk in self._chunks.items():
            if start <= position < start + len(chunk):
                return chunk[position - start : end - start]
        return b""

    def _read_ahead(self, position: int, end: int) -> bytes:
        """Small steps for headers far apart, larger ones where they stand close together."""
        is_near = 0 <= position - self._last_end <= 4 * self._ahead
        self._ahead = min(2 * self._ahead, MOST_AHEAD) if is_near and self._last_end else FIRST_AHEAD
        until = min(max(end, position + self._ahead), self.size)
        behind = [start for start in self._chunks if start > position]
        return self.fetch(position, min([until, *behind]))[: end - position]

    def fetch(self, start: int, end: int) -> bytes:
        """Ask for [start, end) and keep it."""
        self._requests += 1
        self._bytes += end - start
        if self._requests > max(MOST_REQUESTS, self.size // BYTES_PER_REQUEST) or self._bytes > MOST_BYTES:
            raise Scattered
        self._last_end = end
        self._chunks[start] = chunk = self._ask(start, end)
        return chunk

    def _ask(self, start: int, end: int) -> bytes:
        """One request; nothing but exactly these bytes of exactly this file is taken."""
        self._before_each()
        remote, where = self._remote, sources.shown(self._remote.url)
        headers = dict(line.split(": ", 1) for line in remote.headers) | {"Range": f"bytes={start}-{end - 1}"}
        if remote.validator.if_range:
            headers["If-Range"] = remote.validator.if_range
        answer = sources.ask(self._entry, remote.url, headers, self._allow_hosts, sources.ANSWER_SECONDS,
                             most_bytes=end - start)
        if answer.status == 200:
            raise Scattered if answer.headers.get("etag", 0) == remote.validator.etag else SourceChanged
        if answer.status != 206:
            raise Busy(f"'{self._entry.key}': {where} answered {answer.status} to a request for a part. "
                       "Try again later or add another url to the manifest.",
                       sources.retry_after(answer.headers.get("retry-after")))
        told = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", answer.headers.get("content-range", "").strip())
        etag = answer.headers.get("etag", remote.validator.etag)
        if told is None or tuple(map(int, told.groups())) != (start, end - 1, self.size) or (
            etag != remote.validator.etag
        ):
            raise SourceChanged
        if len(answer.body) != end - start:
            raise Busy(f"'{self._entry.key}': {where} sent {len(answer.body)} of {end - start} bytes. "
                       "Try again later.", retry_after=0.1)
        return answer.body
