"""The whole idea in ten seconds: a list, a manifest, a graph that runs, a cache that holds, an error that
helps.
"""

import asyncio

import pytest

import execution
import folder_paths
import nodes
from comfy.cli_args import args
from comfy_depot.errors import UnsafeName
from comfy_depot.layout import safe_name


class Recorder:
    """A host that keeps what the executor sends."""

    def __init__(self):
        self.client_id = self.last_node_id = self.last_prompt_id = None
        self.sockets_metadata = {}
        self.events = []

    def send_sync(self, event, data, sid=None):
        self.events.append((event, data))

    def queue_updated(self):
        """Nobody looks at the queue here."""


class TinyAdd:
    """Adds two numbers, and counts how often."""

    calls = 0
    RETURN_TYPES = ("INT",)
    FUNCTION = "add"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"a": ("INT", {}), "b": ("INT", {"max": 9})}}

    def add(self, a, b):
        TinyAdd.calls += 1
        return (a + b,)


class TinyShow:
    """Shows a number."""

    RETURN_TYPES = ()
    OUTPUT_NODE = True
    FUNCTION = "show"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"value": ("INT", {})}}

    def show(self, value):
        return {"ui": {"text": [value]}}


@pytest.fixture
def tiny_nodes(monkeypatch):
    TinyAdd.calls = 0
    for node in (TinyAdd, TinyShow):
        monkeypatch.setitem(nodes.NODE_CLASS_MAPPINGS, node.__name__, node)


def graph(b):
    return {
        "1": {"class_type": "TinyAdd", "inputs": {"a": 1, "b": b}},
        "2": {"class_type": "TinyShow", "inputs": {"value": ["1", 0]}},
    }


def run(executor, prompt):
    valid, error, outputs, node_errors = asyncio.run(execution.validate_prompt("p", prompt, None))
    assert valid, (error, node_errors)
    executor.execute(prompt, "p", {"client_id": "me"}, outputs)
    return executor.history_result["outputs"]


def test_a_graph_runs_and_its_second_run_comes_from_the_cache(tiny_nodes):
    executor = execution.PromptExecutor(Recorder())
    assert run(executor, graph(2)) == {"2": {"text": [3]}}
    assert run(executor, graph(2)) == {"2": {"text": [3]}}
    assert TinyAdd.calls == 1
    assert run(executor, graph(3)) == {"2": {"text": [4]}}
    assert TinyAdd.calls == 2


def test_a_value_over_the_maximum_is_refused_on_its_node(tiny_nodes):
    valid, error, _, node_errors = asyncio.run(execution.validate_prompt("p", graph(10), None))
    assert not valid and error["type"] == "prompt_outputs_failed_validation"
    assert node_errors["1"]["errors"][0]["type"] == "value_bigger_than_max"


def test_a_hostile_name_passes_no_gate():
    with pytest.raises(UnsafeName, match="passwd"):
        safe_name("../../etc/passwd")
    assert safe_name("sub/model.safetensors") == "sub/model.safetensors"


def test_a_file_on_disk_stands_in_its_list_and_an_unknown_folder_does_not(tmp_path):
    before = dict(vars(args))
    try:
        args.base_directory = str(tmp_path)
        folder_paths.apply_arguments(args)
        (tmp_path / "models/vae").mkdir(parents=True)
        (tmp_path / "models/vae/mine.safetensors").touch()
        assert folder_paths.get_filename_list("vae") == ["mine.safetensors"]
        with pytest.raises(KeyError):
            folder_paths.get_filename_list("no such folder")
    finally:
        vars(args).clear()
        vars(args).update(before)
        folder_paths.apply_arguments(args)
