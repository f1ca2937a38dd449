"""Which texts of a node are chosen from lists: names of models are among them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from comfy_execution.graph_utils import is_link
from comfy_execution.node_facts import InputSpec, NodeFacts


def chosen_texts(facts: NodeFacts, inputs: Mapping[str, Any]) -> Iterator[tuple[str, Sequence[Any]]]:
    """(text, the list that it was chosen from) of each input of a node that chooses."""
    texts = {name: value for name, value in inputs.items() if type(value) in (str, list)}
    if texts and facts.is_dynamic:
        facts = facts.live(inputs)
    for name, value in texts.items():
        spec = facts.inputs[name]
        choices = None if spec is None or is_link(value) else _choices(spec)
        if choices is not None:
            for text in value if isinstance(value, list) else [value]:
                if isinstance(text, str):
                    yield text, choices


def _choices(spec: InputSpec) -> Sequence[Any] | None:
    """The list that an input chooses from; None for one that does not."""
    if isinstance(spec.type, list):
        return spec.type
    return spec.options.get("options") or () if spec.plain_type == "COMBO" else None
