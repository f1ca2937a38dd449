"""The image encoder of Flux Redux: pictures of SigLIP to tokens of a prompt."""

import torch

import comfy.ops

ops = comfy.ops.manual_cast


class ReduxImageEncoder(torch.nn.Module):
    """(B, tokens, redux_dim) -> (B, tokens, txt_in_features)."""

    def __init__(self, redux_dim: int = 1152, txt_in_features: int = 4096, device=None, dtype=None):
        super().__init__()
        self.redux_dim, self.device, self.dtype = redux_dim, device, dtype
        self.redux_up = ops.Linear(redux_dim, txt_in_features * 3, dtype=dtype)
        self.redux_down = ops.Linear(txt_in_features * 3, txt_in_features, dtype=dtype)

    def forward(self, sigclip_embeds):
        return self.redux_down(torch.nn.functional.silu(self.redux_up(sigclip_embeds)))
