"""Workflows as the web page saves them, turned into prompts as the server runs them.

A saved workflow knows places and links; a prompt knows the value or the link of each input by its name.
Between them lie the rules of the web page, which stand here:

- Values of widgets are a list without names: they come in the order in which the class declares its inputs.
  A choice that brings inputs of its own (dynamic combo) is followed by the values of those. Behind a seed
  stands what is to happen to it after a run ("randomize"), which no prompt has.
- Reroutes and primitives are no nodes of a prompt: the first are walked through, the second are a value.
- A muted node is left out with the links from it. A bypassed one hands on the input of the output's type.
- A subgraph is a definition that instances stand for. Its nodes get ids such as "12:3": node 3 in instance
  12. Links to an instance go on inside, and inputs of it that nobody has linked may hold a widget's value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Declarations = Callable[[str], Mapping[str, Any] | None]
"""Name of a class -> its inputs as /object_info tells them ({"required": ..., "optional": ...}), or None."""

INPUT_SIDE, OUTPUT_SIDE = -10, -20
"""Ids of what stands for the inputs and the outputs of a subgraph inside of it."""
MUTED, BYPASSED = 2, 4
NOT_IN_PROMPTS = frozenset({"Note", "MarkdownNote", "Reroute", "PrimitiveNode"})
AFTER_A_RUN = frozenset({"fixed", "increment", "increment-wrap", "decrement", "randomize"})
WIDGETS = frozenset({
    "INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "COLOR", "COLORS", "CURVE", "RANGE", "BOUNDING_BOX",
    "BOUNDING_BOXES", "COMPOSITOR", "WEBCAM", "LOAD_3D", "LOAD_3D_ANIMATION",
})  # fmt: skip
# Shows something and takes nothing: there is no value of it in a saved workflow, but prompts have one.
SHOWS_ONLY = "IMAGECOMPARE"
DYNAMIC_COMBO = "COMFY_DYNAMICCOMBO_V3"
MOST_NODES = 20_000
DEEPEST = 32


class WorkflowError(ValueError):
    """What was given is no workflow that can be turned into a prompt; `str()` says why."""


@dataclass
class Converted:
    """A prompt, and what could not be read with certainty."""

    prompt: dict[str, dict[str, Any]] = field(default_factory=dict)
    unknown: dict[str, list[str]] = field(default_factory=dict)
    """Classes that are not declared here, and the ids of their nodes. Their values have no sure names."""
    oddities: list[str] = field(default_factory=list)
    """Nodes whose values do not fit the declaration, one sentence each."""


@dataclass(frozen=True)
class _Value:
    """What a primitive or a widget of an instance gives. A weak one does not replace a widget's own value."""

    value: Any
    is_weak: bool = False


@dataclass(frozen=True)
class _Link:
    origin: int
    origin_slot: int
    target: int
    target_slot: int


def convert(workflow: Mapping[str, Any], declared: Declarations) -> Converted:
    """The prompt of a saved workflow.

    Raises:
        WorkflowError: it has no list of nodes, subgraphs contain themselves, or it is larger than allowed.
    """
    if not isinstance(workflow, Mapping) or not isinstance(workflow.get("nodes"), list):
        raise WorkflowError("This is no saved workflow: it has no list 'nodes'.")
    definitions = _definitions(workflow)
    out = Converted()
    for level, node in _walk(_Level(workflow, definitions, declared)):
        if len(out.prompt) >= MOST_NODES:
            raise WorkflowError(f"With its subgraphs the workflow has more than {MOST_NODES} nodes.")
        _enter(level, node, declared, out)
    for entry in out.prompt.values():  # links from what was left out
        inputs = entry["inputs"]
        for name in [
            name for name, value in inputs.items() if _is_link(value) and value[0] not in out.prompt
        ]:
            del inputs[name]
    return out


def is_saved_workflow(content: Any) -> bool:
    """Is this what the web page saves, and not a prompt?"""
    return isinstance(content, Mapping) and isinstance(content.get("nodes"), list)


