"""The index on the disk: what it knows belongs to stamps, and neither a kill nor damage makes it wrong."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from comfy_depot import database
from comfy_depot.base_models import Asked
from comfy_depot.database import FILE_NAME, Database, numbers_of
from comfy_depot.eviction import Stamp
from comfy_depot.model_headers import Header

ROOT = Path(database.__file__).parents[1]
SHA256 = "ab" * 32
HEADER = Header(3, "F16 3", "sdxl", "inpaint", "modelspec.architecture", "stable-diffusion-xl-v1-base",
                '{"a": "b"}')


@pytest.fixture
def index(tmp_path: Path) -> Database:
    return Database(tmp_path)


def stamp(inode: int = 1, *, device: int = 5, size: int = 10, changed_ns: int = 100) -> Stamp:
    return Stamp(device, inode, size, changed_ns)


def test_files_are_told_once_until_their_header_is_read(index: Database) -> None:
    files = {"/m/a": stamp(1), "/m/b": stamp(2)}
    assert index.note_files(files) == index.note_files(files) == ["/m/a", "/m/b"]
    index.note_headers([(stamp(1), HEADER)])
    assert index.note_files(files) == ["/m/b"]
    assert index.note_files({"/m/a": stamp(1, size=11)}) == ["/m/a"], "another file under the name"
    assert index.details_of([stamp(1)])[numbers_of(stamp(1))].header == HEADER


def test_what_is_known_goes_along_with_a_renamed_file(index: Database) -> None:
    index.note_files({"/m/a": stamp()})
    index.note_headers([(stamp(), HEADER)])
    index.note_sha256(stamp(), SHA256)
    assert index.note_files({"/m/a": None, "/m/renamed": stamp()}) == []
    assert index.with_sha256(SHA256[:10]) == {"/m/renamed": numbers_of(stamp())}


def test_a_file_whose_device_has_another_number_is_known_by_its_path(index: Database) -> None:
    index.note_files({"/m/a": stamp(), "/m/b": stamp(2)})
    for known in (stamp(), stamp(2)):
        index.note_headers([(known, HEADER)])
        index.note_sha256(known, SHA256)
    assert index.note_files({"/m/a": None}) == [], "the disk is away for a moment"
    assert index.note_files({"/m/a": stamp(device=6), "/m/b": stamp(3, device=6)}) == ["/m/b"]
    assert index.sha256_of(stamp(device=6)) == SHA256
    assert index.sha256_of(stamp(3, device=6)) is None
    assert index.sha256_of(stamp(1, device=6, changed_ns=101)) is None


def test_searches_find_by_digest_and_by_family_what_is_there(index: Database) -> None:
    others = {"/m/b": ("ac" * 32, Header(1, base_model="sd1", base_model_from="shapes")),
              "/m/c": ("ab" + "cd" * 31, Header(1, base_model="mine", architecture="Mine-2-Big"))}
    index.note_files({"/m/a": stamp(1), "/m/b": stamp(2), "/m/c": stamp(3), "/n/d": stamp(1)})
    index.note_sha256(stamp(1), SHA256.upper())
    index.note_headers([(stamp(1), HEADER)])
    for number, (digest, header) in enumerate(others.values(), 2):
        index.note_sha256(stamp(number), digest)
        index.note_headers([(stamp(number), header)])
    assert index.with_sha256("ab").keys() == {"/m/a", "/m/c", "/n/d"}
    assert index.with_sha256(SHA256).keys() == {"/m/a", "/n/d"}
    assert index.of_base_model("SDXL", Asked("sdxl", None)).keys() == {"/m/a", "/n/d"}
    assert index.of_base_model("", Asked("sdxl", frozenset({"edit"}))) == {}
    assert index.of_base_model("", Asked("sdxl", frozenset({"edit", "inpaint"}))).keys() == {"/m/a", "/n/d"}
    assert index.of_base_model("mine-2", None).keys() == {"/m/c"}
    assert index.of_base_model("\udcff%", None) == {}
    index.note_files({"/m/a": None})
    assert index.with_sha256(SHA256).keys() == {"/n/d"}
    assert sorted(index.paths_below("/m")) == ["/m/b", "/m/c"]


def test_names_and_numbers_that_are_no_text_and_no_numbers_for_sqlite(index: Database) -> None:
    name, large = os.fsdecode(b"/m/\xff.safetensors"), stamp(2**64 - 1, device=2**63, changed_ns=-(2**63))
    index.note_files({name: large})
    index.note_headers([(large, Header(1, metadata='{"a": "\ud800"}'))])
    index.note_sha256(large, SHA256)
    assert index.with_sha256(SHA256) == {name: numbers_of(large)}


def test_what_has_been_gone_for_long_is_dropped(index: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    index.note_files({"/m/a": stamp(1), "/m/b": stamp(2)})
    for number in (1, 2, 3):
        index.note_sha256(stamp(number), SHA256)
    index.note_files({"/m/a": None})
    index.forget_old()
    assert index.sha256_of(stamp(1)) == index.sha256_of(stamp(3)) == SHA256
    monkeypatch.setattr(database, "SECONDS_GONE_IS_KEPT", -1)
    index.forget_old()
    assert [index.sha256_of(stamp(number)) for number in (1, 2, 3)] == [None, SHA256, None]


@pytest.mark.parametrize("damage", ["not a database", "a page in the middle"])
def test_a_damaged_file_is_set_aside_and_a_new_one_built(
    index: Database, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    index.note_files({f"/m/{number:04}": stamp(number) for number in range(1000)})
    whole = index.file.read_bytes()
    page = len(whole) // 2 // 4096 * 4096
    index.file.write_bytes(b"no database" * 999 if damage == "not a database"
                           else whole[:page] + os.urandom(3 * 4096) + whole[page + 3 * 4096:])
    assert not index.is_sound()
    assert "is damaged" in caplog.text and f"kept as {FILE_NAME}.broken" in caplog.text
    assert index.file.with_name(FILE_NAME + ".broken").exists()
    assert index.note_files({"/m/a": stamp()}) == ["/m/a"]
    assert index.is_sound() and index.paths_below("/m") == ["/m/a"]


def test_damage_that_is_met_on_the_way_costs_no_write(index: Database, tmp_path: Path) -> None:
    index.file.write_bytes(b"no database" * 999)
    index.note_sha256(stamp(), SHA256)
    assert index.sha256_of(stamp()) == SHA256
    with sqlite3.connect(index.file) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    assert index.sha256_of(stamp()) is None, "of another form"


def test_a_state_folder_that_cannot_be_written_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "state").write_text("a file in the place of the folder")
    index = Database(tmp_path / "state")
    for _ in range(3):
        index.note_sha256(stamp(), SHA256)
        assert index.note_files({"/m/a": stamp()}) == [] and index.sha256_of(stamp()) is None
    assert caplog.text.count("cannot be used") == 1 and "correct the rights" in caplog.text


def test_many_writers_at_once(tmp_path: Path) -> None:
    def work(first: int) -> None:
        one = Database(tmp_path)  # as in a process of its own
        for number in range(first, first + 20):
            one.note_sha256(stamp(number), f"{number:064x}")

    threads = [threading.Thread(target=work, args=(100 * number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    index = Database(tmp_path)
    numbers = [number for first in range(0, 400, 100) for number in range(first, first + 20)]
    assert [index.sha256_of(stamp(number)) for number in numbers] == [f"{number:064x}" for number in numbers]


KILLED = """
import os, random, signal, sys, time
from pathlib import Path
from comfy_depot.database import Database
from comfy_depot.eviction import Stamp
from comfy_depot.model_headers import Header

