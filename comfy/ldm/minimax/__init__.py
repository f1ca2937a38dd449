"""Layers of MiniMax H3."""
