"""Lens, which does not run here."""

from comfy.absent_families import absent_classes

globals().update(
    absent_classes(
        __name__,
        "LensTimestepProjEmbeddings",
        "GateMLP",
        "LensJointAttention",
        "LensTransformerBlock",
        "LensTransformer2DModel",
    )
)
