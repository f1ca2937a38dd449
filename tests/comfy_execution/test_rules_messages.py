"""What clients hear, message by message."""

from comfy_execution import graph
from tests.comfy_execution.rig import INT, make, node


def test_a_cached_output_that_shows_nothing_is_named_all_the_same(rig):
    rig.add(Quiet=make(lambda self, value: {}, {"value": INT}, returns=(), OUTPUT_NODE=True))
    prompt = {"1": node("Quiet", value=1)}
    assert rig.run(prompt).of("executed") == []
    again = rig.run(prompt)
    assert again.of("executed") == [
        {"node": "1", "display_node": "1", "output": None, "prompt_id": "prompt-2"}
    ]
    assert again.outputs == {}


def test_errors_of_the_graph_have_the_names_that_clients_know():
    for error in (graph.DependencyCycleError, graph.NodeInputError, graph.NodeNotFoundError):
        assert (error.__module__, getattr(graph, error.__name__)) == ("comfy_execution.graph", error)
