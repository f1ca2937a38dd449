"""What the prompts of upstream's queue have chosen from lists, in the order of need."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from comfy_depot.host import Chosen, QueuedPrompt
from comfy_depot.upstream import core, waiting
from tests.fakes.upstream_queue import Server


class Loader:
    """A node class as ever, and, in the second form of its list, one of the newer kind."""

    @classmethod
    def INPUT_TYPES(cls) -> Any:
        return {"required": {"name": (["a.safetensors", "b.safetensors"],), "text": ("STRING", {})},
                "optional": {"vae": ("COMBO", {"options": ["v.safetensors"]}), "link": ("MODEL",)}}


class Broken:
    @classmethod
    def INPUT_TYPES(cls) -> Any:
        raise RuntimeError("a pack's own mistake")


@pytest.fixture(autouse=True)
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    server = Server()
    monkeypatch.setattr(core, "server", lambda: server)
    monkeypatch.setattr(core, "nodes", lambda: SimpleNamespace(
        NODE_CLASS_MAPPINGS={"Loader": Loader, "Broken": Broken}))
    return server


def node(class_type: str = "Loader", **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


@pytest.mark.parametrize("more", [(), ({"api_key": "secret"},)], ids=["five fields", "six fields"])
def test_an_item_of_the_queue_is_a_prompt(server: Server, more: tuple[Any, ...]) -> None:
    graph = {"1": node(name="a")}
    server.prompt_queue.put((3, "p1", graph, {"tenant": "alice"}, ["1"], *more))
    assert waiting.queued_prompts(5) == [QueuedPrompt("p1", graph, ("1",), "alice")]
    assert waiting.queued_prompts(5)[0].graph is graph, "the same object, by which it is known again"


def test_before_there_is_a_server_nothing_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "server", lambda: None)
    assert waiting.queued_prompts(5) == [] and waiting.models_in_use() == set()


def test_every_text_of_a_prompt_may_be_a_model_in_use(server: Server) -> None:
    graph = {"1": node(name="sub\\a.safetensors", steps=3), "2": {"class_type": "Odd"}}
    graph["3"] = node(name=["b.safetensors", "c.safetensors", ""])
    server.prompt_queue.put((0, "p1", graph, {}, []))
    used = waiting.models_in_use()
    assert {("checkpoints", "sub/a.safetensors"), ("vae", "sub/a.safetensors"),
            ("checkpoints", "c.safetensors")} <= used


def test_choices_come_with_their_lists_in_the_order_of_need() -> None:
    graph = {"9": node(name="b.safetensors", link=["4", 0], text="free"), "4": node(vae="v.safetensors"),
             "7": node(name="a.safetensors"), "5": node("Broken", name="x"), "6": node("Gone", name="x")}
    outputs = ("9", "5", "6", "missing")
    both = ["a.safetensors", "b.safetensors"]
    assert waiting.chosen(QueuedPrompt("p1", graph, outputs)) == [
        Chosen("v.safetensors", ["v.safetensors"]), Chosen("b.safetensors", both)]


def test_several_texts_of_one_choice_count_and_a_link_does_not() -> None:
    both = QueuedPrompt("p1", {"1": node(name=["a.safetensors", "b.safetensors", 3])}, ("1",))
    assert [chosen.text for chosen in waiting.chosen(both)] == ["a.safetensors", "b.safetensors"]
    link = QueuedPrompt("p1", {"1": node(name=["2", 0])}, ("1",))
    assert waiting.chosen(link) == []


def test_a_circle_and_a_long_chain_have_an_order() -> None:
    circle = {"1": node(link=["2", 0]), "2": node(link=["1", 0])}
    assert waiting.running_order(circle, ["1"]) == ["2", "1"]
    chain = {str(number): node(link=[str(number + 1), 0]) for number in range(5000)}
    assert waiting.running_order(chain, ["0"])[0] == "4999"


@pytest.mark.parametrize(("spec", "choices"), [
    ((["a"],), ["a"]), ((("a", "b"), {}), ["a", "b"]), (("COMBO", {"options": ["a"]}), ["a"]),
    (("COMBO", {}), []), (("COMBO",), []), (("STRING", {"options": ["a"]}), None), ((), None), (None, None),
])  # fmt: skip
def test_the_list_of_an_input(spec: Any, choices: list[str] | None) -> None:
    assert waiting.choices_of(spec) == choices
