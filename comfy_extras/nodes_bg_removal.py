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


class RemoveBackground(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="RemoveBackground",
            display_name="Remove Background",
            category="image/background removal",
            description="A mask of what is in front.",
            inputs=[io.BackgroundRemoval.Input("bg_removal_model"), io.Image.Input("image")],
            outputs=[io.Mask.Output(display_name="mask")],
        )

    @classmethod
    def execute(cls, bg_removal_model, image):
        return io.NodeOutput(bg_removal_model.encode_image(image))


class BgRemovalExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [LoadBackgroundRemovalModel, RemoveBackground]


def comfy_entrypoint():
    return BgRemovalExtension()
