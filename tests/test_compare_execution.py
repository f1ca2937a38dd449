"""benchmarks/compare_execution.py: it finds differences, and its scenarios are what it says."""

import fnmatch
import json

import pytest

from benchmarks import compare_execution, execution_client
from benchmarks.execution_client import in_order, normalised_events
from benchmarks.execution_generated import generated
from benchmarks.execution_runs import SCENARIOS

RECORD = {
    "answers": [{"status": 200, "error": None, "node_errors": {}}],
    "events": [["executing", 0, "a", "a"], ["executing", 0, "b", "b"], ["execution_success", 0]],
    "cached": [[0, []]],
    "executed": [["a", "b"]],
    "calls": [["Number", "run", {"value": 1}], ["Add", "run", {"a": 1, "b": 1}]],
    "history": [{"status": ["success", True]}],
}


def differing(other, **how):
    return list(
        compare_execution.differing_parts(RECORD, other, **{"in_order": True, "is_large": False, **how})
    )


@pytest.mark.parametrize("part", RECORD)
def test_a_difference_in_any_part_is_found(part):
    assert differing(RECORD) == []
    other = json.loads(json.dumps(RECORD))
    other[part] = [*other[part], "more"]
    assert differing(other) == [part]


def test_another_order_of_messages_is_found_unless_outputs_were_taken_in_another_order():
    other = {**RECORD, "events": [RECORD["events"][1], RECORD["events"][0], RECORD["events"][2]]}
    assert differing(other) == ["events"]
    assert differing(other, in_order=False) == []


def test_progress_states_count_once_however_they_are_spread_over_messages():
    def state(word):
        identity = dict.fromkeys(execution_client.IDENTITY, "a")
        return {"a": {"state": word, "value": 0, "max": 1, **identity}}

    def message(word):
        return {"type": "progress_state", "data": {"prompt_id": "p", "nodes": state(word)}}

    once = normalised_events([message("running"), message("finished")], ["p"])
    often = normalised_events([message("running"), message("running"), message("finished")], ["p"])
    assert once == often
    assert [event[3] for event in once] == ["running", "finished"]


def test_nodes_are_put_into_the_order_of_outputs():
    prompt = {"x": 1, "s": 2, "y": 3, "t": 4}
    assert list(in_order(prompt, ["t", "s"])) == ["x", "t", "y", "s"]
    assert in_order(prompt, ["t", "s"]) == prompt


def test_there_are_enough_scenarios_each_with_a_name_of_its_own():
    names = [scenario.name for scenario in SCENARIOS]
    assert len(set(names)) == len(names) >= 100
    posts = [post for scenario in SCENARIOS for step in scenario.steps for post in step.posts]
    assert all(json.dumps(post.prompt) for post in posts)
    for known in compare_execution.EXPECTED:
        pattern = known.scenario.rpartition("/")[0]
        assert fnmatch.filter(names, pattern), f"{pattern} is expected to differ, but is no scenario"


def test_generated_scenarios_can_be_repeated_and_differ_from_seed_to_seed():
    one = generated(5, 1)
    assert one == generated(5, 1) != generated(5, 2)
    assert all(len(scenario.steps) >= 3 for scenario in one)
    assert generated(0, 1) == []


def test_the_pack_can_be_put_into_a_server(tmp_path, capsys):
    folder = tmp_path / "custom_nodes"
    compare_execution.install(folder)
    assert (folder / "compare_pack/declare.py").exists()
    compare_execution.install(folder)
    assert "is there already" in capsys.readouterr().out
