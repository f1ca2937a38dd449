"""The journal: what is written together, what is told when it cannot be written, and its file."""

import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from comfy_execution.queueing import journal as journal_module
from comfy_execution.queueing.journal import Journal, JournalError, JournalFullError, JournalInUseError
from comfy_execution.queueing.recent import Accepted, insert_many
from tests.fakes.waiting import wait_until


@pytest.fixture
def journal(tmp_path):
    opened = Journal(tmp_path / "queue.db")
    yield opened
    opened.close()


def row(sequence, item="[]"):
    return Accepted(sequence, f"p{sequence}", item, 0.0, "", 0, 0.0, "[]")


def sequences(journal):
    rows = journal.read(lambda db: db.execute("SELECT sequence FROM prompts").fetchall())
    return [found[0] for found in rows]


def test_prompts_of_many_threads_are_written_and_each_is_told(journal):
    told, all_told = [], threading.Event()

    def done(error):
        told.append(error)
        if len(told) == 400:
            all_told.set()

    def submit(start):
        for sequence in range(start, start + 100):
            journal.submit(row(sequence), done)

    threads = [threading.Thread(target=submit, args=(start,)) for start in (1, 101, 201, 301)]
    for thread in threads:
        thread.start()
    assert all_told.wait(10) and set(told) == {None}
    assert sequences(journal) == list(range(1, 401))


def test_who_is_told_of_a_prompt_can_read_it_in_another_process(journal):
    seen = []
    done = threading.Event()

    def look(error):
        with sqlite3.connect(journal.path) as other:
            seen.append(other.execute("SELECT count(*) FROM prompts").fetchone()[0])
        other.close()
        done.set()

    journal.submit(row(1), look)
    assert done.wait(10) and seen == [1]


def test_one_bad_row_does_not_take_others_with_it(journal):
    journal.run(lambda db: insert_many(db, [row(2)]))
    told = {}
    for sequence in (1, 2, 3):
        journal.submit(row(sequence), lambda error, sequence=sequence: told.update({sequence: error}))
    journal.flush()
    wait_until(lambda: len(told) == 3)
    assert told[1] is None and told[3] is None
    assert isinstance(told[2], JournalError) and "cannot be used" in str(told[2])
    assert sequences(journal) == [1, 2, 3]


def test_a_full_disk_is_told_and_nothing_is_lost(journal):
    journal.submit(row(1))
    journal.flush()
    pages = journal.run(lambda db: db.execute("PRAGMA page_count").fetchone()[0])
    journal.run(lambda db: db.execute(f"PRAGMA max_page_count={pages}"))
    told = []
    journal.submit(row(2, item="x" * 50_000), told.append)
    wait_until(lambda: told)
    assert isinstance(told[0], JournalFullError) and "Free some space" in str(told[0])
    with pytest.raises(JournalFullError):
        journal.run(lambda db: insert_many(db, [row(3, "x" * 50_000)]))
    assert sequences(journal) == [1]
    journal.run(lambda db: db.execute("PRAGMA max_page_count=100000"))
    journal.submit(row(2, item="x" * 50_000))
    assert sequences(journal) == [1, 2]


def test_some_room_is_kept_for_the_ends_of_prompts(journal, monkeypatch):
    monkeypatch.setattr(journal_module, "FREE_BYTES_TO_KEEP", 1 << 60)
    monkeypatch.setattr(journal_module, "SECONDS_BETWEEN_LOOKS", 0)
    told = []
    journal.submit(row(1), told.append)
    wait_until(lambda: told)
    assert isinstance(told[0], JournalFullError)
    journal.run(lambda db: db.execute("INSERT INTO settings VALUES ('paused', '1')"))


@pytest.mark.parametrize("damage", ["no database at all, but long enough to be read as one", None])
def test_a_damaged_journal_is_set_aside_and_a_new_one_begun(tmp_path, caplog, damage):
    path = tmp_path / "queue.db"
    first = Journal(path)
    first.run(lambda db: insert_many(db, [row(n, "x" * 5000) for n in range(50)]))
    first.close()
    content = bytearray(damage.encode() * 40 if damage else path.read_bytes())
    if damage is None:
        content[4096:40960] = b"\xff" * 36864
    path.write_bytes(content)
    second = Journal(path)
    assert second.set_aside == tmp_path / "queue.db.damaged-1"
    assert second.set_aside.read_bytes()[4096:] == content[4096:]
    assert "is damaged" in caplog.text and str(second.set_aside) in caplog.text
    assert sequences(second) == []
    second.close()


def test_a_second_process_is_refused(journal):
    code = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "from comfy_execution.queueing.journal import Journal, JournalInUseError\n"
        "try: Journal(sys.argv[1])\n"
        "except JournalInUseError as error: print(error)\n"
    )
    root = str(Path(__file__).resolve().parents[3])
    said = subprocess.run([sys.executable, "-c", code, journal.path, root], capture_output=True, text=True)
    assert "is used by another server. Stop that one" in said.stdout, said.stderr
    with pytest.raises(JournalInUseError):
        Journal(journal.path)


def test_a_journal_of_another_version_is_not_touched(tmp_path):
    with sqlite3.connect(tmp_path / "queue.db") as other:
        other.execute("PRAGMA user_version=99")
    other.close()
    with pytest.raises(JournalError, match="format 99, this is 1"):
        Journal(tmp_path / "queue.db")


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="--journal off"):
        Journal(tmp_path / "file" / "queue.db")
    (tmp_path / "queue.db").mkdir()
    with pytest.raises(JournalError, match="cannot be used"):
        Journal(tmp_path / "queue.db")


def test_other_users_cannot_read_the_prompts(journal):
    journal.submit(row(1))
    journal.flush()
    modes = {path.name: path.stat().st_mode & 0o077 for path in journal.path.parent.iterdir()}
    assert modes and set(modes.values()) == {0}, modes


@pytest.mark.parametrize(("sync", "level"), [("normal", 1), ("full", 2)])
def test_the_promise_is_an_option(tmp_path, sync, level):
    opened = Journal(tmp_path / "queue.db", sync=sync)
    assert opened.run(lambda db: db.execute("PRAGMA synchronous").fetchone()[0]) == level
    opened.close()
