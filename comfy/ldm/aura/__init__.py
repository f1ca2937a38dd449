"""Layers of AuraFlow."""
