"""Backgrounds removed by a network."""

from __future__ import annotations

import folder_paths
from comfy_api.latest import ComfyExtension, io
from comfy_extras.absent_families import absent_node

LoadBackgroundRemovalModel = absent_node(
    "LoadBackgroundRemovalModel",
    "BiRefNet",
    display_name="Load Background Removal Model",
    category="model/loaders",
    description="Loads a network that finds what is in front.",
    inputs=lambda: [
        io.Combo.Input("bg_removal_name", options=folder_paths.get_filename_list("background_removal"))
    ],
    outputs=lambda: [io.BackgroundRemoval.Output(display_name="bg_model")],
)


RemoveBackground = absent_node(
    "RemoveBackground",
    "BiRefNet",
    display_name="Remove Background",
    category="image/background removal",
    inputs=lambda: [io.BackgroundRemoval.Input("bg_removal_model"), io.Image.Input("image")],
    outputs=lambda: [io.Mask.Output(display_name="mask")],
)


class BgRemovalExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [LoadBackgroundRemovalModel, RemoveBackground]


def comfy_entrypoint():
    return BgRemovalExtension()
