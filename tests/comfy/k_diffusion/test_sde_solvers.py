"""er_sde, seeds_2 and seeds_3 on normal data, for which the flow and every marginal are known."""

import math
from functools import partial

import pytest
import torch

from comfy.k_diffusion import sampling
from comfy.k_diffusion.sampling import SeedsOfRequests, sample_er_sde, sample_seeds_2, sample_seeds_3
from comfy.k_diffusion.sde_solvers import reverse_time_noise_scaler
from tests.comfy.k_diffusion.normal_data import FlowModel, denoiser, draw, flow, marginal, moments

MODELS = {"exploding": denoiser, "flow": FlowModel(), "noisier flow": FlowModel(1.5)}
SOLVERS = {"er_sde": sample_er_sde, "seeds_2": sample_seeds_2, "seeds_3": sample_seeds_3}
WITHOUT_NOISE = {
    "er_sde": partial(sample_er_sde, s_noise=0.0, noise_scaler=reverse_time_noise_scaler(0)),
    "seeds_2": partial(sample_seeds_2, eta=0.0),
    "seeds_3": partial(sample_seeds_3, eta=0.0),
}


def no_noise(sigma, sigma_next):
    raise AssertionError("noise was drawn")


def levels(kind, steps):
    """The same signal-to-noise ratios for all kinds of models."""
    exploding = torch.logspace(1, -0.5, steps + 1, dtype=torch.float64)
    return exploding / (1 + exploding) if "flow" in kind else exploding


def error(sample, kind, sigmas):
    """The largest difference from the flow."""
    model, x = MODELS[kind], draw(MODELS[kind], sigmas[0])
    out = sample(model, x, sigmas, noise_sampler=no_noise, disable=True)
    return float((out - flow(model, x, sigmas[0], sigmas[-1])).abs().max())


def order(sample, kind="exploding", steps=20):
    """log2 of what twice the steps divide the error by."""
    errors = [error(sample, kind, levels(kind, count)) for count in (steps, 2 * steps)]
    return math.log2(errors[0] / errors[1])


@pytest.mark.parametrize(
    ("solver", "expected"),
    [
        (partial(WITHOUT_NOISE["seeds_2"], r=0.5), 2),
        (partial(WITHOUT_NOISE["seeds_2"], r=0.3), 2),
        (partial(WITHOUT_NOISE["seeds_2"], solver_type="phi_2"), 2),
        (partial(WITHOUT_NOISE["seeds_2"], solver_type="phi_2", r=1.0), 2),
        (WITHOUT_NOISE["seeds_3"], 3),
        (partial(WITHOUT_NOISE["er_sde"], max_stage=1), 1),
        (partial(WITHOUT_NOISE["er_sde"], max_stage=2), 2),
    ],
)
def test_the_error_without_noise_falls_with_the_order(solver, expected):
    assert order(solver) > expected - 0.3


def test_the_third_stage_of_er_sde_lowers_the_error_and_not_its_order():
    """Its first derivative is still the slope between two levels, taken as the slope at the later one."""
    two, three = (partial(WITHOUT_NOISE["er_sde"], max_stage=stages) for stages in (2, 3))
    sigmas = levels("exploding", 20)
    assert error(three, "exploding", sigmas) < 0.8 * error(two, "exploding", sigmas)
    assert 1.7 < order(three) < 2.3


@pytest.mark.parametrize("name", ["seeds_2", "seeds_3", "er_sde"])
def test_a_flow_model_has_the_order_too(name):
    assert order(WITHOUT_NOISE[name], "flow") > (2.7 if name == "seeds_3" else 1.7)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize(
    ("solver", "options", "error"),
    [
        (sample_er_sde, {}, 0.003),
        (sample_er_sde, {"max_stage": 2}, 0.003),
        (sample_er_sde, {"max_stage": 1}, 0.04),
        (sample_er_sde, {"noise_scaler": reverse_time_noise_scaler(1.0)}, 0.005),
        (sample_seeds_2, {}, 0.004),
        (sample_seeds_2, {"solver_type": "phi_2", "r": 0.7}, 0.003),
        (sample_seeds_2, {"solver_type": "phi_2", "r": 1.0}, 0.003),
        (sample_seeds_2, {"eta": 0.4}, 0.003),
        (sample_seeds_3, {}, 0.0005),
        (sample_seeds_3, {"r_1": 0.2, "r_2": 0.7}, 0.001),
        (sample_seeds_3, {"eta": 0.4}, 0.0005),
    ],
)
def test_with_noise_the_marginal_is_kept(solver, options, error, kind):
    """The mean, and the variance but for `error`; no chance is in this."""
    model, sigmas = MODELS[kind], levels(kind, 40)
    mean, variance = moments(partial(solver, **options), model, sigmas)
    expected = marginal(model, sigmas[-1])
    assert mean == pytest.approx(expected[0], abs=1e-6)
    assert variance == pytest.approx(expected[1], rel=error)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("name", SOLVERS)
