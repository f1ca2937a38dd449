"""The schema: all that a node class says of itself, and what the older interface is derived from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from comfy_api.latest.io.dynamic import DynamicInput, MatchType, create_input_dict_v1
from comfy_api.latest.io.kinds import Input, Output


class Hidden(str, Enum):
    """Values that nodes get from the server, at `cls.hidden`, and not from links."""

    unique_id = "UNIQUE_ID"
    """The id of the node."""
    prompt = "PROMPT"
    """The graph as the client sent it."""
    extra_pnginfo = "EXTRA_PNGINFO"
    """A dictionary of what is to be written into files that are saved, the workflow first of all."""
    dynprompt = "DYNPROMPT"
    """The running graph with the nodes that others have expanded into."""
    auth_token_comfy_org = "AUTH_TOKEN_COMFY_ORG"
    """A token that the web page got by signing in."""
    api_key_comfy_org = "API_KEY_COMFY_ORG"
    """A key that stands for signing in."""
    comfy_usage_source = "COMFY_USAGE_SOURCE"
    """Which client sent the prompt."""


API_NODE_HIDDEN = (Hidden.auth_token_comfy_org, Hidden.api_key_comfy_org, Hidden.comfy_usage_source)
OUTPUT_NODE_HIDDEN = (Hidden.prompt, Hidden.extra_pnginfo)


class HiddenHolder:
    """The hidden values of one call, an attribute each; None for those that were not asked for."""

    def __init__(
        self,
        unique_id: Any = None,
        prompt: Any = None,
        extra_pnginfo: Any = None,
        dynprompt: Any = None,
        auth_token_comfy_org: Any = None,
        api_key_comfy_org: Any = None,
        comfy_usage_source: Any = None,
        **kwargs: Any,
    ) -> None:
        self.unique_id = unique_id
        self.prompt = prompt
        self.extra_pnginfo = extra_pnginfo
        self.dynprompt = dynprompt
        self.auth_token_comfy_org = auth_token_comfy_org
        self.api_key_comfy_org = api_key_comfy_org
        self.comfy_usage_source = comfy_usage_source

    def __getattr__(self, key: str) -> None:
        if key.startswith("__"):  # copying and pickling ask for these
            raise AttributeError(key)

    @classmethod
    def from_dict(cls, values: Mapping[Any, Any] | None) -> HiddenHolder:
        """From values by kind."""
        values = values or {}
        return cls(**{kind.name: values.get(kind, values.get(kind.value)) for kind in Hidden})

    @classmethod
    def from_v3_data(cls, v3_data: Mapping[str, Any] | None) -> HiddenHolder:
        """From what the executor knows of a visit."""
        return cls.from_dict(v3_data["hidden_inputs"] if v3_data else None)


@dataclass
class NodeInfoV1:
    """The entry of a node class in /object_info."""

    input: dict[str, Any] | None = None
    input_order: dict[str, list[str]] | None = None
    is_input_list: bool | None = None
    output: list[str] | None = None
    output_is_list: list[bool] | None = None
    output_name: list[str] | None = None
    output_tooltips: list[Any] | None = None
    output_matchtypes: list[Any] | None = None
    name: str | None = None
    display_name: str | None = None
    description: str | None = None
    python_module: Any = None
    category: str | None = None
    output_node: bool | None = None
    deprecated: bool | None = None
    experimental: bool | None = None
    dev_only: bool | None = None
    api_node: bool | None = None
    price_badge: dict[str, Any] | None = None
    search_aliases: list[str] | None = None
    essentials_category: str | None = None
    has_intermediate_output: bool | None = None


def _require_texts(values: Any, name: str) -> None:
    if not isinstance(values, list) or any(not isinstance(value, str) for value in values):
        raise ValueError(f"PriceBadgeDepends.{name} is {values!r}. It is a list of ids of inputs.")


@dataclass
class PriceBadgeDepends:
    """What a price depends on: ids of widgets, of inputs, and of groups of inputs."""

    widgets: list[str] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    input_groups: list[str] = field(default_factory=list)

    def validate(self) -> None:
        """Raise ValueError if a field is no list of texts."""
        for name in ("widgets", "inputs", "input_groups"):
            _require_texts(getattr(self, name), name)

    def as_dict(self, schema_inputs: Iterable[Input]) -> dict[str, Any]:
        """As /object_info tells it, with the types of the widgets."""
        types: dict[str, str] = {}
        for one in schema_inputs:
            types[one.id] = one.get_io_type()
            types.update((f"{one.id}.{inner.id}", inner.get_io_type()) for inner in one.get_all()[1:])
        unknown = [name for name in self.widgets if name not in types]
        if unknown:
            raise ValueError(
                f"A PriceBadge depends on widgets that do not exist: {unknown}. There are {list(types)}."
            )
        return {
            "widgets": [{"name": name, "type": types[name]} for name in self.widgets],
            "inputs": self.inputs,
            "input_groups": self.input_groups,
        }


@dataclass
class PriceBadge:
    """What a call of the node costs, as an expression that the web page computes."""

    expr: str
    depends_on: PriceBadgeDepends = field(default_factory=PriceBadgeDepends)
    engine: str = "jsonata"

    def validate(self) -> None:
        """Raise ValueError if the badge cannot be computed."""
        if self.engine != "jsonata":
            raise ValueError(f"PriceBadge.engine is {self.engine!r}. The only one is 'jsonata'.")
        if not isinstance(self.expr, str) or not self.expr.strip():
            raise ValueError("PriceBadge.expr is empty. Write the expression that gives the price.")
        self.depends_on.validate()

    def as_dict(self, schema_inputs: Iterable[Input]) -> dict[str, Any]:
        """As /object_info tells it."""
        depends_on = self.depends_on.as_dict(schema_inputs)
        return {"engine": self.engine, "depends_on": depends_on, "expr": self.expr}


def _repeated(ids: Iterable[Any]) -> list[Any]:
    return [one for one, count in Counter(ids).items() if count > 1]


@dataclass
class Schema:
    """All properties of a node class. `node_id` names it in prompts: it must be unique among all packs."""

    node_id: str
    display_name: str | None = None
    category: str = "sd"
    inputs: list[Input] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    hidden: list[Hidden] = field(default_factory=list)
    """Which hidden values the node asks for."""
    description: str = ""
    search_aliases: list[str] = field(default_factory=list)
    """Other names under which the node is found."""
    is_input_list: bool = False
    """Is the node called once with lists of all values, and not once per value?"""
    is_output_node: bool = False
    """Does it save or show something? Then it runs, with all that it needs."""
    is_deprecated: bool = False
    is_experimental: bool = False
    is_dev_only: bool = False
    is_api_node: bool = False
    """Does it call a paid service? Then it gets the tokens of the user."""
    price_badge: PriceBadge | None = None
    not_idempotent: bool = False
    """May its result not be reused by another node with equal inputs?"""
    enable_expand: bool = False
    """May it return a graph in its place?"""
    accept_all_inputs: bool = False
    """Does it get inputs too that it does not declare?"""
    essentials_category: str | None = None
    has_intermediate_output: bool = False
    """Does it show something without being an output? It is shown again when it comes from the cache."""

    def validate(self) -> None:
        """Raise ValueError if ids repeat, or a part cannot be used."""
        plain = [one for one in self.inputs if not isinstance(one, DynamicInput)]
        ids = {
            "Input": _repeated(inner.id for one in plain for inner in one.get_all()),
            "Output": _repeated(one.id for one in self.outputs),
        }
        issues = [f"{kind} ids must be unique, but {again} are not." for kind, again in ids.items() if again]
        if issues:
            raise ValueError(f"Node {self.node_id}: " + "\n".join(issues))
        for one in (*self.inputs, *self.outputs):
            one.validate()
        if self.price_badge is not None:
            self.price_badge.validate()

    def finalize(self) -> None:
        """Add the hidden values that follow from other properties, and ids of outputs that have none."""
        self.inputs = self.inputs or []
        self.outputs = self.outputs or []
        implied = (API_NODE_HIDDEN if self.is_api_node else ()) + (
            OUTPUT_NODE_HIDDEN if self.is_output_node else ()
        )
        self.hidden = list(dict.fromkeys([*(self.hidden or []), *implied]))
        for slot, output in enumerate(self.outputs):
            if output.id is None:
                output.id = f"_{slot}_{output.io_type}_"

    def input_types(self) -> dict[str, Any]:
        """What INPUT_TYPES of the older interface gives."""
        inputs = create_input_dict_v1(self.inputs)
        for kind in self.hidden:
            inputs.setdefault("hidden", {})[kind.name] = (kind.value,)
        return inputs

    @property
    def output_names(self) -> list[str]:
        """Titles of the outputs."""
        return [output.display_name or output.io_type for output in self.outputs]

    def get_v1_info(self, cls: Any) -> NodeInfoV1:
        """The entry of a class with this schema in /object_info."""
        inputs = self.input_types()
        templates = [
            one.template.template_id if isinstance(one, MatchType.Output) else None for one in self.outputs
        ]
        return NodeInfoV1(
            input=inputs,
            input_order={section: list(content) for section, content in inputs.items()},
            is_input_list=self.is_input_list,
            output=[one.io_type for one in self.outputs],
            output_is_list=[bool(one.is_output_list) for one in self.outputs],
            output_name=self.output_names,
            output_tooltips=[one.tooltip or None for one in self.outputs],
            output_matchtypes=templates if any(templates) else None,
            name=self.node_id,
            display_name=self.display_name,
            category=self.category,
            description=self.description,
            output_node=self.is_output_node,
            has_intermediate_output=self.has_intermediate_output,
            deprecated=self.is_deprecated,
            experimental=self.is_experimental,
            dev_only=self.is_dev_only,
            api_node=self.is_api_node,
            python_module=getattr(cls, "RELATIVE_PYTHON_MODULE", None) or "nodes",
            price_badge=None if self.price_badge is None else self.price_badge.as_dict(self.inputs),
            search_aliases=self.search_aliases or None,
            essentials_category=self.essentials_category,
        )
