"""Video models that make one block of frames after the other."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_extras.absent_families import absent_node
from comfy_extras.video_conditioning import encoded, latent_frames, sized, zeros


class EmptyARVideoLatent(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="EmptyARVideoLatent",
            category="model/latent/autoregressive",
            description="An empty latent for video models that make one block after the other.",
            inputs=[
                io.Int.Input("width", default=832, min=16, max=8192, step=16),
                io.Int.Input("height", default=480, min=16, max=8192, step=16),
                io.Int.Input("length", default=81, min=1, max=1024, step=4),
                io.Int.Input("batch_size", default=1, min=1, max=64),
            ],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, width, height, length, batch_size):
        return io.NodeOutput(
            {"samples": zeros(batch_size, 16, latent_frames(length), height // 8, width // 8)}
        )


SamplerARVideo = absent_node(
    "SamplerARVideo",
    "Wan 2.1 (autoregressive)",
    display_name="Sampler AR Video",
    category="model/sampling/samplers",
    description="A sampler that makes one block of frames after the other.",
    inputs=lambda: [io.Int.Input("num_frame_per_block", default=1, min=1, max=64)],
    outputs=lambda: [io.Sampler.Output()],
)


class ARVideoI2V(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ARVideoI2V",
            category="model/conditioning/autoregressive",
            description="Lets a video begin with a picture.",
            inputs=[
                io.Model.Input("model"),
                io.Vae.Input("vae"),
                io.Image.Input("start_image"),
                io.Int.Input("width", default=832, min=16, max=8192, step=16),
                io.Int.Input("height", default=480, min=16, max=8192, step=16),
                io.Int.Input("length", default=81, min=1, max=1024, step=4),
                io.Int.Input("batch_size", default=1, min=1, max=64),
            ],
            outputs=[io.Model.Output(), io.Latent.Output()],
        )

    @classmethod
    def execute(cls, model, vae, start_image, width, height, length, batch_size):
        begin = encoded(vae, sized(start_image[:1], width, height))
        begun = model.clone()
        options = begun.model_options.setdefault("transformer_options", {})
        options["ar_config"] = {**options.get("ar_config", {}), "initial_latent": begin}
        samples = zeros(batch_size, 16, latent_frames(length), height // 8, width // 8)
        return io.NodeOutput(begun, {"samples": samples})


class ArVideoExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [EmptyARVideoLatent, SamplerARVideo, ARVideoI2V]


def comfy_entrypoint():
    return ArVideoExtension()
