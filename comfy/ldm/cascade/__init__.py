"""Layers of Stable Cascade."""

from comfy.lazy_parts import importer

__getattr__ = importer(__name__)
