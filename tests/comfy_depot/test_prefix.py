"""The digest that follows a download: only what was allowed, and never of another file."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from comfy_depot.errors import TransferCancelled
from comfy_depot.prefix import CHUNK_BYTES, PrefixDigest
from tests.fakes.fetching import until
from tests.fakes.origin import weights


def nothing() -> None:
    """The check of somebody who never stops."""


def test_it_reads_what_is_allowed_and_not_one_byte_more(tmp_path: Path) -> None:
    file, body = tmp_path / "a", weights(3 * CHUNK_BYTES + 5)
    file.write_bytes(bytes(len(body)))
    digest = PrefixDigest(file)
    for end in (CHUNK_BYTES + 100, 2 * CHUNK_BYTES):
        with open(file, "r+b") as part:
            part.write(body[:end])
        digest.allow(end)
        until(lambda end=end: digest.position == end)  # type: ignore[misc]
    file.write_bytes(body)
    assert digest.finish(file, nothing) == hashlib.sha256(body).hexdigest()


def test_it_says_nothing_of_a_file_that_was_replaced(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"old")
    digest = PrefixDigest(file)
    (tmp_path / "b").write_bytes(b"new")
    os.replace(tmp_path / "b", file)
    assert digest.finish(file, nothing) is None


def test_its_end_can_be_stopped(tmp_path: Path) -> None:
    def stop() -> None:
        raise TransferCancelled

    file = tmp_path / "a"
    file.write_bytes(b"x")
    with pytest.raises(TransferCancelled):
        PrefixDigest(file).finish(file, stop)
