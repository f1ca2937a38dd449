"""The UNet, the autoencoder and the transformer of latent diffusion."""

from comfy.lazy_parts import importer

__getattr__ = importer(__name__)
