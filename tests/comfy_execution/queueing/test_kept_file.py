"""Bytes that survive the death of the process, and full disks that do not cause it."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from comfy_execution.queueing import kept_file
from comfy_execution.queueing.kept_file import EMPTY, LEAST_BYTES, KeptFile, file_system_of
from tests.fakes.disk import small_file_system

ROOT = Path(__file__).resolve().parents[3]

WRITE_AND_DIE = """
import os, signal, sys
from pathlib import Path
from comfy_execution.queueing.kept_file import KeptFile
file = KeptFile(Path(sys.argv[1]))
file.write(b"first\\n", 0)
file.write(b"second\\n" + b"x" * 100_000, 6)
os.kill(os.getpid(), signal.SIGKILL)
"""
LOCK = """
import sys
from pathlib import Path
from comfy_execution.queueing.journal import Journal, JournalError
try:
    journal = Journal(Path(sys.argv[1]))
    journal.lock.note("9")
    journal.close()
    print("opened")
except JournalError as error:
    print(error)
"""


def run(code, path):
    return subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, capture_output=True, text=True)


@pytest.fixture(params=[True, False], ids=["mapped", "written"])
def can_map(request, monkeypatch):
    """As on file systems that keep their room, and as on others."""
    if not request.param:
        monkeypatch.setattr(kept_file, "SAFE_FILE_SYSTEMS", frozenset())
    return request.param


def test_what_was_written_survives_sigkill(tmp_path):
    died = run(WRITE_AND_DIE, tmp_path / "file")
    assert died.returncode == -signal.SIGKILL
    content = (tmp_path / "file").read_bytes()
    assert content.startswith(b"first\nsecond\nxxx") and content.count(b"x") == 100_000


def test_bytes_are_in_the_file_at_once_and_again_after_it_grew(tmp_path, can_map):
    file = KeptFile(tmp_path / "file")
    file.write(b"abc", 0)
    file.write(b"y", LEAST_BYTES)
    file.write(b"z" * LEAST_BYTES, 3 * LEAST_BYTES)
    file.write(b"d", 3)
    file.flush()
    content = (tmp_path / "file").read_bytes()
    assert content.startswith(b"abcd\0") and content[LEAST_BYTES : LEAST_BYTES + 2] == b"y\0"
    assert content.rstrip(b"\0").endswith(b"z" * LEAST_BYTES)
    file.close()
    with contextlib.closing(KeptFile(tmp_path / "file")) as again:
        again.write(b"A", 0)
    assert (tmp_path / "file").read_bytes()[:4] == b"Abcd"


def test_a_write_that_is_cut_short_leaves_no_beginning(tmp_path):
    class DiesInTheMiddle:
        """Memory of a process that is killed at its second change."""

        def __init__(self, memory):
            self.memory, self.changes = memory, 0

        def __setitem__(self, part, content):
            self.changes += 1
            if self.changes == 2:
                self.memory[part.start : part.start + 3] = content[:3]
                raise KeyboardInterrupt
            self.memory[part] = content

    if file_system_of(tmp_path) not in kept_file.SAFE_FILE_SYSTEMS:
        pytest.skip("files are not mapped here")
    file = KeptFile(tmp_path / "file")
    file.write(b"[1, 2]\n", 0)
    file._memory = DiesInTheMiddle(file._memory)
    with pytest.raises(KeyboardInterrupt):
        file.write(b"[3, 4]\n", 0)
    assert (tmp_path / "file").read_bytes()[:1] == EMPTY


def test_a_full_disk_is_an_error_and_changes_nothing(tmp_path, can_map):
    with small_file_system(tmp_path / "disk", "1m") as disk:
        file = KeptFile(disk / "file")
        file.write(b"abc", 0)
        with pytest.raises(OSError, match="No space left"):
            file.write(b"x" * (2 << 20), 3)
        file.write(b"d", 0)
        assert (disk / "file").read_bytes()[:3] == b"dbc"
        file.close()


def test_a_journal_on_a_full_disk_is_refused_in_words_instead_of_killing_the_process(tmp_path):
    with small_file_system(tmp_path / "disk", "1m") as disk:
        with contextlib.suppress(OSError):
            (disk / "junk").write_bytes(bytes(2 << 20))
        found = run(LOCK, disk / "queue.db")
        assert found.returncode == 0, found.stderr
        assert "No space left" in found.stdout or "There is no room on the disk" in found.stdout
        (disk / "junk").unlink()
        assert run(LOCK, disk / "queue.db").stdout == "opened\n"


def test_the_file_system_of_a_path_is_that_of_the_nearest_mount(tmp_path):
    with small_file_system(tmp_path / "disk", "1m") as disk:
        os.symlink(disk, tmp_path / "link")
        assert file_system_of(disk / "below" / "file") == file_system_of(tmp_path / "link" / "x") == "tmpfs"
