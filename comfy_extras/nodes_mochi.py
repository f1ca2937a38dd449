"""Mochi: empty latents."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_extras.video_conditioning import latent_frames, zeros
from comfy_extras.video_inputs import video_size


class EmptyMochiLatentVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="EmptyMochiLatentVideo",
            category="model/latent/mochi",
            description="An empty video latent for Mochi.",
            inputs=video_size(848, 480, 25, shortest=7, length_step=6),
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, width, height, length, batch_size):
        return io.NodeOutput(
            {"samples": zeros(batch_size, 12, latent_frames(length, 6), height // 8, width // 8)}
        )


class MochiExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [EmptyMochiLatentVideo]


def comfy_entrypoint():
    return MochiExtension()
