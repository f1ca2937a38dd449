"""Points that move along tracks, for Wan-Move."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_extras.absent_families import absent_node
from comfy_extras.video_inputs import guided, sides_out, video_size

WanMoveTrackToVideo = absent_node(
    "WanMoveTrackToVideo",
    "WanMove",
    category="model/conditioning/wan/move",
    inputs=lambda: [
        *guided(),
        io.Float.Input("strength", default=1.0, min=0.0, max=100.0, step=0.01),
        *video_size(832, 480, 81),
        io.Image.Input("start_image"),
        io.Tracks.Input("tracks", optional=True),
        io.ClipVisionOutput.Input("clip_vision_output", optional=True),
    ],
    outputs=lambda: sides_out(),
)


WanMoveTracksFromCoords = absent_node(
    "WanMoveTracksFromCoords",
    "WanMove",
    category="model/conditioning/wan/move",
    inputs=lambda: [
        io.String.Input("track_coords", default="[]", force_input=True, optional=True),
        io.Mask.Input("track_mask", optional=True),
    ],
    outputs=lambda: [io.Tracks.Output(), io.Int.Output(display_name="track_length")],
)


WanMoveConcatTrack = absent_node(
    "WanMoveConcatTrack",
    "WanMove",
    category="model/conditioning/wan/move",
    inputs=lambda: [io.Tracks.Input("tracks_1"), io.Tracks.Input("tracks_2", optional=True)],
    outputs=lambda: [io.Tracks.Output()],
)


WanMoveVisualizeTracks = absent_node(
    "WanMoveVisualizeTracks",
    "WanMove",
    category="model/conditioning/wan/move",
    inputs=lambda: [
        io.Image.Input("images"),
        io.Int.Input("line_resolution", default=24, min=1, max=1024),
        io.Int.Input("circle_size", default=12, min=1, max=128, advanced=True),
        io.Float.Input("opacity", default=0.75, min=0.0, max=1.0, step=0.01),
        io.Int.Input("line_width", default=16, min=1, max=128, advanced=True),
        io.Tracks.Input("tracks", optional=True),
    ],
    outputs=lambda: [io.Image.Output()],
)


GenerateTracks = absent_node(
    "GenerateTracks",
    "WanMove",
    display_name="Generate Video Tracks",
    category="model/conditioning/wan/move",
    search_aliases=["motion paths", "camera movement", "trajectory"],
    inputs=lambda: [
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
        io.Combo.Input("interpolation", options=["linear", "ease_in", "ease_out", "ease_in_out", "constant"]),
        io.Mask.Input("track_mask", optional=True),
    ],
    outputs=lambda: [io.Tracks.Output(), io.Int.Output(display_name="track_length")],
)


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
