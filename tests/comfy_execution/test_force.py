"""Running again what is known already: `force` and `cache` of a request, and why each node ran."""

import itertools

import pytest

from comfy_execution.graph_utils import GraphBuilder
from tests.comfy_execution.rig import INT, Rig, execution, make, node

ANY = ("*", {})


@pytest.fixture
def rig(rig, tmp_path):
    """With Save, which writes a file of a new name each time it runs, and Draw, which never draws alike."""
    drawn = itertools.count()

    def save(self, value):
        name = f"picture_{len(list(tmp_path.iterdir())):05}.txt"
        (tmp_path / name).write_text(str(value))
        rig.note(("Save", value))
        return {"ui": {"images": [name]}}

    rig.add(
        Save=make(save, {"value": ANY}, returns=(), OUTPUT_NODE=True),
        Draw=make(lambda self, value: rig.note("Draw") or (next(drawn),), {"value": INT}),
    )
    rig.saved = lambda: sorted(file.name for file in tmp_path.iterdir())
    return rig


def picture():
    """1 Number -> 2 Add -> 3 Save, and beside them 4 Number -> 5 Show."""
    return {
        "1": node("Number", value=1),
        "2": node("Add", a=["1", 0]),
        "3": node("Save", value=["2", 0]),
        "4": node("Number", value=9),
        "5": node("Show", value=["4", 0]),
    }


def run(rig, prompt=None, **fields):
    """Run a prompt with `force` and `cache` as they come out of the request."""
    result = rig.run(picture() if prompt is None else prompt, extra_data=fields)
    assert result.success
    return result


# -- the rows of the table -----------------------------------------------------------------------------------


def test_who_posts_the_same_prompt_twice_with_force_outputs_gets_the_picture_saved_twice(rig):
    first = run(rig, force="outputs")
    second = run(rig, force="outputs")
    assert first.outputs["3"] == {"images": ["picture_00000.txt"]}
    assert second.outputs["3"] == {"images": ["picture_00001.txt"]}
    assert rig.saved() == ["picture_00000.txt", "picture_00001.txt"]
    assert second.ran == ["3", "5"] and second.cached == ["1", "2", "4"]


def test_without_force_the_second_run_saves_nothing_and_names_the_first_file(rig):
    run(rig)
    assert run(rig).outputs["3"] == {"images": ["picture_00000.txt"]}
    assert rig.saved() == ["picture_00000.txt"]


def test_force_true_runs_every_node_again(rig):
    run(rig)
    forced = run(rig, force=True)
    assert sorted(forced.ran) == ["1", "2", "3", "4", "5"] and forced.cached == []


@pytest.mark.parametrize(
    ("names", "ran"),
    [
        (["3"], ["3"]),
        (["2"], ["2", "3"]),
        (["1"], ["1", "2", "3"]),
        (["4", "3"], ["3", "4", "5"]),
        (["Number"], ["1", "2", "3", "4", "5"]),
        (["Add", "Show"], ["2", "3", "5"]),
        ([], []),
    ],
)
def test_a_list_runs_the_named_nodes_and_what_depends_on_them(rig, names, ran):
    run(rig)
    assert sorted(run(rig, force=names).ran) == ran


def test_cache_write_ignores_stored_results_and_stores_the_new_ones(rig):
    run(rig, {"1": node("Draw", value=0), "2": node("Show", value=["1", 0])})
    prompt = {"1": node("Draw", value=0), "2": node("Show", value=["1", 0])}
    assert run(rig, prompt, cache="write").outputs["2"] == {"text": [1]}
    again = run(rig, prompt)
    assert again.ran == [] and again.outputs["2"] == {"text": [1]}


def test_cache_off_neither_reads_nor_stores(rig):
    prompt = {"1": node("Draw", value=0), "2": node("Show", value=["1", 0])}
    assert run(rig, prompt).outputs["2"] == {"text": [0]}
    assert run(rig, prompt, cache="off").outputs["2"] == {"text": [1]}
    again = run(rig, prompt)
    assert again.ran == [] and again.outputs["2"] == {"text": [0]}


