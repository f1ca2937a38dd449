"""The record of a partial: which source it comes from, and which of its bytes are certainly there.

A partial is a file with holes, of its final size from the start. After a crash its content is known from
two things:

- the journal: five times a second, or more often, the pieces (1 MiB) that aria2 calls complete;
- the holes: what was never written is a hole of the file and reads as zeros. A piece is written from its
  start on, so it is written at least up to its last byte that is not zero. File systems tell holes in
  pages, and a page may be half written: hence the look at the bytes.

So a SIGKILL costs what was under way and less than a block (16 KiB) per connection, however fast the link
is. aria2's own control file is a second old at best and is never believed: it is written here, from the
above. Leaving small gaps in it would be costly, because aria2 asks for everything behind a gap and then
hangs up.

After a crash of the machine neither counts, since the last writes may not have reached the disk: then
only pieces count that were journalled before an fsync of the partial (every SYNC_SECONDS).
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
from dataclasses import asdict, dataclass, field
from pathlib import Path

from comfy_depot.aria2 import PIECE_BYTES
from comfy_depot.replacing import replace_file

BLOCK_BYTES = 1 << 14  # aria2's unit inside a piece
SYNC_SECONDS = 2.0
VERSION = 1


@dataclass(frozen=True)
class Validator:
    """What tells whether a source still serves the same bytes."""

    size: int | None = None
    etag: str | None = None
    last_modified: str | None = None

    def same_file(self, other: Validator) -> bool:
        """Whether both certainly name the same bytes; a size alone is no proof."""
        if self.size is None or self.size != other.size:
            return False
        if self.etag or other.etag:
            return self.etag == other.etag
        return bool(self.last_modified) and self.last_modified == other.last_modified

    @property
    def if_range(self) -> str | None:
        """The value of an If-Range header: a strong ETag or a date."""
        if self.etag and not self.etag.startswith("W/"):
            return self.etag
        return None if self.etag else self.last_modified


class Pieces:
    """Which pieces of a file are complete; the bit of piece 0 is the highest, as aria2 counts."""

    def __init__(self, size: int, hexadecimal: str = "") -> None:
        self.size = size
        self.count = -(-size // PIECE_BYTES)
        self._width = -(-self.count // 8) * 8
        given = bytes.fromhex(hexadecimal)
        self.number = int.from_bytes(given, "big") & self._all if 8 * len(given) == self._width else 0
        """All bits as one number."""

    def __contains__(self, index: int) -> bool:
        return bool(self.number & self._bit(index))

    def has(self, start: int, end: int) -> bool:
        """Whether all pieces that hold the bytes [start, end) are complete."""
        if start >= end:
            return True
        first, last = start // PIECE_BYTES, (end - 1) // PIECE_BYTES
        wanted = ((1 << (last - first + 1)) - 1) << (self._width - 1 - last)
        return self.number & wanted == wanted

    def add(self, index: int) -> None:
        """Mark a piece as complete."""
        self.number |= self._bit(index)

    def others(self) -> Pieces:
        """The pieces that are not complete here, as if they were."""
        found = Pieces(self.size)
        found.number = self.number ^ self._all
        return found

    def length(self, index: int) -> int:
        """Bytes of a piece; the last one may be shorter."""
        return min(PIECE_BYTES, self.size - index * PIECE_BYTES)

    def __bytes__(self) -> bytes:
        return self.number.to_bytes(self._width // 8, "big")

    @property
    def hex(self) -> str:
        """The bits as aria2 and the record write them."""
        return bytes(self).hex()

    @property
    def bytes_in_order(self) -> int:
        """Bytes of the complete pieces before the first that is missing."""
        missing = self.number ^ self._all
        return (self._width - missing.bit_length()) * PIECE_BYTES if missing else self.size

    @property
    def bytes_done(self) -> int:
        """Bytes of the complete pieces."""
        too_many = self.count * PIECE_BYTES - self.size if self.number & self._bit(self.count - 1) else 0
        return self.number.bit_count() * PIECE_BYTES - too_many

    @property
    def _all(self) -> int:
        return ((1 << self.count) - 1) << (self._width - self.count)

    def _bit(self, index: int) -> int:
        return 1 << (self._width - 1 - index)


@dataclass(frozen=True)
class Record:
    """What stands beside a partial. It holds no URL and no header: sources are kept as digests."""

    source: str
    validator: Validator
    sha256: str | None = None
    pieces: str = ""
    synced: str = ""  # pieces that were on the disk at the last fsync
    writer: str = ""  # the lock file of the aria2c that writes
    boot: str = field(default_factory=lambda: boot_id())
    grain: int = 0  # bytes in which this file system tells holes; 0: it does not
    version: int = VERSION


def read_record(path: Path) -> Record | None:
    """The record, or None when there is none or it is not readable."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        record = Record(**{**data, "validator": Validator(**data["validator"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return record if record.version == VERSION else None


