"""Samplers that node packs look for outside `comfy.k_diffusion`."""
