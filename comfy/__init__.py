"""ComfyUI's inference library on a maintained model zoo; it knows no server, no queue and no nodes."""

from comfy.lazy_parts import importer

__getattr__ = importer(__name__)
