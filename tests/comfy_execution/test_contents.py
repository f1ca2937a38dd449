"""Results are of the bytes of a model, not of its name: another content is another result."""

import gc
import weakref
from types import SimpleNamespace

import pytest
import torch

from comfy_api.latest import io
from comfy_depot import hooks
from comfy_execution.results.of_models import ResultsOfModels
from tests.comfy_execution.rig import INT, Rig, execution, make, node, schema_node

CACHED = {"reason": "cached"}
LIST = ["a.safetensors", "b.safetensors"]
MODES = [execution.CacheType.BUDGET, execution.CacheType.CLASSIC, execution.CacheType.LRU]


class Depot:
    """Knows the content of each model, and has none in memory."""

    residents = SimpleNamespace(free_idle=lambda: False)

    def __init__(self):
        self.contents = {name: f"{name} of old" for name in LIST}
        self.asked = []

    def contents_of(self, chosen):
        found = {}
        for node_id, text, choices in chosen:
            self.asked.append((node_id, text, list(choices)))
            if text in self.contents:
                found.setdefault(node_id, {})[f"loras/{text}"] = self.contents[text]
        return found


@pytest.fixture
def depot():
    made = Depot()
    hooks.arm(made)
    yield made
    hooks.disarm()


def rig_of(depot, mode=execution.CacheType.BUDGET):
    """Load gives the content of now, Use what it is given."""
    rig = Rig(cache_type=mode, cache_args={"lru": 100})

    def load(self, name, mark=0):
        rig.note(("Load", name))
        return (depot.contents[name],)

    def use(self, value, times=1):
        rig.note(("Use", value))
        return (value,)

    rig.add(
        Load=make(load, {"name": (LIST, {})}, optional={"mark": INT}),
        Use=make(use, {"value": ("*", {})}, optional={"times": INT}),
    )
    return rig


def graph(name="a.safetensors", **more):
    return {
        "1": node("Load", name=name),
        "2": node("Use", value=["1", 0], **more),
        "3": node("Show", value=["2", 0]),
    }


@pytest.mark.parametrize("mode", MODES)
def test_another_content_runs_the_loader_and_what_depends_on_it_and_nothing_else(depot, mode):
    rig = rig_of(depot, mode)
    both = {**graph(), "4": node("Load", name="b.safetensors"), "5": node("Show", value=["4", 0])}
    rig.run(both)
    assert rig.run(both).ran == []
    depot.contents["a.safetensors"] = "new"
    result = rig.run(both)
    assert result.outputs["3"] == {"text": ["new"]}
    assert result.reasons == {
        "1": {"reason": "changed", "inputs": [], "upstream": [], "models": ["loras/a.safetensors"]},
        "2": {"reason": "changed", "inputs": [], "upstream": ["1"]},
        "3": {"reason": "changed", "inputs": [], "upstream": ["2"]}, "4": CACHED, "5": CACHED,
    }
    assert rig.run(both).ran == []


def test_a_content_that_comes_back_finds_its_results_again(depot):
    rig = rig_of(depot)
    rig.run(graph())
    for content in ("new", "a.safetensors of old"):
        depot.contents["a.safetensors"] = content
        result = rig.run(graph())
        assert result.outputs["3"] == {"text": [content]}
    assert result.ran == []


@pytest.mark.parametrize("mode", MODES)
def test_what_was_made_of_other_bytes_than_its_key_says_is_never_found(depot, mode):
    """The model is replaced after the prompt began and before its loader asks for it; then turned back."""
    rig = rig_of(depot, mode)

    def replace(self):
        depot.contents["a.safetensors"] = "new"
        return (1,)

    rig.add(Replace=make(replace, {}))
    late = graph()
    late["1"]["inputs"]["mark"] = ["0", 0]
    rig.run({"0": node("Replace"), **late})
    depot.contents["a.safetensors"] = "a.safetensors of old"
    result = rig.run({"0": node("Replace"), **late})
    if mode is not execution.CacheType.CLASSIC:
        assert result.reasons["0"] == CACHED
    assert result.ran[-3:] == ["1", "2", "3"]
    assert result.outputs["3"] == {"text": ["a.safetensors of old"]}
    assert rig.run({"0": node("Replace"), **late}).ran == []


def test_only_what_is_chosen_from_a_list_is_a_model_also_in_schemas_and_lists(depot):
    rig = rig_of(depot)
    given = []
    rig.add(
        Text=make(lambda self, text: (text,), {"text": ("STRING", {})}),
        Plain=make(lambda self, name: (name,), {"name": ("COMBO", {"options": LIST})}),
        Schema=schema_node(
            lambda cls, name: given.append(name) or (0,), inputs=[io.Combo.Input("name", options=LIST)]
        ),
    )
    rig.run({
        "1": node("Text", text=LIST[0]), "2": node("Plain", name=LIST[1]), "3": node("Schema", name=LIST[0]),
        "4": node("Load", name=LIST[0]), "5": node("Show", value=["1", 0]), "6": node("Show", value=["2", 0]),
        "7": node("Show", value=["3", 0]), "8": node("Show", value=["4", 0]),
    })
    assert {one for one, *_ in depot.asked} == {"2", "3", "4"}
    assert all(choices == LIST for *_, choices in depot.asked)