def _definitions(workflow: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    holder = workflow.get("definitions")
    found = holder.get("subgraphs") if isinstance(holder, Mapping) else None
    return {
        one["id"]: one
        for one in found or ()
        if isinstance(one, Mapping) and isinstance(one.get("id"), str) and isinstance(one.get("nodes"), list)
    }


def _is_link(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and type(value[1]) is int


# --- levels: the workflow, and the subgraphs inside -----------------------------------------------------


class _Level:
    """The workflow itself, or one instance of a subgraph with what stands around it."""

    def __init__(
        self,
        graph: Mapping[str, Any],
        definitions: Mapping[str, Mapping[str, Any]],
        declared: Declarations,
        parent: _Level | None = None,
        instance: Mapping[str, Any] | None = None,
    ) -> None:
        self.graph, self.definitions, self.declared = graph, definitions, declared
        self.parent, self.instance = parent, instance
        self.depth: int = parent.depth + 1 if parent else 0
        self.prefix: str = f"{parent.prefix}{instance['id']}:" if parent and instance else ""
        self.nodes = {
            node["id"]: node for node in graph["nodes"] if isinstance(node, Mapping) and "id" in node
        }
        self.links = dict(_links(graph.get("links")))
        self._inside: dict[Any, _Level] = {}
        self._promoted: dict[str, Any] | None = None

    def inside(self, node: Mapping[str, Any]) -> _Level | None:
        """The level of a node that is an instance of a subgraph; None for any other node."""
        definition = self.definitions.get(str(node.get("type")))
        if definition is None:
            return None
        if self.depth >= DEEPEST:
            name = definition.get("name", "")
            raise WorkflowError(
                f"Subgraphs are nested more than {DEEPEST} deep: does '{name}' contain itself?"
            )
        if node["id"] not in self._inside:
            self._inside[node["id"]] = _Level(definition, self.definitions, self.declared, self, node)
        return self._inside[node["id"]]

    def ports(self, side: str) -> list[Mapping[str, Any]]:
        """The inputs or outputs of the definition."""
        return [port for port in self.graph.get(side) or () if isinstance(port, Mapping)]

    def promoted(self) -> dict[str, Any]:
        """Values of the widgets that this instance shows, by the name of its input."""
        if self._promoted is None:
            self._promoted = self._read_promoted()
        return self._promoted

    def _read_promoted(self) -> dict[str, Any]:
        values = self.instance.get("widgets_values") if self.instance else None
        if isinstance(values, Mapping):
            return dict(values)
        names = [
            str(port.get("name"))
            for slot, port in enumerate(self.ports("inputs"))
            if self._fills_widget(slot)
        ]
        return dict(zip(names, values if isinstance(values, list) else ()))

    def _fills_widget(self, slot: int) -> bool:
        return any(port.get("widget") for _, port in self.targets(slot))

    def targets(self, slot: int) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
        """The nodes that an input of the subgraph is linked to, with their inputs."""
        for link in self.links.values():
            if link.origin == INPUT_SIDE and link.origin_slot == slot:
                node = self.nodes.get(link.target, {})
                port = _at(node.get("inputs"), link.target_slot)
                if port is not None:
                    yield node, port

    def own_value(self, slot: int) -> _Value | None:
        """The value of the first widget that an input of the subgraph is linked to."""
        for node, port in self.targets(slot):
            inputs = self.declared(str(node.get("type"))) if port.get("widget") else None
            named = _named(node, inputs) if inputs is not None else {}
            if port.get("name") in named:
                return _Value(named[str(port["name"])], is_weak=True)
        return None


def _links(found: Any) -> Iterator[tuple[Any, _Link]]:
    for link in found if isinstance(found, list) else ():
        if isinstance(link, Mapping):  # inside of subgraphs
            names = ("origin_id", "origin_slot", "target_id", "target_slot")
            yield link.get("id"), _Link(*(link.get(name) for name in names))  # type: ignore[arg-type]
        elif isinstance(link, list) and len(link) >= 5:
            yield link[0], _Link(*link[1:5])


def _walk(level: _Level) -> Iterator[tuple[_Level, Mapping[str, Any]]]:
    """The nodes of a prompt, with the level that each stands in."""
    for node in level.nodes.values():
        if node.get("mode") in (MUTED, BYPASSED) or node.get("type") in NOT_IN_PROMPTS:
            continue
        inside = level.inside(node)
        if inside is None:
            yield level, node
        else:
            yield from _walk(inside)


def _at(ports: Any, slot: Any) -> Mapping[str, Any] | None:
    if isinstance(ports, list) and isinstance(slot, int) and 0 <= slot < len(ports):
        port = ports[slot]
        return port if isinstance(port, Mapping) else None
    return None


# --- links ----------------------------------------------------------------------------------------------

_Step = tuple[_Level, Any]
"""A level, and the id of a link in it."""


def _source(level: _Level, link_id: Any) -> list[Any] | _Value | None:
    """Where a link comes from in the prompt: [id, slot], a value, or None for nowhere."""
    seen: set[tuple[str, Any]] = set()
    step: Any = (level, link_id)
    while isinstance(step, tuple):
        level, link_id = step
        link = level.links.get(link_id)
        if link is None or (level.prefix, link_id) in seen:
            return None
        seen.add((level.prefix, link_id))
        step = _from_outside(level, link) if link.origin == INPUT_SIDE else _from_node(level, link)
    return step  # type: ignore[no-any-return]


def _from_outside(level: _Level, link: _Link) -> _Step | _Value | None:
    port = _at(level.ports("inputs"), link.origin_slot)
    if port is None or level.instance is None or level.parent is None:
        return None
    for outer in level.instance.get("inputs") or ():
        if outer.get("name") == port.get("name") and outer.get("link") is not None:
            return (level.parent, outer["link"])
    name = str(port.get("name"))
    if name in level.promoted():
        return _Value(level.promoted()[name])
    return level.own_value(link.origin_slot)


def _from_node(level: _Level, link: _Link) -> _Step | list[Any] | _Value | None:
    node = level.nodes.get(link.origin)
    if node is None or node.get("mode") == MUTED:
        return None
    if node.get("mode") == BYPASSED:
        handed = _handed_on(node, link.origin_slot)
        return None if handed is None else (level, handed)
    if node.get("type") == "Reroute":
        port = _at(node.get("inputs"), 0)
        return (level, port.get("link")) if port else None
    if node.get("type") == "PrimitiveNode":
        values = node.get("widgets_values")
        return _Value(values[0]) if isinstance(values, list) and values else None
    inside = level.inside(node)
    if inside is None:
        return [f"{level.prefix}{node['id']}", link.origin_slot]
    for inner_id, inner in inside.links.items():
        if inner.target == OUTPUT_SIDE and inner.target_slot == link.origin_slot:
            return (inside, inner_id)
    return None


def _handed_on(node: Mapping[str, Any], slot: int) -> Any:
    """The link that a bypassed node puts in the place of an output: that of the input of its type."""
    output = _at(node.get("outputs"), slot)
    kind = output.get("type") if output else None
    inputs = [port for port in node.get("inputs") or () if isinstance(port, Mapping)]
    beside = _at(inputs, slot)
    candidates = ([beside] if beside else []) + inputs
    linked = [port for port in candidates if port.get("link") is not None]
    same = [port for port in linked if port.get("type") == kind]
    fitting = [port for port in linked if _kinds(port.get("type")) & _kinds(kind)]
    anything = [port for port in linked if "*" in (port.get("type"), kind)]
    return next((port["link"] for port in same + fitting + anything), None)


def _kinds(types: Any) -> set[str]:
    return set(types.split(",")) if isinstance(types, str) else set()


# --- nodes ----------------------------------------------------------------------------------------------


def _enter(level: _Level, node: Mapping[str, Any], declared: Declarations, out: Converted) -> None:
    """Add a node to the prompt."""
    node_id, class_type = f"{level.prefix}{node['id']}", str(node.get("type"))
    inputs = declared(class_type)
    if inputs is None:
        out.unknown.setdefault(class_type, []).append(node_id)
        values = _guessed(node)
    else:
        values = _named(node, inputs)
        left = _left_over(node, values, inputs)
        if left:
            out.oddities.append(f"Node {node_id} ({class_type}) has {left} values that no input takes.")
    for port in node.get("inputs") or ():
        if isinstance(port, Mapping) and port.get("link") is not None:
            source = _source(level, port["link"])
            if isinstance(source, _Value):
                if not (source.is_weak and port.get("widget")):
                    values[str(port["name"])] = source.value
            elif source is not None:
                values[str(port["name"])] = source
            elif not port.get("widget"):
                values.pop(str(port["name"]), None)
    linked = {name: value if _is_link(value) else _literal(value) for name, value in values.items()}
    title = str(node.get("title") or class_type)
    out.prompt[node_id] = {"inputs": linked, "class_type": class_type, "_meta": {"title": title}}


def _literal(value: Any) -> Any:
    # A list would be taken for a link.
    return {"__value__": value} if isinstance(value, list) else value


def _guessed(node: Mapping[str, Any]) -> dict[str, Any]:
    """Values of a class that is not known, by the names of the widgets that the node tells."""
    values = node.get("widgets_values")
    if isinstance(values, Mapping):
        return dict(values)
    names = [port["widget"].get("name") for port in node.get("inputs") or ()
             if isinstance(port, Mapping) and isinstance(port.get("widget"), Mapping)]  # fmt: skip
    return dict(zip(map(str, names), values if isinstance(values, list) else ()))


def _named(node: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Values of the widgets by name."""
    values = node.get("widgets_values")
    if isinstance(values, Mapping):
        names = {name for name, _, _ in _declared_inputs(inputs)}
        return {str(name): value for name, value in values.items() if name in names}
    queue = list(values) if isinstance(values, list) else []
    return _taken(inputs, queue, "")


def _left_over(node: Mapping[str, Any], named: Mapping[str, Any], inputs: Mapping[str, Any]) -> int:
    values = node.get("widgets_values")
    if not isinstance(values, list):
        return 0
    queue = list(values)
    _taken(inputs, queue, "")
    # Buttons for uploads and players have values behind those of the inputs.
    own = {"image", "", None, "audio", "video", "file"}
    return sum(1 for value in queue if isinstance(value, (list, dict)) or value not in own)


def _declared_inputs(inputs: Mapping[str, Any]) -> Iterator[tuple[str, Any, Mapping[str, Any]]]:
    """(name, type, options) in the order of the widgets."""
    for section in ("required", "optional"):
        for name, spec in (inputs.get(section) or {}).items():
            kind = spec[0] if isinstance(spec, (list, tuple)) and spec else spec
            options = spec[1] if isinstance(spec, (list, tuple)) and len(spec) > 1 else {}
            yield name, kind, options if isinstance(options, Mapping) else {}


def _taken(inputs: Mapping[str, Any], queue: list[Any], prefix: str) -> dict[str, Any]:
    """The values at the head of `queue` by name; what is missing has its default."""
    named: dict[str, Any] = {}
    for name, kind, options in _declared_inputs(inputs):
        if kind == DYNAMIC_COMBO:
            named |= _taken_with_choice(f"{prefix}{name}", options, queue)
        elif kind == SHOWS_ONLY:
            named[f"{prefix}{name}"] = {}
        elif _has_widget(kind, options):
            value = queue.pop(0) if queue else _default(kind, options)
            if value is None:
                value = _default(kind, options)
            if value is not None:
                named[f"{prefix}{name}"] = value
            if queue and _is_followed(name, kind, options) and _is_after_a_run(queue[0]):
                queue.pop(0)
    return named


def _taken_with_choice(name: str, options: Mapping[str, Any], queue: list[Any]) -> dict[str, Any]:
    choices = {choice.get("key"): choice for choice in options.get("options") or ()}
    key = queue.pop(0) if queue else next(iter(choices), None)
    known = choices.get(key) if isinstance(key, str) else None
    inner = _taken(known.get("inputs") or {}, queue, f"{name}.") if known else {}
    return {name: key, **inner}


def _has_widget(kind: Any, options: Mapping[str, Any]) -> bool:
    if options.get("forceInput"):
        return False
    if isinstance(kind, (list, tuple)):
        return True
    return kind in WIDGETS or options.get("widgetType") in WIDGETS


def _is_followed(name: str, kind: Any, options: Mapping[str, Any]) -> bool:
    return bool(options.get("control_after_generate")) or (kind == "INT" and name in ("seed", "noise_seed"))


def _is_after_a_run(value: Any) -> bool:
    return isinstance(value, str) and value in AFTER_A_RUN


def _default(kind: Any, options: Mapping[str, Any]) -> Any:
    if "default" in options:
        return options["default"]
    choices = kind if isinstance(kind, (list, tuple)) else options.get("options")
    if choices:
        return choices[0]
    return {"INT": 0, "FLOAT": 0.0, "STRING": "", "BOOLEAN": False}.get(kind if isinstance(kind, str) else "")
