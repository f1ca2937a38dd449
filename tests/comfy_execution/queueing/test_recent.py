"""Prompts and ends beside the journal's table: none is lost, none comes twice, whenever the process dies."""

import contextlib
import json
import shutil
import sqlite3
import threading

import pytest

from comfy_execution.queueing import recent
from comfy_execution.queueing.journal import Journal
from comfy_execution.queueing.recent import ENDINGS, Accepted, RecentLines, finish_many, insert_many
from tests.fakes.disk import small_file_system


def end_of(number, *, ended=None, result="{}"):
    values = (ended or number, 1.5, 0, result, "{}", "completed", 0.0, 0.0, None, None)
    return (*values, number, f"p{number}")


@pytest.fixture
def written():
    return []


def accept(journal, number, prompt_id):
    journal.run(lambda db: insert_many(db, [Accepted(number, prompt_id, "", 0, "", 0, 0, "")]))


def found_after_death(tmp_path):
    """What a process finds that starts now."""
    with contextlib.closing(RecentLines(tmp_path / "q.db")) as ends:
        return [end[-2] for end in ends.left()]


def test_an_end_is_in_a_file_until_it_is_in_the_table(tmp_path, written):
    ends = RecentLines(tmp_path / "q.db")
    assert ends.add(end_of(1)) and ends.add(end_of(2))
    assert found_after_death(tmp_path) == [1, 2]
    ends.write(written.extend)
    assert [end[-2] for end in written] == [1, 2]
    ends.write(written.extend)
    assert len(written) == 2


def test_ends_that_come_during_a_write_are_not_lost_with_its_file(tmp_path, written):
    ends = RecentLines(tmp_path / "q.db")
    ends.add(end_of(1))
    ends.write(lambda batch: ends.add(end_of(2)))
    ends.write(lambda batch: ends.add(end_of(3)))
    assert 3 in found_after_death(tmp_path)
    ends.add(end_of(4))
    assert {3, 4} <= set(found_after_death(tmp_path))
    ends.write(written.extend)
    assert [end[-2] for end in written] == [3, 4]


def test_ends_stay_when_the_table_cannot_be_written(tmp_path, written):
    def fails(batch):
        ends.add(end_of(2))
        raise sqlite3.OperationalError("database or disk is full")

    ends = RecentLines(tmp_path / "q.db")
    ends.add(end_of(1))
    for _ in range(2):
        with pytest.raises(sqlite3.OperationalError):
            ends.write(fails)
    assert found_after_death(tmp_path) == [1, 2, 2]
    ends.write(written.extend)
    assert [end[-2] for end in written] == [1, 2, 2]


def test_lines_of_an_older_use_and_torn_ones_are_not_read(tmp_path, written):
    ends = RecentLines(tmp_path / "q.db")
    for number in range(5):
        ends.add(end_of(number))
    assert found_after_death(tmp_path) == [0, 1, 2, 3, 4]
    ends.write(written.extend)  # the other file comes next, then this one again
    assert found_after_death(tmp_path) == []
    ends.add(end_of(5))
    ends.write(lambda batch: ends.add(end_of(6)))
    file = tmp_path / f"q.db{ENDINGS[0]}"
    assert [json.loads(line)[1][-2] for line in file.read_bytes().splitlines()[:3]] == [6, 1, 2]
    assert found_after_death(tmp_path) == [6]
    file.write_bytes(file.read_bytes()[:20])
    assert found_after_death(tmp_path) == []
    file.write_bytes(b'[9, {"of": "another kind"}]\n')
    assert found_after_death(tmp_path) == []


def test_a_long_end_and_a_full_disk_are_said(tmp_path):
    with small_file_system(tmp_path / "disk", "1m") as disk:
        ends = RecentLines(disk / "q.db")
        assert not ends.add(end_of(1, result="x" * recent.LONGEST_LINE))
        with contextlib.suppress(OSError):
            (disk / "junk").write_bytes(bytes(2 << 20))
        assert not ends.add(end_of(1))
        (disk / "junk").unlink()
        assert ends.add(end_of(2)) and found_after_death(disk) == [2]
        ends.close()


@pytest.mark.parametrize("version", [(3, 40), (3, 31)])
def test_many_ends_are_written_as_one_by_one(tmp_path, monkeypatch, version):
    monkeypatch.setattr(sqlite3, "sqlite_version_info", version)
    journal = Journal(tmp_path / "q.db")
    count = 2 * recent.ENDS_PER_STATEMENT + 3
    for number in range(count):
        accept(journal, number, "p0" if number == 7 else f"p{number}")
    ends = [end_of(number) for number in range(count)]
    ends[7] = (*end_of(7)[:-1], "p0")  # an id that was used twice: the newer entry stays
    ends.append((*end_of(99)[:-2], 3, "another"))  # its number was given again
    journal.run(lambda db: finish_many(db, ends))
    rows = journal.read(lambda db: db.execute("SELECT sequence, ended FROM prompts ORDER BY 1").fetchall())
    assert rows == [(number, number) for number in range(1, count)]
    journal.close()


