"""Noise schedules that depend only on their bounds: descending levels that end in 0 (on the device asked
for).
"""

import math

import torch


def append_zero(x):
    """The levels with the noiseless one at their end."""
    return torch.cat([x, x.new_zeros([1])])


def get_sigmas_karras(n, sigma_min, sigma_max, rho=7.0, device="cpu"):
    """Karras et al. (2022), equation 5: even steps in sigma^(1/rho)."""
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return append_zero((high + torch.linspace(0, 1, n, device=device) * (low - high)) ** rho)


def get_sigmas_exponential(n, sigma_min, sigma_max, device="cpu"):
    """Even steps in log sigma."""
    return append_zero(torch.linspace(math.log(sigma_max), math.log(sigma_min), n, device=device).exp())


def get_sigmas_polyexponential(n, sigma_min, sigma_max, rho=1.0, device="cpu"):
    """Steps in log sigma that follow a power `rho`."""
    low, high = math.log(sigma_min), math.log(sigma_max)
    return append_zero((low + torch.linspace(1, 0, n, device=device) ** rho * (high - low)).exp())


def get_sigmas_vp(n, beta_d=19.9, beta_min=0.1, eps_s=1e-3, device="cpu"):
    """The continuous variance-preserving schedule (Song et al. 2021) in sigma."""
    t = torch.linspace(1, eps_s, n, device=device)
    return append_zero((beta_d * t**2 / 2 + beta_min * t).expm1().sqrt())


def get_sigmas_laplace(n, sigma_min, sigma_max, mu=0.0, beta=0.5, device="cpu"):
    """Log sigma after a Laplace distribution (Hang et al. 2024); as published, it ends at sigma_min, not at
    0.
    """
    centred = 0.5 - torch.linspace(0, 1, n, device=device)
    tail = torch.log(1 - 2 * centred.abs() + 1e-5)  # the small term keeps the two ends finite
    return (mu - beta * centred.sign() * tail).exp().clamp(min=sigma_min, max=sigma_max)
