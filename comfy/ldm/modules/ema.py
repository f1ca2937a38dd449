"""An exponential moving average of a network's weights."""

import torch
from torch import nn


class LitEma(nn.Module):
    """Keeps the averages as buffers, named like the weights without dots.

    With `use_num_upates` the average is faster at the beginning: (1 + n) / (10 + n) after n updates.
    """

    def __init__(self, model, decay=0.9999, use_num_upates=True):
        super().__init__()
        if not 0.0 <= decay <= 1.0:
            raise ValueError(f"The decay of an average is 0 to 1, not {decay}.")
        self.register_buffer("decay", torch.tensor(decay, dtype=torch.float32))
        self.register_buffer("num_updates", torch.tensor(0 if use_num_upates else -1, dtype=torch.int))
        self.m_name2s_name = {
            name: name.replace(".", "") for name, weight in model.named_parameters() if weight.requires_grad
        }
        for name, weight in model.named_parameters():
            if name in self.m_name2s_name:
                self.register_buffer(self.m_name2s_name[name], weight.detach().clone())
        self.collected_params = []

    def reset_num_updates(self):
        self.num_updates = torch.zeros_like(self.num_updates)

    def _pairs(self, model):
        for name, weight in model.named_parameters():
            if name in self.m_name2s_name:
                yield getattr(self, self.m_name2s_name[name]), weight.data

    @torch.no_grad()
    def forward(self, model):
        """Move the averages towards the weights."""
        decay = float(self.decay)
        if self.num_updates >= 0:
            self.num_updates += 1
            decay = min(decay, float((1 + self.num_updates) / (10 + self.num_updates)))
        for average, weight in self._pairs(model):
            average.lerp_(weight.to(average), 1.0 - decay)

    def copy_to(self, model):
        """Give the model the averages."""
        for average, weight in self._pairs(model):
            weight.copy_(average)

    def store(self, parameters):
        """Keep these weights, for `restore`."""
        self.collected_params = [weight.clone() for weight in parameters]

    def restore(self, parameters):
        """Give back what `store` kept."""
        for kept, weight in zip(self.collected_params, parameters):
            weight.data.copy_(kept.data)
