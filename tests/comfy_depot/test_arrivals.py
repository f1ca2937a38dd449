"""The note about what the depot has fetched, and when a manifest names other bytes than then."""

from __future__ import annotations

import logging
import os
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from comfy_depot import arrivals
from comfy_depot.arrivals import Arrivals, Promise
from comfy_depot.digests import Digests
from comfy_depot.eviction import Stamp
from comfy_depot.manifest import Bundle, Entry
from comfy_depot.piece_hashes import PieceHashes
from tests.fakes.origin import sha256

A, B = "a" * 64, "b" * 64


def entry(url: str = "https://x/a", *more: str, **fields: Any) -> Entry:
    return Entry("loras", "a.safetensors", (url, *more), **fields)


def pieces(digit: str) -> PieceHashes:
    return PieceHashes(1 << 20, "sha256", (digit * 64,))


@pytest.mark.parametrize("then, now, is_other", [
    (entry(sha256=A), entry(sha256=A), False),
    (entry(sha256=A), entry(sha256=B), True),
    (entry(sha256=A), entry("https://elsewhere/a", sha256=A), False),
    (entry(sha256=A, size=100), entry(sha256=A, size=200), False),
    (entry(sha256=A), entry(), False),
    (entry(sha256=A), entry("https://x/b"), True),
    (entry(), entry(sha256=A), True),
    (entry(), entry(), False),
    (entry(), entry(size=100), False),
    (entry(), entry(size=200), True),
    (entry(), entry("https://x/b"), True),
    (entry(), entry("https://x/b", size=100), True),
    (entry(), entry("https://mirror/a", "https://x/a"), False),
    (entry("https://x/a", "https://mirror/a"), entry("https://mirror/a"), False),
    (entry(pieces=pieces("1")), entry("https://x/b", pieces=pieces("1")), False),
    (entry(pieces=pieces("1")), entry(pieces=pieces("2")), True),
    (entry(), entry(pieces=pieces("2")), False),
    (entry(bundle=Bundle("in/a")), entry(bundle=Bundle("in/a")), False),
    (entry(bundle=Bundle("in/a")), entry(bundle=Bundle("in/b")), True),
    (entry(bundle=Bundle("in/a")), entry(), True),
    (entry(bundle=Bundle("in/a", sha256=A)), entry(bundle=Bundle("in/a", sha256=B)), True),
    (entry(bundle=Bundle("in/a", sha256=A)), entry("https://x/b", bundle=Bundle("in/a", sha256=A)), False),
])
def test_a_promise_is_about_other_bytes_when(then: Entry, now: Entry, is_other: bool) -> None:
    """A sha256 on both sides decides alone; without one size, pieces, member and urls tell."""
    found = Promise.of(now).names_other_bytes(Promise.of(then), size=100, sha256=None)
    assert found is is_other
    again = Promise.of(now).names_other_bytes(Promise.of(now), size=now.size or 100, sha256=None)
    assert not again, "what was fetched for a promise is never outdated by the same one"
    assert Promise.of(now).names_other_bytes(Promise(), size=100, sha256=None)


def test_a_sha256_that_was_computed_later_decides_too() -> None:
    then, now = Promise.of(entry()), Promise.of(entry("https://x/b", sha256=A))
    assert not now.names_other_bytes(then, size=100, sha256=A)
    assert now.names_other_bytes(then, size=100, sha256=B)


def test_two_promises_of_one_sha256_are_one_content_and_others_differ_in_what_they_say() -> None:
    assert Promise.of(entry(sha256=A)).content == Promise.of(entry("https://y", sha256=A, size=1)).content
    plain = [entry(), entry("https://y"), entry(size=1), entry(pieces=pieces("1")), entry(bundle=Bundle("m")),
             entry(bundle=Bundle("m", sha256=A))]
    assert len({Promise.of(one).content for one in plain}) == len(plain)


