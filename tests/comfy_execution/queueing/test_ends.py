"""Ends of prompts beside the journal's table: none is lost, none comes twice, whenever the process dies."""

import json
import os
import sqlite3
import threading

import pytest

from comfy_execution.queueing import ends as ends_module
from comfy_execution.queueing.ends import ENDINGS, EndsOnTheirWay, finish_many
from comfy_execution.queueing.journal import INSERT, PLACES, Accepted, Journal


def end_of(number, *, ended=None, result="{}"):
    values = (ended or number, 1.5, 0, result, "{}", "completed", 0.0, 0.0, None, None)
    return (*values, number, f"p{number}")


@pytest.fixture
def written():
    return []


def accept(journal, number, prompt_id):
    row = Accepted(number, prompt_id, "", 0, "", 0, 0, "")
    journal.run(lambda db: db.execute(INSERT + PLACES, row))


def found_after_death(tmp_path):
    """What a process finds that starts now."""
    return [end[-2] for end in EndsOnTheirWay(tmp_path / "q.db").left()]


def test_an_end_is_in_a_file_until_it_is_in_the_table(tmp_path, written):
    ends = EndsOnTheirWay(tmp_path / "q.db")
    assert ends.add(end_of(1)) and ends.add(end_of(2))
    assert found_after_death(tmp_path) == [1, 2]
    ends.write(written.extend)
    assert [end[-2] for end in written] == [1, 2]
    ends.write(written.extend)
    assert len(written) == 2


def test_ends_that_come_during_a_write_are_not_lost_with_its_file(tmp_path, written):
    ends = EndsOnTheirWay(tmp_path / "q.db")
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

    ends = EndsOnTheirWay(tmp_path / "q.db")
    ends.add(end_of(1))
    for _ in range(2):
        with pytest.raises(sqlite3.OperationalError):
            ends.write(fails)
    assert found_after_death(tmp_path) == [1, 2, 2]
    ends.write(written.extend)
    assert [end[-2] for end in written] == [1, 2, 2]


def test_lines_of_an_older_use_and_torn_ones_are_not_read(tmp_path, written):
    ends = EndsOnTheirWay(tmp_path / "q.db")
    for number in range(5):
        ends.add(end_of(number))
    ends.write(written.extend)  # the other file comes next, then this one again
    ends.add(end_of(5))
    ends.write(written.extend)
    ends.add(end_of(6))
    file = tmp_path / f"q.db{ENDINGS[0]}"
    assert [json.loads(line)[1][-2] for line in file.read_bytes().splitlines()[:3]] == [6, 1, 2]
    assert found_after_death(tmp_path) == [5, 6]
    with open(file, "r+b") as content:
        content.truncate(20)
    assert found_after_death(tmp_path) == [5]
    file.write_bytes(b'[9, {"of": "another kind"}]\n')
    assert found_after_death(tmp_path) == [5]


def test_a_long_end_and_a_full_disk_are_said(tmp_path, monkeypatch):
    ends = EndsOnTheirWay(tmp_path / "q.db")
    assert not ends.add(end_of(1, result="x" * ends_module.LONGEST_LINE))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ends_module, "write_at", full)
    assert not ends.add(end_of(1))
    monkeypatch.undo()
    assert ends.add(end_of(2)) and found_after_death(tmp_path) == [2]


@pytest.mark.parametrize("version", [(3, 40), (3, 31)])
def test_many_ends_are_written_as_one_by_one(tmp_path, monkeypatch, version):
    monkeypatch.setattr(sqlite3, "sqlite_version_info", version)
    journal = Journal(tmp_path / "q.db")
    count = 2 * ends_module.ENDS_PER_STATEMENT + 3
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
    dead = EndsOnTheirWay(tmp_path / "q.db")
    dead.add(end_of(1))
    dead.add(end_of(2))
    again = Journal(tmp_path / "q.db")
    look = "SELECT sequence, ended, result FROM prompts ORDER BY 1"
    rows = again.read(lambda db: db.execute(look).fetchall())
    assert rows == [(1, 70, "newer"), (2, 2, "{}"), (3, None, None)]
    assert all(os.path.getsize(tmp_path / f"q.db{ending}") == 0 for ending in ENDINGS)
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