def write_record(path: Path, record: Record) -> None:
    """Replace the record in one step."""
    replace_file(path, json.dumps(asdict(record)))


def create_partial(path: Path, size: int) -> int:
    """A new file that is one hole of `size` bytes; returns the grain of holes there (0 when none are told).

    The final size from the start matters: file systems that reserve room behind a growing file (XFS)
    would later show that room as written.
    """
    with open(path, "wb") as file:
        file.truncate(size)
    return hole_grain(path.parent)


def hole_grain(folder: Path) -> int:
    """How many bytes one written byte fills in the eyes of SEEK_DATA; 0 when the answer is of no use."""
    if not hasattr(os, "SEEK_HOLE"):
        return 0
    probe = folder / f"probe-{os.getpid()}-{os.urandom(4).hex()}"
    try:
        with open(probe, "w+b", buffering=0) as file:
            file.truncate(4 * PIECE_BYTES)
            os.pwrite(file.fileno(), b"x", 2 * PIECE_BYTES)
            spans = written_spans(file.fileno(), 4 * PIECE_BYTES)
    except OSError:
        return 0
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()
    if len(spans) != 1 or spans[0][0] != 2 * PIECE_BYTES:
        return 0
    grain = spans[0][1] - spans[0][0]
    return grain if grain <= PIECE_BYTES // 4 else 0


def written_spans(fd: int, size: int) -> list[tuple[int, int]]:
    """(start, end) of what is no hole, in order."""
    spans: list[tuple[int, int]] = []
    position = 0
    while position < size:
        try:
            start = os.lseek(fd, position, os.SEEK_DATA)
        except OSError:  # ENXIO: a hole up to the end
            break
        position = os.lseek(fd, start, os.SEEK_HOLE)
        spans.append((start, min(position, size)))
    return spans


def believed(record: Record, partial: Path) -> tuple[Pieces, dict[int, int]]:
    """What of a partial may be kept: complete pieces, and for others the number of leading blocks."""
    size = record.validator.size or 0
    same_boot = bool(record.boot) and record.boot == boot_id()
    pieces = Pieces(size, record.pieces if same_boot else record.synced)
    blocks: dict[int, int] = {}
    if not record.grain or not same_boot:
        return pieces, blocks
    with open(partial, "rb", buffering=0) as file:
        for start, end in written_spans(file.fileno(), size):
            for index in range(-(-start // PIECE_BYTES), -(-end // PIECE_BYTES)):
                if index in pieces:
                    continue
                offset = index * PIECE_BYTES
                reach = min(end, offset + pieces.length(index))
                written = written_up_to(file.fileno(), offset, reach, record.grain) - offset
                if written == pieces.length(index):
                    pieces.add(index)
                elif written >= BLOCK_BYTES:
                    blocks[index] = written // BLOCK_BYTES
    return pieces, blocks


def written_up_to(fd: int, start: int, end: int, grain: int) -> int:
    """Offset behind the last byte of [start, end) that was certainly written; writing began at start."""
    look_at = max(start, end - grain)
    seen = os.pread(fd, end - look_at, look_at)
    return look_at + len(seen.rstrip(b"\0"))


def control_file(pieces: Pieces, blocks: dict[int, int]) -> bytes:
    """aria2's control file (format version 1, big endian) that says exactly this."""
    parts = [
        struct.pack(">HIIIQQI", 1, 0, 0, PIECE_BYTES, pieces.size, 0, len(bytes(pieces))),
        bytes(pieces),
    ]
    parts.append(struct.pack(">I", len(blocks)))
    for index, count in sorted(blocks.items()):
        length = pieces.length(index)
        blocks_of_piece = -(-length // BLOCK_BYTES)
        bits = bytearray(-(-blocks_of_piece // 8))
        for block in range(count):
            bits[block >> 3] |= 0x80 >> (block & 7)
        parts.append(struct.pack(">III", index, length, len(bits)) + bytes(bits))
    return b"".join(parts)


def kept_bytes(pieces: Pieces, blocks: dict[int, int]) -> int:
    """Bytes that need not be sent again."""
    return pieces.bytes_done + sum(blocks.values()) * BLOCK_BYTES


def boot_id() -> str:
    """The name of this run of the kernel; empty where there is none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
