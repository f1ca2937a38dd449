"""Hunyuan3D: shapes from pictures."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_extras.video_conditioning import zeros
from comfy_extras.video_inputs import batch_size, sides_out


def _view_embedding(view, width):
    """(width,) sines and cosines that tell the views of a thing apart, numbered from 0."""
    import torch

    frequencies = 10000.0 ** -(torch.arange(width // 2) / (width / 2))
    return torch.cat([(view * frequencies).sin(), (view * frequencies).cos()])


def _sides_of(embeds):
    return [[embeds, {}]], [[embeds * 0, {}]]


class EmptyLatentHunyuan3Dv2(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="EmptyLatentHunyuan3Dv2",
            category="model/latent/hunyuan 3d",
            description="An empty latent for Hunyuan3D 2.",
            inputs=[io.Int.Input("resolution", default=3072, min=1, max=8192), batch_size()],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, resolution, batch_size):
        return io.NodeOutput({"samples": zeros(batch_size, 64, resolution), "type": "hunyuan3dv2"})

    generate = execute  # the name that node packs call


class Hunyuan3Dv2Conditioning(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Hunyuan3Dv2Conditioning",
            category="model/conditioning/hunyuan 3d",
            description="Lets a picture say what shape to make.",
            inputs=[io.ClipVisionOutput.Input("clip_vision_output")],
            outputs=sides_out(latent=False),
        )

    @classmethod
    def execute(cls, clip_vision_output):
        return io.NodeOutput(*_sides_of(clip_vision_output.last_hidden_state))

    encode = execute  # the name that node packs call


class Hunyuan3Dv2ConditioningMultiView(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Hunyuan3Dv2ConditioningMultiView",
            category="model/conditioning/hunyuan 3d",
            description="Lets pictures from up to four sides say what shape to make.",
            inputs=[
                io.ClipVisionOutput.Input("front", optional=True),
                io.ClipVisionOutput.Input("left", optional=True),
                io.ClipVisionOutput.Input("back", optional=True),
                io.ClipVisionOutput.Input("right", optional=True),
            ],
            outputs=sides_out(latent=False),
        )

    @classmethod
    def execute(cls, front=None, left=None, back=None, right=None):
        import torch

        views = [
            seen.last_hidden_state
            + _view_embedding(view, seen.last_hidden_state.shape[-1]).to(seen.last_hidden_state)
            for view, seen in enumerate((front, left, back, right))
            if seen is not None
        ]
        if not views:
            raise ValueError(
                "Hunyuan3Dv2ConditioningMultiView has no picture. Connect one of: front, left, back, right."
            )
        return io.NodeOutput(*_sides_of(torch.cat(views, dim=1)))

    encode = execute  # the name that node packs call


class VAEDecodeHunyuan3D(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="VAEDecodeHunyuan3D",
            category="model/latent/hunyuan 3d",
            description="Turns a latent into a volume.",
            inputs=[
                io.Latent.Input("samples"),
                io.Vae.Input("vae"),
                io.Int.Input("num_chunks", default=8000, min=1000, max=500000, advanced=True),
                io.Int.Input("octree_resolution", default=256, min=16, max=512, advanced=True),
            ],
            outputs=[io.Voxel.Output()],
        )

    @classmethod
    def execute(cls, vae, samples, num_chunks, octree_resolution):
        from comfy_api.latest import Types

        how = {"num_chunks": num_chunks, "octree_resolution": octree_resolution}
        return io.NodeOutput(Types.VOXEL(vae.decode(samples["samples"], vae_options=how)))

    decode = execute  # the name that node packs call


class Hunyuan3dExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [
            EmptyLatentHunyuan3Dv2,
            Hunyuan3Dv2Conditioning,
            Hunyuan3Dv2ConditioningMultiView,
            VAEDecodeHunyuan3D,
        ]


def comfy_entrypoint():
    return Hunyuan3dExtension()
