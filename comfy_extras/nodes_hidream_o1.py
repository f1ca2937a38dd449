"""HiDream-O1, which samples pixels instead of latents."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_extras.absent_families import absent_node
from comfy_extras.video_conditioning import both, numbered, zeros
from comfy_extras.video_inputs import guided, sides_out


class EmptyHiDreamO1LatentImage(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="EmptyHiDreamO1LatentImage",
            display_name="Empty HiDream-O1 Latent Image",
            category="model/latent/hidream",
            description=(
                "An empty picture for HiDream-O1, which was taught about 4 megapixels and needs no VAE."
            ),
            inputs=[
                io.Int.Input("width", default=2048, min=64, max=4096, step=32),
                io.Int.Input("height", default=2048, min=64, max=4096, step=32),
                io.Int.Input("batch_size", default=1, min=1, max=64),
            ],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, width, height, batch_size=1):
        return io.NodeOutput({"samples": zeros(batch_size, 3, height, width)})


class HiDreamO1ReferenceImages(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="HiDreamO1ReferenceImages",
            display_name="HiDream-O1 Reference Images",
            category="model/conditioning/hidream",
            description="Gives one picture to edit, or several with what is to be shown.",
            inputs=[
                *guided(vae=False),
                io.Autogrow.Input(
                    "images",
                    io.Autogrow.TemplateNames(
                        io.Image.Input("image"),
                        names=[
                            "image_1",
                            "image_2",
                            "image_3",
                            "image_4",
                            "image_5",
                            "image_6",
                            "image_7",
                            "image_8",
                            "image_9",
                            "image_10",
                        ],
                        min=1,
                    ),
                ),
            ],
            outputs=sides_out(latent=False),
        )

    @classmethod
    def execute(cls, positive, negative, images):
        return io.NodeOutput(*both(positive, negative, {"reference_latents": numbered(images)}, append=True))


HiDreamO1PatchSeamSmoothing = absent_node(
    "HiDreamO1PatchSeamSmoothing",
    "HiDream-O1",
    display_name="HiDream-O1 Patch Seam Smoothing",
    category="model/patch/hidream",
    description="Smooths the seams between patches while sampling.",
    is_experimental=True,
    inputs=lambda: [
        io.Model.Input("model"),
        io.Float.Input("start_percent", default=0.8, min=0.0, max=1.0, step=0.01),
        io.Float.Input("end_percent", default=1.0, min=0.0, max=1.0, step=0.01),
        io.Combo.Input("pattern", options=["single_shift", "symmetric"], default="single_shift"),
        io.Combo.Input("passes", options=["2", "4", "ramp_2_4", "ramp_2_4_8"], default="2"),
        io.Combo.Input("blend", options=["average", "window", "median"], default="average"),
        io.Float.Input("strength", default=1.0, min=0.0, max=1.0, step=0.01),
    ],
    outputs=lambda: [io.Model.Output()],
)


class HidreamO1Extension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [EmptyHiDreamO1LatentImage, HiDreamO1ReferenceImages, HiDreamO1PatchSeamSmoothing]


def comfy_entrypoint():
    return HidreamO1Extension()
