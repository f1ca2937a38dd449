"""Nodes of old workflows whose work the server does by itself."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io


class wanBlockSwap(io.ComfyNode):  # noqa: N801  (the name stands in workflows)
    """Hands the model on: where its weights lie is decided by the server."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="wanBlockSwap",
            category="",
            description="Does nothing: the server moves a model's weights as memory allows.",
            inputs=[io.Model.Input("model")],
            outputs=[io.Model.Output()],
            is_deprecated=True,
        )

    @classmethod
    def execute(cls, model):
        return io.NodeOutput(model)


class NopExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [wanBlockSwap]


def comfy_entrypoint():
    return NopExtension()
