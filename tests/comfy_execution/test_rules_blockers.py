"""ExecutionBlocker: a value that stops who would use it."""

import pytest

from comfy_execution.graph import ExecutionBlocker
from tests.comfy_execution.rig import make, node


@pytest.fixture
def blocked(rig):
    """Classes "Block" (with a message or none) and "Mixed" (a list of 1, blocker, 3)."""

    def block(self, message):
        return ExecutionBlocker(message or None)

    def mixed(self):
        return ([1, ExecutionBlocker(None), 3],)

    rig.add(Block=make(block, {"message": ("STRING", {})}), Mixed=make(mixed, {}, OUTPUT_IS_LIST=(True,)))
    return rig


def chain(message):
    return {
        "1": node("Block", message=message),
        "2": node("Add", a=["1", 0]),
        "3": node("Add", a=["2", 0]),
        "4": node("Show", value=["3", 0]),
        "5": node("Show", value=7),
    }


def test_a_silent_blocker_goes_through_a_chain(blocked):
    result = blocked.run(chain(""))
    assert result.success
    assert result.outputs == {"5": {"text": [7]}}
    assert not [call for call in blocked.calls if call[0] == "Add"]
    assert result.failure is None


def test_a_message_is_reported_once_by_the_first_consumer(blocked):
    result = blocked.run(chain("no picture"))
    errors = result.of("execution_error")
    assert len(errors) == 1
    assert errors[0]["exception_type"] == "ExecutionBlocked"
    assert errors[0]["exception_message"] == "Execution Blocked: no picture"
    assert (errors[0]["node_id"], errors[0]["node_type"], errors[0]["traceback"]) == ("2", "Add", [])


def test_a_blocked_prompt_succeeds_and_its_history_has_no_error(blocked):
    result = blocked.run(chain("no picture"))
    assert result.success
    assert [event for event, _ in result.messages] == [
        "execution_start",
        "execution_cached",
        "execution_success",
    ]


def test_one_blocked_element_blocks_its_own_call_only(blocked):
    result = blocked.run({"1": node("Mixed"), "2": node("Show", value=["1", 0])})
    assert result.outputs["2"] == {"text": [1, 3]}


def test_one_blocked_element_blocks_a_node_that_takes_lists(blocked):
    blocked.add(
        All=make(
            lambda self, value: {"ui": {"text": value}},
            {"value": ("*", {})},
            returns=(),
            OUTPUT_NODE=True,
            INPUT_IS_LIST=True,
        )
    )
    result = blocked.run({"1": node("Mixed"), "2": node("All", value=["1", 0])})
    assert result.success and result.outputs == {}


def test_a_blocker_under_result_stands_for_all_outputs(blocked):
    blocked.add(Two=make(lambda self: {"result": ExecutionBlocker(None)}, {}, returns=("INT", "INT")))
    result = blocked.run({"1": node("Two"), "2": node("Show", value=["1", 1])})
    assert result.success and result.outputs == {}


def test_blockers_are_cached_like_values(blocked):
    blocked.run(chain(""))
    result = blocked.run(chain(""))
    assert result.ran == []
    assert "1" in result.cached and "3" in result.cached


def test_a_blocked_element_in_a_list_output_stays_one_element(blocked):
    blocked.add(
        Lists=make(
            lambda self, value: (ExecutionBlocker(None),) if value else ([8, 9],),
            {"value": ("INT", {})},
            OUTPUT_IS_LIST=(True,),
        )
    )
    result = blocked.run(
        {"1": node("Range", value=2), "2": node("Lists", value=["1", 0]), "3": node("Show", value=["2", 0])}
    )
    assert result.outputs["3"] == {"text": [8, 9]}
