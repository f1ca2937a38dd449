"""The access log keeps every row, off the hot path."""

from __future__ import annotations

import logging
import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from comfy_depot import access
from comfy_depot.access import FILE_NAME, Access, AccessLog, count, read
from tests.fakes.waiting import wait_until


def an_access(name: str = "a.safetensors", when: float = 1.5) -> Access:
    return Access(when, "loras", name, "p1", "4", "team", 7, "hit")


def test_what_is_noted_is_in_the_file_soon(tmp_path: Path) -> None:
    log = AccessLog(tmp_path)
    log.note(an_access())
    wait_until(lambda: list(access.read(tmp_path)) == [an_access()])
    log.close()


def test_close_writes_everything(tmp_path: Path) -> None:
    log = AccessLog(tmp_path / "new" / "folder")
    for i in range(1000):
        log.note(an_access(when=float(i)))
    log.close()
    log.close()
    assert access.count(tmp_path / "new" / "folder") == 1000
    assert [row.time for row in access.read(tmp_path / "new" / "folder", limit=2)] == [999.0, 998.0]


def test_flush_writes_now(tmp_path: Path) -> None:
    log = AccessLog(tmp_path)
    log.note(an_access())
    log.flush()
    assert access.count(tmp_path) == 1
    log.close()
    assert access.count(tmp_path) == 1


def test_noting_waits_for_no_lock_and_loses_nothing(tmp_path: Path) -> None:
    log = AccessLog(tmp_path)
    log.note(an_access())
    log.flush()
    lock = sqlite3.connect(tmp_path / access.FILE_NAME, isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    for _ in range(10_000):  # returns although nothing can be written
        log.note(an_access())
    assert access.count(tmp_path) == 1
    lock.execute("ROLLBACK")
    lock.close()
    log.close()
    assert access.count(tmp_path) == 10_001


def test_many_threads_lose_no_row(tmp_path: Path) -> None:
    log = AccessLog(tmp_path)
    threads = [threading.Thread(target=lambda: [log.note(an_access()) for _ in range(200)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    assert access.count(tmp_path) == 1600


def test_rows_are_written_when_the_interpreter_ends_without_close(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from comfy_depot.access import Access, AccessLog\n"
        "log = AccessLog(Path(sys.argv[1]))\n"
        "for i in range(500): log.note(Access(1.0, 'loras', 'a', None, None, None, 1, 'hit'))\n"
    )
    root = Path(access.__file__).parents[1]
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, cwd=root, timeout=30)
    assert access.count(tmp_path) == 500


@pytest.mark.skipif(os.name == "nt", reason="needs rights of POSIX")
def test_rows_wait_in_memory_while_the_disk_refuses_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "state").write_text("a file where the folder should be")
    log = AccessLog(tmp_path / "state")
    with caplog.at_level(logging.ERROR):
        log.note(an_access())
        log.flush()
        log.note(an_access())
        log.flush()
    assert len(caplog.records) == 1, "it is told once"
    assert (
        "cannot be written" in caplog.text and "Make room on the disk or correct the rights." in caplog.text
    )
    (tmp_path / "state").unlink()
    log.flush()
    assert access.count(tmp_path / "state") == 2
    log.close()


def test_no_log_yet_is_no_rows(tmp_path: Path) -> None:
    assert list(access.read(tmp_path)) == [] and access.count(tmp_path) == 0


def test_the_last_use_and_the_size_of_the_last_download_are_known_by_model(tmp_path: Path) -> None:
    assert access.last_uses(tmp_path) == {}
    log = AccessLog(tmp_path)
    for when, size, outcome in ((1.0, 10, "fetched"), (2.0, 20, "fetched"), (3.0, 30, "hit")):
        log.note(Access(when, "loras", "a.safetensors", None, None, None, size, outcome))
    log.note(an_access("b.safetensors", when=5.0))
    log.close()
    assert access.last_uses(tmp_path) == {
        ("loras", "a.safetensors"): access.LastUse(3.0, 20),
        ("loras", "b.safetensors"): access.LastUse(5.0, None),
    }


def test_names_that_are_no_text_are_written_escaped_and_the_log_goes_on(tmp_path: Path) -> None:
    """A file name may be any bytes, and the id of a node any JSON text."""
    log = AccessLog(tmp_path)
    log.note(Access(1.0, "loras", "caf\udce9.safetensors", "p", "4\ud800", None, 1, "hit"))
    log.note(Access(2.0, "loras", "b.safetensors", "p", "4", None, 1, "hit"))
    log.close()
    assert [row.name for row in read(tmp_path)] == ["b.safetensors", "caf\\udce9.safetensors"]


def test_a_damaged_log_is_put_aside_and_a_new_one_begun(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"no database at all" * 500)
    assert count(tmp_path) == 0
    log = AccessLog(tmp_path)
    log.note(Access(1.0, "loras", "a.safetensors", None, None, None, 1, "hit"))
    log.close()
    assert count(tmp_path) == 1
    assert (tmp_path / f"{FILE_NAME}.broken").exists() and "is kept as" in caplog.text
