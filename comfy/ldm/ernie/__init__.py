"""Layers of ERNIE-Image."""
