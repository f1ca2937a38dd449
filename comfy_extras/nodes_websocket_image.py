"""Pictures that go to the client over its websocket and are written nowhere."""

from __future__ import annotations


class SaveImageWebsocket:
    DESCRIPTION = "Sends pictures in full size, as PNG previews, to the client that asked. Writes no file."
    RETURN_TYPES = ()
    FUNCTION = "save_images"
    OUTPUT_NODE = True
    CATEGORY = "image"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"images": ("IMAGE",)}}

    @classmethod
    def IS_CHANGED(cls, images):
        return float("nan")  # differs from itself: what was sent to one client has to be sent to the next

    def save_images(self, images):
        from PIL import Image

        from comfy.progress_bar import ProgressBar

        bar = ProgressBar(len(images))
        for number, image in enumerate(images):  # (H, W, C), 0 to 1
            pixels = (image.cpu().float() * 255).clamp(0, 255).byte().numpy()
            bar.update_absolute(number, len(images), ("PNG", Image.fromarray(pixels), None))
        return {}


NODE_CLASS_MAPPINGS = {"SaveImageWebsocket": SaveImageWebsocket}
NODE_DISPLAY_NAME_MAPPINGS: dict[str, str] = {}