def test_a_class_that_cannot_say_its_inputs_fails_by_itself_and_the_others_are_asked(depot):
    rig = rig_of(depot)
    broken = make(lambda self: (1,), {})
    rig.add(Broken=broken)
    prompt = {"0": node("Broken"), **graph(), "9": node("Show", value=["0", 0])}
    rig.run(prompt)
    broken.INPUT_TYPES = classmethod(lambda cls: 1 / 0)
    depot.asked.clear()
    rig.executor.execute(prompt, "p", {"client_id": "client"}, ["3"])
    assert rig.executor.success and [one for one, *_ in depot.asked] == ["1"]


def test_models_inside_an_expansion_count(depot):
    from comfy_execution.graph_utils import GraphBuilder

    rig = rig_of(depot)

    def expand(self):
        builder = GraphBuilder()
        load = builder.node("Load", name=LIST[0])
        return {"result": (load.out(0),), "expand": builder.finalize()}

    rig.add(Expand=make(expand, {}))
    prompt = {"1": node("Expand"), "2": node("Show", value=["1", 0])}
    rig.run(prompt)
    assert any(text == LIST[0] for _, text, _ in depot.asked)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_the_old_weights_are_let_go_when_the_next_prompt_begins_and_plain_results_stay(depot, mode):
    class Patcher:
        def __init__(self, model):
            self.model = model

    rig, weights = rig_of(depot, mode), []

    def load(self, name):
        module = torch.nn.Linear(8, 8)
        weights.append(weakref.ref(module))
        return (Patcher(module),)

    rig.add(
        LoadModel=make(load, {"name": (LIST, {})}),
        Clone=make(lambda self, model: (Patcher(model.model),), {"model": ("*", {})}),
        Picture=make(lambda self, model: ("picture",), {"model": ("*", {})}),
    )

    def prompt(name):
        return {"1": node("LoadModel", name=name), "2": node("Clone", model=["1", 0]),
                "3": node("Picture", model=["2", 0]), "4": node("Show", value=["3", 0])}

    rig.run(prompt(LIST[1]))
    rig.run(prompt(LIST[0]))
    depot.contents[LIST[0]] = "new"
    assert rig.run(prompt(LIST[0])).ran == ["1", "2", "3", "4"]
    gc.collect()
    other, old, new = (weight() is not None for weight in weights)
    assert (old, new) == (False, True)
    assert other is (mode is not execution.CacheType.CLASSIC), "the model of another workflow stays"
    depot.contents[LIST[0]] = f"{LIST[0]} of old"
    why = rig.run(prompt(LIST[0])).reasons
    if mode is not execution.CacheType.CLASSIC:
        assert why["4"] == why["3"] == CACHED, "plain results stay, and are found when it is turned back"


def test_a_prompt_that_stores_nothing_leaves_the_old_weights_to_the_next_one_to_let_go(depot):
    rig = rig_of(depot)

    class Patcher:
        def __init__(self, model):
            self.model = model

    def load(self, name):
        weights.append(weakref.ref(module := torch.nn.Linear(8, 8)))
        return (Patcher(module),)

    weights = []
    rig.add(
        LoadModel=make(load, {"name": (LIST, {})}),
        Picture=make(lambda self, model: ("picture",), {"model": ("*", {})}),
    )
    prompt = {"1": node("LoadModel", name=LIST[0]), "2": node("Picture", model=["1", 0]),
              "3": node("Show", value=["2", 0])}
    rig.run(prompt)
    depot.contents[LIST[0]] = "new"
    rig.run(prompt, extra_data={"cache": "off"})
    rig.run(prompt)
    gc.collect()
    assert [weight() is not None for weight in weights] == [False, False, True]


def test_results_are_known_by_all_models_below_them_up_to_a_limit():
    results = ResultsOfModels(limit=3)
    assert results.replaced([{"a": "1", "b": "1"}]) == []
    results.note(b"loader of a", ["a"], [])
    results.note(b"loader of b", ["b"], [])
    results.note(b"both", [], [b"loader of a", b"loader of b"])
    results.note(b"none", [], [b"unknown"])
    assert results.replaced([{"b": "1"}, {"a": "1"}]) == []
    assert results.replaced([{"b": "2"}]) == [b"loader of b", b"both"]
    assert results.replaced([{"b": "2"}]) == []
    for number in range(3):
        results.note(b"%d" % number, ["a"], [])
    assert results.replaced([{"a": "2"}]) == [b"0", b"1", b"2"], "the oldest is not remembered"