def test_many_samples_have_the_mean_and_the_variance_of_the_data(name, kind):
    """16 thousand samples: a deviation of 0.004 in the mean, of 1.1 % in the variance."""
    model = MODELS[kind]
    sigmas = torch.linspace(1, 0, 61) if "flow" in kind else sampling.get_sigmas_karras(30, 0.02, 10.0)
    x = draw(model, sigmas[0], (1, 4, 64, 64)).float()
    out = SOLVERS[name](model, x, sigmas, extra_args={"seed": 5}, disable=True)
    mean, variance = marginal(model, 0.0)
    assert out.mean().item() == pytest.approx(mean, abs=0.012)
    assert out.var().item() == pytest.approx(variance, rel=0.045)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("name", SOLVERS)
def test_each_step_is_reported_with_what_the_model_saw_and_said(name, kind):
    model, seen = MODELS[kind], []
    sigmas = torch.tensor([0.9, 0.6, 0.3, 0.0])
    x = draw(model, 0.9).float()
    out = SOLVERS[name](model, x, sigmas, extra_args={"seed": 3}, callback=seen.append, disable=True)
    assert [step["i"] for step in seen] == [0, 1, 2]
    assert torch.equal(seen[0]["x"], x)
    for step, sigma in zip(seen, sigmas):
        assert step["sigma"] == sigma and step["sigma_hat"] == sigma
        assert torch.equal(step["denoised"], model(step["x"], sigma.expand(2)))
    assert torch.equal(out, seen[-1]["denoised"])


def test_a_flow_starts_a_little_below_the_level_without_signal():
    seen, model = [], MODELS["flow"]
    sample_er_sde(model, draw(model, 1.0), torch.tensor([1.0, 0.5, 0.0]), callback=seen.append, disable=True)
    assert seen[0]["sigma"] == pytest.approx(1 - 1e-4)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("name", SOLVERS)
def test_the_shortest_schedules(name, kind):
    model, solver = MODELS[kind], SOLVERS[name]
    x = draw(model, 0.9)
    ends = [torch.tensor(values, dtype=torch.float64) for values in ([0.9], [0.9, 0.0], [0.9, 0.5])]
    assert torch.equal(solver(model, x, ends[0], disable=True), x)
    last = solver(model, x, ends[1], noise_sampler=no_noise, disable=True)
    assert torch.equal(last, model(x, ends[1][0].expand(2)))
    assert torch.isfinite(solver(model, x, ends[2], extra_args={"seed": 1}, disable=True)).all()


@pytest.mark.parametrize("name", SOLVERS)
def test_a_seed_gives_one_latent(name):
    sigmas = sampling.get_sigmas_karras(4, 0.1, 10.0)
    x = draw(denoiser, 10.0).float()
    runs = [SOLVERS[name](denoiser, x, sigmas, extra_args={"seed": s}, disable=True) for s in (7, 7, 8)]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


@pytest.mark.parametrize("name", SOLVERS)
def test_requests_that_share_a_batch_get_what_they_would_get_alone(name):
    sigmas = sampling.get_sigmas_karras(4, 0.1, 10.0)
    x = draw(denoiser, 10.0, (3, 4, 8, 8)).float()
    both = {"seed": SeedsOfRequests([7, 8], [1, 2])}
    together = SOLVERS[name](denoiser, x, sigmas, extra_args=both, disable=True)
    alone = SOLVERS[name](denoiser, x[1:], sigmas, extra_args={"seed": 8}, disable=True)
    assert torch.allclose(together[1:], alone, atol=1e-5)


@pytest.mark.parametrize("name", SOLVERS)
def test_noise_of_strength_zero_is_not_drawn(name):
    sigmas = sampling.get_sigmas_karras(4, 0.1, 10.0)
    x = draw(denoiser, 10.0).float()
    out = SOLVERS[name](denoiser, x, sigmas, s_noise=0.0, noise_sampler=no_noise, disable=True)
    assert torch.isfinite(out).all() and not torch.equal(out, x), "and it has not raised by drawing"


@pytest.mark.parametrize(("name", "draws"), [("er_sde", 1), ("seeds_2", 2), ("seeds_3", 3)])
def test_a_step_draws_once_for_each_stage_and_tells_between_which_levels(name, draws):
    asked = []

    def noise(sigma, sigma_next):
        asked.append((float(sigma), float(sigma_next)))
        return torch.zeros(())

    sigmas = torch.tensor([8.0, 1.0, 0.125, 0.0])
    SOLVERS[name](denoiser, draw(denoiser, 8.0), sigmas, noise_sampler=noise, disable=True)
    stops = torch.logspace(3, -3, 2 * draws + 1, base=2).tolist()
    assert [start for start, _ in asked] == pytest.approx(stops[:-1], rel=1e-5)
    assert [end for _, end in asked] == pytest.approx(stops[1:], rel=1e-5)


def test_an_unknown_kind_of_seeds_is_refused():
    with pytest.raises(ValueError, match="seeds_2 knows 'phi_1' and 'phi_2'"):
        sample_seeds_2(denoiser, draw(denoiser, 1.0), torch.tensor([1.0, 0.0]), solver_type="phi_3")
