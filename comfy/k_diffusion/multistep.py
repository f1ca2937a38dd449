"""Samplers that extrapolate from the slopes of earlier steps."""

import math

import torch

from comfy.k_diffusion.walk import Run, get_ancestral_step, move, to_d


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


def adams_bashforth(model, x, sigmas, extra_args, callback, disable, max_order, weights_of):
    """Steps along a weighted mean of up to `max_order` slopes: `weights_of(i, count)`, newest first."""
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
    return adams_bashforth(
        model, x, sigmas, extra_args, callback, disable, max_order, lambda i, order: _ADAMS_BASHFORTH[order]
    )


@torch.no_grad()
def sample_ipndm_v(model, x, sigmas, extra_args=None, callback=None, disable=None, max_order=4):
    """Improved PNDM with weights that follow the step sizes."""
    steps = sigmas[1:] - sigmas[:-1]
    return adams_bashforth(
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


# --- RES (Zhang & Chen 2023, arXiv 2308.02157) -------------------------------------------------------


def _sample_res(
    model, x, sigmas, extra_args, callback, disable, s_noise, noise_sampler, eta=0.0, cfg_pp=False
):
    """Second-order exponential multistep; CFG++ steps along the unconditional prediction."""
    run = Run(model, x, sigmas, extra_args, callback, disable)
    noise = run.noise_source(x, noise_sampler)
    if cfg_pp:
        run.keep_uncond()
    before = None  # the prediction of the last step, and the level that step aimed at
    for i, sigma, sigma_next in run.steps():
        denoised = run.first(i, x)
        along = run.uncond_denoised if cfg_pp else denoised
        down, up = get_ancestral_step(sigma, sigma_next, eta)
        shifted = x + (denoised - along)
        if down == 0 or before is None:
            x = move(shifted, denoised, down / sigma)
        else:
            earlier, aimed_at = before
            h = sigma.log() - down.log()
            c2 = (aimed_at.log() - sigmas[i - 1].log()) / h
            decay = down / sigma
            # h phi_1(-h) and h phi_2(-h)
            phi_1 = 1 - decay
            phi_2 = 1 - phi_1 / h
            b2 = torch.nan_to_num(phi_2 / c2, nan=0.0)
            x = decay * shifted + (phi_1 - b2) * along + b2 * earlier
        if sigma_next > 0:
            x = x + noise(sigma, sigma_next) * s_noise * up
        before = along, down
    return x


@torch.no_grad()
def sample_res_multistep(
    model, x, sigmas, extra_args=None, callback=None, disable=None, s_noise=1.0, noise_sampler=None
):
    """Second-order exponential multistep without noise."""
    return _sample_res(model, x, sigmas, extra_args, callback, disable, s_noise, noise_sampler)


@torch.no_grad()
def sample_res_multistep_cfg_pp(
    model, x, sigmas, extra_args=None, callback=None, disable=None, s_noise=1.0, noise_sampler=None
):
    """`sample_res_multistep` with CFG++."""
    return _sample_res(model, x, sigmas, extra_args, callback, disable, s_noise, noise_sampler, cfg_pp=True)


@torch.no_grad()
def sample_res_multistep_ancestral(
    model, x, sigmas, extra_args=None, callback=None, disable=None, eta=1.0, s_noise=1.0, noise_sampler=None
):
    """`sample_res_multistep` below the target level, then fresh noise up to it."""
    return _sample_res(model, x, sigmas, extra_args, callback, disable, s_noise, noise_sampler, eta)


@torch.no_grad()
def sample_res_multistep_ancestral_cfg_pp(
    model, x, sigmas, extra_args=None, callback=None, disable=None, eta=1.0, s_noise=1.0, noise_sampler=None
):
    """`sample_res_multistep_ancestral` with CFG++."""
    return _sample_res(
        model, x, sigmas, extra_args, callback, disable, s_noise, noise_sampler, eta, cfg_pp=True
    )


@torch.no_grad()
def sample_gradient_estimation(
    model, x, sigmas, extra_args=None, callback=None, disable=None, ge_gamma=2.0, cfg_pp=False
):
    """Euler steps whose slope is extrapolated from the last one (Permenter & Yuan 2024)."""
    run = Run(model, x, sigmas, extra_args, callback, disable)
    if cfg_pp:
        run.keep_uncond()
    slope_before = None
    for i, sigma, sigma_next in run.steps():
        denoised = run.first(i, x)
        along = run.uncond_denoised if cfg_pp else denoised
        slope = to_d(x, sigma, along)
        x = denoised + slope * sigma_next
        if slope_before is not None and sigma_next > 0:
            x = x + (ge_gamma - 1) * (slope - slope_before) * (sigma_next - sigma)
        slope_before = slope
    return x


@torch.no_grad()
def sample_gradient_estimation_cfg_pp(
    model, x, sigmas, extra_args=None, callback=None, disable=None, ge_gamma=2.0
):
    """`sample_gradient_estimation` with CFG++."""
    return sample_gradient_estimation(model, x, sigmas, extra_args, callback, disable, ge_gamma, cfg_pp=True)