def test_a_prompt_with_cache_off_drops_no_result_of_another_one(rig):
    other = {"9": node("Number", value=77), "10": node("Show", value=["9", 0])}
    run(rig)
    run(rig, other, cache="off")
    assert run(rig).ran == []
    assert sorted(run(rig, other).ran) == ["10", "9"]


def test_cache_off_wins_over_force(rig):
    run(rig)
    assert len(run(rig, force="outputs", cache="off").ran) == 5


def test_cache_read_and_force_false_are_the_rule(rig):
    run(rig)
    assert run(rig, force=False, cache="read").ran == []
    assert run(rig, force=None, cache=None).ran == []


def test_an_executor_with_force_runs_every_prompt_so(registry):
    rig = Rig(force=True)
    prompt = {"1": node("Number", value=1), "2": node("Show", value=["1", 0])}
    rig.run(prompt)
    assert rig.run(prompt).ran == ["1", "2"]
    assert rig.run(prompt, extra_data={"force": "outputs"}).ran == ["1", "2"]


def test_a_field_that_nobody_checked_is_an_error_of_the_prompt(rig):
    run(rig)
    result = rig.run(picture(), extra_data={"force": 3})
    assert not result.success and result.why == {}
    assert "force must be true, false" in result.failure["exception_message"]
    assert result.failure["exception_type"] == "comfy_execution.errors.InvalidRequestError"
    assert run(rig).ran == []


# -- what is stored ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("force", [True, ["1"], ["Draw"]])
def test_a_forced_node_overwrites_its_stored_result(rig, force):
    prompt = {"1": node("Draw", value=0), "2": node("Show", value=["1", 0])}
    run(rig, prompt)
    assert run(rig, prompt, force=force).outputs["2"] == {"text": [1]}
    again = run(rig, prompt)
    assert again.ran == [] and again.outputs["2"] == {"text": [1]}


def test_two_equal_nodes_share_one_result_and_so_one_of_them_runs(rig):
    prompt = {
        "1": node("Number", value=1),
        "2": node("Number", value=1),
        "3": node("Add", a=["1", 0], b=["2", 0]),
        "4": node("Show", value=["3", 0]),
    }
    for fields in ({}, {"force": True}, {"force": ["2"]}, {"cache": "write"}, {"cache": "off"}):
        result = run(rig, prompt, **fields)
        assert rig.calls.count(("Number", 1)) == 1, fields
        assert result.outputs["4"] == {"text": [2]}


def test_a_node_that_shares_its_result_with_a_forced_one_is_called_forced(rig):
    prompt = {
        "1": node("Number", value=1),
        "2": node("Number", value=1),
        "3": node("Show", value=["1", 0]),
        "4": node("Show", value=["2", 0], title="other"),
    }
    run(rig, prompt)
    forced = run(rig, prompt, force=["2", "3"])
    assert forced.ran == ["1", "3", "4"]
    assert forced.why == {"1": "forced", "2": "cached", "3": "forced", "4": "forced"}


def test_a_forced_run_that_fails_leaves_the_old_results(rig):
    state = {"fail": False}

    def work(self, value):
        if state["fail"]:
            raise RuntimeError("not today")
        return (value,)

    rig.add(Work=make(work, {"value": INT}))
    prompt = {"1": node("Work", value=1), "2": node("Show", value=["1", 0])}
    run(rig, prompt)
    state["fail"] = True
    failed = rig.run(prompt, extra_data={"force": True})
    assert not failed.success and failed.why == {"1": "forced"}
    assert run(rig, prompt).ran == []


def test_a_forced_prompt_leaves_results_of_other_prompts_in_an_lru_cache(registry):
    rig = Rig(cache_type=execution.CacheType.LRU, cache_args={"lru": 50})
    one, other = ({"1": node("Number", value=n), "2": node("Show", value=["1", 0])} for n in (1, 2))
    rig.run(one)
    rig.run(other)
    for fields in ({"force": True}, {"cache": "write"}, {"cache": "off"}):
        assert rig.run(other, extra_data=fields).ran == ["1", "2"]
        assert rig.run(one).ran == []


