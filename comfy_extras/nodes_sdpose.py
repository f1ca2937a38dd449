"""SDPose: poses of people as points, and drawn."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_extras.absent_families import absent_node
from comfy_extras.video_conditioning import sized


def _face_box(points, size, scale, square):
    """The box around a face with `scale` times its area, three quarters of the growth in height above it.

    None where the points have no area. `size` is (width, height) of the picture that the box stays in.
    """
    import numpy as np

    limits = np.asarray(size, dtype=np.float64)
    points = np.asarray(points, dtype=np.float64).reshape(-1, 3)[:, :2]
    low, high = points.min(axis=0), points.max(axis=0)
    if (high <= low).any():
        return None
    growth = (high - low) * (scale**0.5 - 1)
    low = np.maximum(low - growth * (0.5, 0.75), 0).astype(int)
    high = np.minimum(high + growth * (0.5, 0.25), limits).astype(int)
    if (high <= low).any():
        return None
    if square and high[0] - low[0] != high[1] - low[1]:
        side = int((high - low).max())
        low = np.maximum((low + high) // 2 - side // 2, 0)
        high = np.minimum(low + side, limits).astype(int)
        low = np.maximum(high - side, 0)
    (x, y), (width, height) = low.tolist(), (high - low).tolist()
    return {"x": x, "y": y, "width": width, "height": height}


def _crop_region(boxes, width, height, padding):
    """(left, top, right, bottom) of all the boxes and the padding, or of where a face is likely to be."""
    left = max(0, min(int(box["x"]) for box in boxes) - padding)
    top = max(0, min(int(box["y"]) for box in boxes) - padding)
    right = min(width, max(int(box["x"] + box["width"]) for box in boxes) + padding)
    bottom = min(height, max(int(box["y"] + box["height"]) for box in boxes) + padding)
    if right > left and bottom > top:
        return left, top, right, bottom
    side = max(1, int(min(width, height) * 0.3))
    left, top = (width - side) // 2, int(height * 0.1)
    return left, top, left + side, min(height, top + side)


def _fitted(crop, size, pad):
    """A crop (1, H, W, C) in this (width, height): stretched, or inside black with its proportions kept."""
    width, height = size
    if not pad:
        return sized(crop, width, height, method="area", crop="disabled")
    scale = min(width / crop.shape[2], height / crop.shape[1])
    inner_width, inner_height = (max(1, round(side * scale)) for side in (crop.shape[2], crop.shape[1]))
    picture = crop.new_zeros(1, height, width, crop.shape[3])
    left, top = (width - inner_width) // 2, (height - inner_height) // 2
    picture[:, top : top + inner_height, left : left + inner_width] = sized(
        crop, inner_width, inner_height, method="area", crop="disabled"
    )
    return picture


SDPoseKeypointExtractor = absent_node(
    "SDPoseKeypointExtractor",
    "SDPose",
    display_name="SDPose Keypoint Extractor",
    category="image/detection",
    description="Points of bodies, hands and faces in pictures.",
    search_aliases=["openpose", "pose detection", "preprocessor", "keypoints", "sdpose"],
    inputs=lambda: [
        io.Model.Input("model"),
        io.Vae.Input("vae"),
        io.Image.Input("image"),
        io.Int.Input("batch_size", default=16, min=1, max=10000, step=1),
        io.BoundingBox.Input(
            "bboxes",
            default={"x": 0, "y": 0, "width": 512, "height": 512},
            socketless=True,
            force_input=True,
            optional=True,
        ),
    ],
    outputs=lambda: [io.Custom("POSE_KEYPOINT").Output(display_name="keypoints")],
)


class SDPoseDrawKeypoints(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="SDPoseDrawKeypoints",
            display_name="SDPose Draw Keypoints",
            category="image/detection",
            search_aliases=["openpose", "pose detection", "preprocessor", "keypoints", "pose"],
            inputs=[
                io.Custom("POSE_KEYPOINT").Input("keypoints"),
                io.Boolean.Input("draw_body", default=True),
                io.Boolean.Input("draw_hands", default=True),
                io.Boolean.Input("draw_face", default=True),
                io.Boolean.Input("draw_feet", default=False),
                io.Int.Input("stick_width", default=4, min=1, max=10, step=1),
                io.Int.Input("face_point_size", default=3, min=1, max=10, step=1),
                io.Float.Input("score_threshold", default=0.3, min=0.0, max=1.0, step=0.01),
                io.Boolean.Input("draw_head", default=True),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(
        cls,
        keypoints,
        draw_body,
        draw_hands,
        draw_face,
        draw_feet,
        stick_width,
        face_point_size,
        score_threshold,
        draw_head,
    ):
        import numpy as np
        import torch

        from comfy.model_management import intermediate_device, intermediate_dtype
        from comfy_extras.pose_drawing import Parts, draw_person

        if not keypoints:
            return io.NodeOutput(torch.zeros(1, 64, 64, 3))
        parts = Parts(draw_body, draw_head, draw_feet, draw_hands, draw_face)
        canvases = []
        for frame in keypoints:
            canvas = np.zeros((keypoints[0]["canvas_height"], keypoints[0]["canvas_width"], 3), np.uint8)
            for person in frame["people"]:
                draw_person(canvas, person, parts, score_threshold, stick_width, face_point_size)
            canvases.append(canvas)
        pictures = torch.from_numpy(np.stack(canvases))
        return io.NodeOutput(pictures.to(intermediate_device(), intermediate_dtype()) / 255.0)


class SDPoseFaceBBoxes(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="SDPoseFaceBBoxes",
            display_name="SDPose Face Bounding Boxes",
            category="image/detection",
            search_aliases=["face bbox", "face bounding box", "pose", "keypoints"],
            inputs=[
                io.Custom("POSE_KEYPOINT").Input("keypoints"),
                io.Float.Input("scale", default=1.5, min=1.0, max=10.0, step=0.1),
                io.Boolean.Input("force_square", default=True),
            ],
            outputs=[io.BoundingBox.Output(display_name="bboxes")],
        )

    @classmethod
    def execute(cls, keypoints, scale, force_square):
        frames = []
        for frame in keypoints:
            size = (frame["canvas_width"], frame["canvas_height"])
            boxes = [
                _face_box(person["face_keypoints_2d"], size, scale, force_square)
                for person in frame["people"]
                if person.get("face_keypoints_2d")
            ]
            frames.append([box for box in boxes if box is not None])
        return io.NodeOutput(frames)


class CropByBBoxes(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CropByBBoxes",
            display_name="Crop By Bounding Boxes",
            category="image/transform",
            search_aliases=["crop", "face crop", "bbox crop", "pose", "bounding box"],
            inputs=[
                io.Image.Input("image"),
                io.BoundingBox.Input(
                    "bboxes",
                    default={"x": 0, "y": 0, "width": 512, "height": 512},
                    socketless=True,
                    force_input=True,
                ),
                io.Int.Input("output_width", default=512, min=64, max=4096, step=8),
                io.Int.Input("output_height", default=512, min=64, max=4096, step=8),
                io.Int.Input("padding", default=0, min=0, max=1024, step=1),
                io.Combo.Input("keep_aspect", options=["stretch", "pad"], default="stretch"),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, image, bboxes, output_width, output_height, padding, keep_aspect="stretch"):
        import torch

        if not isinstance(bboxes, list):
            bboxes = [[bboxes]]
        size = (output_width, output_height)
        crops = []
        for number, frame in enumerate(image):
            boxes = bboxes[min(number, len(bboxes) - 1)] if bboxes else []
            if boxes:
                left, top, right, bottom = _crop_region(boxes, image.shape[2], image.shape[1], padding)
                crops.append(_fitted(frame[None, top:bottom, left:right], size, keep_aspect == "pad"))
        return io.NodeOutput(torch.cat(crops) if crops else image)


class SdposeExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [SDPoseKeypointExtractor, SDPoseDrawKeypoints, SDPoseFaceBBoxes, CropByBBoxes]


def comfy_entrypoint():
    return SdposeExtension()
