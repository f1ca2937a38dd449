"""Distributions of latents."""