def test_node_objects_are_kept_when_their_node_is_forced(rig):
    rig.add(Counts=make(
        lambda self: (setattr(self, "n", getattr(self, "n", 0) + 1) or self.n,), {}
    ))  # fmt: skip
    prompt = {"1": node("Counts"), "2": node("Show", value=["1", 0])}
    for expected, fields in enumerate([{}, {"force": True}, {"cache": "write"}, {"cache": "off"}], 1):
        assert run(rig, prompt, **fields).outputs["2"] == {"text": [expected]}


def test_without_a_cache_force_changes_nothing(registry):
    rig = Rig(cache_type=execution.CacheType.NONE)
    prompt = {"1": node("Number", value=1), "2": node("Show", value=["1", 0])}
    for fields in ({}, {"force": "outputs"}, {"force": ["1"]}, {"cache": "write"}, {"cache": "off"}):
        result = rig.run(prompt, extra_data=fields)
        assert result.success and result.ran == ["1", "2"]


# -- lists, lazy inputs, expansions, asynchronous nodes ------------------------------------------------------


def test_a_forced_node_over_a_list_is_called_for_each_element_again(rig):
    prompt = {"1": node("Range", value=3), "2": node("Add", a=["1", 0]), "3": node("Show", value=["2", 0])}
    run(rig, prompt)
    forced = run(rig, prompt, force=["2"])
    assert forced.ran == ["2", "3"] and forced.cached == ["1"]
    assert [call[1] for call in rig.calls if call[0] == "Add"] == [0, 1, 2]
    assert forced.outputs["3"] == {"text": [1, 2, 3]}


@pytest.mark.parametrize(
    ("force", "ran"),
    [(True, "1234"), (["1"], "1234"), (["2"], "234"), (["9"], "34")],
)
def test_a_lazy_input_that_is_not_needed_does_not_run_even_when_it_is_forced(rig, force, ran):
    """3 Choose takes 2 (Add of 1) and leaves 9."""
    rig.add(
        Choose=make(
            lambda self, take, a=None, b=None: (a if take else b,),
            {"take": ("BOOLEAN", {}), "a": ("INT", {"lazy": True}), "b": ("INT", {"lazy": True})},
            check_lazy_status=lambda self, take, a=None, b=None: ["a" if take else "b"],
        )
    )
    prompt = {
        "1": node("Number", value=1),
        "2": node("Add", a=["1", 0]),
        "9": node("Number", value=5),
        "3": node("Choose", take=True, a=["2", 0], b=["9", 0]),
        "4": node("Show", value=["3", 0]),
    }
    run(rig, prompt)
    forced = run(rig, prompt, force=force)
    assert "".join(sorted(set(forced.ran))) == ran
    assert forced.outputs["4"] == {"text": [2]}


@pytest.fixture
def expanding(rig):
    """Twice expands into two Adds, one after the other; Keep expands into a Draw and a Save."""

    def twice(self, value):
        graph = GraphBuilder()
        first = graph.node("Add", a=value, b=10)
        return {"result": (graph.node("Add", a=first.out(0), b=20).out(0),), "expand": graph.finalize()}

    def keep(self, value):
        graph = GraphBuilder()
        drawn = graph.node("Draw", value=value)
        graph.node("Save", value=drawn.out(0))
        return {"result": (drawn.out(0),), "expand": graph.finalize()}

    rig.add(Twice=make(twice, {"value": INT}), Keep=make(keep, {"value": INT}))
    return rig


def twice_graph():
    one = node("Number", value=1)
    return {"1": one, "2": node("Twice", value=["1", 0]), "3": node("Show", value=["2", 0])}


@pytest.mark.parametrize("fields", [{"force": True}, {"force": ["1"]}, {"force": ["2"]}, {"cache": "write"}])
def test_nodes_inside_the_expansion_of_a_forced_node_run_again(expanding, fields):
    run(expanding, twice_graph())
    forced = run(expanding, twice_graph(), **fields)
    assert len([call for call in expanding.calls if call[0] == "Add"]) == 2
    assert forced.outputs["3"] == {"text": [31]}
    assert run(expanding, twice_graph()).ran == []


