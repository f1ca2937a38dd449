"""Layers of Stable Cascade."""
