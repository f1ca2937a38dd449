"""Layers of HunyuanVideo."""
