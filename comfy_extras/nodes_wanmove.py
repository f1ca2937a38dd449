"""Points that move along tracks, for Wan-Move."""

from __future__ import annotations

import math

from comfy_api.latest import ComfyExtension, io
from comfy_extras.video_conditioning import both, encoded, latent_frames, ones, sized, zeros
from comfy_extras.video_inputs import guided, sides_out, video_size
from comfy_extras.wan_latents import filled_up, with_picture
from comfy_extras.wan_tracks import parse_json_tracks

COLORS = ((102, 153, 255), (0, 255, 255), (255, 255, 0), (255, 102, 204), (0, 255, 0))
EASINGS = {
    "linear": lambda t: t,
    "ease_in": lambda t: t**2,
    "ease_out": lambda t: 1 - (1 - t) ** 2,
    "ease_in_out": lambda t: t * t * (3 - 2 * t),
    "constant": lambda t: t * 0,
}


def _tracks(path, mask):
    """Points (T, N, 2) in pixels, and in which frames they are seen: those where the mask has something."""
    seen = path.new_ones(path.shape[:2]).bool() if mask is None else (mask > 0).any(dim=(1, 2)).unsqueeze(-1)
    return {"track_path": path, "track_visibility": seen}


def _cells(path, seen, width, height):
    """(latent T, N, 2) of row and column in the latent; -1 for points that are not seen or outside."""
    import torch

    path, seen = path[::4], seen[::4].expand(-1, path.shape[1])[: len(path[::4])]
    inside = (path >= 0).all(-1) & (path[..., 0] < width) & (path[..., 1] < height) & seen.bool()
    cells = torch.div(path.flip(-1), 8, rounding_mode="floor").long()
    return torch.where(inside[..., None], cells, -1)


def _carry(latent, cells, strength):
    """Copy what is at the start of each track in the first latent frame along it, in place."""
    for track in cells.unbind(1):
        row, column = track[0].tolist()
        content = latent[:, :, 0, row, column]
        for frame, (y, x) in enumerate(track[1 : latent.shape[2]].tolist(), 1):
            if y >= 0:
                here = latent[:, :, frame, y, x]
                latent[:, :, frame, y, x] = here + (content - here) * strength


def _blended(pixels, overlay):
    """RGB (H, W, 3) with an RGBA picture on it."""
    import numpy

    above = numpy.array(overlay).astype(numpy.float64)
    alpha = above[..., 3:] / 255.0
    return above[..., :3] * alpha + pixels * (1 - alpha)


def _draw_tail(draw, points, color, opacity, line_width):
    """The way of a point up to now: the longer ago, the thinner and fainter."""
    points = points[::-1]
    steps = [math.dist(first, second) for first, second in zip(points, points[1:])]
    total, gone = sum(steps), 0.0
    for (first, second), length in zip(zip(points, points[1:]), steps):
        count = max(int(length), 1)
        for number in range(count if total else 0):
            part = (gone + number / count * length) / total
            x, y = (int(a + (b - a) * number / count) for a, b in zip(first, second))
            fill = (*color, int(255 * (1 - part) * opacity))
            draw.line([(x, y), (x + 1, y)], fill=fill, width=max(int(line_width * (1 - part)), 1))
        gone += length


def _drawn(pixels, points, seen, frame, line_resolution, circle_size, opacity, line_width):
    """A frame (H, W, 3) in 0..255 with its points and the ways that they came."""
    from PIL import Image, ImageDraw

    size = pixels.shape[1::-1]
    circles, tails = (Image.new("RGBA", size, (0, 0, 0, 0)) for _ in range(2))
    on_circles, on_tails = ImageDraw.Draw(circles), ImageDraw.Draw(tails, "RGBA")
    has_tail = False
    for number in range(points.shape[1]):
        if not seen[frame][min(number, len(seen[frame]) - 1)]:
            continue
        color = COLORS[number % len(COLORS)]
        x, y = points[frame, number].tolist()
        box = (x - circle_size, y - circle_size, x + circle_size, y + circle_size)
        on_circles.ellipse(box, fill=(*color, int(255 * opacity)))
        way = points[max(frame - line_resolution, 0) : frame + 1, number].tolist()
        if len(way) > 1:
            has_tail = True
            _draw_tail(on_tails, way, color, opacity, line_width)
    blended = _blended(pixels, circles)
    return _blended(blended, tails) if has_tail else blended


class WanMoveTrackToVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="WanMoveTrackToVideo",
            category="model/conditioning/wan/move",
            description="Lets points of a picture move along tracks, for Wan-Move.",
            inputs=[
                *guided(),
                io.Float.Input("strength", default=1.0, min=0.0, max=100.0, step=0.01),
                *video_size(832, 480, 81),
                io.Image.Input("start_image"),
                io.Tracks.Input("tracks", optional=True),
                io.ClipVisionOutput.Input("clip_vision_output", optional=True),
            ],
            outputs=sides_out(),
        )

    @classmethod
    def execute(
        cls,
        positive,
        negative,
        vae,
        width,
        height,
        length,
        batch_size,
        strength,
        tracks=None,
        start_image=None,
        clip_vision_output=None,
    ):
        samples = zeros(batch_size, 16, latent_frames(length), height // 8, width // 8)
        if start_image is not None:
            frames = sized(start_image[:length], width, height)
            known = encoded(vae, filled_up(frames, length))
            mask = ones(1, 1, samples.shape[2], *known.shape[-2:], like=frames)
            mask[:, :, : latent_frames(len(frames))] = 0
            if tracks is not None and strength > 0.0:
                path = tracks["track_path"][:length]
                seen = tracks.get("track_visibility", path.new_ones(path.shape[:2]).bool())
                _carry(known, _cells(path, seen, width, height), strength)
            positive, negative = both(positive, negative, {"concat_latent_image": known, "concat_mask": mask})
        positive, negative = with_picture(positive, negative, clip_vision_output)
        return io.NodeOutput(positive, negative, {"samples": samples})


class WanMoveTracksFromCoords(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="WanMoveTracksFromCoords",
            category="model/conditioning/wan/move",
            description="Points that move, from a text with their places in each frame.",
            inputs=[
                io.String.Input("track_coords", default="[]", force_input=True, optional=True),
                io.Mask.Input("track_mask", optional=True),
            ],
            outputs=[io.Tracks.Output(), io.Int.Output(display_name="track_length")],
        )

    @classmethod
    def execute(cls, track_coords, track_mask=None):
        import torch

        import comfy.model_management

        found = parse_json_tracks(track_coords)
        if not found:
            raise ValueError(
                "WanMoveTracksFromCoords has no tracks. Give a list of tracks, each a list of points such as "
                '{"x": 10, "y": 20}, one for each frame.'
            )
        path = [[[track[frame]["x"], track[frame]["y"]] for track in found] for frame in range(len(found[0]))]
        path = torch.tensor(path, dtype=torch.float32, device=comfy.model_management.intermediate_device())
        return io.NodeOutput(_tracks(path, track_mask), len(path))


class WanMoveConcatTrack(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="WanMoveConcatTrack",
            category="model/conditioning/wan/move",
            description="Tracks of two sets together.",
            inputs=[io.Tracks.Input("tracks_1"), io.Tracks.Input("tracks_2", optional=True)],
            outputs=[io.Tracks.Output()],
        )

    @classmethod
    def execute(cls, tracks_1, tracks_2=None):
        import torch

        if tracks_2 is None:
            return io.NodeOutput(tracks_1)
        axes = {"track_path": 1, "track_visibility": -1}
        both_sets = {
            name: torch.cat([tracks_1[name], tracks_2[name]], dim=axis) for name, axis in axes.items()
        }
        return io.NodeOutput(both_sets)


class WanMoveVisualizeTracks(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="WanMoveVisualizeTracks",
            category="model/conditioning/wan/move",
            description="Draws points that move over a video, with the ways that they came.",
            inputs=[
                io.Image.Input("images"),
                io.Int.Input("line_resolution", default=24, min=1, max=1024),
                io.Int.Input("circle_size", default=12, min=1, max=128, advanced=True),
                io.Float.Input("opacity", default=0.75, min=0.0, max=1.0, step=0.01),
                io.Int.Input("line_width", default=16, min=1, max=128, advanced=True),
                io.Tracks.Input("tracks", optional=True),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, images, line_resolution, circle_size, opacity, line_width, tracks=None):
        import numpy
        import torch

        import comfy.model_management

        if tracks is None:
            return io.NodeOutput(images)
        points, seen = tracks["track_path"].long().cpu(), tracks["track_visibility"].cpu().tolist()
        frames = (images * 255.0).byte().cpu()
        if len(frames) != len(points):
            frames = frames.repeat(len(points) // len(frames), 1, 1, 1)
        how = (line_resolution, circle_size, opacity, line_width)
        drawn = [_drawn(one.numpy(), points, seen, number, *how) for number, one in enumerate(frames)]
        video = torch.from_numpy(numpy.stack(drawn).astype(numpy.uint8)).float() / 255.0
        return io.NodeOutput(video.to(comfy.model_management.intermediate_device()))


class GenerateTracks(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="GenerateTracks",
            display_name="Generate Video Tracks",
            category="model/conditioning/wan/move",
            description="Points side by side that move along a line or a curve.",
            inputs=[
                io.Int.Input("width", default=832, min=16, max=4096, step=16),
                io.Int.Input("height", default=480, min=16, max=4096, step=16),
                io.Float.Input("start_x", default=0.0, min=0.0, max=1.0, step=0.01),
                io.Float.Input("start_y", default=0.0, min=0.0, max=1.0, step=0.01),
                io.Float.Input("end_x", default=1.0, min=0.0, max=1.0, step=0.01),
                io.Float.Input("end_y", default=1.0, min=0.0, max=1.0, step=0.01),
                io.Int.Input("num_frames", default=81, min=1, max=1024),
                io.Int.Input("num_tracks", default=5, min=1, max=100),
                io.Float.Input("track_spread", default=0.025, min=0.0, max=1.0, step=0.001),
                io.Boolean.Input("bezier", default=False),
                io.Float.Input("mid_x", default=0.5, min=0.0, max=1.0, step=0.01),
                io.Float.Input("mid_y", default=0.5, min=0.0, max=1.0, step=0.01),
                io.Combo.Input(
                    "interpolation", options=["linear", "ease_in", "ease_out", "ease_in_out", "constant"]
                ),
                io.Mask.Input("track_mask", optional=True),
            ],
            outputs=[io.Tracks.Output(), io.Int.Output(display_name="track_length")],
            search_aliases=["motion paths", "camera movement", "trajectory"],
        )

    @classmethod
    def execute(
        cls,
        width,
        height,
        start_x,
        start_y,
        mid_x,
        mid_y,
        end_x,
        end_y,
        num_frames,
        num_tracks,
        track_spread,
        bezier=False,
        interpolation="linear",
        track_mask=None,
    ):
        import torch

        import comfy.model_management

        t = EASINGS[interpolation](torch.linspace(0, 1, num_frames))[:, None]
        size = torch.tensor([width, height], dtype=torch.float32)
        start, middle, end = (
            torch.tensor(one) * size for one in ((start_x, start_y), (mid_x, mid_y), (end_x, end_y))
        )
        if bezier:
            way = (1 - t) ** 2 * start + 2 * (1 - t) * t * middle + t**2 * end
            heading = 2 * (1 - t) * (middle - start) + 2 * t * (end - middle)
        else:
            way = start + (end - start) * t
            heading = (end - start).expand(num_frames, 2)
        length = heading.norm(dim=-1, keepdim=True)
        across = torch.stack([-heading[:, 1], heading[:, 0]], dim=-1) / length
        across = torch.where(length > 0, across, torch.tensor([1.0, 0.0]))
        offsets = (torch.arange(num_tracks) - (num_tracks - 1) / 2) * track_spread * (width + height) / 2
        path = way[:, None] + across[:, None] * offsets[None, :, None]
        path = path.to(comfy.model_management.intermediate_device())
        return io.NodeOutput(_tracks(path, track_mask), num_frames)


class WanmoveExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [
            WanMoveTrackToVideo,
            WanMoveTracksFromCoords,
            WanMoveConcatTrack,
            WanMoveVisualizeTracks,
            GenerateTracks,
        ]


def comfy_entrypoint():
    return WanmoveExtension()
