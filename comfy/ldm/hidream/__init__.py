"""Layers of HiDream."""
