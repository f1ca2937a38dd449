"""Layers of Lumina 2 and Z-Image."""

from comfy.lazy_parts import importer

__getattr__ = importer(__name__)
