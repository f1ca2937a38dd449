"""Nodes with a life of their own: expansions, blockers, asynchronous, failing and interrupted ones."""

import asyncio
import time

from comfy.model_management import InterruptProcessingException, throw_exception_if_processing_interrupted
from comfy.utils import ProgressBar
from comfy_execution.graph_utils import ExecutionBlocker, GraphBuilder
from comfy_execution.utils import get_executing_context

from .declare import ANY, BOOLEAN, FLOAT, INT, PREFIX, STRING, node, shown

# -- expansions --------------------------------------------------------------------------------------------


# An input that no class declares: it tells equal nodes in two expansions apart, and is not passed to them.
SALT = {"salt": INT}


def expanded(graph, *results, **more):
    """What a node returns to put a graph in its place."""
    return {"result": results, "expand": graph.finalize(), **more}


@node("ExpandAdd", {"a": INT, "b": INT}, optional=SALT)
def expand_add(self, a, b, salt=0):
    graph = GraphBuilder()
    first = graph.node(PREFIX + "Add", a=a, b=b, salt=salt)
    return expanded(graph, graph.node(PREFIX + "Add", a=first.out(0), b=100, salt=salt).out(0))


@node("ExpandShow", {"value": INT}, optional=SALT, returns=("INT",))
def expand_show(self, value, salt=0):
    graph = GraphBuilder()
    inner = graph.node(PREFIX + "Add", a=value, b=1, salt=salt)
    graph.node(PREFIX + "Show", value=inner.out(0), salt=salt)
    return expanded(graph, inner.out(0))


@node("ExpandOutput", {"value": INT}, returns=(), output=True)
def expand_output(self, value):
    graph = GraphBuilder()
    graph.node(PREFIX + "Show", value=value)
    return expanded(graph, ui={"text": [value]})


@node("Loop", {"value": INT, "rounds": INT}, optional=SALT)
def loop(self, value, rounds, salt=0):
    if rounds <= 0:
        return (value,)
    graph = GraphBuilder()
    more = graph.node(PREFIX + "Add", a=value, b=1, salt=salt)
    return expanded(
        graph, graph.node(PREFIX + "Loop", value=more.out(0), rounds=rounds - 1, salt=salt).out(0)
    )


@node("ExpandTwo", {"kept": INT, "seed": INT}, optional=SALT, returns=("INT", "INT"))
def expand_two(self, kept, seed, salt=0):
    graph = GraphBuilder()
    one = graph.node(PREFIX + "Count", value=kept, salt=salt)
    other = graph.node(PREFIX + "Count", "named", value=seed, salt=salt)
    return expanded(graph, one.out(0), other.out(0))


@node("ExpandList", {"stop": INT}, OUTPUT_IS_LIST=(True,))
def expand_list(self, stop):
    graph = GraphBuilder()
    return expanded(graph, graph.node(PREFIX + "Range", stop=stop).out(0))


@node("ExpandListAsValue", {"stop": INT})
def expand_list_as_value(self, stop):
    graph = GraphBuilder()
    return expanded(graph, graph.node(PREFIX + "Range", stop=stop).out(0))


@node("ExpandOdd", {"value": INT}, optional=SALT)
def expand_odd(self, value, salt=0):
    """Expands for odd values only."""
    if value % 2 == 0:
        return (value,)
    graph = GraphBuilder()
    return expanded(graph, graph.node(PREFIX + "Add", a=value, b=1000, salt=salt).out(0))


@node("ExpandMixed", {"value": INT}, optional=SALT, returns=("INT", "INT"))
def expand_mixed(self, value, salt=0):
    graph = GraphBuilder()
    return expanded(graph, -1, graph.node(PREFIX + "Add", a=value, b=1, salt=salt).out(0))


@node("ExpandSwitch", {"on": BOOLEAN, "value": INT}, returns=("*",))
def expand_switch(self, on, value):
    graph = GraphBuilder()
    yes, no = graph.node(PREFIX + "Add", a=value, b=1), graph.node(PREFIX + "Add", a=value, b=2)
    chosen = graph.node(PREFIX + "Switch", on=on, if_true=yes.out(0), if_false=no.out(0))
    return expanded(graph, chosen.out(0))


