"""LTX-2, which does not run here."""

from comfy.absent_families import absent_class, absent_classes
from comfy.ldm.lightricks.model import LTXVModel

LTXAVModel = absent_class(__name__, "LTXAVModel", LTXVModel)
globals().update(absent_classes(__name__, "BasicAVTransformerBlock", "CompressedTimestep"))
