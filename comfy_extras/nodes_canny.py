"""Edges of pictures."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io


class Canny(io.ComfyNode):
    """White lines on black."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Canny",
            display_name="Detect Edges (Canny)",
            category="image/filters",
            description="Draws the edges of pictures as white lines.",
            search_aliases=["edge detection", "outline", "contour detection", "line art"],
            essentials_category="Image Tools",
            inputs=[
                io.Image.Input("image"),
                io.Float.Input(
                    "low_threshold",
                    default=0.4,
                    min=0.01,
                    max=0.99,
                    step=0.01,
                    tooltip="Gradients above it are edges where they touch stronger ones.",
                ),
                io.Float.Input(
                    "high_threshold",
                    default=0.8,
                    min=0.01,
                    max=0.99,
                    step=0.01,
                    tooltip="Gradients above it are edges.",
                ),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, image, low_threshold, high_threshold):
        import torch

        import comfy.model_management
        from comfy.picture_filters import canny

        pictures = image.to(comfy.model_management.get_torch_device(), torch.float32).movedim(-1, 1)
        edges = canny(pictures, low_threshold, high_threshold)
        return io.NodeOutput(
            edges.to(comfy.model_management.intermediate_device()).movedim(1, -1).repeat(1, 1, 1, 3)
        )

    detect_edge = execute  # the name that node packs call


class CannyExtension(ComfyExtension):
    """The node of this topic."""

    async def get_node_list(self):
        return [Canny]


def comfy_entrypoint():
    return CannyExtension()
