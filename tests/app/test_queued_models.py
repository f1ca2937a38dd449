"""What the prompts of the queue will open, in the order in which their nodes will run."""

import nodes
from app import queued_models
from comfy_depot.host import Chosen
from execution import PromptQueue
from tests.app.conftest import Echo


class Load:
    """A loader with a list that it chooses from, and a text that it does not."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"name": (["a", "b", "c"],), "text": ("STRING", {})},
                "optional": {"more": ("COMBO", {"options": ["x", "y"], "multiselect": True}),
                             "model": ("MODEL",), "lazy": ("MODEL", {"lazy": True})}}

    RETURN_TYPES = ("MODEL",)
    FUNCTION = "run"


class Broken(Load):
    """A class whose declaration fails."""

    @classmethod
    def INPUT_TYPES(cls):
        raise RuntimeError("no list today")


class Use(Echo):
    """An output that needs models."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"one": ("MODEL",)}, "optional": {"two": ("MODEL",)}}


def load(name, **inputs):
    return {"class_type": "Load", "inputs": {"name": name, "text": "b", **inputs}}


def texts(graph, *outputs):
    return [chosen.text for chosen in queued_models.chosen_values(graph, outputs)]


def register():
    nodes.NODE_CLASS_MAPPINGS.update(Load=Load, Broken=Broken, Use=Use)


def test_choices_count_in_the_order_of_running_and_texts_do_not(base):
    register()
    graph = {
        "9": {"class_type": "Use", "inputs": {"one": ["2", 0]}},
        "2": load("b", model=["1", 0]),
        "1": load("a"),
        "5": load("c"),
    }
    assert texts(graph, "9") == ["a", "b"], "node 5 runs for nobody"
    assert queued_models.chosen_values(graph, ["9"])[0] == Chosen("a", ["a", "b", "c"])


def test_several_choices_of_one_input_all_count(base):
    register()
    graph = {"1": load("a", more=["x", "y"]), "9": {"class_type": "Use", "inputs": {"one": ["1", 0]}}}
    assert texts(graph, "9") == ["a", "x", "y"]


def test_what_is_behind_a_lazy_input_comes_last(base):
    register()
    graph = {"1": load("a"), "2": load("b", lazy=["1", 0]), "9": {"class_type": "Use", "inputs": {
        "one": ["2", 0]}}}
    assert texts(graph, "9") == ["b", "a"]


def test_a_node_that_cannot_be_asked_does_not_hide_the_others(base):
    register()
    graph = {"1": {**load("a"), "class_type": "Broken"}, "2": load("b"), "9": {
        "class_type": "Use", "inputs": {"one": ["1", 0], "two": ["2", 0]}}}
    assert texts(graph, "9") == ["b"]


class Listener:
    number = 0

    def queue_updated(self):
        pass


def test_the_running_prompt_comes_first_and_only_so_many_wait(base):
    queue = PromptQueue(Listener())
    for number, tenant in enumerate(("x", "y", "x", "")):
        extra = {"tenant": tenant} if tenant else {}
        queue.put((number, f"p{number}", {"1": load("a")}, extra, ["1"], {}))
    queue.get()
    found = queued_models.queued_prompts(queue, 2)
    assert [(one.prompt_id, one.tenant, one.outputs) for one in found] == [
        ("p0", "x", ("1",)), ("p1", "y", ("1",)), ("p3", None, ("1",))]
    assert queued_models.tenant_of(queue, "p0") == "x" and queued_models.tenant_of(queue, "p3") is None


async def test_each_change_of_the_queue_wakes_the_depot(client, echo, monkeypatch):
    from comfy_depot import hooks

    class Depot:
        woken = 0

        def __init__(self):
            self.preload = self

        def wake(self):
            Depot.woken += 1

    monkeypatch.setattr(hooks, "_depot", Depot())
    graph = {"1": {"class_type": "Echo", "inputs": {"text": "a"}}}
    prompt = await (await client.post("/prompt", json={"prompt": graph})).json()
    accepted = Depot.woken
    await client.post("/queue", json={"delete": [prompt["prompt_id"]]})
    assert Depot.woken > accepted > 0