chance, index = random.Random(1), Database(Path(sys.argv[1]))
written = 0
for turn in range(12):
    heard, tell = os.pipe()
    child = os.fork()
    if child == 0:
        for number in range(written, written + 10_000):
            files = {f"/m/{number}/{one}": Stamp(1, number * 100 + one, 3, 4) for one in range(40)}
            index.note_files(files)
            index.note_headers([(stamp, Header(number)) for stamp in files.values()])
            os.write(tell, b".")
        os._exit(1)
    written += len(os.read(heard, 1))
    time.sleep(chance.uniform(0, 0.03))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(tell)
    written += len(os.read(heard, 1 << 16))
    os.close(heard)
    assert index.is_sound()
    for number in range(written):
        stamps = [Stamp(1, number * 100 + one, 3, 4) for one in (0, 39)]
        assert [one.header.tensors for one in index.details_of(stamps).values()] == [number] * 2, number
    # of the one under way everything or nothing of each step
    assert len(index.paths_below(f"/m/{written}")) in (0, 40)
assert not index.file.with_name(index.file.name + ".broken").exists()
print("written", written)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_kill_in_mid_write_loses_nothing_that_was_written(tmp_path: Path) -> None:
    result = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], cwd=ROOT, text=True,
                            capture_output=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout.split()[1]) >= 12, "killed before it wrote"


def test_an_index_of_the_form_before_keeps_its_digests_and_reads_headers_again(index: Database) -> None:
    index.note_files({"/m/a": stamp()})
    index.note_headers([(stamp(), HEADER)])
    index.note_sha256(stamp(), SHA256)
    with contextlib.closing(sqlite3.connect(index.file)) as old, old:
        old.execute("ALTER TABLE contents DROP COLUMN variant")
        old.execute("PRAGMA user_version = 1")
    others = [Database(index.file.parent) for _ in range(4)]
    threads = [threading.Thread(target=other.sha256_of, args=(stamp(),)) for other in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert index.sha256_of(stamp()) == SHA256 and not list(index.file.parent.glob("*.broken"))
    assert index.note_files({"/m/a": stamp()}) == ["/m/a"]
    index.note_headers([(stamp(), HEADER)])
    assert index.details_of([stamp()])[numbers_of(stamp())].header == HEADER
    assert index.sha256_of(stamp()) == SHA256
