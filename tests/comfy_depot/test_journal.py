"""What of a partial is believed after a crash."""

from __future__ import annotations

import os
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from comfy_depot import journal
from comfy_depot.journal import BLOCK_BYTES, Pieces, Record, Validator
from comfy_depot.layout import Layout

MIB = 1 << 20


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (Validator(9, '"a"'), Validator(9, '"a"'), True),
        (Validator(9, '"a"', "Mon"), Validator(9, '"a"', "Tue"), True),
        (Validator(9, '"a"'), Validator(9, '"b"'), False),
        (Validator(9, '"a"'), Validator(8, '"a"'), False),
        (Validator(9, '"a"'), Validator(9, None, "Mon"), False),
        (Validator(9, None, "Mon"), Validator(9, None, "Mon"), True),
        (Validator(9, None, "Mon"), Validator(9, None, "Tue"), False),
        (Validator(9), Validator(9), False),
        (Validator(None, '"a"'), Validator(None, '"a"'), False),
    ],
)
def test_two_answers_name_the_same_bytes_only_when_a_validator_says_so(
    one: Validator, other: Validator, same: bool
) -> None:
    assert one.same_file(other) is same


@pytest.mark.parametrize(
    ("validator", "header"),
    [
        (Validator(9, '"a"', "Mon"), '"a"'),
        (Validator(9, 'W/"a"', "Mon"), None),
        (Validator(9, None, "Mon"), "Mon"),
        (Validator(9), None),
    ],
)
def test_only_a_strong_validator_goes_into_if_range(validator: Validator, header: str | None) -> None:
    assert validator.if_range == header


def partial_with(tmp_path: Path, size: int, *writes: tuple[int, bytes]) -> tuple[Record, Path]:
    """A partial of `size` bytes with some bytes written, and its record."""
    path = Layout(tmp_path).place(tmp_path / "a").partial
    path.parent.mkdir()
    grain = journal.create_partial(path, size)
    if not grain:
        pytest.skip("this file system does not tell holes")
    with open(path, "r+b", buffering=0) as file:
        for offset, body in writes:
            os.pwrite(file.fileno(), body, offset)
    return Record(source="s", validator=Validator(size, '"e"'), grain=grain), path


def test_a_partial_has_its_final_size_and_no_content_from_the_start(tmp_path: Path) -> None:
    record, path = partial_with(tmp_path, 3 * MIB)
    assert path.stat().st_size == 3 * MIB and path.stat().st_blocks == 0
    pieces, blocks = journal.believed(record, path)
    assert pieces.bytes_done == 0 and blocks == {}


def test_a_piece_that_is_written_to_its_end_is_believed(tmp_path: Path) -> None:
    record, path = partial_with(tmp_path, 3 * MIB, (MIB, b"x" * MIB))
    pieces, blocks = journal.believed(record, path)
    assert [i in pieces for i in range(3)] == [False, True, False] and blocks == {}


@pytest.mark.parametrize(
    ("written", "blocks"),
    [(1, 0), (BLOCK_BYTES - 1, 0), (BLOCK_BYTES, 1), (5 * BLOCK_BYTES + 1, 5), (MIB - 1, 63)],
)
def test_of_a_piece_that_is_begun_the_whole_blocks_are_believed(
    tmp_path: Path, written: int, blocks: int
) -> None:
    """Also when the next piece was written by another connection, so that no hole shows the missing bytes."""
    record, path = partial_with(tmp_path, 3 * MIB, (0, b"x" * written), (MIB, b"y" * 100_000))
    _, found = journal.believed(record, path)
    assert found.get(0, 0) == blocks


def test_bytes_that_are_zero_at_the_end_of_what_was_written_are_not_believed(tmp_path: Path) -> None:
    record, path = partial_with(tmp_path, 2 * MIB, (0, b"x" * (MIB - 10) + bytes(10)))
    pieces, blocks = journal.believed(record, path)
    assert 0 not in pieces and blocks == {0: 63}


