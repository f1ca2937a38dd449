"""Layers of Cosmos."""
