"""Noise schedules and samplers in the notation of Karras et al. (2022), with the names of the k-diffusion
library.
"""

from comfy.lazy_parts import importer

__getattr__ = importer(__name__)
