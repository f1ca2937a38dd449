"""Prompts that wait are served together with the one that runs, and get what they would get alone."""

import pytest
import torch

from comfy import interruption
from comfy_execution import merge_sizes, merging, utils
from comfy_execution.merging import CannotMerge
from tests.comfy_execution.rig import INT, Rig, execution, make, node

ANY = ("*", {})


class Crowd:
    """A rig whose waiting prompts the test names. `Draw` can serve several calls; it notes each call."""

    def __init__(self, limit=4, **options):
        self.rig = Rig(**options)
        self.waiting = []
        self.rig.executor.serve_together(limit, lambda most: self.waiting[:most])
        self.calls = []
        self.refuses = None
        self.add_classes()

    def add_classes(self):
        crowd = self

        def draw(self, text, seed, steps=1):
            crowd.calls.append([(text, seed)])
            return (f"{text}/{seed}/{steps}",)

        def draw_many(cls, calls):
            crowd.calls.append([(call["text"], call["seed"]) for call in calls])
            if crowd.refuses is not None:
                raise crowd.refuses
            return [(f"{call['text']}/{call['seed']}/{call.get('steps', 1)}",) for call in calls]

        def key(cls, text, **others):
            return len(text)

        drawing = make(draw, {"text": ANY, "seed": INT}, optional={"steps": INT})
        drawing.MERGE_INPUTS, drawing.MERGE_FUNCTION, drawing.MERGE_KEY = ("text", "seed"), "many", "key"
        drawing.many, drawing.key = classmethod(draw_many), classmethod(key)
        encode = make(lambda self, text: (crowd.rig.note(("Encode", text)) or f"<{text}>",), {"text": ANY})
        self.rig.add(Draw=drawing, Encode=encode)

    def wait(self, prompt_id, graph, outputs=("9",), **extra_data):
        self.waiting.append((0, prompt_id, graph, extra_data, list(outputs), {}))

    def run(self, graph, **options):
        self.calls.clear()
        return self.rig.run(graph, **options)

    def run_first(self):
        _, _, graph, extra_data, *_ = self.waiting.pop(0)
        return self.run(graph, extra_data=extra_data)

    def stats(self):
        return self.rig.executor.merging.stats()


@pytest.fixture
def crowd(registry):
    made = Crowd()
    made.run(picture(text="first", seed=0))  # what one call takes is known from now on
    made.rig.executor.merging._profile.next_size = lambda kind, limit: limit
    return made


def picture(text="a", seed=1, steps=1):
    return {
        "1": node("Encode", text=text),
        "2": node("Draw", text=["1", 0], seed=seed, steps=steps),
        "9": node("Show", value=["2", 0]),
    }


def test_one_call_serves_all_and_each_prompt_finds_its_result(crowd):
    crowd.wait("p2", picture("b", 2))
    crowd.wait("p3", picture("c", 3))
    first = crowd.run(picture("a", 1))
    assert crowd.calls == [[("<a>", 1), ("<b>", 2), ("<c>", 3)]]
    assert first.outputs["9"] == {"text": ["<a>/1/1"]}
    second = crowd.run_first()
    assert crowd.calls == [] and second.ran == ["9"]
    assert second.outputs["9"] == {"text": ["<b>/2/1"]}
    assert second.reasons["2"] == {"reason": "cached", "merged_with": first.messages[0][1]["prompt_id"]}
    assert second.reasons["1"] == {"reason": "cached"}
    assert crowd.run_first().outputs["9"] == {"text": ["<c>/3/1"]}
    assert crowd.stats() == {"calls": 1, "prompts": 3}


def test_no_more_are_served_at_once_than_may(crowd):
    for number in range(6):
        crowd.wait(f"p{number}", picture("b", 10 + number))
    crowd.run(picture("a", 1))
    assert [len(call) for call in crowd.calls] == [4]


def test_the_first_call_of_a_kind_is_alone_and_how_many_follow_is_measured(registry, monkeypatch):
    crowd = Crowd(limit=8)
    now = [0.0]
    monkeypatch.setattr(merging.time, "perf_counter", lambda: now[0])
    took = {1: 1.0, 2: 1.2, 4: 1.6, 8: 8.0}
    original = merge_sizes.Profile.note
    sizes = []

    def note(self, kind, size, seconds):
        sizes.append(size)
        original(self, kind, size, took[size])

    monkeypatch.setattr(merge_sizes.Profile, "note", note)
    for number in range(100):
        crowd.wait(f"p{number}", picture("b", 100 + number))
    for number in range(5):
        crowd.run(picture("a", number))
    assert sizes == [1, 2, 4, 8, 4]


