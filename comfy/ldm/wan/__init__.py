"""Layers of Wan."""
