"""Pins in memory: who wishes what, one group at a time, kept over restarts, never lost to a damaged file."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from comfy_depot.memory_pins import (
    FILE_NAME,
    MemoryPins,
    MemoryPinsUnreadable,
    Pin,
    Pinned,
    Setup,
    State,
    admit,
    listed,
)

GROUPS = {"still": ["checkpoints/sdxl*", "vae/sdxl*"], "video": ["checkpoints/wan*"]}


def who(pins: MemoryPins) -> list[tuple[str, str]]:
    return [(pin.pattern, pin.by) for pin in pins.all()]


@pytest.mark.parametrize("pattern, name, holds", [
    ("checkpoints/sdxl*", "checkpoints/sdxl_base.safetensors", True),
    ("checkpoints/sdxl*", "checkpoints/sub/sdxl.safetensors", False),
    ("checkpoints/*sdxl*", "checkpoints/sub/sdxl.safetensors", True),
    ("*/sdxl*", "vae/sdxl.safetensors", True),
    ("checkpoints/a.safetensors", "checkpoints/a.safetensors.old", False),
    ("checkpoints/A*", "checkpoints/a.safetensors", False),
    ("checkpoints/a [v2].safetensors", "checkpoints/a [v2].safetensors", True),  # looks like a glob
    ("checkpoints/[ab].safetensors", "checkpoints/b.safetensors", True),
    ("checkpoints/[b-a].safetensors", "checkpoints/b.safetensors", False),
    ("checkpoints/[b-a]", "checkpoints/[b-a]", True),
    ("checkpoints/" + "*a" * 150, "checkpoints/" + "a" * 300 + "b", False),  # and that soon
])
def test_a_pattern_holds_names_of_its_folder(pattern: str, name: str, holds: bool) -> None:
    assert Pin(pattern, "me", 0.0).holds(name) is holds


def test_a_folder_type_is_meant_by_its_old_name_too(tmp_path: Path) -> None:
    pins = MemoryPins(tmp_path, patterns=["unet/flux*"], groups={"g": ["clip/t5*"]})
    assert [pin.pattern for pin in pins.all()] == ["diffusion_models/flux*", "text_encoders/t5*"]


def test_the_command_line_pins_and_the_first_group_is_active(tmp_path: Path) -> None:
    pins = MemoryPins(tmp_path, patterns=["loras/x"], groups=GROUPS)
    assert who(pins) == [("loras/x", "--pin loras/x"), ("checkpoints/sdxl*", "group still"),
                         ("vae/sdxl*", "group still")]
    assert [group["is_active"] for group in pins.groups()] == [True, False]
    assert [pin.by for pin in pins.of(["other/a", "checkpoints/sdxl.safetensors"])] == ["group still"]
    assert pins.of(["checkpoints/wan.safetensors"]) == ()


def test_requests_and_the_active_group_are_there_after_a_restart(tmp_path: Path) -> None:
    pins = MemoryPins(tmp_path, groups=GROUPS)
    pins.change(lambda state: state.pinned("loras/a", "POST /depot/pin by alice", 5.0).switched("video", 6.0))
    again = MemoryPins(tmp_path, groups=GROUPS)
    assert who(again) == [("checkpoints/wan*", "group video"), ("loras/a", "POST /depot/pin by alice")]
    assert again.all()[-1].since == 5.0
    again.change(lambda state: state.switched("", 7.0))
    assert who(MemoryPins(tmp_path, groups=GROUPS)) == [("loras/a", "POST /depot/pin by alice")]


def test_a_group_that_is_no_longer_configured_gives_way_to_the_first(tmp_path: Path) -> None:
    MemoryPins(tmp_path, groups=GROUPS).change(lambda state: state.switched("video", 1.0))
    pins = MemoryPins(tmp_path, groups={"still": GROUPS["still"]})
    assert [group["name"] for group in pins.groups() if group["is_active"]] == ["still"]


def test_a_pin_of_the_command_line_is_let_go_until_the_next_start(tmp_path: Path) -> None:
    pins = MemoryPins(tmp_path, patterns=["loras/a", "loras/b"])
    pins.change(lambda state: state.unpinned("loras/a", pins.setup))
    assert [pin.pattern for pin in pins.all()] == ["loras/b"]
    pins.change(lambda state: state.pinned("vae/x", "me", 1.0))
    assert [pin.pattern for pin in pins.all()] == ["loras/b", "vae/x"], "it does not come back"
    pins.change(lambda state: state.pinned("loras/a", "me", 1.0).unpinned("vae/x", pins.setup))
    assert who(pins) == [("loras/a", "--pin loras/a"), ("loras/b", "--pin loras/b"), ("loras/a", "me")]
    again = MemoryPins(tmp_path, patterns=["loras/a"])
    assert who(again) == [("loras/a", "--pin loras/a"), ("loras/a", "me")]


def test_several_may_wish_the_same_and_unpinning_ends_it_for_all() -> None:
    state = State().pinned("a/b", "alice", 1.0).pinned("a/b", "bob", 2.0).pinned("a/b", "alice", 3.0)
    assert [(pin.by, pin.since) for pin in state.pins] == [("alice", 1.0), ("bob", 2.0)]
    assert state.unpinned("a/b", Setup()).pins == ()


def test_other_processes_are_seen_and_changes_made_at_once_are_all_kept(tmp_path: Path) -> None:
    ours = MemoryPins(tmp_path)
    threads = [threading.Thread(target=MemoryPins(tmp_path).change,
                                args=(lambda state, n=number: state.pinned(f"loras/{n}", "me", 1.0),))
               for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ours.all() == () and ours.refresh() and len(ours.all()) == 20
    assert not ours.refresh(), "nothing has changed since"


@pytest.mark.parametrize("text", ['{"pins": [{"patt', "[]", '{"pins": [{"pattern": "a/b"}]}', '{"pins": 5}'])
def test_a_damaged_file_is_said_and_kept_and_the_command_line_holds(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / FILE_NAME
    file.write_text(text)
    pins = MemoryPins(tmp_path, patterns=["loras/a"])
    assert [pin.pattern for pin in pins.all()] == ["loras/a"]
    assert "cannot be read" in caplog.text and "or delete it and pin the models again" in str(pins.problem)
    with pytest.raises(MemoryPinsUnreadable, match="Those of the command line hold"):
        pins.change(lambda state: state.pinned("loras/b", "me", 1.0))
    assert file.read_text() == text and len(pins.all()) == 1
    file.write_text(json.dumps({"pins": [{"pattern": "loras/c", "by": "me", "since": 1}]}))
    assert pins.refresh() and pins.problem is None and len(pins.all()) == 2


def test_a_file_that_is_damaged_while_the_server_runs_unpins_nothing(tmp_path: Path) -> None:
    pins = MemoryPins(tmp_path)
    pins.change(lambda state: state.pinned("loras/a", "me", 1.0))
    (tmp_path / FILE_NAME).write_text("{")
    assert pins.refresh() and who(pins) == [("loras/a", "me")]


def test_a_full_disk_changes_nothing(tmp_path: Path) -> None:
    pins = MemoryPins(tmp_path)
    pins.change(lambda state: state.pinned("loras/a", "me", 1.0))
    (tmp_path / f".{FILE_NAME}.new").mkdir()  # so that the new file cannot be written
    with pytest.raises(OSError):
        pins.change(lambda state: state.pinned("loras/b", "me", 1.0))
    assert who(pins) == who(MemoryPins(tmp_path)) == [("loras/a", "me")]


@pytest.mark.parametrize("sizes, limit, fit", [
    ([5, 5], 10, [True, True]), ([5, 6], 10, [True, False]), ([11, 4, 6], 10, [False, True, True]),
    ([1], float("inf"), [True]), ([0], 0, [True]), ([], 0, []),
])
def test_the_first_ones_that_fit_into_the_budget_are_pinned(
    sizes: list[int], limit: float, fit: list[bool]
) -> None:
    assert admit(sizes, limit) == fit


def test_the_list_for_people_names_size_and_who_and_is_not_endless() -> None:
    assert listed([]) == "No model is pinned in memory."
    large = Pinned("checkpoints/a", 6_500_000_000, ("alice", "bob"))
    assert listed([Pinned("vae/b", 300_000, ("group x",)), large]) == (
        "Pinned in memory are 6.5 GB: checkpoints/a (6.5 GB, by alice, bob); vae/b (0.3 MB, by group x).")
    assert listed([Pinned(f"loras/{n}", 1, ("me",)) for n in range(25)]).endswith("; 5 more.")