@pytest.mark.parametrize("other", [
    picture("b", 2, steps=2),  # another value where all must be equal
    picture("long text", 2),  # another key
    {"2": node("Add", a=1), "9": node("Show", value=["2", 0])},  # no such node
    {**picture("b", 2), "9": node("Show", value=["1", 0])},  # nobody needs it
    picture("a", 1),  # the very same: it will find the result anyway
], ids=["value", "key", "class", "unneeded", "same"])  # fmt: skip
def test_what_is_not_alike_is_left_alone(crowd, other):
    crowd.wait("p2", other)
    first = crowd.run(picture("a", 1))
    assert crowd.calls == [[("<a>", 1)]]
    assert first.outputs["9"] == {"text": ["<a>/1/1"]}
    assert crowd.run_first().success


def test_links_count_by_what_they_lead_to_and_not_by_ids(crowd):
    graph = picture("a", 1, steps=["5", 0]) | {"5": node("Number", value=7)}
    same = {"x": node("Encode", text="b"), "n": node("Number", value=7), "9": node("Show", value=["d", 0]),
            "d": node("Draw", text=["x", 0], seed=2, steps=["n", 0])}
    crowd.wait("p2", same)
    crowd.wait("p3", picture("c", 3, steps=["5", 0]) | {"5": node("Number", value=8)})
    crowd.run(graph)
    assert crowd.calls == [[("<a>", 1), ("<b>", 2)]]
    assert crowd.run_first().outputs["9"] == {"text": ["<b>/2/7"]}


@pytest.mark.parametrize("asked", [
    {"force": True}, {"force": ["2"]}, {"force": "outputs"}, {"cache": "off"}, {"cache": "write"},
    {"force": 5},
], ids=str)  # fmt: skip
def test_a_prompt_that_wants_its_nodes_to_run_is_not_served_ahead(crowd, asked):
    crowd.wait("p2", picture("b", 2), **asked)
    crowd.run(picture("a", 1))
    assert crowd.calls == [[("<a>", 1)]]


def test_a_running_prompt_that_keeps_no_results_serves_nobody(crowd):
    crowd.wait("p2", picture("b", 2))
    crowd.run(picture("a", 1), extra_data={"cache": "off"})
    assert crowd.calls == [[("<a>", 1)]]
    crowd.run(picture("a", 1), extra_data={"force": True})
    assert crowd.calls == [[("<a>", 1), ("<b>", 2)]], "a forced one may"


@pytest.mark.parametrize("mode", ["CLASSIC", "LRU", "NONE"])
def test_modes_that_do_not_keep_results_of_others_serve_nobody(registry, mode):
    crowd = Crowd(cache_type=execution.CacheType[mode], cache_args={"lru": 5})
    crowd.run(picture("a", 0))
    crowd.wait("p2", picture("b", 2))
    crowd.run(picture("a", 1))
    assert crowd.calls == [[("<a>", 1)]]


@pytest.mark.parametrize("above", [
    {"1": node("Outcry", text="b")},  # it shows something
    {"1": node("Slow", text="b")},  # it is asynchronous
    {"1": node("Lazy", text="b")},
    {"1": node("Restless", text="b")},  # IS_CHANGED gives NaN: its result could not be found again
    {"1": node("Fails", text="b")},
    {"1": node("Expands", text="b")},
    {"1": node("Blocks", text="b")},
    {"1": node("Many", text="b")},  # several calls
], ids=lambda graph: graph["1"]["class_type"])  # fmt: skip
def test_only_plain_nodes_are_computed_ahead_and_others_run_in_their_turn(crowd, above):
    add_odd_classes(crowd.rig)
    crowd.wait("p2", {**picture("b", 2), **above})
    crowd.wait("p3", picture("c", 3))
    first = crowd.run(picture("a", 1))
    assert crowd.calls == [[("<a>", 1), ("<c>", 3)]]
    assert first.success and first.of("execution_error") == []
    crowd.run_first()
    assert crowd.run_first().outputs["9"] == {"text": ["<c>/3/1"]}


