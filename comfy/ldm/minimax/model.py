"""MiniMax H3, which does not run here."""

from comfy.absent_families import absent_classes

globals().update(
    absent_classes(
        __name__,
        "TimeEmbedder",
        "Attention",
        "MLP",
        "AdalnProj",
        "RefinerBlock",
        "TokenRefiner",
        "DiTBlock",
        "FinalLayer",
        "PackedLayout",
        "MiniMaxH3Model",
    )
)
