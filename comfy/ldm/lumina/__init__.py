"""Layers of Lumina 2 and Z-Image."""