def add_odd_classes(rig):
    text = {"text": ANY}

    async def slow(self, text):
        return (text,)

    def fails(self, text):
        raise RuntimeError("not today")

    restless = make(lambda self, text: (text,), text)
    restless.IS_CHANGED = classmethod(lambda cls, **inputs: float("nan"))
    lazy = make(lambda self, text: (text,), text)
    lazy.check_lazy_status = lambda self, **inputs: []
    expand = {"result": (["x", 0],), "expand": {"x": node("Encode", text="inner")}}
    rig.add(
        Outcry=make(lambda self, text: {"ui": {"text": [text]}, "result": (text,)}, text),
        Slow=make(slow, text), Lazy=lazy, Restless=restless, Fails=make(fails, text),
        Expands=make(lambda self, text: expand, text),
        Blocks=make(lambda self, text: (execution.ExecutionBlocker("stop"),), text),
        Many=make(lambda self, text: ([text, text + "!"],), text, OUTPUT_IS_LIST=(True,)),
    )  # fmt: skip


@pytest.mark.parametrize("error", [CannotMerge("never"), torch.cuda.OutOfMemoryError("full"), KeyError("x")])
def test_when_it_fails_each_is_served_alone_and_it_is_not_tried_again(registry, error):
    crowd = Crowd()
    crowd.run(picture("a", 0))
    crowd.refuses = error
    crowd.wait("p2", picture("b", 2))
    first = crowd.run(picture("a", 1))
    assert crowd.calls == [[("<a>", 1), ("<b>", 2)], [("<a>", 1)]]
    assert first.outputs["9"] == {"text": ["<a>/1/1"]}
    second = crowd.run(picture("a", 3))
    assert crowd.calls == [[("<a>", 3)]] and second.success
    assert crowd.run_first().outputs["9"] == {"text": ["<b>/2/1"]}


def test_a_wish_to_stop_ends_the_running_prompt_only(crowd):
    crowd.refuses = interruption.InterruptProcessingException()
    crowd.wait("p2", picture("b", 2))
    first = crowd.run(picture("a", 1))
    assert not first.success and first.of("execution_interrupted")
    crowd.refuses = None
    assert crowd.run_first().outputs["9"] == {"text": ["<b>/2/1"]}


def test_wrong_numbers_of_results_are_noticed(crowd):
    crowd.rig.executor.merging._profile.next_size = lambda kind, limit: 2
    import nodes

    nodes.NODE_CLASS_MAPPINGS["Draw"].many = classmethod(lambda cls, calls: [("one",)])
    crowd.wait("p2", picture("b", 2))
    assert crowd.run(picture("a", 1)).outputs["9"] == {"text": ["<a>/1/1"]}


def test_nodes_that_are_computed_ahead_belong_to_no_running_node(crowd):
    seen = []

    def look(self, text):
        seen.append((utils.get_executing_context(), utils.is_ahead()))
        return (text,)

    crowd.rig.add(Look=make(look, {"text": ANY}))
    crowd.wait("p2", {**picture("b", 2), "1": node("Look", text="b")})
    crowd.run({**picture("a", 1), "1": node("Look", text="a")})
    (context, ahead), (none, is_ahead) = seen
    assert (context.node_id, ahead) == ("1", False) and (none, is_ahead) == (None, True)


def test_the_waiting_graph_is_not_changed(crowd):
    changes = classmethod(lambda cls, text: text)
    crowd.rig.add(Told=make(lambda self, text: (text,), {"text": ANY}, IS_CHANGED=changes))
    graph = {**picture("b", 2), "1": node("Told", text="b")}
    crowd.wait("p2", graph)
    crowd.run({**picture("a", 1), "1": node("Told", text="a")})
    assert crowd.calls[0] == [("a", 1), ("b", 2)] and graph["1"] == node("Told", text="b")


def test_a_class_that_does_not_merge_costs_no_look_at_the_queue(registry):
    crowd = Crowd()
    looks = []
    crowd.rig.executor.serve_together(4, lambda most: looks.append(most) or [])
    crowd.run({"1": node("Number", value=1), "9": node("Show", value=["1", 0])})
    assert looks == []
