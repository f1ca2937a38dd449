"""Two pictures under a slider."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io


class ImageCompare(io.ComfyNode):
    """Shows two pictures so that they can be compared."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ImageCompare",
            display_name="Compare Images",
            category="image",
            description="Shows two pictures on one another, with a slider between them.",
            essentials_category="Image Tools",
            inputs=[
                io.Image.Input("image_a", optional=True),
                io.Image.Input("image_b", optional=True),
                io.ImageCompare.Input("compare_view"),
            ],
            outputs=[],
            is_output_node=True,
            is_experimental=True,
        )

    @classmethod
    def execute(cls, image_a=None, image_b=None, compare_view=None):
        from comfy_extras.core_files import PreviewImage

        shown = {"a_images": [], "b_images": []}
        for side, images in (("a", image_a), ("b", image_b)):
            if images is not None and len(images) > 0:
                saved = PreviewImage().save_images(images, f"comfy.compare.{side}")
                shown[f"{side}_images"] = saved["ui"]["images"]
        return io.NodeOutput(ui=shown)


class ImageCompareExtension(ComfyExtension):
    """The node of this topic."""

    async def get_node_list(self):
        return [ImageCompare]


def comfy_entrypoint():
    return ImageCompareExtension()
