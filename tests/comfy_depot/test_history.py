"""The policy in production knows what the log knows, over restarts and processes."""

from __future__ import annotations

from pathlib import Path

from comfy_depot.access import Access, AccessLog, read_since
from comfy_depot.eviction import Limits, LocalModel, Stamp
from comfy_depot.history import History
from tests.comfy_depot.world import World


def write(folder: Path, *names: str, start: float = 0, outcome: str = "hit") -> None:
    log = AccessLog(folder)
    for place, name in enumerate(names):
        log.note(Access(start + place, "loras", name, None, None, None, 10, outcome))
    log.close()


def models(*names: str, last_used: float = 0) -> list[LocalModel]:
    return [LocalModel("loras", name, f"/{name}", Stamp(1, 2, 10, 3), last_used) for name in names]


def names_in_order(history: History, there: list[LocalModel]) -> str:
    return "".join(name for _, name in history.order(there, size=100))


def test_the_order_comes_from_the_log_and_follows_it(tmp_path: Path) -> None:
    write(tmp_path, *"abca")
    history = History(tmp_path, "lru")
    assert names_in_order(history, models(*"abc")) == "bca"
    write(tmp_path, *"b", start=10)  # by another process
    assert names_in_order(history, models(*"abc")) == "cab"
    assert names_in_order(History(tmp_path, "lru"), models(*"abc")) == "cab", "and after a restart"


def test_a_file_that_was_never_used_counts_from_its_arrival(tmp_path: Path) -> None:
    write(tmp_path, *"ab", start=100)
    arrived = models("x", last_used=100.5) + models("y", last_used=3)
    assert names_in_order(History(tmp_path, "lru"), models(*"ab") + arrived) == "yaxb"


def test_what_left_the_disk_is_not_in_the_order_and_arrives_anew(tmp_path: Path) -> None:
    write(tmp_path, *"abab")
    history = History(tmp_path, "sieve")
    assert names_in_order(history, models(*"ab")) == "ab"
    assert names_in_order(history, models("b")) == "b"
    write(tmp_path, "b", start=9)
    write(tmp_path, "a", start=10, outcome="fetched")
    assert names_in_order(history, models(*"ab")) == "ab", "b was used since the hand passed, a has just come"


def test_a_use_under_another_name_of_the_same_file_counts(tmp_path: Path) -> None:
    write(tmp_path, *"abz")
    alias = LocalModel("loras", "a", "/a", Stamp(1, 2, 10, 3), 0, aliases=frozenset({("loras", "z")}))
    assert names_in_order(History(tmp_path, "lru"), [alias, *models("b")]) == "ba"


def test_a_log_that_was_begun_anew_is_read_from_its_start(tmp_path: Path) -> None:
    write(tmp_path, *"abc")
    newest, rows = read_since(tmp_path, 0, limit=2)
    assert (newest, [row.name for row in rows]) == (3, ["b", "c"])
    for file in tmp_path.iterdir():
        file.unlink()
    write(tmp_path, "d")
    assert [row.name for row in read_since(tmp_path, newest, limit=9)[1]] == ["d"]


def test_the_policy_that_was_chosen_decides_what_is_evicted(depot_world: World) -> None:
    names = [f"{letter}.sft" for letter in "abcde"]
    depot_world.write_manifest({"loras": {name: {"url": f"https://host.example/{name}", "size": 5}
                                          for name in names}})
    for name in names:
        depot_world.write_model("loras", name, b"12345")
    write(depot_world.base / "depot", *names[:3], "a.sft", *names[3:], start=1e10)
    for policy, stay in (("lru", ["d.sft", "e.sft"]), ("sieve", ["a.sft", "e.sft"])):
        with depot_world.depot(depot_policy=policy) as depot:
            plan = depot.plan_eviction(Limits(max_size=10))
            assert [verdict.model.name for verdict in plan.staying] == stay
