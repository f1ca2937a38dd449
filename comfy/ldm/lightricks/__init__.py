"""Layers of LTX-Video."""
