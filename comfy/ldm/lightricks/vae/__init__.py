"""Layers of LTX-Video's autoencoders."""
