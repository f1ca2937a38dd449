"""DPM-Solver (Lu et al. 2022): exponential integrator steps of order 1 to 3, and the step size control."""

import math

import torch

from comfy.k_diffusion.walk import get_ancestral_step


class PIDStepSizeController:
    """Chooses the step size of an adaptive solver from the last three errors."""

    def __init__(self, h, pcoeff, icoeff, dcoeff, order=1, accept_safety=0.81, eps=1e-8):
        self.h = h
        self.exponents = ((pcoeff + icoeff + dcoeff) / order, -(pcoeff + 2 * dcoeff) / order, dcoeff / order)
        self.accept_safety = accept_safety
        self.eps = eps
        self.quality = []  # 1 / error of the last accepted steps, newest first

    def propose_step(self, error):
        """Is the step good enough? The size of the next try is set either way."""
        now = 1 / (float(error) + self.eps)
        earlier = self.quality or [now, now]
        factor = math.prod(q**e for q, e in zip([now, *earlier], self.exponents))
        factor = 1 + math.atan(factor - 1)
        accept = factor >= self.accept_safety
        self.quality = [now, earlier[0]] if accept else earlier
        self.h *= factor
        return accept


class DPMSolver:
    """Exponential integrator steps of order 1 to 3 in t = -log sigma, for the noise prediction eps."""

    def __init__(self, model, x, extra_args, count_call):
        self.model = model
        self.extra_args = {} if extra_args is None else extra_args
        self.count_call = count_call
        self._per_sample = x.new_ones([x.shape[0]])

    @staticmethod
    def sigma(t):
        """The noise level at time t."""
        return t.neg().exp()

    def eps(self, x, t):
        """The noise that the model sees in x."""
        sigma = self.sigma(t)
        eps = (x - self.model(x, sigma * self._per_sample, **self.extra_args)) / sigma
        self.count_call()
        return eps

    def euler(self, x, t, t_next, eps):
        """First order."""
        return x - self.sigma(t_next) * (t_next - t).expm1() * eps

    def inner_eps(self, x, t, t_next, r, eps):
        """The noise prediction at the share r of the step."""
        s = t + r * (t_next - t)
        return self.eps(self.euler(x, t, s, eps), s)

    def second(self, x, t, t_next, eps, eps_r, r):
        """Second order from the prediction at the share r."""
        correction = (eps_r - eps) / (2 * r)
        return self.euler(x, t, t_next, eps + correction)

    def third(self, x, t, t_next, eps, eps_r):
        """Third order from the prediction at one third; evaluates once more at two thirds."""
        r1, r2 = 1 / 3, 2 / 3
        h = t_next - t
        s2 = t + r2 * h
        u2 = self.euler(x, t, s2, eps) - self.sigma(s2) * (r2 / r1) * ((r2 * h).expm1() / (r2 * h) - 1) * (
            eps_r - eps
        )
        eps_r2 = self.eps(u2, s2)
        return self.euler(x, t, t_next, eps) - self.sigma(t_next) / r2 * (h.expm1() / h - 1) * (eps_r2 - eps)

    def step(self, x, t, t_next, eps, order):
        """One step of the given order."""
        if order == 1:
            return self.euler(x, t, t_next, eps)
        if order == 2:
            return self.second(x, t, t_next, eps, self.inner_eps(x, t, t_next, 1 / 2, eps), 1 / 2)
        return self.third(x, t, t_next, eps, self.inner_eps(x, t, t_next, 1 / 3, eps))

    def pair(self, x, t, t_next, eps, order):
        """(lower, higher) order solution of one step, sharing evaluations, for the error estimate."""
        if order == 2:
            return self.euler(x, t, t_next, eps), self.step(x, t, t_next, eps, 2)
        eps_r = self.inner_eps(x, t, t_next, 1 / 3, eps)
        return self.second(x, t, t_next, eps, eps_r, 1 / 3), self.third(x, t, t_next, eps, eps_r)

    def ancestral_target(self, t, t_next, t_end, eta):
        """(time to step to, noise to add)."""
        if not eta:
            return t_next, 0.0
        down, _ = get_ancestral_step(self.sigma(t), self.sigma(t_next), eta)
        target = torch.minimum(t_end, -down.log())
        return target, (self.sigma(t_next) ** 2 - self.sigma(target) ** 2) ** 0.5


def log_times(sigma_min, sigma_max):
    if sigma_min <= 0 or sigma_max <= 0:
        raise ValueError("sigma_min and sigma_max must be above 0: this sampler works in log sigma.")
    return -torch.as_tensor(sigma_max).log(), -torch.as_tensor(sigma_min).log()
