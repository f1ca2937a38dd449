"""RT-DETR: things found in pictures, and their boxes drawn."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_extras.absent_families import absent_node

CLASSES = [
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat",
    "traffic light", "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog",
    "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag",
    "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite", "baseball bat",
    "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle", "wine glass", "cup", "fork",
    "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli", "carrot", "hot dog",
    "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet", "tv",
    "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink",
    "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
]  # fmt: skip
"""What the networks of COCO know."""

BOX_COLORS = (
    (255, 0, 0), (0, 200, 0), (0, 0, 255), (255, 165, 0), (128, 0, 128), (0, 255, 255), (255, 20, 147),
    (100, 149, 237),
)  # fmt: skip


def _per_picture(boxes, count):
    """A list of boxes for each of so many pictures, from any form in which nodes give boxes."""
    if isinstance(boxes, dict):
        boxes = [[boxes]]
    elif not isinstance(boxes, list) or not boxes:
        boxes = [[]]
    elif isinstance(boxes[0], dict):
        boxes = [boxes]
    if len(boxes) == 1:
        boxes = boxes * count
    return (boxes + [[]] * count)[:count]


def _draw(draw, boxes):
    """Boxes with their classes and scores, the surest on top."""
    from PIL import ImageFont

    font = ImageFont.load_default()
    for box in sorted(boxes, key=lambda one: one.get("score", 1.0)):
        x, y = box["x"], box["y"]
        label = box.get("label") if box.get("label") in CLASSES else None
        color = BOX_COLORS[CLASSES.index(label) % len(BOX_COLORS) if label else 0]
        draw.rectangle([x, y, x + box["width"], y + box["height"]], outline=color, width=3)
        if label:
            draw.text((x + 2, y + 2), f"{label} {box.get('score', 1.0):.2f}", fill=color, font=font)


RTDETR_detect = absent_node(
    "RTDETR_detect",
    "RT-DETR",
    display_name="Run Real-Time Detection (RT-DETR)",
    category="image/detection",
    description="Finds things in pictures; their boxes and classes.",
    search_aliases=["bbox", "bounding box", "object detection", "coco"],
    inputs=lambda: [
        io.Model.Input("model", display_name="model"),
        io.Image.Input("image", display_name="image"),
        io.Float.Input("threshold", display_name="threshold", default=0.5),
        io.Combo.Input("class_name", options=["all", *CLASSES], default="all"),
        io.Int.Input("max_detections", display_name="max_detections", default=100),
    ],
    outputs=lambda: [io.BoundingBox.Output(display_name="bboxes")],
)


class DrawBBoxes(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="DrawBBoxes",
            display_name="Draw BBoxes",
            category="image/detection",
            description="Draws boxes on pictures, or on black.",
            inputs=[
                io.BoundingBox.Input(
                    "bboxes",
                    default={"x": 0, "y": 0, "width": 512, "height": 512},
                    socketless=True,
                    force_input=True,
                ),
                io.Image.Input("image", optional=True),
            ],
            outputs=[io.Image.Output(display_name="out_image")],
            search_aliases=[
                "bbox",
                "bounding box",
                "object detection",
                "rt_detr",
                "visualize detections",
                "coco",
            ],
        )

    @classmethod
    def execute(cls, bboxes, image=None):
        import numpy
        import torch
        from PIL import Image, ImageDraw

        import comfy.model_management

        per_picture = _per_picture(bboxes, 1 if image is None else len(image))
        if image is None:
            every = [box for boxes in per_picture for box in boxes]
            width = max((int(box["x"] + box["width"]) for box in every), default=640)
            height = max((int(box["y"] + box["height"]) for box in every), default=640)
            image = torch.zeros(1, height, width, 3)
        drawn = []
        for pixels, boxes in zip(image, per_picture):
            picture = Image.fromarray((pixels * 255).byte().cpu().numpy())
            _draw(ImageDraw.Draw(picture), boxes)
            drawn.append(torch.from_numpy(numpy.array(picture)).float() / 255.0)
        return io.NodeOutput(torch.stack(drawn).to(comfy.model_management.intermediate_device()))


class RtdetrExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [RTDETR_detect, DrawBBoxes]


def comfy_entrypoint():
    return RtdetrExtension()
