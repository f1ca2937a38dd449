"""DEIS: the slope dx/dsigma as a polynomial through the last few, integrated exactly (Zhang & Chen 2023,
arXiv 2204.13902).

The paper has the polynomial in several times. "tab" takes the time t of the linear variance-preserving
schedule, in which 1 + sigma^2 = exp(BETA_D t^2 / 2 + BETA_MIN t); "rhoab" takes sigma itself.
"""

import math

import numpy as np
import torch

from comfy.k_diffusion.multistep import adams_bashforth

# The schedule that reaches sigma 0.002 at t = 0.001 and sigma 80 at t = 1.
_LATE = math.log(0.002**2 + 1) / 1e-3
_EARLY = math.log(80**2 + 1)
BETA_D = 2 * (_EARLY - _LATE) / (1 - 1e-3)
BETA_MIN = _EARLY - BETA_D / 2

# Exact to ten digits in ordinary steps, and to six where one step crosses most of the schedule.
_POINTS, _WEIGHTS = np.polynomial.legendre.leggauss(48)

_TIMES = {
    "tab": lambda sigma: (np.sqrt(BETA_MIN**2 + 2 * BETA_D * np.log1p(sigma**2)) - BETA_MIN) / BETA_D,
    "rhoab": lambda sigma: sigma,
}


def slope_weights(sigmas, sigma_next, time):
    """How much each slope counts in the mean over the step from `sigmas[0]` to `sigma_next`.

    `sigmas` are the levels of the slopes, newest first; `time` maps a level to the polynomial's variable.
    """
    middle, half = (sigma_next + sigmas[0]) / 2, (sigma_next - sigmas[0]) / 2
    at = time(middle + half * _POINTS)
    nodes = [time(sigma) for sigma in sigmas]

    def share(j):
        """The mean of the Lagrange polynomial that is one at node j."""
        factors = [(at - other) / (nodes[j] - other) for k, other in enumerate(nodes) if k != j]
        return float(_WEIGHTS @ np.prod([np.ones_like(at), *factors], axis=0)) / 2

    return [share(j) for j in range(len(nodes))]


@torch.no_grad()
def sample_deis(model, x, sigmas, extra_args=None, callback=None, disable=None, max_order=3, deis_mode="tab"):
    """DEIS (Zhang & Chen 2023) with up to `max_order` slopes, in the time "tab" or "rhoab"."""
    if deis_mode not in _TIMES:
        raise ValueError(f"deis_mode is '{deis_mode}'; deis knows {', '.join(map(repr, _TIMES))}.")
    grid = sigmas.detach().cpu().double().numpy()

    def weights_of(i, order):
        return slope_weights(grid[i - order + 1 : i + 1][::-1], grid[i + 1], _TIMES[deis_mode])

    return adams_bashforth(model, x, sigmas, extra_args, callback, disable, max_order, weights_of)
