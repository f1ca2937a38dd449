"""A small node pack for tests of the running server; copied into custom_nodes/ of its base directory."""

import os
import time


class LivePicture:
    """Saves a one-coloured picture as a preview."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"red": ("INT", {"default": 200, "min": 0, "max": 255})}}

    RETURN_TYPES = ()
    FUNCTION = "save"
    OUTPUT_NODE = True
    CATEGORY = "live"

    def save(self, red):
        from PIL import Image

        import folder_paths

        name = f"live_{red}.png"
        os.makedirs(folder_paths.get_temp_directory(), exist_ok=True)
        Image.new("RGB", (64, 64), (red, 0, 0)).save(os.path.join(folder_paths.get_temp_directory(), name))
        return {"ui": {"images": [{"filename": name, "subfolder": "", "type": "temp"}]}}


class LiveSlow:
    """Takes its time, step by step, with a preview at each."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"steps": ("INT", {"default": 3}), "seconds": ("FLOAT", {"default": 0.01})}}

    RETURN_TYPES = ("INT",)
    FUNCTION = "work"
    OUTPUT_NODE = True
    CATEGORY = "live"

    def work(self, steps, seconds):
        from PIL import Image

        from comfy.progress_bar import ProgressBar

        bar = ProgressBar(steps)
        for step in range(steps):
            time.sleep(seconds)
            bar.update_absolute(step + 1, preview=("JPEG", Image.new("RGB", (8, 8)), 8))
        return (steps,)


class LiveFailure:
    """Always fails."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    RETURN_TYPES = ("INT",)
    FUNCTION = "fail"
    OUTPUT_NODE = True
    CATEGORY = "live"

    def fail(self):
        raise ValueError("as it should")


WEB_DIRECTORY = "./js"
NODE_CLASS_MAPPINGS = {"LivePicture": LivePicture, "LiveSlow": LiveSlow, "LiveFailure": LiveFailure}
NODE_DISPLAY_NAME_MAPPINGS = {"LivePicture": "Live picture"}
