"""LTX-Video's autoencoder, which does not run here, and how it takes pixels together."""

from comfy.absent_families import absent_classes


def _order(x, size: int, frames: int):
    """(B, C, f, frames, h, size, w, size) of a clip."""
    return x.unflatten(4, (-1, size)).unflatten(3, (-1, size)).unflatten(2, (-1, frames))


def patchify(x, patch_size_hw, patch_size_t=1):
    """Squares of pixels become channels: (B, C, f, H, W) -> (B, C * t * size * size, f / t, ...)."""
    if patch_size_hw == 1 and patch_size_t == 1:
        return x
    if x.ndim == 4:
        return patchify(x.unsqueeze(2), patch_size_hw).squeeze(2)
    x = _order(x, patch_size_hw, patch_size_t)
    return x.permute(0, 1, 3, 7, 5, 2, 4, 6).flatten(1, 4)


def unpatchify(x, patch_size_hw, patch_size_t=1):
    """The opposite."""
    if patch_size_hw == 1 and patch_size_t == 1:
        return x
    if x.ndim == 4:
        return unpatchify(x.unsqueeze(2), patch_size_hw).squeeze(2)
    x = x.unflatten(1, (-1, patch_size_t, patch_size_hw, patch_size_hw))  # (B, C, t, across, down, f, h, w)
    return x.permute(0, 1, 5, 2, 6, 4, 7, 3).flatten(6).flatten(4, 5).flatten(2, 3)


globals().update(
    absent_classes(__name__, "Encoder", "Decoder", "UNetMidBlock3D", "SpaceToDepthDownsample",
                   "DepthToSpaceUpsample", "LayerNorm", "ResnetBlock3D", "processor", "VideoVAE")
)  # fmt: skip
