"""The thread that runs prompts, beside a server in the process of the tests, and nodes that need no torch."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

from app import progress_messages, worker
from comfy import interruption, progress_bar


@contextlib.contextmanager
def running(server: Any) -> Iterator[None]:
    """Prompts of this server run until the end of the block."""
    queue, hook = server.prompt_queue, progress_bar.PROGRESS_BAR_HOOK
    runner = worker.Worker(queue, server, environment=contextlib.nullcontext)
    runner.next_cleanup = time.monotonic() + 3600  # looking for garbage takes longer than these prompts
    progress_messages.install(server)

    def work() -> None:
        while not queue.stopping:
            with contextlib.suppress(interruption.InterruptProcessingException):
                runner.run_next()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        queue.stop()
        interruption.interrupt_current_processing()
        with queue.mutex:
            queue.not_empty.notify_all()
        thread.join(10)
        interruption.interrupt_current_processing(False)
        progress_bar.set_progress_bar_global_hook(hook)
        assert not thread.is_alive()


class Copy:
    """Opens a picture of the input folder and saves it as it is."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ([], {"image_upload": True})}}

    @classmethod
    def VALIDATE_INPUTS(cls, image):
        import folder_paths

        return folder_paths.exists_annotated_filepath(image) or f"there is no {image}"

    RETURN_TYPES = ()
    FUNCTION = "copy"
    OUTPUT_NODE = True
    CATEGORY = "test"

    def copy(self, image):
        import shutil

        import folder_paths

        name = f"copy_{len(os.listdir(folder_paths.get_output_directory()))}.png"
        source = folder_paths.get_annotated_filepath(image)
        shutil.copyfile(source, os.path.join(folder_paths.get_output_directory(), name))
        return {"ui": {"images": [{"filename": name, "subfolder": "", "type": "output"}], "text": ["copied"]}}


class Wait:
    """Works in steps of a hundredth of a second, with previews, or fails."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"steps": ("INT", {"default": 3}), "fails": ("BOOLEAN", {"default": False})}}

    RETURN_TYPES = ("INT",)
    FUNCTION = "work"
    OUTPUT_NODE = True
    CATEGORY = "test"

    def work(self, steps, fails):
        from PIL import Image

        bar = progress_bar.ProgressBar(steps)
        for step in range(steps):
            time.sleep(0.01)
            bar.update_absolute(step + 1, preview=("JPEG", Image.new("RGB", (8, 8)), 8))
        if fails:
            raise ValueError("as it should")
        return {"ui": {"text": ["waited"]}, "result": (steps,)}


NODES = {"Copy": Copy, "Wait": Wait}
