"""SAM 3: what a text or a point names, found and followed."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io, ui
from comfy_extras.absent_families import absent_node


def _write_preview(path, track, images, opacity, fps):
    """An MP4 of a track over its pictures, or over black; an odd row or column at the end is left out."""
    from fractions import Fraction

    import av
    import torch

    from comfy_extras.object_tracks import count_of, full_masks, numbered, overlaid

    frames, objects = count_of(track)
    height, width = track["orig_size"] if images is None else images.shape[1:3]
    with av.open(path, mode="w") as container:
        stream = container.add_stream("h264", rate=Fraction(round(fps * 1000), 1000))
        stream.width, stream.height, stream.pix_fmt = width // 2 * 2, height // 2 * 2, "yuv420p"
        for number in range(frames):
            known = images is not None and number < len(images)
            picture = images[number, ..., :3].cpu().float() if known else torch.zeros(height, width, 3)
            masks = torch.zeros(0, height, width, dtype=torch.bool)
            if objects:
                masks = full_masks(track["packed_masks"][number : number + 1].cpu(), (height, width))[0]
                picture = overlaid(picture, masks, opacity)
            pixels = numbered(picture, masks, track.get("scores") or [])[: stream.height, : stream.width]
            frame = av.VideoFrame.from_ndarray(pixels.copy(), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


SAM3_Detect = absent_node(
    "SAM3_Detect",
    "SAM 3",
    display_name="SAM3 Detect",
    category="image/detection",
    description="Masks and boxes of what a text, points or boxes name.",
    search_aliases=["sam3", "segment anything", "open vocabulary", "text detection", "segment"],
    inputs=lambda: [
        io.Model.Input("model", display_name="model"),
        io.Image.Input("image", display_name="image"),
        io.Float.Input("threshold", display_name="threshold", default=0.5, min=0.0, max=1.0, step=0.01),
        io.Int.Input("refine_iterations", display_name="refine_iterations", default=2, min=0, max=5),
        io.Boolean.Input("individual_masks", display_name="individual_masks", default=False),
        io.Conditioning.Input("conditioning", display_name="conditioning", optional=True),
        io.BoundingBox.Input(
            "bboxes",
            display_name="bboxes",
            default={"x": 0, "y": 0, "width": 512, "height": 512},
            socketless=True,
            force_input=True,
            optional=True,
        ),
        io.String.Input("positive_coords", display_name="positive_coords", force_input=True, optional=True),
        io.String.Input("negative_coords", display_name="negative_coords", force_input=True, optional=True),
    ],
    outputs=lambda: [io.Mask.Output(display_name="masks"), io.BoundingBox.Output(display_name="bboxes")],
)


SAM3_VideoTrack = absent_node(
    "SAM3_VideoTrack",
    "SAM 3",
    display_name="Run SAM3 Video Track",
    category="image/detection",
    description="Follows things through a video.",
    search_aliases=["sam3", "video", "track", "propagate"],
    inputs=lambda: [
        io.Image.Input("images", display_name="images"),
        io.Model.Input("model", display_name="model"),
        io.Float.Input(
            "detection_threshold",
            display_name="detection_threshold",
            default=0.5,
            min=0.0,
            max=1.0,
            step=0.01,
        ),
        io.Int.Input("max_objects", display_name="max_objects", default=4, min=0, max=64),
        io.Int.Input("detect_interval", display_name="detect_interval", default=1, min=1),
        io.Mask.Input("initial_mask", display_name="initial_mask", optional=True),
        io.Conditioning.Input("conditioning", display_name="conditioning", optional=True),
    ],
    outputs=lambda: [io.Custom("SAM3_TRACK_DATA").Output(display_name="track_data")],
)


class SAM3_TrackPreview(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="SAM3_TrackPreview",
            display_name="SAM3 Track Preview",
            category="image/detection",
            is_output_node=True,
            inputs=[
                io.Custom("SAM3_TRACK_DATA").Input("track_data", display_name="track_data"),
                io.Float.Input("opacity", display_name="opacity", default=0.5, min=0.0, max=1.0, step=0.05),
                io.Float.Input("fps", display_name="fps", default=24.0, min=1.0, max=120.0, step=1.0),
                io.Image.Input("images", display_name="images", optional=True),
            ],
            outputs=[],
        )

    @classmethod
    def execute(cls, track_data, images=None, opacity=0.5, fps=24.0):
        import os
        import uuid

        import folder_paths

        name = f"sam3_track_preview_{uuid.uuid4().hex[:8]}.mp4"
        folder = folder_paths.get_temp_directory()
        os.makedirs(folder, exist_ok=True)
        _write_preview(os.path.join(folder, name), track_data, images, opacity, fps)
        return io.NodeOutput(ui=ui.PreviewVideo([ui.SavedResult(name, "", io.FolderType.temp)]))


class SAM3_TrackToMask(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="SAM3_TrackToMask",
            display_name="SAM3 Track to Mask",
            category="image/detection",
            inputs=[
                io.Custom("SAM3_TRACK_DATA").Input("track_data", display_name="track_data"),
                io.String.Input("object_indices", display_name="object_indices", default=""),
            ],
            outputs=[io.Mask.Output(display_name="masks")],
        )

    @classmethod
    def execute(cls, track_data, object_indices=""):
        import torch

        from comfy_extras.object_tracks import chosen, count_of, unpacked
        from comfy_extras.video_conditioning import zeros

        frames, objects = count_of(track_data)
        size = tuple(track_data["orig_size"])
        numbers = chosen(object_indices, objects)
        if not numbers:
            return io.NodeOutput(zeros(frames, *size))
        together = unpacked(track_data["packed_masks"][:, numbers]).any(dim=1, keepdim=True).float()
        return io.NodeOutput(torch.nn.functional.interpolate(together, size=size, mode="bilinear")[:, 0])


class Sam3Extension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [SAM3_Detect, SAM3_VideoTrack, SAM3_TrackPreview, SAM3_TrackToMask]


def comfy_entrypoint():
    return Sam3Extension()
