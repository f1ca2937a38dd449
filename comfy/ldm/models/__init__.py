"""Autoencoders."""

from comfy.lazy_parts import importer

__getattr__ = importer(__name__)
