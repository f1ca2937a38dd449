"""Curves, and the histograms that they are drawn over."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

_LUMINANCE = (0.2126, 0.7152, 0.0722)  # ITU-R BT.709


class CurveEditor(io.ComfyNode):
    """A curve that the user draws."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CurveEditor",
            display_name="Curve Editor",
            category="utilities",
            description="A curve of 0..1 to 0..1, drawn over a histogram if there is one.",
            inputs=[
                io.Curve.Input("curve"),
                io.Histogram.Input("histogram", optional=True),
            ],
            outputs=[io.Curve.Output(display_name="curve")],
            has_intermediate_output=True,
        )

    @classmethod
    def execute(cls, curve, histogram=None):
        from comfy_api.input import CurveInput

        shown = None if histogram is None else {"histogram": list(histogram)}
        return io.NodeOutput(CurveInput.from_raw(curve), ui=shown)


def _counts(values):
    """How many of the values in 0..1 are at each of 256 levels."""
    import torch

    levels = (values * 255).clamp(0, 255).long().flatten()
    return torch.bincount(levels, minlength=256)


class ImageHistogram(io.ComfyNode):
    """How often a picture has each level."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ImageHistogram",
            display_name="Image Histogram",
            category="utilities",
            description="Counts the pixels of the first picture at each of 256 levels.",
            inputs=[
                io.Image.Input("image"),
            ],
            outputs=[
                io.Histogram.Output(display_name="rgb"),
                io.Histogram.Output(display_name="luminance"),
                io.Histogram.Output(display_name="red"),
                io.Histogram.Output(display_name="green"),
                io.Histogram.Output(display_name="blue"),
            ],
        )

    @classmethod
    def execute(cls, image):
        colors = image[0, ..., :3].float().cpu()
        red, green, blue = (_counts(channel) for channel in colors.unbind(-1))
        luminance = _counts((colors * colors.new_tensor(_LUMINANCE)).sum(dim=-1))
        mean = (red + green + blue) // 3
        return io.NodeOutput(*(counts.tolist() for counts in (mean, luminance, red, green, blue)))


class CurveExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [CurveEditor, ImageHistogram]


def comfy_entrypoint():
    return CurveExtension()
