"""Samplers step by step beside the schedulers of diffusers, on the same noise levels and the same network."""

import diffusers
import pytest
import torch

from comfy.k_diffusion import sampling

STEPS = 8
TRAINING = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
}


def eps(x, sigma):
    """A smooth stand-in for a network that predicts noise from the unscaled latent."""
    return torch.tanh(0.3 * x) * sigma / (sigma + 1) + 0.1 * torch.sin(x)


def denoiser(x, sigma, **extra):
    sigma = sigma.reshape(-1, 1, 1, 1)
    return x - sigma * eps(x, sigma)


def reference(scheduler, x, *, noise=None, variance_preserving=False):
    """Run a diffusers scheduler; x is variance exploding at its first level."""
    scheduler.set_timesteps(STEPS)

    def scale(index):
        return 1 / (1 + scheduler.sigmas[index] ** 2) ** 0.5 if variance_preserving else 1.0

    x = x * scale(0)
    for i, t in enumerate(scheduler.timesteps):
        sigma = scheduler.sigmas[i if scheduler.step_index is None else scheduler.step_index]
        x_exploding = x / scale(i)
        scheduler.scale_model_input(x, t)  # only because a step without it warns
        extra = {} if noise is None else {"variance_noise": noise(i)}
        x = scheduler.step(eps(x_exploding, sigma), t, x, **extra).prev_sample
    return x


def start(scheduler):
    scheduler.set_timesteps(STEPS)
    x = torch.randn((2, 4, 8, 8), generator=torch.Generator().manual_seed(0)) * scheduler.sigmas[0]
    return x, scheduler.sigmas.clone()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (sampling.sample_euler, diffusers.EulerDiscreteScheduler),
        (sampling.sample_lms, diffusers.LMSDiscreteScheduler),
    ],
)
def test_one_call_a_step(ours, theirs):
    scheduler = theirs(**TRAINING, use_karras_sigmas=True)
    x, sigmas = start(scheduler)
    expected = reference(theirs(**TRAINING, use_karras_sigmas=True), x)
    assert torch.allclose(ours(denoiser, x, sigmas, disable=True), expected, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize(("ours", "theirs"), [(sampling.sample_heun, diffusers.HeunDiscreteScheduler)])
def test_two_calls_a_step(ours, theirs):
    scheduler = theirs(**TRAINING, use_karras_sigmas=True)
    x, sigmas = start(scheduler)
    # diffusers names each level once per call.
    levels = torch.cat([sigmas[:1], sigmas[1::2]]).unique().flip(0)
    expected = reference(theirs(**TRAINING, use_karras_sigmas=True), x)
    assert torch.allclose(ours(denoiser, x, levels, disable=True), expected, atol=2e-3, rtol=1e-3)


def multistep(algorithm):
    options = {"solver_order": 2, "use_karras_sigmas": True, "final_sigmas_type": "zero"}
    return diffusers.DPMSolverMultistepScheduler(**TRAINING, **options, algorithm_type=algorithm)


def test_multistep_second_order():
    x, sigmas = start(multistep("dpmsolver++"))
    expected = reference(multistep("dpmsolver++"), x, variance_preserving=True)
    assert torch.allclose(
        sampling.sample_dpmpp_2m(denoiser, x, sigmas, disable=True), expected, atol=1e-3, rtol=1e-3
    )


def test_multistep_second_order_with_noise():
    """The noise of each step is given to both sides."""
    noises = torch.randn((STEPS, 2, 4, 8, 8), generator=torch.Generator().manual_seed(9))
    x, sigmas = start(multistep("sde-dpmsolver++"))
    expected = reference(multistep("sde-dpmsolver++"), x, noise=lambda i: noises[i], variance_preserving=True)
    draw = iter(noises)
    ours = sampling.sample_dpmpp_2m_sde(
        denoiser, x, sigmas, noise_sampler=lambda *_: next(draw), disable=True
    )
    assert torch.allclose(ours, expected, atol=1e-3, rtol=1e-3)


def test_ancestral_steps(monkeypatch):
    """diffusers draws its noise inside, so it is made to draw ours."""
    from diffusers.schedulers import scheduling_euler_ancestral_discrete as theirs

    noises = torch.randn((STEPS, 2, 4, 8, 8), generator=torch.Generator().manual_seed(9))
    scheduler = diffusers.EulerAncestralDiscreteScheduler(**TRAINING)
    x, sigmas = start(scheduler)
    draw = iter(noises)
    monkeypatch.setattr(theirs, "randn_tensor", lambda *args, **kwargs: next(draw))
    expected = reference(diffusers.EulerAncestralDiscreteScheduler(**TRAINING), x)
    again = iter(noises)
    ours = sampling.sample_euler_ancestral(
        denoiser, x, sigmas, noise_sampler=lambda *_: next(again), disable=True
    )
    assert torch.allclose(ours, expected, atol=1e-3, rtol=1e-3)


def test_ddpm_posterior():
    """The mean and the deviation of a step are those of the DDPM posterior between two levels."""
    sigma, sigma_next = torch.tensor(2.0), torch.tensor(1.2)
    alpha_bar, alpha_bar_next = 1 / (1 + sigma**2), 1 / (1 + sigma_next**2)
    alpha, beta = alpha_bar / alpha_bar_next, 1 - alpha_bar / alpha_bar_next
    x = torch.randn((2, 4, 8, 8), generator=torch.Generator().manual_seed(0)) * 2
    x0 = denoiser(x, sigma.expand(2))
    mean = (
        alpha_bar_next.sqrt() * beta * x0 + alpha.sqrt() * (1 - alpha_bar_next) * (x * alpha_bar.sqrt())
    ) / (1 - alpha_bar)
    deviation = (beta * (1 - alpha_bar_next) / (1 - alpha_bar)).sqrt()
    levels = torch.stack([sigma, sigma_next])
    steps = [
        sampling.sample_ddpm(
            denoiser, x, levels, noise_sampler=lambda *_, n=n: torch.full_like(x, n), disable=True
        )
        for n in (0.0, 1.0)
    ]
    assert torch.allclose(steps[0] * alpha_bar_next.sqrt(), mean, atol=1e-5)
    assert torch.allclose((steps[1] - steps[0]) * alpha_bar_next.sqrt(), deviation.expand_as(x), atol=1e-5)
