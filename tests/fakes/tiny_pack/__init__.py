"""A node pack for measuring and killing the queue: nodes that need no torch. It runs in upstream too."""

import os
import time

import folder_paths


class TinyText:
    """An output node that does nothing but show its text."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"text": ("STRING", {"default": ""})}}

    RETURN_TYPES = ("STRING",)
    FUNCTION = "run"
    OUTPUT_NODE = True
    CATEGORY = "test"

    def run(self, text):
        return {"ui": {"text": [text]}, "result": (text,)}


class TinySave(TinyText):
    """Saves its text below output/ as SaveImage saves pictures: a number, a file beside, a rename."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"text": ("STRING", {"default": ""}), "seconds": ("FLOAT", {"default": 0.0})}}

    def run(self, text, seconds):
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
            "tiny", folder_paths.get_output_directory()
        )
        file = f"{name}_{counter:05}_.txt"
        beside = os.path.join(folder, f".{file}.part")
        with open(beside, "w") as partial:
            partial.write(text)
        time.sleep(seconds / 2)
        os.replace(beside, os.path.join(folder, file))
        time.sleep(seconds / 2)
        return {"ui": {"text": [text], "files": [file]}, "result": (text,)}


class TinyWait(TinyText):
    """Waits, and may be interrupted in the middle; `dies` ends the process as a crash would."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"text": ("STRING", {"default": ""}), "seconds": ("FLOAT", {"default": 0.0}),
                             "dies": ("BOOLEAN", {"default": False})}}  # fmt: skip

    def run(self, text, seconds, dies):
        from comfy.model_management import throw_exception_if_processing_interrupted

        if dies:
            os.kill(os.getpid(), 9)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            throw_exception_if_processing_interrupted()
            time.sleep(0.002)
        return {"ui": {"text": [text]}, "result": (text,)}


NODE_CLASS_MAPPINGS = {"TinyText": TinyText, "TinySave": TinySave, "TinyWait": TinyWait}
