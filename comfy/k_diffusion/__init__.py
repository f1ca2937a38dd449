"""Noise schedules and samplers in the notation of Karras et al. (2022), with the names of the k-diffusion
library.
"""