def test_what_a_dead_process_left_goes_into_the_table_and_not_over_newer_entries(tmp_path):
    journal = Journal(tmp_path / "q.db")
    for number in (1, 2, 3):
        accept(journal, number, f"p{number}")
    journal.run(lambda db: db.execute("UPDATE prompts SET ended=70, result='newer' WHERE sequence=1"))
    journal.close()
    dead = RecentLines(tmp_path / "q.db")
    dead.add(end_of(1))
    dead.add(end_of(2))
    again = Journal(tmp_path / "q.db")
    look = "SELECT sequence, ended, result FROM prompts ORDER BY 1"
    rows = again.read(lambda db: db.execute(look).fetchall())
    assert rows == [(1, 70, "newer"), (2, 2, "{}"), (3, None, None)]
    assert found_after_death(tmp_path) == []
    again.close()


def test_readers_see_every_end_that_was_submitted(tmp_path):
    journal = Journal(tmp_path / "q.db")
    count = "SELECT count(*) FROM prompts WHERE ended IS NOT NULL"
    failures = []

    def work():
        for number in range(1, 200):
            journal.write_now(Accepted(number, f"p{number}", "", 0, "", 0, 0, ""))
            assert journal.submit_end(end_of(number))
            if journal.read(lambda db: db.execute(count).fetchone()[0]) != number:
                failures.append(number)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert failures == []
    journal.close()


def test_with_full_sync_an_end_goes_to_the_table_at_once(tmp_path):
    journal = Journal(tmp_path / "q.db", sync="full")
    assert not journal.submit_end(end_of(1))
    journal.close()


def row_of(number):
    return Accepted(number, f"p{number}", "[]", 0.0, "", 0, 0.0, "[]")


def rows(journal):
    look = "SELECT sequence, ended FROM prompts ORDER BY 1"
    return journal.read(lambda db: db.execute(look).fetchall())


def left_behind(journal):
    """A journal as a process that starts now finds it, after the one of `journal` was killed."""
    folder = journal.path.parent / "copy"
    shutil.copytree(journal.path.parent, folder, ignore=shutil.ignore_patterns("copy", "*.lock"))
    return contextlib.closing(Journal(folder / journal.path.name))


@pytest.fixture
def journal(tmp_path, monkeypatch):
    monkeypatch.setattr(recent, "LONGEST_WAIT", 60)
    with contextlib.closing(Journal(tmp_path / "q.db")) as opened:
        yield opened


def test_an_accepted_prompt_waits_after_a_kill_and_one_that_has_run_does_not(journal):
    assert journal.accept(row_of(1)) and journal.accept(row_of(2)) and journal.submit_end(end_of(1))
    with sqlite3.connect(journal.path) as other:
        assert other.execute("SELECT count(*) FROM prompts").fetchone()[0] == 0
    other.close()
    with left_behind(journal) as again:
        assert rows(again) == [(1, 1), (2, None)]
    assert rows(journal) == [(1, 1), (2, None)]


def test_lines_that_are_in_the_table_already_change_nothing_there(journal):
    """Killed between the commit and the emptying of the file."""
    lines = [row_of(1), row_of(2), end_of(1)]
    for _ in range(2):
        journal.run(lambda db: recent.write_lines(db, lines))
    assert rows(journal) == [(1, 1), (2, None)]


def test_a_prompt_that_was_cancelled_does_not_come_back_after_a_kill(journal):
    journal.accept(row_of(1))
    journal.run(lambda db: db.execute("DELETE FROM prompts WHERE sequence=1"))
    with left_behind(journal) as again:
        assert rows(again) == []


def test_nothing_is_changed_in_a_table_that_lacks_what_came_before(journal):
    journal.accept(row_of(1))
    journal._connection.execute("CREATE TRIGGER full BEFORE INSERT ON prompts "
                                "BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END")
    assert not journal.read(lambda db: db.execute("SELECT * FROM prompts").fetchall())
    journal.run_or_owe(lambda db: db.execute("DELETE FROM prompts WHERE sequence=1"))
    assert not journal.accept(row_of(2)), "the next one is told that there is no room"
    journal._connection.execute("DROP TRIGGER full")
    assert rows(journal) == [(1, None)]
    journal._pay()
    assert rows(journal) == [] and journal.accept(row_of(3))


def test_a_long_prompt_and_one_that_must_survive_a_power_failure_go_into_the_table_at_once(tmp_path, journal):
    assert not journal.accept(row_of(1)._replace(item="x" * recent.LONGEST_LINE))
    with contextlib.closing(Journal(tmp_path / "full" / "q.db", sync="full")) as full:
        assert not full.accept(row_of(1))
        full.write_now(row_of(1))
        assert full._connection.execute("SELECT count(*) FROM prompts").fetchone()[0] == 1
