"""Morphology, and luma and chroma of pictures."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io


class Morphology(io.ComfyNode):
    """Dilation, erosion and what is made of them."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Morphology",
            display_name="Apply Morphology",
            category="image/filters",
            description="Widens or narrows what is light, in each channel, with a square.",
            search_aliases=["erode", "dilate"],
            inputs=[
                io.Image.Input("image"),
                io.Combo.Input(
                    "operation",
                    options=["erode", "dilate", "open", "close", "gradient", "bottom_hat", "top_hat"],
                ),
                io.Int.Input(
                    "kernel_size", default=3, min=3, max=999, step=1, tooltip="Side of the square in pixels."
                ),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, image, operation, kernel_size):
        import comfy.model_management
        from comfy.picture_filters import MORPHOLOGY

        if operation not in MORPHOLOGY:
            raise ValueError(f"There is no operation {operation!r}. There are: {', '.join(MORPHOLOGY)}.")
        pictures = image.to(comfy.model_management.get_torch_device()).movedim(-1, 1)
        out = MORPHOLOGY[operation](pictures, kernel_size).movedim(1, -1)
        return io.NodeOutput(out.to(comfy.model_management.intermediate_device()))


class ImageRGBToYUV(io.ComfyNode):
    """Luma and chroma as gray pictures."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ImageRGBToYUV",
            display_name="Image RGB to YUV",
            category="image/color",
            description="Splits pictures into luma and two chroma channels (BT.601, full range).",
            search_aliases=["color space conversion"],
            inputs=[
                io.Image.Input("image"),
            ],
            outputs=[
                io.Image.Output(display_name="Y"),
                io.Image.Output(display_name="U"),
                io.Image.Output(display_name="V"),
            ],
        )

    @classmethod
    def execute(cls, image):
        from comfy.color_spaces import rgb_to_ycbcr

        parts = rgb_to_ycbcr(image).unbind(-1)
        return io.NodeOutput(*(part.unsqueeze(-1).expand(-1, -1, -1, 3) for part in parts))


class ImageYUVToRGB(io.ComfyNode):
    """Pictures of luma and chroma."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ImageYUVToRGB",
            display_name="Image YUV to RGB",
            category="image/color",
            description="Joins luma and chroma channels to pictures.",
            search_aliases=["color space conversion"],
            inputs=[
                io.Image.Input("Y"),
                io.Image.Input("U"),
                io.Image.Input("V"),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, Y, U, V):
        import torch

        from comfy.color_spaces import ycbcr_to_rgb

        return io.NodeOutput(ycbcr_to_rgb(torch.stack([part.mean(dim=-1) for part in (Y, U, V)], dim=-1)))


class MorphologyExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [Morphology, ImageRGBToYUV, ImageYUVToRGB]


def comfy_entrypoint():
    return MorphologyExtension()