def test_what_comes_after_an_expansion_does_not_repeat_it(expanding):
    run(expanding, twice_graph())
    assert run(expanding, twice_graph(), force=["3"]).ran == ["3"]


def test_a_class_inside_an_expansion_runs_again_when_it_expands_again(expanding):
    prompt = {**twice_graph(), "7": node("Add", a=5), "8": node("Show", value=["7", 0])}
    run(expanding, prompt)
    forced = run(expanding, prompt, force=["Add"])
    assert sorted(forced.ran) == ["7", "8"]
    prompt["1"]["inputs"]["value"] = 2
    assert run(expanding, prompt, force=["Add"]).outputs["3"] == {"text": [32]}


def test_force_outputs_finds_outputs_inside_an_expansion_and_draws_nothing_again(expanding):
    prompt = {"2": node("Keep", value=1), "3": node("Show", value=["2", 0])}
    run(expanding, prompt)
    forced = run(expanding, prompt, force="outputs")
    assert expanding.saved() == ["picture_00000.txt", "picture_00001.txt"]
    assert [call for call in expanding.calls if call == "Draw"] == []
    assert forced.outputs["3"] == {"text": [0]}


def test_equal_nodes_of_several_expansions_run_once_when_forced(expanding):
    prompt = {
        "1": node("Twice", value=1), "2": node("Twice", value=1),
        "3": node("Add", a=["1", 0], b=["2", 0]), "4": node("Show", value=["3", 0]),
    }  # fmt: skip
    run(expanding, prompt)
    for fields in ({"force": True}, {"cache": "off"}):
        run(expanding, prompt, **fields)
        assert expanding.calls.count(("Add", 1, 10)) == 1, fields


def test_cache_off_keeps_stored_results_inside_expansions(expanding):
    prompt = twice_graph()
    run(expanding, prompt)
    inner = len(expanding.executor.caches.outputs)
    run(expanding, prompt, cache="off")
    assert len(expanding.executor.caches.outputs) == inner == 5
    assert run(expanding, prompt, force=["2"]).success
    assert len(expanding.executor.caches.outputs) == 5


def test_a_forced_asynchronous_node_runs_once(rig):
    async def work(self, value):
        import asyncio

        rig.note("Work")
        await asyncio.sleep(0.01)
        return (value,)

    rig.add(Work=make(work, {"value": INT}))
    prompt = {"1": node("Work", value=1), "2": node("Show", value=["1", 0])}
    run(rig, prompt)
    assert run(rig, prompt, force=True).outputs["2"] == {"text": [1]}
    assert rig.calls.count("Work") == 1


def test_an_output_between_other_nodes_runs_again_and_what_follows_it_is_reused(rig):
    rig.add(Peek=make(
        lambda self, value: rig.note("Peek") or {"ui": {"text": [value]}, "result": (value,)},
        {"value": INT}, OUTPUT_NODE=True,
    ))  # fmt: skip
    prompt = {
        "1": node("Number", value=1), "2": node("Peek", value=["1", 0]),
        "3": node("Add", a=["2", 0]), "4": node("Show", value=["3", 0]),
    }  # fmt: skip
    run(rig, prompt)
    assert sorted(run(rig, prompt, force="outputs").ran) == ["2", "4"]


def test_only_the_wanted_outputs_are_forced(rig):
    run(rig)
    assert rig.run(picture(), targets=["5"], extra_data={"force": "outputs"}).ran == ["5"]


def test_a_loop_of_expansions_is_forced_without_recursion(rig):
    def count_down(self, value):
        if value == 0:
            return (0,)
        graph = GraphBuilder()
        return {"result": (graph.node("Down", value=value - 1).out(0),), "expand": graph.finalize()}

    rig.add(Down=make(count_down, {"value": INT}))
    prompt = {"1": node("Down", value=300), "2": node("Show", value=["1", 0])}
    run(rig, prompt)
    for force in (True, ["1"], "outputs"):
        assert run(rig, prompt, force=force).outputs["2"] == {"text": [0]}