def test_bytes_in_the_middle_of_a_piece_prove_nothing(tmp_path: Path) -> None:
    record, path = partial_with(tmp_path, 2 * MIB, (MIB // 2, b"x" * (MIB // 2)))
    pieces, blocks = journal.believed(record, path)
    assert pieces.bytes_done == 0 and blocks == {}


def test_the_last_piece_may_be_short(tmp_path: Path) -> None:
    record, path = partial_with(tmp_path, MIB + 100, (MIB, b"x" * 100))
    assert journal.believed(record, path)[0].bytes_done == 100


def test_a_file_system_that_tells_no_holes_leaves_the_journal(tmp_path: Path) -> None:
    record, path = partial_with(tmp_path, 2 * MIB, (0, b"x" * 2 * MIB))
    record = replace(record, grain=0, pieces="80")
    pieces, blocks = journal.believed(record, path)
    assert pieces.hex == "80" and blocks == {}


def test_after_a_crash_of_the_machine_only_what_was_synced_is_believed(tmp_path: Path) -> None:
    record, path = partial_with(tmp_path, 2 * MIB, (0, b"x" * 2 * MIB))
    record = replace(record, pieces="c0", synced="40", boot="an earlier run of the kernel")
    pieces, blocks = journal.believed(record, path)
    assert pieces.hex == "40" and blocks == {}


def test_the_control_file_has_the_form_that_aria2_reads() -> None:
    pieces = Pieces(2 * MIB + 100)
    pieces.add(0)
    data = journal.control_file(pieces, {2: 0, 1: 9})
    assert data[:10] == bytes(10)[:1] + b"\x01" + bytes(8)
    assert struct.unpack(">IQQI", data[10:34]) == (MIB, 2 * MIB + 100, 0, 1)
    assert data[34:35] == b"\x80"
    assert struct.unpack(">I", data[35:39]) == (2,)
    assert struct.unpack(">III", data[39:51]) == (1, MIB, 8)
    assert data[51:59] == b"\xff\x80" + bytes(6)
    assert struct.unpack(">III", data[59:71]) == (2, 100, 1) and data[71:] == b"\0"


@pytest.mark.parametrize("size", [0, 1, MIB, 8 * MIB, 8 * MIB + 5, 21 * MIB - 1])
def test_pieces_count_their_bytes_whatever_the_size(size: int) -> None:
    pieces, lengths = Pieces(size), []
    assert (pieces.bytes_done, pieces.bytes_in_order) == (0, 0)
    everything = pieces.others()
    assert (everything.bytes_done, everything.bytes_in_order) == (size, size)
    for index in (1, 20, 0, 2, 8):
        if index < pieces.count:
            pieces.add(index)
            lengths.append(pieces.length(index))
            assert index in pieces and index not in pieces.others()
            assert pieces.bytes_done == sum(lengths) == size - pieces.others().bytes_done
            in_order = next((i for i in range(pieces.count) if i not in pieces), None)
            assert pieces.bytes_in_order == (size if in_order is None else in_order * MIB)
    assert Pieces(size, pieces.hex).number == pieces.number


def test_bits_behind_the_last_piece_count_for_nothing() -> None:
    assert Pieces(3 * MIB, "ff").bytes_done == Pieces(3 * MIB, "ff").bytes_in_order == 3 * MIB
    assert Pieces(3 * MIB, "ffff").number == 0, "bits of another size"


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    record = Record(source="s", validator=Validator(9, '"e"', "Mon"), sha256="0", pieces="80", grain=4096)
    journal.write_record(tmp_path / "r", record)
    assert journal.read_record(tmp_path / "r") == record


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"validator": 1}', '{"source": "s", "validator": {}, "version": 9}']
)
def test_a_record_that_cannot_be_read_counts_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "r").write_text(text)
    assert journal.read_record(tmp_path / "r") is None
    assert journal.read_record(tmp_path / "missing") is None
