"""Layers of Chroma."""
