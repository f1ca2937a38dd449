"""RT-DETR: things found in pictures, and their boxes drawn."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io
from comfy_extras.absent_families import absent_node

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
        io.Combo.Input(
            "class_name",
            options=[
                "all",
                "person",
                "bicycle",
                "car",
                "motorcycle",
                "airplane",
                "bus",
                "train",
                "truck",
                "boat",
                "traffic light",
                "fire hydrant",
                "stop sign",
                "parking meter",
                "bench",
                "bird",
                "cat",
                "dog",
                "horse",
                "sheep",
                "cow",
                "elephant",
                "bear",
                "zebra",
                "giraffe",
                "backpack",
                "umbrella",
                "handbag",
                "tie",
                "suitcase",
                "frisbee",
                "skis",
                "snowboard",
                "sports ball",
                "kite",
                "baseball bat",
                "baseball glove",
                "skateboard",
                "surfboard",
                "tennis racket",
                "bottle",
                "wine glass",
                "cup",
                "fork",
                "knife",
                "spoon",
                "bowl",
                "banana",
                "apple",
                "sandwich",
                "orange",
                "broccoli",
                "carrot",
                "hot dog",
                "pizza",
                "donut",
                "cake",
                "chair",
                "couch",
                "potted plant",
                "bed",
                "dining table",
                "toilet",
                "tv",
                "laptop",
                "mouse",
                "remote",
                "keyboard",
                "cell phone",
                "microwave",
                "oven",
                "toaster",
                "sink",
                "refrigerator",
                "book",
                "clock",
                "vase",
                "scissors",
                "teddy bear",
                "hair drier",
                "toothbrush",
            ],
            default="all",
        ),
        io.Int.Input("max_detections", display_name="max_detections", default=100),
    ],
    outputs=lambda: [io.BoundingBox.Output(display_name="bboxes")],
)


DrawBBoxes = absent_node(
    "DrawBBoxes",
    "RT-DETR",
    display_name="Draw BBoxes",
    category="image/detection",
    search_aliases=["bbox", "bounding box", "object detection", "rt_detr", "visualize detections", "coco"],
    inputs=lambda: [
        io.BoundingBox.Input(
            "bboxes", default={"x": 0, "y": 0, "width": 512, "height": 512}, socketless=True, force_input=True
        ),
        io.Image.Input("image", optional=True),
    ],
    outputs=lambda: [io.Image.Output(display_name="out_image")],
)


class RtdetrExtension(ComfyExtension):
    """The nodes of this topic."""

    async def get_node_list(self):
        return [RTDETR_detect, DrawBBoxes]


def comfy_entrypoint():
    return RtdetrExtension()
