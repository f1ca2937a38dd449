"""Room is promised once, over threads and processes, and models go for it when they may."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from comfy_depot import room
from comfy_depot.neighbours import Neighbours
from comfy_depot.room import Held, Room, Shortage


@pytest.fixture
def free_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk of 1000 bytes of which 600 are free, and transfers that take no more than their file."""
    usage = type(shutil.disk_usage("/"))(1000, 400, 600)
    monkeypatch.setattr(room.shutil, "disk_usage", lambda folder: usage)
    monkeypatch.setattr(room, "OVERHEAD_BYTES", 0)


@pytest.fixture
def neighbours(tmp_path: Path) -> Iterator[Neighbours]:
    made = Neighbours(tmp_path / "state")
    yield made
    made.close()


def test_what_was_promised_is_not_promised_again_until_it_is_given_back(
    tmp_path: Path, free_bytes: None, neighbours: Neighbours
) -> None:
    ours = Room(100, neighbours)
    assert ours.promise(tmp_path / "a", 300) is None
    assert ours.promise(tmp_path / "b", 300) == Shortage(300, 600, 300, fits_never=False)
    assert ours.promise(tmp_path / "a", 500) is None  # the same file once more, now larger
    ours.give_back(tmp_path / "a")
    assert ours.promise(tmp_path / "b", 300) is None
    assert ours.promise(tmp_path / "c", 950) == Shortage(950, 600, 300, fits_never=True)


def test_what_a_partial_occupies_already_needs_no_room(
    tmp_path: Path, free_bytes: None, neighbours: Neighbours
) -> None:
    (tmp_path / "a").write_bytes(bytes(4096))
    assert Room(0, neighbours).promise(tmp_path / "a", 4096) is None


def test_processes_with_one_state_folder_know_each_others_promises(
    tmp_path: Path, free_bytes: None, neighbours: Neighbours
) -> None:
    theirs = Neighbours(tmp_path / "state")
    others = Room(0, theirs)
    assert others.promise(tmp_path / "a", 400) is None
    assert Room(0, neighbours).promise(tmp_path / "b", 300) == Shortage(300, 600, 400, fits_never=False)
    others.give_back(tmp_path / "a")
    assert Room(0, neighbours).promise(tmp_path / "b", 300) is None
    theirs.close()


def test_the_promises_of_a_killed_process_are_free_again(
    tmp_path: Path, free_bytes: None, neighbours: Neighbours
) -> None:
    code = ("import sys, time; from pathlib import Path; from comfy_depot.neighbours import Neighbours; "
            "from comfy_depot.room import Room; folder = Path(sys.argv[1]); "
            "print(Room(0, Neighbours(folder / 'state')).promise(folder / 'a', 400), flush=True); "
            "time.sleep(60)")
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"None\n"
        ours = Room(0, neighbours)
        assert ours.promise(tmp_path / "b", 300) is not None
        process.kill()
        process.wait()
        assert ours.promise(tmp_path / "b", 300) is None
    assert len(list((tmp_path / "state" / "room").glob("*.json"))) == 1, "what it left was swept"


def test_of_many_that_ask_at_once_only_those_get_room_that_fit(tmp_path: Path, free_bytes: None) -> None:
    every = [Neighbours(tmp_path / "state") for _ in range(8)]
    granted: list[int] = []

    def ask(number: int) -> None:
        if Room(0, every[number]).promise(tmp_path / str(number), 150) is None:
            granted.append(number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(granted) == 4, "4 x 150 of 600 bytes"
    for one in every:
        one.close()


class Models:
    """Own models of 400 bytes together, of which some may go."""

    def __init__(self, evictable: int) -> None:
        self.own, self.evictable = 400, evictable
        self.coming: frozenset[str] = frozenset()

    def make_room(self, *, device: int, bytes_on_device: int, max_size: int | None,
                  coming: frozenset[str]) -> Held:
        self.coming = coming
        over = max(bytes_on_device, 0 if max_size is None else self.own - max_size)
        if 0 < over <= self.evictable:
            self.own -= over
            self.evictable -= over
        return Held(self.own, ("loras/x (it is pinned)",))


def test_models_go_until_the_budget_holds_what_is_promised_too(
    tmp_path: Path, free_bytes: None, neighbours: Neighbours
) -> None:
    models = Models(evictable=360)
    ours = Room(0, neighbours, max_size=500, evictor=models)
    (tmp_path / ".depot").mkdir()
    partial = tmp_path / ".depot" / "a.0123abcd.part"
    assert ours.promise(partial, 150) is None and models.own == 350
    assert models.coming == {str(partial), str(tmp_path / "a")}, "its room is promised under either name"
    assert ours.promise(tmp_path / "b", 300) is None and models.own == 50
    shortage = ours.promise(tmp_path / "c", 45)
    assert shortage == Shortage(45, 450, 450, False, 500, ("loras/x (it is pinned)",))
    assert models.own == 50, "nothing goes in vain"


def test_nothing_goes_for_a_file_that_is_larger_than_the_budget(
    tmp_path: Path, free_bytes: None, neighbours: Neighbours
) -> None:
    models = Models(evictable=400)
    shortage = Room(0, neighbours, max_size=500, evictor=models).promise(tmp_path / "a", 501)
    assert shortage is not None and shortage.fits_never and models.own == 400


def test_a_process_says_what_of_that_which_another_evicts_it_uses(tmp_path: Path) -> None:
    from comfy_depot.eviction import LocalModel, Stamp

    server = Neighbours(tmp_path, why_busy=lambda models: {
        model.path: f"it is {model.key[1]}" for model in models if model.key[1] == "busy"})
    server.start()
    ours = Neighbours(tmp_path)
    models = [LocalModel("loras", name, f"/{name}", Stamp(1, 2, 3, 4), 0) for name in ("busy", "idle")]
    with ours.alone():
        assert ours.ask(models) == {"/busy": "it is busy"}
        assert ours.ask([]) == {}
    server.close()
    with ours.alone():
        assert ours.ask(models) == {}
    assert not list((tmp_path / "room").glob("*.asks"))
    ours.close()


def test_a_process_that_does_not_answer_keeps_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from comfy_depot import neighbours
    from comfy_depot.eviction import LocalModel, Stamp

    monkeypatch.setattr(neighbours, "SECONDS_TO_ANSWER", 0.05)
    other, ours = Neighbours(tmp_path), Neighbours(tmp_path)
    with other.alone():
        other.tell({})
        (own,) = (tmp_path / "room").glob("*.json")
        own.write_text(json.dumps({"answers": True, "promises": {}}))
    with ours.alone():
        answer = ours.ask([LocalModel("loras", "a", "/a", Stamp(1, 2, 3, 4), 0)])
    assert answer == {"/a": "another depot process, which may use it, does not answer"}
    other.close()
    ours.close()
