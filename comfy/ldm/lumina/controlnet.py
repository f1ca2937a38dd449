"""Control of Z-Image by patches, which does not run here."""

from comfy.absent_families import absent_class, absent_classes
from comfy.ldm.lumina import model

ZImageControlTransformerBlock = absent_class(
    __name__, "ZImageControlTransformerBlock", vars(model)["JointTransformerBlock"]
)
globals().update(absent_classes(__name__, "ZImage_Control"))