@node("ExpandFail", {"value": INT})
def expand_fail(self, value):
    graph = GraphBuilder()
    return expanded(graph, graph.node(PREFIX + "Fail", value=value, message="inside").out(0))


@node("ExpandShown", {"value": INT})
def expand_shown(self, value):
    """The inner node is shown on another node of the prompt."""
    graph = GraphBuilder()
    inner = graph.node(PREFIX + "Preview", value=value)
    inner.set_override_display_id("s")
    return expanded(graph, inner.out(0))


@node("ExpandCircle", {"value": INT})
def expand_circle(self, value):
    graph = GraphBuilder()
    one, other = graph.node(PREFIX + "Add", b=1), graph.node(PREFIX + "Add", b=2)
    one.set_input("a", other.out(0))
    other.set_input("a", one.out(0))
    return expanded(graph, one.out(0))


@node("ExpandUnknown", {"value": INT})
def expand_unknown(self, value):
    graph = GraphBuilder()
    return expanded(graph, graph.node("NoSuchClass", value=value).out(0))


# -- blockers ----------------------------------------------------------------------------------------------


@node("Block", {"value": ANY, "on": BOOLEAN, "message": STRING}, returns=("*",))
def block(self, value, on, message):
    return (ExecutionBlocker(message or None) if on else value,)


@node("BlockAll", {"message": STRING}, returns=("*", "*"))
def block_all(self, message):
    return ExecutionBlocker(message or None)


@node("BlockOdd", {"value": INT, "message": STRING})
def block_odd(self, value, message):
    return (ExecutionBlocker(message or None) if value % 2 else value,)


# -- ends --------------------------------------------------------------------------------------------------


@node("Fail", {"value": ANY, "message": STRING}, returns=("*",))
def fail(self, value, message):
    raise ValueError(message)


@node("FailOn", {"value": INT, "bad": INT})
def fail_on(self, value, bad):
    if value == bad:
        raise RuntimeError(f"{value} is bad")
    return (value,)


@node("FailAsync", {"value": ANY, "seconds": FLOAT}, returns=("*",))
async def fail_async(self, value, seconds):
    await asyncio.sleep(seconds)
    raise KeyError("late")


@node("InterruptSelf", {"value": ANY}, returns=("*",))
def interrupt_self(self, value):
    raise InterruptProcessingException


@node("Sleep", {"value": ANY, "seconds": FLOAT}, returns=("*",))
def sleep(self, value, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        throw_exception_if_processing_interrupted()
        time.sleep(0.005)
    return (value,)


@node("SleepAsync", {"value": ANY, "seconds": FLOAT}, returns=("*",))
async def sleep_async(self, value, seconds):
    await asyncio.sleep(seconds)
    return (value,)


@node("AtOnceAsync", {"value": INT})
async def at_once_async(self, value):
    return (value + 1,)


@node("ShowAsync", {"value": ANY}, returns=(), output=True)
async def show_async(self, value):
    await asyncio.sleep(0)
    return shown(value)


@node("ExpandAsync", {"value": INT})
async def expand_async(self, value):
    graph = GraphBuilder()
    return expanded(graph, graph.node(PREFIX + "AtOnceAsync", value=value).out(0))


@node("Progress", {"value": ANY, "total": INT}, returns=("*",))
def progress(self, value, total):
    bar = ProgressBar(total)
    for _ in range(total):
        bar.update(1)
    return (value,)


@node("Context", {"value": ANY}, returns=("STRING",))
def context(self, value):
    found = get_executing_context()
    return (f"{found.node_id} {found.list_index}",)


@node("ContextAsync", {"value": ANY}, returns=("STRING",))
async def context_async(self, value):
    found = get_executing_context()
    return (f"{found.node_id} {found.list_index}",)
