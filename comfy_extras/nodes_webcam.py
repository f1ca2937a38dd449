"""Pictures of the user's camera."""

from __future__ import annotations

import folder_paths
from comfy_extras.core_files import LoadImage
from comfy_extras.core_inputs import pixels_input


class WebcamCapture(LoadImage):
    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "image": ("WEBCAM", {}),
                "width": pixels_input(step=1),
                "height": pixels_input(step=1),
                "capture_on_queue": ("BOOLEAN", {"default": True}),
            }
        }

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "load_capture"
    CATEGORY = "image"
    DESCRIPTION = "The picture that your camera takes when the prompt is queued."
    ESSENTIALS_CATEGORY = "Basics"
    SEARCH_ALIASES = ["camera input", "live capture", "camera feed", "snapshot"]

    def load_capture(self, image, **_unused):
        return super().load_image(folder_paths.get_annotated_filepath(image))[:1]

    @classmethod
    def IS_CHANGED(cls, image, width, height, capture_on_queue):
        return super().IS_CHANGED(image)


NODE_CLASS_MAPPINGS = {"WebcamCapture": WebcamCapture}
NODE_DISPLAY_NAME_MAPPINGS = {"WebcamCapture": "Webcam Capture"}
