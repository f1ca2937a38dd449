"""Attention and the blocks of latent diffusion."""
