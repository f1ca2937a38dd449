"""A digest in portions: right, never of two versions of a file, and the page cache stays as it was."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from comfy_depot import open_files
from comfy_depot.eviction import Stamp
from comfy_depot.file_digest import PORTION_BYTES, FileChanged, FileDigest
from tests.fakes.origin import sha256

SIZES = [0, 1, PORTION_BYTES - 1, PORTION_BYTES, 2 * PORTION_BYTES + 5]


def model(folder: Path, size: int = 3 * PORTION_BYTES) -> Path:
    file = folder / "a.safetensors"
    file.write_bytes(os.urandom(size))
    return file


def read_all(digest: FileDigest) -> str:
    while not digest.is_complete:
        digest.advance()
    return digest.sha256


@pytest.mark.parametrize("size", SIZES)
def test_the_digest_is_that_of_the_file(tmp_path: Path, size: int) -> None:
    file = model(tmp_path, size)
    digest = FileDigest(str(file))
    assert read_all(digest) == sha256(file.read_bytes())
    assert (digest.position, digest.stamp) == (size, Stamp.of(os.stat(file)))
    digest.release()


def test_it_goes_on_where_it_was_left_and_has_nothing_open_meanwhile(tmp_path: Path) -> None:
    file = model(tmp_path)
    digest = FileDigest(str(file))
    digest.advance()
    assert open_files.look().holder(file) == os.getpid()
    digest.release()
    digest.release()
    assert open_files.look().holder(file) is None and digest.position == PORTION_BYTES
    assert read_all(digest) == sha256(file.read_bytes())
    digest.release()


def overwrite(file: Path) -> None:
    with open(file, "r+b") as other:
        other.seek(5)
        other.write(b"new")


def overwrite_and_put_the_time_back(file: Path) -> None:
    before = os.stat(file)
    overwrite(file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace(file: Path) -> None:
    other = file.with_name("other")
    other.write_bytes(os.urandom(file.stat().st_size))
    os.replace(other, file)


def shorten(file: Path) -> None:
    os.truncate(file, PORTION_BYTES + 1)


def lengthen(file: Path) -> None:
    with open(file, "ab") as other:
        other.write(b"more")


CHANGES = [overwrite, overwrite_and_put_the_time_back, replace, shorten, lengthen, os.unlink]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("is_open", [True, False])
def test_a_file_that_changes_on_the_way_has_no_digest(
    tmp_path: Path, change: Callable[[Path], None], is_open: bool
) -> None:
    file = model(tmp_path)
    digest = FileDigest(str(file))
    digest.advance()
    if not is_open:
        digest.release()
    change(file)
    with pytest.raises((FileChanged, FileNotFoundError)):
        read_all(digest)
    assert open_files.look().holder(file) is None, "a deleted file gives its room back at once"


def test_a_file_that_is_changed_after_its_last_portion_was_read_has_none_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = model(tmp_path, PORTION_BYTES)
    digest, read = FileDigest(str(file)), FileDigest._read

    def read_and_change(self: FileDigest) -> int:
        count = read(self)
        overwrite_and_put_the_time_back(file)
        return count

    monkeypatch.setattr(FileDigest, "_read", read_and_change)
    with pytest.raises(FileChanged):
        digest.advance()


def test_pipes_and_folders_are_no_files_and_nothing_hangs(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(FileChanged):
            FileDigest(str(path))
    with pytest.raises(FileNotFoundError):
        FileDigest(str(tmp_path / "none"))


@pytest.mark.parametrize("refuses", ["to open", "to read"])
def test_a_file_system_that_reads_only_through_its_cache_is_read_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuses: str
) -> None:
    """Some refuse when a file is opened so, some when it is read: both are refused here."""
    file, opened, read = model(tmp_path), os.open, os.preadv

    def refuse_direct(path: str, flags: int, *rest: int) -> int:
        if refuses == "to open" and flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "no")
        return opened(path, flags, *rest)

    def refuse_to_read(fd: int, buffers: list[memoryview], offset: int) -> int:
        if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT:
            raise OSError(errno.EINVAL, "no")
        return read(fd, buffers, offset)

    monkeypatch.setattr(os, "open", refuse_direct)
    monkeypatch.setattr(os, "preadv", refuse_to_read)
    digest = FileDigest(str(file))
    assert read_all(digest) == sha256(file.read_bytes())
    digest.release()
    assert open_files.look().holder(file) is None


def bytes_in_cache(file: Path) -> int:
    """How much of a file the page cache holds (mincore)."""
    size, page = os.stat(file).st_size, mmap.PAGESIZE
    with open(file, "rb") as opened, mmap.mmap(opened.fileno(), size, access=mmap.ACCESS_COPY) as mapped:
        pages = (ctypes.c_ubyte * -(-size // page))()
        start = ctypes.c_char.from_buffer(mapped)
        libc = ctypes.CDLL(None, use_errno=True)
        status = libc.mincore(ctypes.c_void_p(ctypes.addressof(start)), ctypes.c_size_t(size), pages)
        del start
    assert status == 0
    return sum(one & 1 for one in pages) * page


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks the Linux page cache")
@pytest.mark.parametrize("kept", [0, 2, 4])
def test_the_page_cache_holds_afterwards_what_it_held_before(tmp_path: Path, kept: int) -> None:
    file = model(tmp_path, 4 * PORTION_BYTES)
    with open(file, "rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), kept * PORTION_BYTES, 0, os.POSIX_FADV_DONTNEED)
    if bytes_in_cache(file) != kept * PORTION_BYTES:
        pytest.skip("a file system in memory")
    digest = FileDigest(str(file))
    read_all(digest)
    digest.release()
    assert bytes_in_cache(file) == kept * PORTION_BYTES
    assert digest.sha256 == sha256(file.read_bytes())
