"""Digests of pieces: compared while the file arrives, in any order, and as good as a digest of the whole."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from comfy_depot.errors import WrongContent
from comfy_depot.journal import PIECE_BYTES, Pieces
from comfy_depot.manifest import Entry, read_entry
from comfy_depot.piece_hashes import PieceCheck, PieceHashes, digests_of
from scripts import hash_pieces
from tests.fakes.fetching import entry, transfers
from tests.fakes.origin import Origin, safetensors, sha256

MIB = PIECE_BYTES


def hashes_of(tmp_path: Path, body: bytes, length: int = 2 * MIB, kind: str = "sha256") -> PieceHashes:
    """The digests of a file with this body."""
    file = tmp_path / "whole"
    file.write_bytes(body)
    return digests_of(file, length, kind)


@pytest.mark.parametrize("kind", ["sha256", "blake2b"])
def test_digests_are_those_of_the_pieces(tmp_path: Path, kind: str) -> None:
    body = safetensors(5 * MIB + 3)
    found = hashes_of(tmp_path, body, kind=kind)
    make: Any = hashlib.sha256 if kind == "sha256" else lambda data: hashlib.blake2b(data, digest_size=32)
    assert found.digests == tuple(make(body[i : i + 2 * MIB]).hexdigest() for i in (0, 2 * MIB, 4 * MIB))
    assert found.fits(len(body)) and not found.fits(6 * MIB + 1) and not found.fits(4 * MIB)


@pytest.mark.parametrize("kind", ["sha256", "blake2b"])
@pytest.mark.parametrize("bad_byte", [0, 3 * MIB, 5 * MIB + 2])
def test_one_wrong_bit_anywhere_is_found(tmp_path: Path, kind: str, bad_byte: int) -> None:
    body = bytearray(safetensors(5 * MIB + 3))
    hashes = hashes_of(tmp_path, bytes(body), kind=kind)
    file = tmp_path / "whole"
    good = PieceCheck(file, hashes, len(body), "checkpoints/a")
    good.finish(file, lambda: None)
    good.close()
    body[bad_byte] ^= 1
    file.write_bytes(body)
    check = PieceCheck(file, hashes, len(body), "checkpoints/a")
    number = bad_byte // (2 * MIB) + 1
    with pytest.raises(WrongContent, match=rf"{kind} of piece {number} of 3.*choose another"):
        check.finish(file, lambda: None)
    check.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "pieces"]


def test_only_what_has_arrived_is_looked_at(tmp_path: Path) -> None:
    body = safetensors(6 * MIB)
    hashes = hashes_of(tmp_path, body)
    file = tmp_path / "partial"
    file.write_bytes(bytes(2 * MIB) + body[2 * MIB : 4 * MIB] + bytes(2 * MIB))
    check, arrived = PieceCheck(file, hashes, len(body), "checkpoints/a"), Pieces(len(body))
    for index in (1, 2, 3, 4):  # half of the first piece of the manifest, the second, half of the third
        arrived.add(index)
        check.allow(arrived)
    with open(file, "r+b") as rest:
        rest.write(body)
    check.finish(file, lambda: None)
    check.close()


def test_a_file_that_is_proven_by_its_pieces_needs_no_sha256(tmp_path: Path) -> None:
    body, file = safetensors(4 * MIB + 5), tmp_path / "models" / "a.safetensors"
    hashes = hashes_of(tmp_path, body, MIB, "blake2b")
    with Origin() as origin, transfers(tmp_path) as ours:
        ours.fetch(entry(origin.put("/a", body), pieces=hashes), file).wait()
    assert file.read_bytes() == body


def test_a_bad_piece_ends_the_download_long_before_its_end_and_another_mirror_gives_the_file(
    tmp_path: Path,
) -> None:
    body, file = safetensors(10 * MIB), tmp_path / "models" / "a.safetensors"
    hashes = hashes_of(tmp_path, body, MIB)
    bad = body[: MIB - 1] + b"?" + body[MIB:]
    with Origin(rate_total=16 * MIB) as origin, transfers(tmp_path, depot_connections=1) as ours:
        url = origin.put("/bad", bad)
        with pytest.raises(WrongContent, match="bytes 0 to 1048576"):
            ours.fetch(entry(url, pieces=hashes), file).wait()
        assert origin.bytes_sent("/bad") < 10 * MIB and not file.exists()
        assert (bad_copy := list((file.parent / ".depot").glob("*.bad"))) and len(bad_copy) == 1
        origin.total.rate = None
        mirrors = entry(url, origin.put("/good", body), pieces=hashes)
        ours.fetch(mirrors, file).wait()
    assert file.read_bytes() == body


def test_a_source_of_another_size_is_refused(tmp_path: Path) -> None:
    body, file = safetensors(3 * MIB), tmp_path / "models" / "a.safetensors"
    hashes = hashes_of(tmp_path, body, MIB)
    with Origin() as origin, transfers(tmp_path) as ours, pytest.raises(WrongContent, match="3 pieces of"):
        ours.fetch(entry(origin.put("/a", safetensors(5 * MIB)), pieces=hashes), file).wait()


def test_the_script_prints_an_entry_that_a_manifest_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    body = safetensors(3 * MIB + 1)
    hashes = hashes_of(tmp_path, body, 2 * MIB, "blake2b")
    hash_pieces.main([str(tmp_path / "whole"), "--bytes", "2M", "--kind", "blake2b"])
    printed = json.loads(capsys.readouterr().out)
    found = read_entry("checkpoints", "a.safetensors", {"url": "https://a.example/a", **printed})
    assert (found.size, found.sha256, found.pieces) == (len(body), sha256(body), hashes)


def manifest_entry(**pieces: Any) -> Entry:
    """An entry as a manifest gives it."""
    size = pieces.pop("size", 3 * MIB)
    return read_entry("checkpoints", "a.safetensors",
                      {"url": "https://a.example/a.safetensors", "size": size, "pieces": pieces})


def test_a_manifest_gives_pieces() -> None:
    digest = "A" * 64
    found = manifest_entry(bytes=2 * MIB, blake2b=[digest, digest])
    assert found.pieces == PieceHashes(2 * MIB, "blake2b", (digest.lower(),) * 2)
    assert found == dataclasses.replace(found) and hash(found)


@pytest.mark.parametrize("pieces, message", [
    ({"bytes": 2 * MIB}, "one list"),
    ({"bytes": 2 * MIB, "sha256": ["a" * 64] * 2, "blake2b": ["a" * 64] * 2}, "not both"),
    ({"bytes": 2 * MIB, "sha256": ["a" * 64]}, "1 digests, and a file of 3145728 bytes has 2 pieces"),
    ({"bytes": 2 * MIB, "sha256": ["a" * 63] * 2}, "is not a sha256"),
    ({"bytes": 2 * MIB, "blake2b": ["g" * 64] * 2}, "is not a blake2b"),
    ({"bytes": 1000, "sha256": ["a" * 64]}, "at least 1048576 bytes"),
    ({"bytes": 2 * MIB, "md5": ["a" * 32]}, "pieces.md5.*The form is"),
    ({"bytes": 2 * MIB, "sha256": []}, "The form is"),
])  # fmt: skip
def test_pieces_that_cannot_be_right_are_refused(pieces: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        manifest_entry(**pieces)


def test_pieces_do_not_go_with_a_bundle() -> None:
    with pytest.raises(ValueError, match="member of a bundle"):
        read_entry("checkpoints", "a.safetensors", {
            "url": "https://a.example/a.zip", "bundle": {"member": "a.safetensors"},
            "pieces": {"bytes": MIB, "sha256": ["a" * 64]}})
