"""Faces and their landmarks."""

from __future__ import annotations

import folder_paths
from comfy_api.latest import ComfyExtension, io
from comfy_extras.absent_families import absent_node

LoadMediaPipeFaceLandmarker = absent_node(
    "LoadMediaPipeFaceLandmarker",
    "MediaPipe face landmarks",
    display_name="Load Face Detection Model (MediaPipe)",
    category="model/loaders",
    description="Loads the face landmark network.",
    search_aliases=[
        "face",
        "facial",
        "mediapipe",
        "face landmark",
        "face mesh",
        "blazeface",
        "face detection",
    ],
    inputs=lambda: [io.Combo.Input("model_name", options=folder_paths.get_filename_list("detection"))],
    outputs=lambda: [io.Custom("FACE_DETECTION_MODEL").Output()],
)


MediaPipeFaceLandmarker = absent_node(
    "MediaPipeFaceLandmarker",
    "MediaPipe face landmarks",
    display_name="Detect Face Landmarks (MediaPipe)",
    category="image/detection",
    description="Faces in pictures, with landmarks.",
    search_aliases=[
        "face",
        "facial",
        "mediapipe",
        "face landmark",
        "face mesh",
        "blazeface",
        "face detection",
    ],
    inputs=lambda: [
        io.Custom("FACE_DETECTION_MODEL").Input("face_detection_model"),
        io.Image.Input("image"),
        io.Combo.Input("detector_variant", options=["short", "full", "both"], default="short"),
        io.Int.Input("num_faces", default=1, min=0, max=16, step=1),
        io.Float.Input("min_confidence", default=0.5, min=0.0, max=1.0, step=0.01, advanced=True),
        io.Combo.Input(
            "missing_frame_fallback",
            options=["empty", "previous", "interpolate"],
            default="empty",
            advanced=True,
        ),
    ],
    outputs=lambda: [
        io.Custom("FACE_LANDMARKS").Output(display_name="face_landmarks"),
        io.BoundingBox.Output(display_name="bboxes"),
    ],
)


MediaPipeFaceMeshVisualize = absent_node(
    "MediaPipeFaceMeshVisualize",
    "MediaPipe face landmarks",
    display_name="Visualize Face Landmarks (MediaPipe)",
    category="image/detection",
    search_aliases=[
        "face",
        "facial",
        "mediapipe",
        "face landmark",
        "face mesh",
        "blazeface",
        "face detection",
        "visualize",
    ],
    inputs=lambda: [
        io.Custom("FACE_LANDMARKS").Input("face_landmarks"),
        io.DynamicCombo.Input(
            "connections",
            [
                io.DynamicCombo.Option("all", []),
                io.DynamicCombo.Option("fill", []),
                io.DynamicCombo.Option(
                    "custom",
                    [
                        io.Boolean.Input("face_oval", default=True),
                        io.Boolean.Input("lips", default=True),
                        io.Boolean.Input("left_eye", default=True),
                        io.Boolean.Input("right_eye", default=True),
                        io.Boolean.Input("left_eyebrow", default=True),
                        io.Boolean.Input("right_eyebrow", default=True),
                        io.Boolean.Input("irises", default=True),
                        io.Boolean.Input("nose", default=True),
                        io.Boolean.Input("tesselation", default=False),
                    ],
                ),
            ],
        ),
        io.Color.Input("color", default="#00ff00", socketless=True),
        io.Int.Input("thickness", default=1, min=0, max=8, step=1),
        io.Int.Input("point_size", default=2, min=0, max=16, step=1),
        io.Image.Input("image", optional=True),
    ],
    outputs=lambda: [io.Image.Output()],
)


MediaPipeFaceMask = absent_node(
    "MediaPipeFaceMask",
    "MediaPipe face landmarks",
    display_name="Draw Face Mask (MediaPipe)",
    category="image/detection",
    search_aliases=["face", "facial", "mediapipe", "face mask", "blazeface", "face detection", "visualize"],
    inputs=lambda: [
        io.Custom("FACE_LANDMARKS").Input("face_landmarks"),
        io.DynamicCombo.Input(
            "regions",
            [
                io.DynamicCombo.Option("all", []),
                io.DynamicCombo.Option(
                    "custom",
                    [
                        io.Boolean.Input("face_oval", default=True),
                        io.Boolean.Input("lips", default=False),
                        io.Boolean.Input("left_eye", default=False),
                        io.Boolean.Input("right_eye", default=False),
                        io.Boolean.Input("irises", default=False),
                    ],
                ),
            ],
        ),
    ],
    outputs=lambda: [io.Mask.Output()],
)


class MediapipeExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [
            LoadMediaPipeFaceLandmarker,
            MediaPipeFaceLandmarker,
            MediaPipeFaceMeshVisualize,
            MediaPipeFaceMask,
        ]


def comfy_entrypoint():
    return MediapipeExtension()
