"""Choices: which of two inputs is computed, an entry of a list, and what is true of several values."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io


class SwitchNode(io.ComfyNode):
    """Gives one of two values. The other one is not computed."""

    @classmethod
    def define_schema(cls):
        kind = io.MatchType.Template("switch")
        return io.Schema(
            node_id="ComfySwitchNode",
            display_name="If/Else Switch",
            category="utilities/logic",
            description="Gives one of two values; what only the other one needs is not run.",
            search_aliases=["if", "then", "switch", "conditional", "branch"],
            is_experimental=True,
            inputs=[
                io.Boolean.Input("switch"),
                io.MatchType.Input("on_false", kind, lazy=True),
                io.MatchType.Input("on_true", kind, lazy=True),
            ],
            outputs=[io.MatchType.Output(kind, display_name="output")],
        )

    @classmethod
    def check_lazy_status(cls, switch, on_false=None, on_true=None):
        name, value = ("on_true", on_true) if switch else ("on_false", on_false)
        return [name] if value is None else []

    @classmethod
    def execute(cls, switch, on_false=None, on_true=None):
        return io.NodeOutput(on_true if switch else on_false)


class CustomComboNode(io.ComfyNode):
    """A list to choose from, whose entries are written in the web page."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CustomCombo",
            display_name="Custom Combo",
            category="utilities",
            description="Gives the chosen text of a list of your own, and its place in the list.",
            is_experimental=True,
            inputs=[io.Combo.Input("choice", options=[])],
            outputs=[io.String.Output(display_name="STRING"), io.Int.Output(display_name="INDEX")],
            accept_all_inputs=True,
        )

    @classmethod
    def validate_inputs(cls, choice, index=0, **entries):
        return True  # The entries are known to the web page only.

    @classmethod
    def execute(cls, choice, index=0, **entries):
        return io.NodeOutput(choice, index)


class NotNode(io.ComfyNode):
    """Turns true into false."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ComfyNotNode",
            display_name="Not",
            category="utilities/logic",
            description="True for what is false, zero or empty.",
            search_aliases=["invert", "toggle", "negate", "flip boolean"],
            inputs=[io.AnyType.Input("value")],
            outputs=[io.Boolean.Output()],
        )

    @classmethod
    def execute(cls, value):
        return io.NodeOutput(not value)


def _of_several(node_id, title, aliases, description):
    many = io.Autogrow.TemplatePrefix(io.AnyType.Input("value"), prefix="value", min=1, max=10)
    return io.Schema(
        node_id=node_id,
        display_name=title,
        category="utilities/logic",
        description=description,
        search_aliases=aliases,
        inputs=[io.Autogrow.Input("values", many)],
        outputs=[io.Boolean.Output()],
    )


class AndNode(io.ComfyNode):
    """Are all values true?"""

    @classmethod
    def define_schema(cls):
        return _of_several("ComfyAndNode", "And", ["all", "every"], "True if all of the values are.")

    @classmethod
    def execute(cls, values):
        return io.NodeOutput(all(values.values()))


class OrNode(io.ComfyNode):
    """Is any value true?"""

    @classmethod
    def define_schema(cls):
        return _of_several("ComfyOrNode", "Or", ["any", "some"], "True if one of the values is, or more.")

    @classmethod
    def execute(cls, values):
        return io.NodeOutput(any(values.values()))


class LogicExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [SwitchNode, CustomComboNode, NotNode, AndNode, OrNode]


def comfy_entrypoint():
    return LogicExtension()
