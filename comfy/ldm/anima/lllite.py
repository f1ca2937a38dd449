"""ControlNet-LLLite for Anima, which does not run here."""

from comfy.absent_families import absent_classes

globals().update(
    absent_classes(__name__, "AnimaLLLiteResBlock", "AnimaLLLiteASPP", "AnimaLLLiteConditioning",
                   "AnimaLLLiteModule", "AnimaLLLite", "AnimaLLLitePatch", "AnimaLLLiteAttentionPatch",
                   "AnimaLLLiteMLPPatch")
)  # fmt: skip
