"""Stable Zero123 and SV3D: other views of a thing in a picture."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_extras.video_conditioning import encoded, sized
from comfy_extras.video_inputs import batch_size, frame_size, sides_out


def camera_embeddings(elevation, azimuth):
    """(1, 1, 4): polar angle from that of the picture, sine and cosine of the azimuth, and 90 degrees."""
    import torch

    height, turn = torch.deg2rad(torch.tensor([-elevation, azimuth], dtype=torch.float32))
    return torch.stack([height, turn.sin(), turn.cos(), torch.deg2rad(torch.tensor(90.0))]).view(1, 1, 4)


def _seen(clip_vision, vae, image, width, height):
    """The picture as the encoder sees it (1, B, C), and its latent."""
    embeds = clip_vision.encode_image(image).image_embeds.unsqueeze(0)
    return embeds, encoded(vae, sized(image, width, height))


def _sides(embeds, nothing, latent, **values):
    import torch

    positive = [[embeds, {"concat_latent_image": latent, **values}]]
    return positive, [
        [torch.zeros_like(nothing), {"concat_latent_image": torch.zeros_like(latent), **values}]
    ]


def _empty(count, width, height):
    import torch

    return torch.zeros(count, 4, height // 8, width // 8)


class StableZero123_Conditioning(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="StableZero123_Conditioning",
            category="model/conditioning/stable zero123",
            description="Shows the thing in a picture from another side.",
            inputs=[
                io.ClipVision.Input("clip_vision"),
                io.Image.Input("init_image"),
                io.Vae.Input("vae"),
                *frame_size(256, 256, step=8),
                batch_size(),
                io.Float.Input("elevation", default=0.0, min=-180.0, max=180.0, step=0.1, round=False),
                io.Float.Input("azimuth", default=0.0, min=-180.0, max=180.0, step=0.1, round=False),
            ],
            outputs=sides_out(),
        )

    @classmethod
    def execute(cls, clip_vision, init_image, vae, width, height, batch_size, elevation, azimuth):
        import torch

        seen, latent = _seen(clip_vision, vae, init_image, width, height)
        camera = camera_embeddings(elevation, azimuth).to(seen).repeat(len(seen), 1, 1)
        sides = _sides(torch.cat([seen, camera], dim=-1), seen, latent)
        return io.NodeOutput(*sides, {"samples": _empty(batch_size, width, height)})


class StableZero123_Conditioning_Batched(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="StableZero123_Conditioning_Batched",
            category="model/conditioning/stable zero123",
            description="Shows the thing in a picture from several sides, a step apart.",
            inputs=[
                io.ClipVision.Input("clip_vision"),
                io.Image.Input("init_image"),
                io.Vae.Input("vae"),
                *frame_size(256, 256, step=8),
                batch_size(),
                io.Float.Input("elevation", default=0.0, min=-180.0, max=180.0, step=0.1, round=False),
                io.Float.Input("azimuth", default=0.0, min=-180.0, max=180.0, step=0.1, round=False),
                io.Float.Input(
                    "elevation_batch_increment",
                    default=0.0,
                    min=-180.0,
                    max=180.0,
                    step=0.1,
                    round=False,
                    advanced=True,
                ),
                io.Float.Input(
                    "azimuth_batch_increment",
                    default=0.0,
                    min=-180.0,
                    max=180.0,
                    step=0.1,
                    round=False,
                    advanced=True,
                ),
            ],
            outputs=sides_out(),
        )

    @classmethod
    def execute(
        cls,
        clip_vision,
        init_image,
        vae,
        width,
        height,
        batch_size,
        elevation,
        azimuth,
        elevation_batch_increment,
        azimuth_batch_increment,
    ):
        import torch

        import comfy.utils

        seen, latent = _seen(clip_vision, vae, init_image, width, height)
        cameras = [
            camera_embeddings(
                elevation + number * elevation_batch_increment, azimuth + number * azimuth_batch_increment
            )
            for number in range(batch_size)
        ]
        repeated = comfy.utils.repeat_to_batch_size(seen, batch_size)
        sides = _sides(torch.cat([repeated, torch.cat(cameras).to(seen)], dim=-1), seen, latent)
        return io.NodeOutput(
            *sides, {"samples": _empty(batch_size, width, height), "batch_index": [0] * batch_size}
        )


class SV3D_Conditioning(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="SV3D_Conditioning",
            category="model/conditioning/stable video 3d",
            description="Walks once around the thing in a picture.",
            inputs=[
                io.ClipVision.Input("clip_vision"),
                io.Image.Input("init_image"),
                io.Vae.Input("vae"),
                *frame_size(576, 576, step=8),
                io.Int.Input("video_frames", default=21, min=1, max=4096),
                io.Float.Input("elevation", default=0.0, min=-90.0, max=90.0, step=0.1, round=False),
            ],
            outputs=sides_out(),
        )

    @classmethod
    def execute(cls, clip_vision, init_image, vae, width, height, video_frames, elevation):
        seen, latent = _seen(clip_vision, vae, init_image, width, height)
        step = 360 / (max(video_frames, 2) - 1)
        path = {
            "elevation": [elevation] * video_frames,
            "azimuth": [step * frame for frame in range(video_frames)],
        }
        sides = _sides(seen, seen, latent, **path)
        return io.NodeOutput(*sides, {"samples": _empty(video_frames, width, height)})


class Stable3dExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [StableZero123_Conditioning, StableZero123_Conditioning_Batched, SV3D_Conditioning]


def comfy_entrypoint():
    return Stable3dExtension()
