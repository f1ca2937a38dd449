"""Successors of node classes that are gone: the server puts them into workflows that still name the old ones,
and the web page offers the same.
"""

from __future__ import annotations

from comfy_api.latest import ComfyAPI, ComfyExtension, io

SUCCESSORS = (
    io.NodeReplace("ConditioningAverage", "ConditioningAverage "),
    io.NodeReplace("SVD_img2vid_Conditioning", "SDV_img2vid_Conditioning"),
    io.NodeReplace("Load3D", "Load3DAnimation"),
    io.NodeReplace("Preview3D", "Preview3DAnimation"),
    io.NodeReplace(
        "ControlNetLoader",
        "T2IAdapterLoader",
        input_mapping=[{"new_id": "control_net_name", "old_id": "t2i_adapter_name"}],
    ),
    io.NodeReplace(
        "BatchImagesNode",
        "ImageBatch",
        input_mapping=[
            {"new_id": "images.image0", "old_id": "image1"},
            {"new_id": "images.image1", "old_id": "image2"},
        ],
    ),
    io.NodeReplace(
        "ImageScaleToMaxDimension",
        "ResizeImagesByLongerEdge",
        old_widget_ids=["longer_edge"],
        input_mapping=[
            {"new_id": "image", "old_id": "images"},
            {"new_id": "largest_size", "old_id": "longer_edge"},
            {"new_id": "upscale_method", "set_value": "lanczos"},
        ],
        output_mapping=[{"new_idx": 0, "old_idx": 0}],
    ),
    io.NodeReplace(
        "ResizeImageMaskNode",
        "ImageScaleBy",
        old_widget_ids=["upscale_method", "scale_by"],
        input_mapping=[
            {"new_id": "input", "old_id": "image"},
            {"new_id": "resize_type", "set_value": "scale by multiplier"},
            {"new_id": "resize_type.multiplier", "old_id": "scale_by"},
            {"new_id": "scale_method", "old_id": "upscale_method"},
        ],
    ),
)


class Replacements(ComfyExtension):
    """No nodes, only what stands for nodes."""

    async def on_load(self) -> None:
        api = ComfyAPI()
        for successor in SUCCESSORS:
            await api.node_replacement.register(successor)

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return []


def comfy_entrypoint() -> Replacements:
    """The extension, as node packs have it."""
    return Replacements()
