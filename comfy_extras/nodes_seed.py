"""A seed for several nodes."""

from __future__ import annotations

import sys

from comfy_api.latest import ComfyExtension, io


class SeedNode(io.ComfyNode):
    """One seed, handed to all nodes that are linked to it."""

    @classmethod
    def define_schema(cls):
        fixed = io.ControlAfterGenerate.fixed
        return io.Schema(
            node_id="SeedNode",
            display_name="Seed",
            category="utilities",
            search_aliases=["seed", "random"],
            inputs=[io.Int.Input("seed", min=0, max=sys.maxsize, control_after_generate=fixed)],
            outputs=[io.Int.Output(display_name="seed")],
        )

    @classmethod
    def execute(cls, seed):
        return io.NodeOutput(seed)


class SeedExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [SeedNode]


def comfy_entrypoint():
    return SeedExtension()
