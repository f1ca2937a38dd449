"""Other sizes of batches."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io


class RebatchImages(io.ComfyNode):
    """Batches of a given size, out of all pictures that come in. The last one may be smaller."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="RebatchImages",
            display_name="Rebatch Images",
            category="image/batch",
            description="Makes batches of a given size out of all pictures that come in.",
            inputs=[
                io.Image.Input("images"),
                io.Int.Input("batch_size", default=1, min=1, max=4096),
            ],
            outputs=[io.Image.Output(display_name="IMAGE", is_output_list=True)],
            is_input_list=True,
        )

    @classmethod
    def execute(cls, images, batch_size):
        import torch

        singles = [single for batch in images for single in batch.split(1)]
        size = batch_size[0]
        return io.NodeOutput(
            [torch.cat(singles[start : start + size]) for start in range(0, len(singles), size)]
        )


class RebatchExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [RebatchImages]


def comfy_entrypoint():
    return RebatchExtension()
