"""HiDream O1, which does not run here."""

from comfy.absent_families import absent_classes

globals().update(
    absent_classes(
        __name__, "HiDreamO1TextConfig", "BottleneckPatchEmbed", "FinalLayer", "HiDreamO1Transformer"
    )
)
