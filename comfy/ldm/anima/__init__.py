"""Layers of Anima."""