def stand(file: Path, body: bytes, seconds: int = 1) -> Stamp:
    """Let a file with a time of change of its own stand there."""
    file.write_bytes(body)
    os.utime(file, (seconds, seconds))
    return Stamp.of(os.stat(file))


def test_a_note_is_read_for_the_very_file_and_no_other(tmp_path: Path) -> None:
    stamp, promise = stand(tmp_path / "a", b"one"), Promise.of(entry(sha256=A, size=3))
    assert Arrivals(tmp_path).of(entry(), stamp) is None
    Arrivals(tmp_path).note(entry(), stamp, promise)
    known = Arrivals(tmp_path)
    assert known.of(entry("https://other"), stamp) == promise
    assert known.of(entry(), replace(stamp, size=4)) is None
    assert known.of(entry(), replace(stamp, changed_ns=5)) is None
    for other in (replace(entry(), name="b"), replace(entry(), folder="vae")):
        assert known.of(other, stamp) is None
    assert known.of(entry(), replace(stamp, device=7, inode=7)) == promise, "it was copied to another disk"


def test_a_note_about_what_comes_keeps_the_one_about_what_stands_there(tmp_path: Path) -> None:
    """A process that dies before the rename leaves the old file with its note; very old ones go."""
    known, old = Arrivals(tmp_path), stand(tmp_path / "a", b"old")
    known.note(entry(), old, Promise.of(entry(sha256=A)))
    for seconds in range(1, arrivals.MOST_OF_ONE):
        known.note(entry(), replace(old, changed_ns=seconds), Promise.of(entry(sha256=B)))
    found = known.of(entry(), old)
    assert found is not None and found.sha256 == A
    known.note(entry(), replace(old, changed_ns=100), Promise())
    assert known.of(entry(), old) is None


@pytest.mark.parametrize("promise", ["{", "[]", "{}", '{"other": 1, "urls": []}'])
def test_a_note_that_cannot_be_read_makes_the_file_the_users(
    tmp_path: Path, promise: str, caplog: pytest.LogCaptureFixture
) -> None:
    known, stamp = Arrivals(tmp_path), stand(tmp_path / "a", b"one")
    known.note(entry(), stamp, Promise())
    with sqlite3.connect(tmp_path / arrivals.FILE_NAME) as connection:
        connection.execute("UPDATE arrivals SET promise = ?", (promise,))
    connection.close()
    assert known.of(entry(), stamp) is None
    assert "What loras/a.safetensors was fetched for cannot be read from" in caplog.text


def test_notes_that_are_no_database_are_told_of_and_make_all_files_the_users(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / arrivals.FILE_NAME).write_bytes(b"no database" * 100)
    known, stamp = Arrivals(tmp_path), stand(tmp_path / "a", b"one")
    with caplog.at_level(logging.WARNING):
        known.note(entry(), stamp, Promise())
        assert known.of(entry(), stamp) is None
    assert "That loras/a.safetensors was fetched cannot be noted in" in caplog.text


def test_a_file_that_has_the_new_sha256_already_is_recognised_and_noted(tmp_path: Path) -> None:
    file = tmp_path / "a"
    stamp, digests, checks = stand(file, b"same"), Digests(tmp_path / "state"), list[int]()

    def is_named(**fields: Any) -> bool:
        return arrivals.is_what_is_named(file, stamp, entry(**fields), state_dir=tmp_path / "state",
                                         check=lambda: checks.append(1))

    assert not is_named(), "without a sha256 nothing can be compared"
    assert not is_named(sha256=sha256(b"other")) and digests.of(stamp) == sha256(b"same")
    read = len(checks)
    assert is_named(sha256=sha256(b"same")) and len(checks) == read, "it is read once"
    found = Arrivals(tmp_path / "state").of(entry(), stamp)
    assert found is not None and found.sha256 == sha256(b"same")
    stand(file, b"another")
    assert not is_named(sha256=sha256(b"same"))
