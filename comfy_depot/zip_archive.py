"""Zip archives (stored and deflated members, zip64), read by the standard library behind limits of ours."""

from __future__ import annotations

import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, cast

from comfy_depot.archives import (
    CHUNK_BYTES,
    LARGEST_DIRECTORY,
    ArchiveRefused,
    Bytes,
    Member,
    check_count,
    check_name,
    check_ratio,
    cut_off,
    plain,
)

LOCAL_HEADER = 30
LARGEST_TEXT = 1 << 16  # of a name, an extra field or a comment
TAIL_BYTES = LARGEST_TEXT + 22 + 20 + 56  # in which the end records stand
_ENCRYPTED = 0x1 | 0x40
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_BROKEN = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, OverflowError, IndexError,
           NotImplementedError, RuntimeError)
"""What the standard library raises for a file that is not as it should be."""


class ZipArchive:
    """See `archives.Archive`."""

    def __init__(self, source: Bytes) -> None:
        self._size = source.size
        source.read_at(max(0, source.size - TAIL_BYTES), TAIL_BYTES)  # in one go, where reading is a request
        try:
            self._zip = zipfile.ZipFile(cast(IO[bytes], _Reader(source)))
        except _BROKEN as error:
            raise _damaged(error) from None
        self._infos = sorted(self._zip.infolist(), key=lambda info: info.header_offset)
        check_count(len(self._infos))
        for info in self._infos:
            check_name(info.orig_filename)
        self._check_overlaps()

    def members(self) -> Iterator[Member]:
        """All members, in the order of their bytes."""
        for info, end in self._with_ends():
            most = info.header_offset + LOCAL_HEADER + 2 * LARGEST_TEXT + info.compress_size
            yield Member(plain(info.filename), info.file_size, info.header_offset, min(end, most),
                         _problem(info), info)

    def chunks(self, member: Member) -> Iterator[bytes]:
        """The bytes of a member; its CRC is compared at the end."""
        info: zipfile.ZipInfo = member.detail
        done = 0
        try:
            with self._zip.open(info) as file:
                while chunk := file.read(CHUNK_BYTES):
                    done += len(chunk)
                    yield chunk
        except _BROKEN as error:
            raise _damaged(error, f"its member '{info.filename[:200]}'") from None
        if done != member.size:
            raise cut_off(f"its member '{info.filename[:200]}'")

    def _with_ends(self) -> Iterator[tuple[zipfile.ZipInfo, int]]:
        """Each member, and where the next one or the directory begins."""
        begins = [*(info.header_offset for info in self._infos), self._zip.start_dir]
        return zip(self._infos, begins[1:], strict=True)

    def _check_overlaps(self) -> None:
        """Members that share bytes make a small archive unpack to terabytes."""
        for info, end in self._with_ends():
            if info.header_offset < 0 or info.header_offset + LOCAL_HEADER + info.compress_size > end:
                raise ArchiveRefused(
                    f"its member '{info.filename[:200]}' overlaps what stands behind it, as in a bomb or a "
                    "damaged archive. Take the model from elsewhere, or pack it anew."
                )


def _problem(info: zipfile.ZipInfo) -> str | None:
    """Why a member cannot be a model."""
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind == stat.S_IFLNK:
        return "it is a symbolic link, which is never followed. Name the file that it leads to"
    if info.is_dir() or kind not in (0, stat.S_IFREG):
        return "it is no file. Name a file of the archive"
    if info.flag_bits & _ENCRYPTED:
        return "it is encrypted. Pack it without a password"
    if info.compress_type not in _METHODS:
        return (f"its compression is method {info.compress_type}, and only 'stored' and 'deflated' are read. "
                "Pack it anew, best without compression (zip -0)")
    try:
        check_ratio(info.file_size, info.compress_size, "it")
    except ArchiveRefused as error:
        return str(error).rstrip(".")
    if info.compress_type == zipfile.ZIP_STORED and info.file_size != info.compress_size:
        return "its sizes contradict each other. Take the model from elsewhere, or pack it anew"
    return None


def _damaged(error: BaseException, what: str = "its directory") -> ArchiveRefused:
    return ArchiveRefused(
        f"{what} cannot be read ({str(error)[:200] or type(error).__name__}). The archive is damaged, cut "
        "off or no zip archive: choose another url in the manifest, or pack it anew."
    )


class _Reader:
    """The file that `zipfile` is given. It reads no more in one go than a directory may have."""

    def __init__(self, source: Bytes) -> None:
        self._source, self._position = source, 0

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._source.size}[whence]
        if base + offset < 0:
            raise OSError("before the start")
        self._position = base + offset
        return self._position

    def read(self, count: int = -1) -> bytes:
        count = self._source.size - self._position if count < 0 else count
        if count > LARGEST_DIRECTORY:
            raise ArchiveRefused(
                f"it announces a directory of {count:,} bytes, and {LARGEST_DIRECTORY:,} are the most that "
                "is read. Split it into several archives."
            )
        data = self._source.read_at(self._position, max(0, min(count, self._source.size - self._position)))
        if len(data) > CHUNK_BYTES:  # the directory; `zipfile` would make an object of each record
            check_count(data.count(b"PK\x01\x02"))
        self._position += len(data)
        return data
