"""What goes and what stays: a plan from plain values, and the plan against files."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from comfy_depot.eviction import Limits, LocalModel, Plan, Stamp, plan_eviction

DAY = 86_400.0
NOW = 100 * DAY


def a_model(
    name: str, *, days: float = 1, size: int = 10, kept: str | None = None, is_own: bool = True
) -> LocalModel:
    return LocalModel(
        "loras", name, f"/no/such/{name}", Stamp(1, 2, size, 3), NOW - days * DAY, is_own=is_own, kept=kept
    )


def gone(plan: Plan) -> list[tuple[str, str]]:
    return [(verdict.model.name, verdict.reason) for verdict in plan.going]


def stay(plan: Plan) -> list[tuple[str, str]]:
    return [(verdict.model.name, verdict.reason) for verdict in plan.staying]


def test_the_longest_unused_go_until_the_size_holds() -> None:
    models = [a_model("new", days=1), a_model("oldest", days=9), a_model("old", days=5)]
    plan = plan_eviction(models, Limits(max_size=15), now=NOW)
    assert gone(plan) == [("oldest", "over the size limit"), ("old", "over the size limit")]
    assert stay(plan) == [("new", "within the limits")]
    assert (plan.bytes_freed, plan.bytes_over) == (20, 0)


def test_nothing_goes_while_the_size_holds() -> None:
    assert gone(plan_eviction([a_model("a"), a_model("b")], Limits(max_size=20), now=NOW)) == []


def test_what_was_unused_for_too_many_days_goes() -> None:
    plan = plan_eviction([a_model("a", days=6.9), a_model("b", days=7.5)], Limits(keep_days=7), now=NOW)
    assert gone(plan) == [("b", "not used for 7.5 days")]


def test_the_age_counts_first_and_the_size_then_for_what_is_left() -> None:
    models = [a_model("old", days=8), a_model("middle", days=5), a_model("new", days=1)]
    plan = plan_eviction(models, Limits(max_size=10, keep_days=7), now=NOW)
    assert gone(plan) == [("old", "not used for 8.0 days"), ("middle", "over the size limit")]


def test_what_must_stay_stays_and_says_why() -> None:
    models = [a_model("open", days=9, kept="it is open"), a_model("free", days=1)]
    plan = plan_eviction(models, Limits(max_size=5, keep_days=7), now=NOW)
    assert gone(plan) == [("free", "over the size limit")]
    assert stay(plan) == [("open", "it is open")]
    assert plan.bytes_over == 5, "the open one alone is over the limit"


def test_files_that_are_not_the_depots_own_do_not_count_towards_the_size() -> None:
    models = [a_model("mine", size=1000, kept="yours", is_own=False), a_model("own")]
    plan = plan_eviction(models, Limits(max_size=10), now=NOW)
    assert (gone(plan), plan.bytes_over) == ([], 0)


def test_by_name_only_the_named_one_is_considered_whatever_its_age() -> None:
    plan = plan_eviction([a_model("a", days=0), a_model("b")], Limits(names={("loras", "a")}), now=NOW)
    assert (gone(plan), stay(plan)) == ([("a", "asked for by name")], [])


def test_a_file_is_known_by_its_other_names_too() -> None:
    alias = frozenset({("lora_types", "a")})
    plan = plan_eviction(
        [replace(a_model("a"), aliases=alias)], Limits(names={("lora_types", "a")}), now=NOW
    )
    assert gone(plan) == [("a", "asked for by name")]


@pytest.mark.parametrize(
    "limits, words",
    [
        ({}, "No limit is given. Give a size, a number of days, or both."),
        ({"max_size": -1}, "max_size is -1. Give 0 or more bytes."),
        ({"keep_days": -0.5}, "keep_days is -0.5. Give 0 or more days."),
        ({"keep_days": float("nan")}, "keep_days is nan. Give 0 or more days."),
        ({"keep_days": float("inf")}, "keep_days is inf. Give 0 or more days."),
        ({"names": set(), "max_size": 1}, "Models by name and limits do not go together."),
        ({"names": set(), "keep_days": 1}, "Models by name and limits do not go together."),
    ],
)
def test_limits_that_cannot_be_meant_are_refused(limits: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Limits(**limits)  # type: ignore[arg-type]


def test_a_policy_decides_the_order_and_what_it_does_not_know_goes_before() -> None:
    names = ("first", "last", "unknown", "older")
    models = [a_model(name, days=days) for name, days in zip(names, (1, 9, 2, 3), strict=True)]
    order = [("loras", "first"), ("loras", "evicted long ago"), ("loras", "last")]
    plan = plan_eviction(models, Limits(max_size=0), now=NOW, order=order)
    assert [name for name, _ in gone(plan)] == ["older", "unknown", "first", "last"]


def test_a_plan_can_be_printed() -> None:
    models = [a_model("a", days=8), a_model("b", kept="it is open")]
    assert str(plan_eviction(models, Limits(keep_days=7), now=NOW)).splitlines() == [
        "goes: loras/a (10 bytes): not used for 8.0 days",
        "stays: loras/b (10 bytes): it is open",
        "10 bytes of 1 models freed.",
    ]


def on_disk(path: Path, *, days: float = 1) -> LocalModel:
    path.write_bytes(b"x" * 10)
    return replace(a_model(path.name, days=days), path=str(path), stamp=Stamp.of(os.lstat(path)))


def test_a_plan_deletes_nothing_until_it_is_executed(tmp_path: Path) -> None:
    plan = plan_eviction([on_disk(tmp_path / "a")], Limits(max_size=0), now=NOW)
    assert (tmp_path / "a").exists()
    done = plan.execute()
    assert not (tmp_path / "a").exists()
    assert (gone(done), done.bytes_freed, done.bytes_over) == ([("a", "over the size limit")], 10, 0)


def test_what_came_into_use_since_the_plan_stays_and_counts_as_over(tmp_path: Path) -> None:
    models = [on_disk(tmp_path / "a"), on_disk(tmp_path / "b", days=2)]
    plan = plan_eviction(
        models, Limits(max_size=0), now=NOW, recheck=lambda model: "open now" if model.name == "a" else None
    )
    done = plan.execute()
    assert gone(done) == [("b", "over the size limit")]
    assert (stay(done), done.bytes_over) == ([("a", "open now")], 10)
    assert (tmp_path / "a").exists()


def test_a_file_that_was_replaced_since_the_plan_stays(tmp_path: Path) -> None:
    plan = plan_eviction([on_disk(tmp_path / "a")], Limits(keep_days=0), now=NOW)
    (tmp_path / "a").unlink()
    (tmp_path / "a").write_bytes(b"another")
    assert stay(plan.execute()) == [("a", "it has changed since the plan was made")]
    assert (tmp_path / "a").read_bytes() == b"another"


def test_a_file_that_is_gone_already_is_no_mistake(tmp_path: Path) -> None:
    plan = plan_eviction([on_disk(tmp_path / "a")], Limits(keep_days=0), now=NOW)
    (tmp_path / "a").unlink()
    assert len(plan.execute().going) == 1


def test_a_file_that_the_system_does_not_delete_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied")

    plan = plan_eviction([on_disk(tmp_path / "a")], Limits(keep_days=0), now=NOW)
    monkeypatch.setattr(os, "unlink", refuse)
    assert stay(plan.execute()) == [("a", "it could not be deleted: Permission denied")]
