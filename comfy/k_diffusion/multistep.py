"""Samplers that extrapolate from the slopes of earlier steps."""

import math

import torch

from comfy.k_diffusion.walk import Run, to_d


def linear_multistep_coeff(order, t, i, j):
    """The weight of the slope j steps back: the integral of its Lagrange polynomial over step i."""
    if order - 1 > i:
        raise ValueError(f"Order {order} needs {order - 1} earlier steps, and step {i} has {i}.")
    basis = torch.ones(1, dtype=torch.float64)  # coefficients of the polynomial, constant term first
    for k in range(order):
        if k == j:
            continue
        slope = 1.0 / (float(t[i - j]) - float(t[i - k]))
        basis = torch.cat([basis, basis.new_zeros(1)]) * (-float(t[i - k]) * slope) + torch.cat(
            [basis.new_zeros(1), basis * slope]
        )
    powers = torch.arange(1, order + 1, dtype=torch.float64)
    return float((basis / powers * (float(t[i + 1]) ** powers - float(t[i]) ** powers)).sum())


@torch.no_grad()
def sample_lms(model, x, sigmas, extra_args=None, callback=None, disable=None, order=4):
    """Linear multistep: Adams-Bashforth on an uneven grid, with up to `order` slopes."""
    run = Run(model, x, sigmas, extra_args, callback, disable)
    grid = sigmas.detach().cpu().double()
    slopes = []  # newest first
    for i, sigma, sigma_next in run.steps():
        denoised = run.first(i, x)
        slopes = [to_d(x, sigma, denoised), *slopes[: order - 1]]
        if sigma_next == 0:
            x = denoised
            continue
        weights = [linear_multistep_coeff(len(slopes), grid, i, j) for j in range(len(slopes))]
        x = x + sum(weight * slope for weight, slope in zip(weights, slopes))
    return x


# Adams-Bashforth weights for even steps, newest slope first.
_ADAMS_BASHFORTH = {
    1: (1.0,),
    2: (3 / 2, -1 / 2),
    3: (23 / 12, -16 / 12, 5 / 12),
    4: (55 / 24, -59 / 24, 37 / 24, -9 / 24),
}


def _sample_adams_bashforth(model, x, sigmas, extra_args, callback, disable, max_order, weights_of):
    run = Run(model, x, sigmas, extra_args, callback, disable)
    slopes = []  # newest first
    for i, sigma, sigma_next in run.steps():
        denoised = run.first(i, x)
        slopes = [to_d(x, sigma, denoised), *slopes[: max_order - 1]]
        if sigma_next == 0:
            x = denoised
            continue
        mean = sum(weight * slope for weight, slope in zip(weights_of(i, len(slopes)), slopes))
        x = x + (sigma_next - sigma) * mean
    return x


@torch.no_grad()
def sample_ipndm(model, x, sigmas, extra_args=None, callback=None, disable=None, max_order=4):
    """Improved PNDM (Zhang & Chen 2023): Adams-Bashforth with the weights of even steps."""
    return _sample_adams_bashforth(
        model, x, sigmas, extra_args, callback, disable, max_order, lambda i, order: _ADAMS_BASHFORTH[order]
    )


@torch.no_grad()
def sample_ipndm_v(model, x, sigmas, extra_args=None, callback=None, disable=None, max_order=4):
    """Improved PNDM with weights that follow the step sizes."""
    steps = sigmas[1:] - sigmas[:-1]
    return _sample_adams_bashforth(
        model,
        x,
        sigmas,
        extra_args,
        callback,
        disable,
        max_order,
        lambda i, order: _uneven_weights([steps[i - k] for k in range(order)]),
    )


def _uneven_weights(steps):
    """Weights of the last slopes, newest first, for step sizes given newest first: Newton's form, term by
    term.
    """
    order = len(steps)
    h = steps[0]
    weights = [1.0] + [0.0] * (order - 1)
    if order == 1:
        return weights
    g1 = steps[1]
    _add_difference(weights, h / g1 / 2, [steps[1]])
    if order == 2:
        return weights
    g2 = g1 + steps[2]
    # The second-difference weight as the method is published and used; the exact integral is (2h + 3g1) h /
    # (6 g1 g2).
    _add_difference(weights, (1 - h * h / (3 * g1 * g2)) / 2, steps[1:3])
    if order == 3:
        return weights
    g3 = g2 + steps[3]
    inner = (1 - h / (3 * (h + g1))) / 2 + (1 - h / (2 * (h + g1))) * h / (6 * (h + g2))
    _add_difference(weights, inner * h * (h + g1) * (h + g2) / (g1 * g2 * g3), steps[1:4])
    # As published, too: the oldest slope's ratio is taken one step late. Even steps see no difference.
    weights[3] = weights[3] * (g1 * steps[3] / steps[2] ** 2)
    return weights


def _add_difference(weights, amount, gaps):
    """Add `amount` times the divided difference over `gaps`, in units of the newest slope's weight."""
    nodes = [0.0]
    for gap in gaps:
        nodes.append(nodes[-1] - gap)
    scale = math.prod(nodes[0] - node for node in nodes[1:])
    for k, node in enumerate(nodes):
        others = math.prod(node - other for j, other in enumerate(nodes) if j != k)
        weights[k] = weights[k] + amount * scale / others
