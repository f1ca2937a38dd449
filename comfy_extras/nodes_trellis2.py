"""Trellis 2 and Pixal3D: textured shapes from pictures."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_extras.absent_families import absent_node
from comfy_extras.video_inputs import batch_size, guided, sides_out

Trellis2Conditioning = absent_node(
    "Trellis2Conditioning",
    "Trellis 2",
    category="model/conditioning/trellis2",
    inputs=lambda: [io.ClipVision.Input("clip_vision_model"), io.Image.Input("image")],
    outputs=lambda: sides_out(latent=False),
)


Pixal3DConditioning = absent_node(
    "Pixal3DConditioning",
    "Trellis 2",
    category="model/conditioning/trellis2",
    inputs=lambda: [
        io.ClipVision.Input("clip_vision_model"),
        io.Image.Input("image"),
        io.Float.Input("camera_angle_x", display_name="fov", default=49.13, min=1.0, max=170.0, step=0.01),
    ],
    outputs=lambda: sides_out(latent=False),
)


Trellis2ShapeStage = absent_node(
    "Trellis2ShapeStage",
    "Trellis 2",
    category="model/conditioning/trellis2",
    inputs=lambda: [*guided(vae=False), io.Voxel.Input("voxel")],
    outputs=lambda: [*sides_out(latent=False), io.Latent.Output()],
)


class EmptyTrellis2LatentStructure(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="EmptyTrellis2LatentStructure",
            category="model/latent/trellis",
            inputs=[batch_size()],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, batch_size):
        from comfy_extras.video_conditioning import zeros

        return io.NodeOutput({"samples": zeros(batch_size, 32, 16, 16, 16), "type": "trellis2"})


Trellis2TextureStage = absent_node(
    "Trellis2TextureStage",
    "Trellis 2",
    category="model/conditioning/trellis2",
    inputs=lambda: [*guided(vae=False), io.Latent.Input("shape_latent")],
    outputs=lambda: [*sides_out(latent=False), io.Latent.Output()],
)


VaeDecodeTextureTrellis = absent_node(
    "VaeDecodeTextureTrellis",
    "Trellis 2",
    category="model/latent/trellis",
    inputs=lambda: [
        io.Latent.Input("samples"),
        io.Vae.Input("vae"),
        io.Custom("SHAPE_SUBDIVIDES").Input("shape_subdivides"),
    ],
    outputs=lambda: [io.Voxel.Output(display_name="voxel_colors")],
)


VaeDecodeShapeTrellis = absent_node(
    "VaeDecodeShapeTrellis",
    "Trellis 2",
    category="model/latent/trellis",
    inputs=lambda: [io.Latent.Input("samples"), io.Vae.Input("vae")],
    outputs=lambda: [
        io.Mesh.Output(display_name="mesh"),
        io.Custom("SHAPE_SUBDIVIDES").Output(display_name="shape_subdivides"),
    ],
)


VaeDecodeStructureTrellis2 = absent_node(
    "VaeDecodeStructureTrellis2",
    "Trellis 2",
    category="model/latent/trellis",
    inputs=lambda: [
        io.Latent.Input("samples"),
        io.Vae.Input("vae"),
        io.Combo.Input("resolution", options=["32", "64"], default="32"),
    ],
    outputs=lambda: [io.Voxel.Output(display_name="voxel")],
)


Trellis2UpsampleStage = absent_node(
    "Trellis2UpsampleStage",
    "Trellis 2",
    display_name="Trellis2 Upsample Stage",
    category="model/conditioning/trellis2",
    inputs=lambda: [
        *guided(vae=False),
        io.Latent.Input("shape_latent"),
        io.Vae.Input("vae"),
        io.Int.Input("target_resolution", default=1024, min=1024, max=2048, step=128),
    ],
    outputs=lambda: [*sides_out(latent=False), io.Latent.Output()],
)


Pixal3DMultiViewConditioning = absent_node(
    "Pixal3DMultiViewConditioning",
    "Trellis 2",
    display_name="Pixal3D Multi-View Conditioning",
    category="model/conditioning/trellis2",
    inputs=lambda: [
        io.ClipVision.Input("clip_vision_model"),
        io.Float.Input("fov", default=20.0, min=1.0, max=120.0, step=0.01),
        io.Image.Input("front", optional=True),
        io.Image.Input("left", optional=True),
        io.Image.Input("back", optional=True),
        io.Image.Input("right", optional=True),
    ],
    outputs=lambda: sides_out(latent=False),
)


class Trellis2Extension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [
            Trellis2Conditioning,
            Pixal3DConditioning,
            Trellis2ShapeStage,
            EmptyTrellis2LatentStructure,
            Trellis2TextureStage,
            VaeDecodeTextureTrellis,
            VaeDecodeShapeTrellis,
            VaeDecodeStructureTrellis2,
            Trellis2UpsampleStage,
            Pixal3DMultiViewConditioning,
        ]


def comfy_entrypoint():
    return Trellis2Extension()
