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


def _mod_scale_shift(h, shift, scale, segments):
    """`h` (tokens, width), in place: h * (1 + scale) + shift, with the row of each (start, end, row)."""
    for start, end, row in segments:
        h[start:end].mul_(1.0 + scale[row].to(h.dtype)).add_(shift[row].to(h.dtype))
    return h


def _mod_gate(x, gate, other, segments):
    """`x` (tokens, width), to which `other` times the gate's row of each (start, end, row) is added."""
    for start, end, row in segments:
        x[start:end].addcmul_(other[start:end], gate[row].to(x.dtype))
    return x
