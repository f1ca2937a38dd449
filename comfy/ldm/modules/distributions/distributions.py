"""The distribution that a variational autoencoder gives: a Gaussian per element."""

from __future__ import annotations

import math

import torch


class AbstractDistribution:
    """What can be sampled and has a mode."""

    def sample(self):
        raise NotImplementedError(f"{type(self).__name__} does not say how it is sampled.")

    def mode(self):
        raise NotImplementedError(f"{type(self).__name__} does not say what its mode is.")


class DiracDistribution(AbstractDistribution):
    """One value for sure."""

    def __init__(self, value):
        self.value = value

    def sample(self):
        return self.value

    def mode(self):
        return self.value


class DiagonalGaussianDistribution:
    """`parameters` (B, 2C, ...): means, logarithms of variances; `deterministic` makes the variances zero."""

    def __init__(self, parameters, deterministic=False):
        self.parameters, self.deterministic = parameters, deterministic
        self.mean, logvar = parameters.chunk(2, dim=1)
        self.logvar = logvar.clamp(-30.0, 20.0)
        self.std, self.var = torch.exp(self.logvar / 2), torch.exp(self.logvar)
        if deterministic:
            self.std = self.var = torch.zeros_like(self.mean)

    def sample(self):
        return self.mean + self.std * torch.randn(self.mean.shape, device=self.parameters.device)

    def mode(self):
        return self.mean

    def kl(self, other=None):
        """(B,) Kullback-Leibler divergence to another, or to the standard normal distribution."""
        if self.deterministic:
            return torch.zeros(1)
        mean, logvar = (0.0, 0.0) if other is None else (other.mean, other.logvar)
        return normal_kl(self.mean, self.logvar, mean, logvar).sum(dim=[1, 2, 3])

    def nll(self, sample, dims=(1, 2, 3)):
        """Negative logarithm of the likelihood of a sample."""
        if self.deterministic:
            return torch.zeros(1)
        terms = math.log(2 * math.pi) + self.logvar + (sample - self.mean) ** 2 / self.var
        return terms.sum(dim=list(dims)) / 2


def normal_kl(mean1, logvar1, mean2, logvar2):
    """Kullback-Leibler divergence of two Gaussians, per element; numbers and tensors mix, one is a tensor."""
    tensor = next(value for value in (mean1, logvar1, mean2, logvar2) if isinstance(value, torch.Tensor))
    logvar1, logvar2 = (
        torch.as_tensor(v, dtype=tensor.dtype, device=tensor.device) for v in (logvar1, logvar2)
    )
    spread = torch.exp(logvar1 - logvar2) - 1.0 + logvar2 - logvar1
    return (spread + (mean1 - mean2) ** 2 * torch.exp(-logvar2)) / 2
