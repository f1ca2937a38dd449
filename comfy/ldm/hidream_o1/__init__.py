"""Layers of HiDream O1."""

from comfy.lazy_parts import importer

__getattr__ = importer(__name__)
