"""The note about what the depot has fetched, and when a manifest names other bytes than then."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from comfy_depot import arrivals
from comfy_depot.arrivals import Promise
from comfy_depot.digests import Digests
from comfy_depot.eviction import Stamp
from comfy_depot.layout import Layout, Place
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


def test_a_sha256_that_was_computed_later_decides_too() -> None:
    then, now = Promise.of(entry()), Promise.of(entry("https://x/b", sha256=A))
    assert not now.names_other_bytes(then, size=100, sha256=A)
    assert now.names_other_bytes(then, size=100, sha256=B)


def test_two_promises_of_one_sha256_are_one_content_and_others_differ_in_what_they_say() -> None:
    assert Promise.of(entry(sha256=A)).content == Promise.of(entry("https://y", sha256=A, size=1)).content
    plain = [entry(), entry("https://y"), entry(size=1), entry(pieces=pieces("1")), entry(bundle=Bundle("m")),
             entry(bundle=Bundle("m", sha256=A))]
    assert len({Promise.of(one).content for one in plain}) == len(plain)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = Layout(tmp_path / "state").place(tmp_path / "loras/a.safetensors")
    made.arrival.parent.mkdir(parents=True)
    return made


def stand(place: Place, body: bytes, seconds: int = 1) -> Stamp:
    """Let a file with a time of change of its own stand there."""
    place.file.write_bytes(body)
    os.utime(place.file, (seconds, seconds))
    return Stamp.of(os.stat(place.file))


def test_a_note_is_read_for_the_very_file_and_no_other(place: Place) -> None:
    stamp, promise = stand(place, b"one"), Promise.of(entry(sha256=A, size=3))
    assert arrivals.read(place, stamp) is None
    arrivals.note(place, stamp, promise)
    found = arrivals.read(place, stamp)
    assert found is not None and found.promise == promise
    assert arrivals.read(place, replace(stamp, size=4)) is None
    assert arrivals.read(place, replace(stamp, changed_ns=5)) is None
    assert arrivals.read(place, replace(stamp, device=7, inode=7)) == found, "it was copied to another disk"


def test_a_note_about_what_comes_keeps_the_one_about_what_stands_there(place: Place) -> None:
    """A process that dies before the rename, however often, leaves the old file with its note."""
    old = stand(place, b"old")
    arrivals.note(place, old, Promise.of(entry(sha256=A)))
    for seconds in (5, 6, 7):
        coming = replace(old, size=9, changed_ns=seconds)
        arrivals.note(place, coming, Promise.of(entry(sha256=B)))
        for stamp, digest in ((old, A), (coming, B)):
            found = arrivals.read(place, stamp)
            assert found is not None and found.promise.sha256 == digest


@pytest.mark.parametrize("content", [
    b"", b"{", b"[]", b"{}", b'{"version": 2, "files": []}', b'{"version": 1, "files": [{"size": 3}]}',
    b'{"version": 1, "files": [{"size": 3, "changed_ns": 1, "promise": {"other": 1, "urls": []}}]}',
])
def test_a_note_that_cannot_be_read_makes_the_file_the_users(place: Place, content: bytes) -> None:
    place.arrival.write_bytes(content)
    assert arrivals.read(place, stand(place, b"one")) is None


def test_a_file_that_has_the_new_sha256_already_is_recognised_and_noted(place: Place, tmp_path: Path) -> None:
    stamp, digests = stand(place, b"same"), Digests(tmp_path / "state")
    arrivals.note(place, stamp, Promise.of(entry()))
    checks: list[int] = []

    def is_named(**fields: Any) -> bool:
        return arrivals.is_what_is_named(place, stamp, entry(**fields), digests=digests,
                                         check=lambda: checks.append(1))

    assert not is_named(), "without a sha256 nothing can be compared"
    assert not is_named(sha256=sha256(b"other")) and digests.of(stamp) == sha256(b"same")
    read = len(checks)
    assert is_named(sha256=sha256(b"same")) and len(checks) == read, "it is read once"
    found = arrivals.read(place, stamp)
    assert found is not None and found.promise.sha256 == sha256(b"same")
    stand(place, b"another")
    assert not is_named(sha256=sha256(b"same"))
