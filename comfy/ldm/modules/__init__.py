"""Attention and the blocks of latent diffusion."""

from comfy.lazy_parts import importer

__getattr__ = importer(__name__)
