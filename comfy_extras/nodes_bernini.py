"""Bernini: videos edited by a source video and reference pictures."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_extras.absent_families import absent_node
from comfy_extras.video_inputs import batch_size, guided, sides_out

BerniniConditioning = absent_node(
    "BerniniConditioning",
    "Bernini",
    display_name="Bernini Conditioning",
    category="model/conditioning/bernini",
    inputs=lambda: [
        *guided(),
        io.Int.Input("width", default=832, min=16, max=8192, step=16),
        io.Int.Input("height", default=480, min=16, max=8192, step=16),
        io.Int.Input("length", default=81, min=1, max=8192, step=4),
        batch_size(),
        io.Image.Input("source_video", optional=True),
        io.Image.Input("reference_video", optional=True),
        io.Autogrow.Input(
            "reference_images",
            io.Autogrow.TemplatePrefix(
                io.Image.Input("reference_image"), prefix="reference_image_", min=0, max=8
            ),
            optional=True,
        ),
        io.Int.Input("ref_max_size", default=848, min=16, max=8192, step=16, optional=True),
    ],
    outputs=lambda: sides_out(),
)


class BerniniExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [BerniniConditioning]


def comfy_entrypoint():
    return BerniniExtension()
