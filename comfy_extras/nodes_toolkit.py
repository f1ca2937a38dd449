"""Lists of values: nodes that take them are called once per item."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io


class CreateList(io.ComfyNode):
    """All values of all inputs, as one list."""

    @classmethod
    def define_schema(cls):
        kind = io.MatchType.Template("type")
        many = io.Autogrow.TemplatePrefix(io.MatchType.Input("input", kind), prefix="input", min=1, max=10)
        return io.Schema(
            node_id="CreateList",
            display_name="Create List",
            category="utilities",
            description="Makes a list: what is linked to it runs once for each item.",
            search_aliases=["Image Iterator", "Text Iterator", "Iterator"],
            is_input_list=True,
            inputs=[io.Autogrow.Input("inputs", many)],
            outputs=[io.MatchType.Output(kind, display_name="list", is_output_list=True)],
        )

    @classmethod
    def execute(cls, inputs):
        return io.NodeOutput([item for items in inputs.values() for item in items])


class GetItemFromList(io.ComfyNode):
    """One item of a list."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="GetItemFromList",
            display_name="Get Item From List",
            category="utilities",
            description="Picks an item by its place, from 0; negative places count from the end.",
            is_input_list=True,
            inputs=[io.AnyType.Input("list"), io.Int.Input("index", default=0)],
            outputs=[io.AnyType.Output(is_output_list=True)],
        )

    @classmethod
    def execute(cls, list, index):
        place = index[0]
        if not -len(list) <= place < len(list):
            raise ValueError(f"There is no item {place} in a list of {len(list)}. Choose a smaller index.")
        item = list[place]
        return io.NodeOutput(item if isinstance(item, type([])) else [item])


class ToolkitExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [CreateList, GetItemFromList]


def comfy_entrypoint():
    return ToolkitExtension()
