"""Noise schedules by name, against formulas and diffusers."""

import math

import diffusers
import pytest
import torch

from comfy import model_sampling, sampler_names, samplers, schedulers

TRAINING = {"num_train_timesteps": 1000, "beta_schedule": "scaled_linear"}
TRAINING |= {"beta_start": 0.00085, "beta_end": 0.012}


class Schedule(model_sampling.ModelSamplingDiscrete, model_sampling.EPS):
    pass


class FlowSchedule(model_sampling.ModelSamplingDiscreteFlow, model_sampling.CONST):
    pass


@pytest.mark.parametrize("make", [Schedule, FlowSchedule])
@pytest.mark.parametrize("name", sampler_names.SCHEDULER_NAMES)
@pytest.mark.parametrize("steps", [2, 20])
def test_levels_descend_to_zero(make, name, steps):
    sigmas = samplers.calculate_sigmas(make(), name, steps)
    assert sigmas.dtype == torch.float32
    assert (sigmas.diff() < 0).all()
    assert sigmas[-1] == 0
    assert steps + 1 <= len(sigmas) <= steps + 2  # ddim_uniform may give one more


@pytest.mark.parametrize("name", [n for n in sampler_names.SCHEDULER_NAMES if n != "ddim_uniform"])
def test_the_first_level_is_the_largest_of_the_model(name):
    schedule = Schedule()
    first = samplers.calculate_sigmas(schedule, name, 10)[0]
    assert float(first) == pytest.approx(float(schedule.sigma_max), rel=1e-3)


@pytest.mark.parametrize(
    ("name", "options"),
    [("karras", {"use_karras_sigmas": True}), ("exponential", {"use_exponential_sigmas": True})],
)
def test_as_diffusers_has_it(name, options):
    scheduler = diffusers.EulerDiscreteScheduler(**TRAINING, **options, timestep_spacing="linspace")
    scheduler.set_timesteps(12)
    ours = samplers.calculate_sigmas(Schedule(), name, 12)
    assert torch.allclose(ours, scheduler.sigmas.float(), rtol=1e-4)


def test_normal_is_even_in_time():
    schedule = Schedule()
    sigmas = samplers.calculate_sigmas(schedule, "normal", 10)
    times = torch.linspace(999, 0, 10)
    assert torch.allclose(sigmas[:-1], schedule.sigma(times), rtol=1e-5)


def test_sgm_uniform_leaves_the_last_even_step_out():
    schedule = Schedule()
    sigmas = samplers.calculate_sigmas(schedule, "sgm_uniform", 10)
    assert torch.allclose(sigmas[:-1], schedule.sigma(torch.linspace(999, 0, 11)[:-1]), rtol=1e-5)


def test_simple_takes_every_nth_level():
    schedule = Schedule()
    assert torch.equal(schedulers.simple_scheduler(schedule, 4)[:-1], schedule.sigmas[[999, 749, 499, 249]])


def test_ddim_uniform_counts_from_the_start():
    schedule = Schedule()
    sigmas = schedulers.ddim_scheduler(schedule, 4)
    assert torch.equal(sigmas[:-1], schedule.sigmas[[751, 501, 251, 1]])


def test_beta_takes_the_quantiles_of_the_distribution():
    """For alpha = beta = 1 the distribution is uniform, so the levels are evenly spaced."""
    schedule = Schedule()
    sigmas = schedulers.beta_scheduler(schedule, 3, alpha=1.0, beta=1.0)
    assert torch.equal(sigmas[:-1], schedule.sigmas[[999, 666, 333]])


def test_beta_never_repeats_a_level():
    assert len(set(schedulers.beta_scheduler(Schedule(), 400).tolist())) == len(
        schedulers.beta_scheduler(Schedule(), 400)
    )


def test_linear_quadratic_joins_with_one_slope():
    shares = 1 - schedulers.linear_quadratic_schedule(FlowSchedule(), 20)
    steps = shares.diff()
    assert torch.allclose(steps[:10], torch.full((10,), 0.0025), atol=1e-6)
    assert float(steps[10]) == pytest.approx(0.0025 + float(steps[11] - steps[10]) / 2, rel=1e-2)
    assert schedulers.linear_quadratic_schedule(FlowSchedule(), 1).tolist() == [1.0, 0.0]


def test_kl_optimal_is_even_in_the_angle():
    sigmas = schedulers.kl_optimal_scheduler(5, 0.1, 10.0)
    angles = sigmas[:-1].atan()
    assert torch.allclose(angles.diff(), torch.full((4,), (math.atan(0.1) - math.atan(10.0)) / 4), atol=1e-5)


def test_an_unknown_scheduler_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match="no scheduler 'waves'. Known are: simple, "):
        samplers.calculate_sigmas(Schedule(), "waves", 3)


def test_a_pack_can_add_a_scheduler(monkeypatch):
    handler = samplers.SchedulerHandler(lambda model_sampling, steps: torch.tensor([1.0, 0.0]))
    monkeypatch.setitem(samplers.SCHEDULER_HANDLERS, "short", handler)
    assert samplers.calculate_sigmas(Schedule(), "short", 9).tolist() == [1.0, 0.0]
