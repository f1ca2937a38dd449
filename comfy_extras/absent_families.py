"""Nodes of model families that this version cannot run: real signatures, and an error that says what to do.

A workflow with such nodes loads, is checked and can be edited like any other; the error comes from the node
that would have to run the network. What such a family's nodes do without its network (empty latents, noise
levels, values of a conditioning) is real and stands in the same file.

    SomeLoader = absent_node(
        "SomeLoader", "Some Model", category="loaders", inputs=lambda: [io.Combo.Input("name", options=[])],
        outputs=lambda: [io.Model.Output()],
    )
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from comfy_api.latest import io


class FamilyAbsent(RuntimeError):
    """A node was to run a network that this version does not have; `str()` says which, and what to do."""


def raise_absent(family: str, node: str) -> NoReturn:
    """Raise FamilyAbsent for a node (its name in prompts) that needs a network of this family."""
    import comfy.families

    known = ", ".join(sorted({one.name for one in comfy.families.families()}))
    raise FamilyAbsent(
        f"{node} needs {family}, a model family that this version cannot run (it runs: {known}). "
        "Take a workflow for one of these, or run this one with upstream ComfyUI. To ask for the family, "
        f"open an issue that names {family}."
    )


class AbsentNode(io.ComfyNode):
    """Base of the node classes that `absent_node` makes; `FAMILY` is what each lacks."""

    FAMILY = ""

    @classmethod
    def execute(cls, **_values: Any) -> NoReturn:
        raise_absent(cls.FAMILY, cls._schema().node_id)


def absent_node(
    node_id: str,
    family: str,
    *,
    inputs: Callable[[], list[Any]] = list,
    outputs: Callable[[], list[Any]] = list,
    class_name: str | None = None,
    **schema: Any,
) -> type[AbsentNode]:
    """A node class with this signature that raises FamilyAbsent when it runs.

    `inputs` and `outputs` are called for each look at the node, so that lists of files are those of now;
    `schema` are more properties of `io.Schema`.
    """

    def define_schema(cls: Any) -> io.Schema:
        return io.Schema(node_id, inputs=inputs(), outputs=outputs(), **schema)

    names = {"FAMILY": family, "define_schema": classmethod(define_schema)}
    return type(class_name or node_id, (AbsentNode,), names)
