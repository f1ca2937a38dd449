"""PhotoMaker's nodes: real signatures; its network is not here."""

from __future__ import annotations

import folder_paths
from comfy_api.latest import ComfyExtension, io
from comfy_extras.absent_families import absent_node

PhotoMakerType = io.Custom("PHOTOMAKER")

PhotoMakerLoader = absent_node(
    "PhotoMakerLoader",
    "PhotoMaker",
    display_name="Load PhotoMaker Model",
    category="model/loaders",
    is_experimental=True,
    inputs=lambda: [
        io.Combo.Input("photomaker_model_name", options=folder_paths.get_filename_list("photomaker"))
    ],
    outputs=lambda: [PhotoMakerType.Output()],
)

PhotoMakerEncode = absent_node(
    "PhotoMakerEncode",
    "PhotoMaker",
    display_name="PhotoMaker Encode",
    category="model/conditioning/photomaker",
    is_experimental=True,
    inputs=lambda: [
        PhotoMakerType.Input("photomaker"),
        io.Image.Input("image"),
        io.Clip.Input("clip"),
        io.String.Input("text", multiline=True, dynamic_prompts=True, default="photograph of photomaker"),
    ],
    outputs=lambda: [io.Conditioning.Output()],
)


class PhotomakerExtension(ComfyExtension):
    async def get_node_list(self):
        return [PhotoMakerLoader, PhotoMakerEncode]


async def comfy_entrypoint():
    return PhotomakerExtension()
