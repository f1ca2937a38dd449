"""Root mean square normalisation (Zhang & Sennrich 2019) in the dtype of what is normalised."""

import torch

from comfy.ops import cast_to

RMSNorm = torch.nn.RMSNorm


def rms_norm(x, weight=None, eps=1e-6):
    """x over its last sides (those of `weight`, else one); the weight is cast to x."""
    if weight is None:
        return torch.nn.functional.rms_norm(x, x.shape[-1:], eps=eps)
    return torch.nn.functional.rms_norm(x, weight.shape, cast_to(weight, x.dtype, x.device), eps)
