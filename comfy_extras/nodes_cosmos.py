"""Cosmos: empty latents, and latents that begin or end with given pictures."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_extras.video_conditioning import encoded, gray, latent_frames, ones, sized, without_content, zeros
from comfy_extras.video_inputs import video_size


def _encoded_with_room(vae, images, width, height, length, more=0):
    """The latent of the pictures, encoded with `more` latent frames of gray behind them."""
    pixels = sized(images[..., :3], width, height)[:length]
    frames = latent_frames(len(pixels), 8)
    video = gray(min(length, (frames + more) * 8 - 7), height, width)
    video[: len(pixels)] = pixels[: len(video)]
    return encoded(vae, video)[:, :, :frames]


def _between(vae, width, height, length, per, start_image, end_image):
    """The latent of one video with the given ends, and a mask of what is to be made."""
    latent = zeros(1, 16, latent_frames(length, per), height // 8, width // 8)
    mask = ones(1, 1, *latent.shape[2:])
    if start_image is not None:
        part = _encoded_with_room(vae, start_image, width, height, length, more=1)
        latent[:, :, : part.shape[2]] = part
        mask[:, :, : part.shape[2]] = 0
    if end_image is not None:
        part = _encoded_with_room(vae, end_image, width, height, length)
        latent[:, :, -part.shape[2] :] = part
        mask[:, :, -part.shape[2] :] = 0
    return latent, mask


def _repeated(latent, mask, batch_size):
    return {
        name: value.repeat(batch_size, 1, 1, 1, 1)
        for name, value in (("samples", latent), ("noise_mask", mask))
    }


class EmptyCosmosLatentVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="EmptyCosmosLatentVideo",
            category="model/latent/cosmos",
            description="An empty video latent for Cosmos 1.",
            inputs=video_size(1280, 704, 121, length_step=8),
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, width, height, length, batch_size):
        return io.NodeOutput(
            {"samples": zeros(batch_size, 16, latent_frames(length, 8), height // 8, width // 8)}
        )


class CosmosImageToVideoLatent(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CosmosImageToVideoLatent",
            category="model/conditioning/cosmos",
            description="A latent for Cosmos 1 that begins or ends with given pictures.",
            inputs=[
                io.Vae.Input("vae"),
                *video_size(1280, 704, 121, length_step=8),
                io.Image.Input("start_image", optional=True),
                io.Image.Input("end_image", optional=True),
            ],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, vae, width, height, length, batch_size, start_image=None, end_image=None):
        latent, mask = _between(vae, width, height, length, 8, start_image, end_image)
        if start_image is None and end_image is None:
            return io.NodeOutput({"samples": latent})
        return io.NodeOutput(_repeated(latent, mask, batch_size))


class CosmosPredict2ImageToVideoLatent(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CosmosPredict2ImageToVideoLatent",
            category="model/conditioning/cosmos",
            description="A latent for Cosmos Predict 2 that begins or ends with given pictures.",
            inputs=[
                io.Vae.Input("vae"),
                *video_size(848, 480, 93),
                io.Image.Input("start_image", optional=True),
                io.Image.Input("end_image", optional=True),
            ],
            outputs=[io.Latent.Output()],
        )

    @classmethod
    def execute(cls, vae, width, height, length, batch_size, start_image=None, end_image=None):
        latent, mask = _between(vae, width, height, length, 4, start_image, end_image)
        if start_image is None and end_image is None:
            return io.NodeOutput({"samples": latent})
        latent = latent * (1 - mask) + without_content(latent) * mask
        return io.NodeOutput(_repeated(latent, mask, batch_size))


class CosmosExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [EmptyCosmosLatentVideo, CosmosImageToVideoLatent, CosmosPredict2ImageToVideoLatent]


def comfy_entrypoint():
    return CosmosExtension()
