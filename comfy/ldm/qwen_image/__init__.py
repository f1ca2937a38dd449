"""Layers of Qwen-Image."""
