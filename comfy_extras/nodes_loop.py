"""Loops: the nodes between a Start Loop and an End Loop run once per iteration.

The nodes of the graph are the first iteration. End Loop waits for none of them: it learns from Start Loop's
inputs how many iterations there are, and is replaced by copies of the nodes in between for all further ones,
each of which begins when the one before is done, and a node that gathers what they give.
"""

from __future__ import annotations

from dataclasses import dataclass

from comfy_api.latest import ComfyExtension, io
from comfy_execution.graph_utils import ExecutionBlocker, GraphBuilder, is_link

START, END = "StartLoop", "EndLoop"
FURTHER, ITERATION, RESULT = "LoopFurther", "LoopIteration", "LoopResult"


def _links(inputs):
    return [value for value in inputs.values() if is_link(value)]


def _sources(graph, node_id):
    """Ids of the nodes that one needs. What comes before an iteration belongs to the loop around it."""
    node = graph.find_node(node_id)
    is_edge = node is None or node["class_type"] == ITERATION
    return [] if is_edge else [source for source, _ in _links(node["inputs"])]


def _ancestors(graph, node_id):
    """Ids of the nodes that one needs, directly or through others."""
    found, waiting = set(), _sources(graph, node_id)
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting.extend(_sources(graph, one))
    return found


def start_of(graph, end_id):
    """The Start Loop that an End Loop belongs to: the innermost that it needs and that no other one ends."""
    found, seen, waiting = set(), set(), _sources(graph, end_id)
    while waiting:
        node_id = waiting.pop()
        kind = None if node_id in seen else (graph.find_node(node_id) or {}).get("class_type")
        seen.add(node_id)
        if kind == START:
            found.add(node_id)
        elif kind is not None:
            # What another End Loop gives comes out of a loop that is closed: go on before its beginning.
            waiting.extend(_sources(graph, start_of(graph, node_id) if kind == END else node_id))
    innermost = found.difference(*(_ancestors(graph, one) for one in found)) if len(found) > 1 else found
    if len(innermost) != 1:
        raise ValueError(
            f"End Loop {end_id} needs {len(innermost)} Start Loops that are not inside one another. "
            "Link what it gets to one Start Loop; to put a loop into another, link its parent_iteration."
        )
    return innermost.pop()


def body_of(graph, start_id, end_id):
    """Ids of the nodes between the two: those that End Loop needs and that need Start Loop."""
    users = {}
    for one in _ancestors(graph, end_id):
        for source in _sources(graph, one):
            users.setdefault(source, []).append(one)
    body, waiting = set(), [start_id]
    while waiting:
        fresh = [user for user in users.get(waiting.pop(), ()) if user not in body]
        body.update(fresh)
        waiting.extend(fresh)
    return body


def positions(mode):
    """(index of each iteration, items of the list or None), from the values of Start Loop's `mode`."""
    first = {name: value[0] for name, value in mode.items() if value}
    kind = first.get("mode", "simple")
    if kind == "List":
        return list(range(len(mode["list"]))), list(mode["list"])
    if kind == "simple":
        return list(range(first.get("num_iterations", 4))), None
    step = first.get("step", 1)
    if step < 1:
        raise ValueError(f"Start Loop's step is {step}. It must be 1 or more.")
    return list(range(first.get("start_iteration_index", 0), first.get("max_iteration", 4), step)), None


