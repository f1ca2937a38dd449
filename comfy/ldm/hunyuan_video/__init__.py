"""Layers of HunyuanVideo."""

from comfy.lazy_parts import importer

__getattr__ = importer(__name__)
