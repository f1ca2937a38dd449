"""The small autoencoder of videos, which does not run here."""

from comfy.absent_families import absent_classes

globals().update(absent_classes(__name__, "TAEHV", "MemBlock", "TPool", "TGrow", "Clamp"))
