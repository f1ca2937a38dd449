"""Layers of HiDream O1."""
