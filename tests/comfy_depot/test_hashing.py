"""Digests and safetensors headers."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from comfy_depot import hashing
from comfy_depot.errors import TransferCancelled, WrongContent
from tests.fakes.origin import safetensors


def write(tmp_path: Path, body: bytes) -> Path:
    file = tmp_path / "a.safetensors"
    file.write_bytes(body)
    return file


@pytest.mark.parametrize("size", [0, 1, hashing.CHUNK_BYTES, hashing.CHUNK_BYTES + 1])
def test_the_digest_of_a_file_is_that_of_its_bytes(tmp_path: Path, size: int) -> None:
    body = b"x" * size
    assert hashing.sha256_file(write(tmp_path, body)) == hashlib.sha256(body).hexdigest()


def test_hashing_can_be_left_between_chunks(tmp_path: Path) -> None:
    def leave() -> None:
        raise TransferCancelled("enough")

    with pytest.raises(TransferCancelled):
        hashing.sha256_file(write(tmp_path, b"x"), check=leave)


def test_a_whole_safetensors_file_passes(tmp_path: Path) -> None:
    hashing.check_safetensors(write(tmp_path, safetensors(4096)), "checkpoints/a")


def test_a_file_with_nothing_but_metadata_passes(tmp_path: Path) -> None:
    header = b'{"__metadata__":{"a":"b"}}'
    hashing.check_safetensors(write(tmp_path, len(header).to_bytes(8, "little") + header), "a")


def with_header(text: bytes, rest: bytes = b"") -> bytes:
    return len(text).to_bytes(8, "little") + text + rest


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "announces a header of 0"),
        (b"<html>not found</html>", "serves something else"),
        (with_header(b"{not json"), "cannot be read"),
        (with_header(b"[1, 2]"), "cannot be read"),
        (with_header(b'{"w": {"dtype": "U8"}}'), "cannot be read"),
        (with_header(b'{"w": {"data_offsets": [0, "9"]}}'), "cannot be read"),
        (with_header(b'{"w": {"data_offsets": [0, 1e999]}}'), "cut off"),
        (with_header(b"[" * 100_000), "cannot be read"),
        (safetensors(4096)[:-1], "cut off"),
        (safetensors(4096) + b"x", "cut off"),
    ],
)
def test_a_file_that_is_no_safetensors_file_is_refused_with_advice(
    tmp_path: Path, body: bytes, message: str
) -> None:
    with pytest.raises(WrongContent, match=message) as caught:
        hashing.check_safetensors(write(tmp_path, body), "checkpoints/a.safetensors")
    assert "manifest" in str(caught.value)
