"""sa_solver on normal data, for which the flow and every marginal are known."""

import math
from functools import partial

import pytest
import torch

from comfy.k_diffusion import sampling
from comfy.k_diffusion.sa_solver import adams_weights, get_tau_interval_func, simple_weights
from comfy.k_diffusion.sampling import SeedsOfRequests, sample_sa_solver, sample_sa_solver_pece
from tests.comfy.k_diffusion.normal_data import FlowModel, denoiser, draw, flow, marginal, moments

MODELS = {"exploding": denoiser, "flow": FlowModel(), "noisier flow": FlowModel(1.5)}
WITHOUT_NOISE = get_tau_interval_func(math.inf, 0.0, eta=0.0)
NOISE_EVERYWHERE = get_tau_interval_func(math.inf, 0.0)
SIMPLE = {"predictor_order": 2, "corrector_order": 2, "simple_order_2": True}


def no_noise(sigma, sigma_next):
    raise AssertionError("noise was drawn")


def levels(kind, steps):
    """The same signal-to-noise ratios for all kinds of models."""
    exploding = torch.logspace(1, -0.5, steps + 1, dtype=torch.float64)
    return exploding / (1 + exploding) if "flow" in kind else exploding


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"predictor_order": 1, "corrector_order": 0}, 1),
        ({"predictor_order": 3, "corrector_order": 0}, 3),
        ({"predictor_order": 2, "corrector_order": 3}, 3),
        ({"predictor_order": 2, "corrector_order": 2}, 2),
        (SIMPLE, 2),
        ({}, 4),
        ({"use_pece": True}, 4),
    ],
)
def test_the_error_without_noise_falls_with_the_order(options, expected, kind):
    model, errors = MODELS[kind], []
    for steps in (40, 80):
        sigmas = levels(kind, steps)
        x = draw(model, sigmas[0])
        out = sample_sa_solver(
            model, x, sigmas, tau_func=WITHOUT_NOISE, noise_sampler=no_noise, disable=True, **options
        )
        errors.append((out - flow(model, x, sigmas[0], sigmas[-1])).abs().max())
    assert math.log2(errors[0] / errors[1]) > expected - 0.3


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({}, 0.002),
        ({"tau_func": NOISE_EVERYWHERE}, 0.002),
        ({"tau_func": NOISE_EVERYWHERE, "use_pece": True}, 0.002),
        ({"tau_func": NOISE_EVERYWHERE, "predictor_order": 2, "corrector_order": 0}, 0.005),
        ({"tau_func": NOISE_EVERYWHERE, "predictor_order": 1, "corrector_order": 0}, 0.07),
        ({"tau_func": NOISE_EVERYWHERE, **SIMPLE}, 0.007),
        ({"tau_func": get_tau_interval_func(0.8, 0.5, 0.6)}, 0.002),
    ],
)
def test_with_noise_the_marginal_is_kept(options, error, kind):
    """The mean, and the variance but for `error`; no chance is in this."""
    model, sigmas = MODELS[kind], levels(kind, 40)
    mean, variance = moments(partial(sample_sa_solver, **options), model, sigmas)
    expected = marginal(model, sigmas[-1])
    assert mean == pytest.approx(expected[0], abs=1e-5)
    assert variance == pytest.approx(expected[1], rel=error)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("solver", [sample_sa_solver, sample_sa_solver_pece])
def test_many_samples_have_the_mean_and_the_variance_of_the_data(solver, kind):
    """16 thousand samples: a deviation of 0.004 in the mean, of 1.1 % in the variance."""
    model = MODELS[kind]
    sigmas = torch.linspace(1, 0, 41) if "flow" in kind else sampling.get_sigmas_karras(40, 0.02, 10.0)
    x = draw(model, sigmas[0], (1, 4, 64, 64)).float()
    out = solver(model, x, sigmas, extra_args={"seed": 5}, disable=True)
    mean, variance = marginal(model, 0.0)
    assert out.mean().item() == pytest.approx(mean, abs=0.012)
    assert out.var().item() == pytest.approx(variance, rel=0.045)


