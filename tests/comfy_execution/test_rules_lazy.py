"""Lazy inputs: computed only when a node asks for them."""

import pytest

from tests.comfy_execution.rig import make, node

LAZY = ("INT", {"lazy": True})


def add_switch(rig, check=None, **attributes):
    """ "Switch" gives `on` or `off`; it asks for what it needs, or as `check` says."""

    def needed(self, which, on=None, off=None):
        rig.note(("check", which, on, off))
        name = "on" if which else "off"
        return [name] if {"on": on, "off": off}[name] is None else []

    def run(self, which, on=None, off=None):
        return (on if which else off,)

    rig.add(
        Switch=make(
            run,
            {"which": ("BOOLEAN", {})},
            optional={"on": LAZY, "off": LAZY},
            check_lazy_status=check or needed,
            **attributes,
        )
    )


def graph(which=True, **switch):
    return {
        "1": node("Number", value=10),
        "2": node("Number", value=20),
        "3": node("Switch", which=which, on=["1", 0], off=["2", 0], **switch),
        "4": node("Show", value=["3", 0]),
    }


@pytest.mark.parametrize(("which", "value"), [(True, 10), (False, 20)])
def test_only_the_branch_that_is_needed_runs(rig, which, value):
    add_switch(rig)
    result = rig.run(graph(which))
    assert result.outputs["4"] == {"text": [value]}
    assert [call for call in rig.calls if call[0] == "Number"] == [("Number", value)]


def test_values_that_are_not_known_are_none_and_the_node_is_asked_again(rig):
    add_switch(rig)
    rig.run(graph())
    assert [call for call in rig.calls if call[0] == "check"] == [
        ("check", True, None, None),
        ("check", True, 10, None),
    ]


def test_a_node_may_ask_for_one_input_after_the_other(rig):
    def one_more(self, **values):
        return next(([name] for name in ("a", "b", "c") if values[name] is None), [])

    rig.add(
        Sum=make(
            lambda self, a, b, c: (a + b + c,), {"a": LAZY, "b": LAZY, "c": LAZY}, check_lazy_status=one_more
        )
    )
    prompt = {str(i): node("Number", value=i) for i in (1, 2, 3)}
    prompt["4"] = node("Sum", a=["1", 0], b=["2", 0], c=["3", 0])
    prompt["5"] = node("Show", value=["4", 0])
    result = rig.run(prompt)
    assert result.outputs["5"] == {"text": [6]}
    assert result.ran == ["4", "1", "4", "2", "4", "3", "4", "5"]


@pytest.mark.parametrize("answer", [None, [], ["which"], "on"])
def test_asking_for_nothing_or_for_what_is_known_runs_the_node(rig, answer):
    add_switch(rig, lambda self, **values: answer)
    assert rig.run(graph()).outputs["4"] == {"text": [None]}


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (["nope"], "it has no input of that name"),
        (["extra"], "is a constant and known already"),
    ],
)
def test_asking_for_what_is_no_link_is_an_error(rig, answer, message):
    add_switch(rig, lambda self, **values: answer)
    result = rig.run(graph(extra=5))
    assert message in result.failure["exception_message"]
    assert result.failure["exception_type"] == "comfy_execution.graph.NodeInputError"
    assert result.failure["node_id"] == "3"


def test_requests_of_all_elements_are_joined(rig):
    add_switch(rig)
    rig.add(Both=make(lambda self: ([True, False],), {}, returns=("BOOLEAN",), OUTPUT_IS_LIST=(True,)))
    prompt = graph()
    prompt["0"] = node("Both")
    prompt["3"]["inputs"]["which"] = ["0", 0]
    assert rig.run(prompt).outputs["4"] == {"text": [10, 20]}


def test_a_node_that_takes_lists_sees_a_list_with_none(rig):
    seen = []

    def check(self, which, on, off):
        seen.append((which, on, off))
        return ["on"] if on[0] is None else []

    add_switch(rig, check, INPUT_IS_LIST=True)
    rig.run(graph())
    assert [list(map(list, call)) for call in seen] == [[[True], [None], [None]], [[True], [10], [None]]]


def test_lazy_inputs_that_nobody_asks_for_are_none(rig):
    rig.add(Plain=make(lambda self, value: (value,), {"value": LAZY}))
    result = rig.run(
        {"1": node("Number", value=1), "2": node("Plain", value=["1", 0]), "3": node("Show", value=["2", 0])}
    )
    assert result.outputs["3"] == {"text": [None]}
    assert ("Number", 1) not in rig.calls


def test_a_missing_required_input_is_an_error_even_when_lazy(rig):
    rig.add(Plain=make(lambda self, value: (value,), {"value": LAZY}))
    result = rig.validate({"1": node("Plain"), "2": node("Show", value=["1", 0])})
    assert result.node_errors["1"]["errors"][0]["type"] == "required_input_missing"


@pytest.mark.parametrize("slot", [1, 7, 1e308])
def test_a_lazy_link_to_an_output_that_does_not_exist_is_an_error_and_no_endless_question(rig, slot):
    """A literal list gets past the validation of links, and is one when the node runs (rules 7 and 8)."""
    asked = []
    rig.add(Wants=make(
        lambda self, value=None: (value,), {"value": ("*", {"lazy": True})},
        check_lazy_status=lambda self, value=None: asked.append(value) or ["value"],
    ))  # fmt: skip
    literal = {"__value__": ["1", slot]}
    result = rig.run({"1": node("Number", value=10), "3": node("Wants", value=literal),
                      "4": node("Show", value=["3", 0])})  # fmt: skip
    assert result.failure["node_id"] == "3"
    message = f"Node 3 says it needs input value, which is linked to output {slot} of node 1. That node has 1"
    assert result.failure["exception_message"].startswith(message)
    assert asked == [None, None]


def test_check_lazy_status_may_be_asynchronous(rig):
    async def check(self, which, on=None, off=None):
        return ["on"] if on is None else []

    add_switch(rig, check)
    assert rig.run(graph()).outputs["4"] == {"text": [10]}


def test_a_lazy_input_that_is_cached_is_given_without_running_it(rig):
    add_switch(rig)
    prompt = graph()
    prompt["5"] = node("Show", value=["1", 0])
    rig.run(prompt)
    prompt["3"]["inputs"]["extra"] = 1  # the switch itself is new
    rig.run(prompt)
    assert [call for call in rig.calls if call[0] == "Number"] == []
