"""Layers of MiniMax H3."""

from comfy.lazy_parts import importer

__getattr__ = importer(__name__)
