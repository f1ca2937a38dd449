"""Wan: videos whose points move along given tracks (ATI)."""

from __future__ import annotations

import json
import math

from comfy_api.latest import io
from comfy_extras.video_conditioning import (
    WAN21_MEAN,
    WAN21_STD,
    both,
    channels_of,
    encoded,
    gray,
    latent_frames,
    sized,
    zeros,
)
from comfy_extras.video_inputs import guided, sides_out, video_size
from comfy_extras.wan_frames import WanImageToVideo
from comfy_extras.wan_latents import with_picture

TRACK_FRAMES = 121
"""A track has so many points: 5 seconds at 24 frames per second, and the first."""


def parse_json_tracks(tracks):
    """Tracks from a text or a list of texts: lists of points {"x", "y"}; [] if it is no JSON."""
    try:
        if isinstance(tracks, str):
            found = list(json.loads(tracks.replace("'", '"')))
        else:
            found = [json.loads(text.replace("'", '"')) for text in tracks]
    except json.JSONDecodeError:
        return []
    return [found] if found and isinstance(found[0], dict) and "x" in found[0] else found


def _points(track):
    """(121, 3) of x, y and whether it is there; what is missing is nowhere."""
    import torch

    points = torch.zeros(TRACK_FRAMES, 3)
    given = torch.tensor([[point["x"], point["y"], 1.0] for point in track[:TRACK_FRAMES]])
    points[: len(given)] = given
    return points


def _track_table(tracks, width, height, frames):
    """(1 + frames, N, 3): x and y from the middle in halves of the shorter side; -1 or 1: is it seen?"""
    import torch

    points = torch.stack([_points(track) for track in tracks], dim=1)  # (121, N, 3)
    middle = torch.tensor([width, height]) / 2
    places = (points[..., :2] - middle) / min(width, height) * 2
    table = torch.cat([places, points[..., 2:] * 2 - 1], dim=-1)
    # From 120 points to so many frames, each at its time; what lies between two points is the second.
    common = math.gcd(120, frames)
    index = (1 + torch.arange(frames) * (120 // common)) // (frames // common)
    return torch.cat([table[:1], table[1:][index.clamp(max=119)]])


def _grid(height, width):
    """(H, W, 2) of x and y from the middle in halves of the shorter side."""
    import torch

    short = min(height, width)
    y, x = (torch.linspace(-side / short, side / short, side) for side in (height, width))
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)


def _moved(table, latent, temperature, topk):
    """The first latent frame carried along the tracks: (mask (T, H, W), latent (C, T, H, W))."""
    import torch

    _, frames, height, width = latent.shape
    places, seen = table[:, :, :2], table[:, :, 2:].clamp(0, 1)
    sides = torch.tensor([width, height]) / min(height, width)
    starts = (places[:1] / sides).clamp(-1, 1)[None]  # (1, 1, N, 2)
    content = torch.nn.functional.grid_sample(latent[None, :, 0], starts.to(latent), align_corners=False)[
        0, :, 0
    ]
    count = seen[1:].view(frames - 1, 4, -1, 1).sum(1)  # (T - 1, N, 1)
    place = (places[1:] * seen[1:]).view(frames - 1, 4, -1, 2).sum(1) / (count + 1e-5)
    distance = (place[:, None, None] - _grid(height, width)[None, :, :, None]).square().sum(-1)
    weight = torch.exp(-distance * temperature) * count.clamp(0, 1).view(frames - 1, 1, 1, -1)
    weight, nearest = weight.topk(min(topk, weight.shape[-1]), dim=-1)  # (T - 1, H, W, K)
    carried = (content[:, nearest] * weight).sum(-1)
    total = weight.sum(-1)
    rest = latent[:, 1:] * (1 - total.clamp(0, 1))
    mask = torch.cat([torch.ones_like(total[:1]), total])
    return mask, torch.cat([latent[:, :1], carried + rest], dim=1)


class WanTrackToVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="WanTrackToVideo",
            category="model/conditioning/wan/move",
            description="Lets points of a picture move along tracks, for ATI.",
            inputs=[
                *guided(),
                io.String.Input("tracks", default="[]", multiline=True),
                *video_size(832, 480, 81),
                io.Float.Input("temperature", default=220.0, min=1.0, max=1000.0, step=0.1, advanced=True),
                io.Int.Input("topk", default=2, min=1, max=10, advanced=True),
                io.Image.Input("start_image"),
                io.ClipVisionOutput.Input("clip_vision_output", optional=True),
            ],
            outputs=sides_out(),
            search_aliases=["motion tracking", "trajectory video", "point tracking", "keypoint animation"],
        )

    @classmethod
    def execute(
        cls,
        positive,
        negative,
        vae,
        tracks,
        width,
        height,
        length,
        batch_size,
        temperature,
        topk,
        start_image=None,
        clip_vision_output=None,
    ):
        import torch

        import comfy.utils

        found = parse_json_tracks(tracks)
        if not found:
            size = (width, height, length, batch_size)
            return WanImageToVideo.execute(positive, negative, vae, *size, start_image, clip_vision_output)
        batches = [found] if isinstance(found[0][0], dict) else found
        tables = [_track_table(batch, width, height, length - 1) for batch in batches]
        tables = comfy.utils.resize_list_to_batch_size(tables, batch_size)
        if start_image is not None:
            frames = sized(start_image[:batch_size], width, height)[..., :3]
            videos = gray(length, height, width, like=frames).repeat(len(frames), 1, 1, 1, 1)
            videos[:, 0] = frames
            latents = torch.cat(
                [encoded(vae, one) for one in comfy.utils.resize_to_batch_size(videos, batch_size)]
            )
            mean, deviation = channels_of(WAN21_MEAN, latents), channels_of(WAN21_STD, latents)
            parts = [_moved(*pair, temperature, topk) for pair in zip(tables, (latents - mean) / deviation)]
            mask = 1 - torch.stack([part[0].expand(4, *part[0].shape) for part in parts])
            moved = torch.stack([part[1] for part in parts]) * deviation + mean
            positive, negative = both(positive, negative, {"concat_mask": mask, "concat_latent_image": moved})
        positive, negative = with_picture(positive, negative, clip_vision_output)
        samples = zeros(batch_size, 16, latent_frames(length), height // 8, width // 8)
        return io.NodeOutput(positive, negative, {"samples": samples})