class StartLoop(io.ComfyNode):
    """The values of the first iteration."""

    @classmethod
    def define_schema(cls):
        item, carried = io.MatchType.Template("list_item"), io.MatchType.Template("carried_value")
        return io.Schema(
            node_id=START,
            display_name="Start Loop",
            category="utilities/looping",
            description="The beginning of a loop: the nodes from here to End Loop run once per iteration.",
            is_input_list=True,
            inputs=[*_how_often(item), *_carried_inputs(carried)],
            outputs=[
                io.Int.Output("iteration_index", tooltip="Number of the iteration."),
                io.Boolean.Output("is_first"),
                io.Boolean.Output("is_last"),
                io.MatchType.Output(item, id="list_item", tooltip="The item of the list, in the mode List."),
                io.MatchType.Output(
                    carried,
                    id="current_iteration_value",
                    is_output_list=True,
                    tooltip="What End Loop got as next_iteration_value in the iteration before.",
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, cache_iterations=False, **inputs):
        """Never the same, so that every iteration runs again, unless old ones may be taken."""
        chosen = cache_iterations[0] if isinstance(cache_iterations, list) else cache_iterations
        return None if chosen else float("nan")

    @classmethod
    def execute(cls, mode, cache_iterations=None, parent_iteration=None, initial_iteration_value=None):
        indices, items = positions(mode)
        if not indices:
            return ExecutionBlocker(None)
        carried = [None] if initial_iteration_value is None else initial_iteration_value
        return io.NodeOutput(indices[0], True, len(indices) == 1, items[0] if items else None, carried)


def _how_often(item):
    whole = io.Int.Input
    option = io.DynamicCombo.Option
    modes = [
        option("simple", [whole("num_iterations", default=4, min=0, tooltip="How often the loop runs.")]),
        option("For", [
            whole("start_iteration_index", default=0, tooltip="Number of the first iteration."),
            whole("max_iteration", default=4, max=2**64 - 1, tooltip="Numbers stay below this one."),
            whole("step", default=1, min=1, tooltip="From one number to the next."),
        ]),
        option("List", [io.MatchType.Input("list", item, tooltip="The loop runs once for each item.")]),
    ]  # fmt: skip
    again = "Take iterations of earlier runs in which nothing changed?"
    return [
        io.DynamicCombo.Input("mode", options=modes, tooltip="What is counted."),
        io.Boolean.Input("cache_iterations", default=False, advanced=True, tooltip=again),
    ]


def _carried_inputs(carried):
    parent = "The iteration_index of the Start Loop that this loop is inside of."
    first = "What current_iteration_value is in the first iteration."
    return [
        io.Int.Input("parent_iteration", optional=True, force_input=True, tooltip=parent),
        io.MatchType.Input("initial_iteration_value", carried, optional=True, tooltip=first),
    ]


class EndLoop(io.ComfyNode):
    """What the iterations of a loop give."""

    @classmethod
    def define_schema(cls):
        given, carried = io.MatchType.Template("output_value"), io.MatchType.Template("carried_value")
        also = io.AnyType.Input("termination", lazy=True, tooltip="Runs in every iteration, unused.")
        return io.Schema(
            node_id=END,
            display_name="End Loop",
            category="utilities/looping",
            description="The end of a loop: gives the value of the last iteration, or those of all.",
            is_input_list=True,
            enable_expand=True,
            hidden=[io.Hidden.dynprompt, io.Hidden.unique_id],
            inputs=[
                io.MatchType.Input(
                    "output_value", given, optional=True, lazy=True, tooltip="What the loop gives."
                ),
                io.MatchType.Input(
                    "next_iteration_value", carried, optional=True, lazy=True,
                    tooltip="What current_iteration_value is in the next iteration.",
                ),
                io.Boolean.Input("accumulate", default=False, tooltip="Give the values of all iterations?"),
                io.Autogrow.Input(
                    "terminations",
                    io.Autogrow.TemplatePrefix(also, prefix="termination", min=0, max=50),
                    optional=True,
                    tooltip="What is to be shown or saved in every iteration.",
                ),
            ],
            outputs=[io.MatchType.Output(given, id="outputs", is_output_list=True)],
        )  # fmt: skip

    @classmethod
    def check_lazy_status(cls, **inputs):
        return []  # The iterations are nodes of the graph that this one is replaced by.

    @classmethod
    def execute(cls, accumulate, **inputs):
        graph, end_id = cls.hidden.dynprompt, cls.hidden.unique_id
        start_id = start_of(graph, end_id)
        builder = GraphBuilder()
        asked = graph.get_node(start_id)["inputs"]
        further = builder.node(FURTHER, start_id=start_id, end_id=end_id, **asked)
        return io.NodeOutput(further.out(0), expand=builder.finalize())


@dataclass
class _Iteration:
    """The nodes that stand for those of a loop in one iteration; in the first, themselves."""

    start_id: str
    start: str
    copies: dict[str, str]

    def link(self, value):
        """A link of the graph, in this iteration."""
        if not is_link(value):
            return value
        source, slot = value
        return [self.start if source == self.start_id else self.copies.get(source, source), slot]


def _copied(builder, graph, loop, before, values):
    """Copies of a loop's nodes for an iteration that begins when `before` is done."""
    carried = loop.ends.get("next_iteration_value")
    inputs = {f"after{number}": before.link(value) for number, value in enumerate(_links(loop.ends))}
    value = loop.initial if carried is None else before.link(carried)
    inputs |= {} if value is None else {"current_iteration_value": value}
    number = values["number"]
    start = builder.node(ITERATION, f"{number}_start", **values, **inputs)
    start.set_override_display_id(loop.start_id)
    copies = {one: builder.node(graph.get_node(one)["class_type"], f"{number}_{one}") for one in loop.body}
    here = _Iteration(loop.start_id, start.id, {one: copy.id for one, copy in copies.items()})
    for one, copy in copies.items():
        copy.set_override_display_id(one)
        for name, value in graph.get_node(one)["inputs"].items():
            copy.inputs[name] = here.link(value)
    return here


@dataclass
class _Loop:
    """A loop of the graph. `ends` are the links of End Loop, `initial` is the first value carried."""

    start_id: str
    body: list[str]
    ends: dict
    initial: object


class LoopFurther(io.ComfyNode):
    """Is replaced by all iterations but the first."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id=FURTHER,
            category="utilities/looping",
            description="Part of End Loop.",
            is_dev_only=True,
            is_input_list=True,
            enable_expand=True,
            hidden=[io.Hidden.dynprompt],
            inputs=[
                io.String.Input("start_id"),
                io.String.Input("end_id"),
                *_how_often(io.MatchType.Template("list_item")),
                *_carried_inputs(io.MatchType.Template("carried_value")),
            ],
            outputs=[io.AnyType.Output(is_output_list=True)],
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs):
        return float("nan")  # Its inputs do not tell what is in the loop.

    @classmethod
    def execute(cls, start_id, end_id, mode, cache_iterations=None, **others):
        graph, (start_id,), (end_id,) = cls.hidden.dynprompt, start_id, end_id
        indices, items = positions(mode)
        if not indices:
            return ExecutionBlocker(None)
        end = graph.get_node(end_id)["inputs"]
        asked = graph.get_node(start_id)["inputs"]
        ends = {name: value for name, value in end.items() if is_link(value)}
        body = sorted(body_of(graph, start_id, end_id))
        loop = _Loop(start_id, body, ends, asked.get("initial_iteration_value"))
        builder = GraphBuilder()
        iterations = [_Iteration(start_id, start_id, {})]
        for number, index in enumerate(indices[1:], start=1):
            values = {"number": number, "iteration_index": index, "is_last": number == len(indices) - 1}
            if items is not None:
                values["list"] = asked["mode.list"]
            values["cache_iterations"] = bool(cache_iterations and cache_iterations[0])
            iterations.append(_copied(builder, graph, loop, iterations[-1], values))
        return io.NodeOutput(_gather(builder, loop, end, iterations), expand=builder.finalize())


def _gather(builder, loop, end, iterations):
    """The link to what the loop gives."""
    is_accumulated = end.get("accumulate", False)
    inputs = {}
    if "output_value" in loop.ends:
        inputs = {
            f"output{number}": one.link(loop.ends["output_value"])
            for number, one in enumerate(iterations if is_accumulated else iterations[-1:])
        }
    last = {f"after{number}": iterations[-1].link(value) for number, value in enumerate(_links(loop.ends))}
    return builder.node(RESULT, "result", count=len(inputs), **inputs, **last).out(0)


class LoopIteration(io.ComfyNode):
    """What Start Loop gives in a further iteration."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id=ITERATION,
            category="utilities/looping",
            description="Part of End Loop.",
            is_dev_only=True,
            is_input_list=True,
            accept_all_inputs=True,
            inputs=[io.Int.Input("number"), io.Int.Input("iteration_index"), io.Boolean.Input("is_last")],
            outputs=[
                io.Int.Output(),
                io.Boolean.Output(),
                io.Boolean.Output(),
                io.AnyType.Output(),
                io.AnyType.Output(is_output_list=True),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, cache_iterations=False, **inputs):
        return StartLoop.fingerprint_inputs(cache_iterations)

    @classmethod
    def execute(cls, number, iteration_index, is_last, list=None, current_iteration_value=None, **others):
        item = list[number[0]] if list else None
        carried = [None] if current_iteration_value is None else current_iteration_value
        return io.NodeOutput(iteration_index[0], False, is_last[0], item, carried)


class LoopResult(io.ComfyNode):
    """Gathers what the iterations give."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id=RESULT,
            category="utilities/looping",
            description="Part of End Loop.",
            is_dev_only=True,
            is_input_list=True,
            accept_all_inputs=True,
            inputs=[io.Int.Input("count")],
            outputs=[io.AnyType.Output(is_output_list=True)],
        )

    @classmethod
    def execute(cls, count, **values):
        return io.NodeOutput([item for number in range(count[0]) for item in values[f"output{number}"]])


class LoopExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [StartLoop, EndLoop, LoopFurther, LoopIteration, LoopResult]


def comfy_entrypoint():
    return LoopExtension()
