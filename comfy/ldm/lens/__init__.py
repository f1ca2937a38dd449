"""Layers of Lens."""
