"""What a tenant asks for next is learned from the log, and the guesses are paid from a budget."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import pytest

from comfy_depot import cli, guesses, predict
from comfy_depot.access import Access
from comfy_depot.guesses import DAY, Ledger
from comfy_depot.predict import Predictor
from tests.comfy_depot.world import World

Use = tuple[float, tuple[str, str], int, str]


def uses_of(names: str, tenant: str = "t", folder: str = "checkpoints") -> list[Use]:
    return [(float(row), (folder, name), 10, tenant) for row, name in enumerate(names)]


def accuracy(uses: list[Use], method: str = "mix", *, top: str = "top1") -> float:
    return float(predict.evaluate(uses, method)[""].as_json()[top])


def test_only_a_switch_is_predicted_and_before_it_is_learned() -> None:
    predictor = Predictor()
    assert [predictor.use("t", ("loras", name)) for name in "aaab"] == [None, None, None, []]
    assert predictor.use("t", ("loras", "a")) == ["a"]


def test_each_folder_type_is_a_stream_of_its_own() -> None:
    uses = [use for pair in zip(uses_of("aabb" * 9), uses_of("xxxx" * 9, folder="vae")) for use in pair]
    scores = predict.evaluate(uses)
    assert (scores["vae"].switches, scores["checkpoints"].switches, scores[""].switches) == (0, 17, 17)
    assert scores["vae"].as_json()["top1"] is None and scores["checkpoints"].first >= 14


@pytest.mark.parametrize(
    ("names", "good", "bad"),
    [
        ("abcdef" * 30, "markov", "recent"),  # a routine: what was used longest ago comes next
        ("".join(random.Random(1).choices(("ababab", "cdcdcd", "efefef"), k=40)), "recent", "popular"),
    ],
)
def test_the_mix_finds_out_which_predictor_to_believe(names: str, good: str, bad: str) -> None:
    uses = uses_of(names)
    assert accuracy(uses) > 0.85 * accuracy(uses, good) > accuracy(uses, bad)


def test_what_others_do_helps_a_tenant_who_is_new() -> None:
    uses = [use for tenant in "pqrstuvw" for use in uses_of("abcdef" * 4, tenant)]
    uses += uses_of("abcdef", "new")
    predictor = Predictor()
    right = [predictor.use(tenant, key) for _, key, _, tenant in uses][-5:]
    assert [predicted[0] for predicted in right if predicted] == list("bcdef")


def test_models_by_chance_are_foretold_as_badly_as_they_must_be() -> None:
    chance = random.Random(2)
    uses = [(float(row), ("c", str(chance.randrange(100))), 1, "t") for row in range(200)]
    assert accuracy(uses, top="top3") < 0.1
    assert all(0 < probability <= 1 for _, probability in _after(uses))


def _after(uses: list[Use]) -> list[tuple[str, float]]:
    predictor = Predictor()
    for _, key, _, tenant in uses:
        predictor.use(tenant, key)
    found = predictor.next_of("t", uses[-1][1][0])
    assert sum(probability for _, probability in found) <= 1.001
    return found


def test_the_budget_is_what_was_guessed_within_a_day_and_not_used() -> None:
    ledger = Ledger()
    for number, size in enumerate((5, 7, 7)):
        ledger.guessed(number * 100.0, ("c", "ab"[number > 0]), size)
    assert ledger.at_stake(300.0) == 19 and ledger.wasted(300.0) == 0
    ledger.used(("c", "b"))
    assert ledger.as_json(DAY + 50) == {"models": 3, "bytes": 19, "models_used": 1, "bytes_used": 7,
                                        "bytes_wasted": 5, "bytes_pending": 7}


@pytest.mark.parametrize("budget", [0, 25, 1000])
def test_guesses_never_lose_more_in_a_day_than_the_budget(budget: int) -> None:
    chance = random.Random(3)
    uses = [(float(row), ("c", name), 10, name) for row in range(300)
            for name in [chance.choice("abcdefghij")]]
    found = guesses.simulate(uses, disk_bytes=50, budget=budget, may_evict=True)
    assert found.bytes_wasted <= budget
    never = guesses.simulate(uses, disk_bytes=50, budget=budget)
    assert never.misses == never.misses_without and never.bytes_guessed == 0, "the disk is full"


def test_the_command_reports_accuracy_and_waste(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "t.csv"
    rows = [f"{row},checkpoints,{name},10,{'pq'[row % 2]}" for row, name in enumerate("aabbccdd" * 8)]
    trace.write_text("\n".join(["time,folder,name,bytes,user", *reversed(rows)]))
    assert cli.main(["predict", str(trace), "--json", "--size", "1M", "--method", "mix"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["methods"]["mix"]["checkpoints"]["switches"] == 62
    assert found["methods"]["mix"]["all"]["top1"] > 0.7
    assert [one["may_evict"] for one in found["guesses"]] == [False, True]
    assert cli.main(["predict", str(trace)]) == 0
    assert "mix\tcheckpoints\t64\t62\t" in capsys.readouterr().out
    trace.write_text("when,what\n1,2\n")
    assert cli.main(["predict", str(trace)]) == 1
    assert "names no time, model and size" in capsys.readouterr().err


def note(depot: Any, names: str, *, outcome: str = "hit", folder: str = "loras") -> None:
    for age, name in zip(range(len(names), 0, -1), names):
        depot.access.note(
            Access(time.time() - age, folder, f"{name}.safetensors", "p", "1", "t", 10, outcome))


def test_the_log_teaches_the_depot_and_its_stats_tell(depot_world: World) -> None:
    with depot_world.depot(depot_predict=1000) as depot:
        note(depot, "ababababab")
        note(depot, "b", outcome="guessed")
        note(depot, "c", outcome="preloaded")
        stats = depot.warm.foresight.stats(time.time())
        assert (stats["switches"], stats["folders"]["loras"]["uses"]) == (9, 10) and stats["top1"] >= 0.8
        assert stats["guesses"]["bytes_pending"] == 10 and stats["budget"] == 1000
        note(depot, "b")
        assert depot.warm.foresight.stats(time.time())["guesses"]["bytes_used"] == 10
