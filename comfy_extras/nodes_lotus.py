"""Conditioning of Lotus (arXiv:2409.18124), which finds depth and normals and takes no prompt."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_extras.absent_families import absent_node

LotusConditioning = absent_node(
    "LotusConditioning", "Lotus",
    category="model/conditioning/lotus",
    description="What Lotus needs in the place of a prompt: an empty one of its text encoder, two tokens.",
    outputs=lambda: [io.Conditioning.Output(display_name="conditioning")],
)  # fmt: skip


class LotusExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [LotusConditioning]


def comfy_entrypoint():
    return LotusExtension()