@pytest.mark.parametrize("rate", [1.0, 2.0, 101.0])
@pytest.mark.parametrize("h", [0.002, 0.3, 1.5])
def test_the_weights_integrate_polynomials(h, rate):
    start, end = 0.7, 0.7 + h
    times = [end, start, start - h, start - 2.5 * h]
    grid = start + h * (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    weights = adams_weights(times, start, end, rate)
    for power in range(4):
        values = ((grid - start) / h) ** power
        exact = float((rate * (rate * (grid - end)).exp() * values).sum() * h / 200_000)
        found = sum(w * ((time - start) / h) ** power for w, time in zip(weights, times))
        assert found == pytest.approx(exact, rel=1e-5)


def test_the_simple_weights_are_the_others_for_small_steps():
    for times, h in (([0.0, 0.01], 0.01), ([-0.02, 0.0], 0.01)):
        whole, simple = (f(times, 0.0, h, 2.0) for f in (adams_weights, simple_weights))
        assert sum(simple) == pytest.approx(sum(whole))
        assert simple == pytest.approx(whole, abs=2 * (2 * h) ** 2)


def test_tau_is_eta_within_its_levels():
    tau = get_tau_interval_func(5.0, 1.0, eta=0.7)
    assert [tau(sigma) for sigma in (5.1, 5.0, torch.tensor(3.0), 1.0, 0.9)] == [0.0, 0.7, 0.7, 0.7, 0.0]
    assert get_tau_interval_func(5.0, 1.0, eta=0.0)(3.0) == 0.0


def test_by_default_there_is_noise_in_the_middle_of_the_schedule_only():
    model, asked = FlowModel(), []

    def noise(sigma, sigma_next):
        asked.append((round(float(sigma), 2), round(float(sigma_next), 2)))
        return torch.zeros(())

    sample_sa_solver(
        model, draw(model, 0.99), torch.linspace(0.95, 0.05, 10), noise_sampler=noise, disable=True
    )
    assert asked == [(0.85, 0.75), (0.75, 0.65), (0.65, 0.55), (0.55, 0.45), (0.45, 0.35), (0.35, 0.25)]


def test_noise_of_strength_zero_is_not_drawn():
    sigmas, x = torch.tensor([3.0, 2.0, 1.0, 0.0]), draw(denoiser, 3.0)
    runs = [
        sample_sa_solver(denoiser, x, sigmas, s_noise=0.0, noise_sampler=no_noise, disable=True),
        sample_sa_solver(denoiser, x, sigmas, tau_func=WITHOUT_NOISE, noise_sampler=no_noise, disable=True),
    ]
    assert not torch.equal(*runs)  # without its noise the SDE still decays faster


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("pece", [False, True])
def test_each_step_is_reported_with_what_the_model_saw_and_said(kind, pece):
    model, seen, calls = MODELS[kind], [], []

    def counted(x, sigma, **extra):
        calls.append(float(sigma[0]))
        return model(x, sigma)

    counted.inner_model = getattr(model, "inner_model", None)
    sigmas = torch.tensor([0.9, 0.6, 0.3, 0.0])
    x = draw(model, 0.9).float()
    out = sample_sa_solver(counted, x, sigmas, {"seed": 3}, seen.append, True, use_pece=pece)
    assert [step["i"] for step in seen] == [0, 1, 2]
    assert torch.equal(seen[0]["x"], x)
    for step, sigma in zip(seen, sigmas):
        assert step["sigma"] == sigma and step["sigma_hat"] == sigma
        assert torch.equal(step["denoised"], model(step["x"], sigma.expand(2)))
    assert calls == pytest.approx([0.9, 0.6, 0.6, 0.3, 0.3] if pece else [0.9, 0.6, 0.3])
    assert torch.equal(out, seen[-1]["denoised"]) is not pece


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("solver", [sample_sa_solver, sample_sa_solver_pece])
def test_the_shortest_schedules(solver, kind):
    model = MODELS[kind]
    x = draw(model, 0.9)
    ends = [torch.tensor(values, dtype=torch.float64) for values in ([], [0.9], [0.9, 0.0], [0.9, 0.5])]
    assert solver(model, x, ends[0], disable=True) is x
    assert solver(model, x, ends[1], disable=True) is x
    last = solver(model, x, ends[2], noise_sampler=no_noise, disable=True)
    assert torch.equal(last, model(x, ends[2][0].expand(2)))
    assert torch.isfinite(solver(model, x, ends[3], extra_args={"seed": 1}, disable=True)).all()


def test_near_the_end_the_orders_fall():
    """The last step above zero is one of first order, whatever was asked for."""
    x, sigmas = draw(denoiser, 3.0), torch.tensor([3.0, 2.0, 1.0, 0.0], dtype=torch.float64)
    runs = [
        sample_sa_solver(
            denoiser,
            x,
            sigmas,
            tau_func=WITHOUT_NOISE,
            predictor_order=order,
            corrector_order=0,
            disable=True,
        )
        for order in (1, 3)
    ]
    assert torch.equal(*runs)


@pytest.mark.parametrize("solver", [sample_sa_solver, sample_sa_solver_pece])
def test_a_seed_gives_one_latent_alone_and_in_a_batch_that_requests_share(solver):
    sigmas = sampling.get_sigmas_karras(5, 0.1, 10.0)
    x = draw(denoiser, 10.0, (3, 4, 8, 8)).float()

    def run(x, seed):
        return solver(denoiser, x, sigmas, extra_args={"seed": seed}, disable=True)

    assert torch.equal(run(x, 7), run(x, 7))
    assert not torch.equal(run(x, 7), run(x, 8))
    together = run(x, SeedsOfRequests([7, 8], [1, 2]))
    assert torch.allclose(together[1:], run(x[1:], 8), atol=1e-5)
