"""What clients hear, message by message."""

from comfy_execution import graph
from tests.comfy_execution.rig import INT, execution, make, node


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


def test_what_a_pack_puts_in_the_place_of_send_sync_is_called(rig):
    heard = []
    rig.host.send_sync = lambda event, data, sid=None: heard.append(event)
    rig.run({"1": node("Show", value=1)})
    assert "executing" in heard and heard[-1] == "execution_success"


def test_a_node_that_raises_the_interruption_counts_as_interrupted(rig):
    def stop(self):
        raise execution.comfy.interruption.InterruptProcessingException

    rig.add(Stop=make(stop, {}, returns=(), OUTPUT_NODE=True))
    result = rig.run({"1": node("Stop")})
    assert not result.success and result.failure is None
    assert [data["node_id"] for data in result.of("execution_interrupted")] == ["1"]


def test_an_array_of_a_text_and_a_number_is_a_link_even_where_a_list_is_meant(rig):
    (error,) = rig.validate({"1": node("Show", value=["gone", 0])}).node_errors["1"]["errors"]
    assert error["type"] == "exception_during_validation"
    assert error["extra_info"]["exception_type"] == "KeyError"
