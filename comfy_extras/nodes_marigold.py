"""Marigold V2: depth, normals and albedo from pictures."""

from __future__ import annotations

import folder_paths
from comfy_api.latest import ComfyExtension, io
from comfy_extras.absent_families import absent_node

ConditioningLoader = absent_node(
    "ConditioningLoader",
    "Marigold V2",
    display_name="Load Conditioning",
    category="model/loaders",
    inputs=lambda: [
        io.Combo.Input("conditioning_name", options=folder_paths.get_filename_list("embeddings"))
    ],
    outputs=lambda: [io.Conditioning.Output()],
)


MarigoldV2PostProcess = absent_node(
    "MarigoldV2PostProcess",
    "Marigold V2",
    display_name="Marigold V2 Post-Process",
    category="image",
    inputs=lambda: [
        io.Image.Input("image"),
        io.Combo.Input("prediction", options=["depth", "normals", "albedo"], default="depth"),
    ],
    outputs=lambda: [io.Image.Output()],
)


class MarigoldExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [ConditioningLoader, MarigoldV2PostProcess]


def comfy_entrypoint():
    return MarigoldExtension()
