"""The encoder and the previews of Stable Cascade, which does not run here."""

from comfy.absent_families import absent_classes

globals().update(absent_classes(__name__, "EfficientNetEncoder", "Previewer", "StageC_coder"))
