"""Every sampler against a case whose answer is known.

The data are normal with mean MEAN and deviation SPREAD, so the best denoiser and the probability flow are
known in closed form, and a stochastic sampler must end with that mean and deviation.
"""

import math

import pytest
import torch

import comfy.model_sampling
from comfy import sampler_names
from comfy.k_diffusion import sampling

MEAN, SPREAD = 0.7, 0.5

# Not in this table are those that choose their own levels: dpm_fast and dpm_adaptive.
ODE = ["euler", "heun", "heunpp2", "dpm_2", "lms", "dpmpp_2m", "ipndm", "ipndm_v"]
ODE_WITHOUT_NOISE = ["euler_ancestral", "dpm_2_ancestral", "dpmpp_2s_ancestral", "dpmpp_sde"]
ODE_WITHOUT_NOISE += ["dpmpp_2m_sde", "dpmpp_2m_sde_heun", "dpmpp_3m_sde"]
STOCHASTIC = [*ODE_WITHOUT_NOISE, "ddpm", "lcm", "res_multistep_ancestral"]


def denoiser(x, sigma, **extra):
    """E[x0 | x] for normal data in variance-exploding noise."""
    variance = sigma.reshape(-1, 1, 1, 1) ** 2
    return (SPREAD**2 * x + variance * MEAN) / (SPREAD**2 + variance)


def flow(x, sigma_from, sigma_to):
    """The exact end of the probability flow that starts at x."""
    ratio = math.sqrt((SPREAD**2 + sigma_to**2) / (SPREAD**2 + sigma_from**2))
    return MEAN + (x - MEAN) * ratio


def start(sigma, shape=(2, 4, 8, 8)):
    generator = torch.Generator().manual_seed(0)
    return MEAN + math.sqrt(SPREAD**2 + sigma**2) * torch.randn(
        shape, generator=generator, dtype=torch.float64
    )


def sampler(name):
    return getattr(sampling, f"sample_{name}")


def error(name, steps, **options):
    sigmas = torch.logspace(1, -0.5, steps + 1, dtype=torch.float64)
    x = start(sigmas[0])
    out = sampler(name)(denoiser, x, sigmas, disable=True, **options)
    return (out - flow(x, sigmas[0], sigmas[-1])).abs().max().item()


@pytest.mark.parametrize(
    ("name", "order"),
    [("euler", 1), ("heun", 2), ("dpm_2", 2), ("dpmpp_2m", 2), ("lms", 2), ("ipndm_v", 2)],
)
def test_the_error_of_an_ode_sampler_falls_with_its_order(name, order):
    # The first step of a multistep sampler is an Euler step, which bounds its order by two.
    assert error(name, 40) / error(name, 80) > 2**order * 0.85


@pytest.mark.parametrize("name", ["euler_ancestral", "dpm_2_ancestral", "dpmpp_2s_ancestral", "dpmpp_sde"])
def test_an_ancestral_sampler_without_noise_follows_the_flow(name):
    assert error(name, 80, eta=0.0) < 0.05


def test_res_multistep_is_the_heun_variant_of_dpmpp_2m_without_noise():
    noise = {"eta": 0.0, "noise_sampler": lambda *_: 0.0}
    assert error("res_multistep", 40) == pytest.approx(error("dpmpp_2m_sde_heun", 40, **noise), rel=1e-6)


def test_gradient_estimation_without_extrapolation_is_euler_and_with_it_is_better():
    assert error("gradient_estimation", 40, ge_gamma=1.0) == pytest.approx(error("euler", 40))
    assert error("gradient_estimation", 40, ge_gamma=1.5) < error("euler", 40) / 5


@pytest.mark.parametrize("solver", ["dpmpp_2m_sde", "dpmpp_2m_sde_heun", "dpmpp_3m_sde"])
def test_a_multistep_sde_sampler_without_noise_has_second_order(solver):
    noise = {"eta": 0.0, "noise_sampler": lambda *_: 0.0}
    assert error(solver, 80, **noise) < 0.6 / 80**2
    assert error(solver, 160, **noise) < 0.6 / 160**2


@pytest.mark.parametrize("name", STOCHASTIC)
def test_a_stochastic_sampler_ends_in_the_distribution_of_the_data(name):
    sigmas = sampling.get_sigmas_karras(60, 0.02, 10.0)
    x = start(10.0, (1, 4, 64, 64)).float()
    noise = sampling.default_noise_sampler(x, seed=5)  # a Brownian path would take seconds
    out = sampler(name)(denoiser, x, sigmas, noise_sampler=noise, disable=True)
    assert out.mean().item() == pytest.approx(MEAN, abs=0.02)
    # A consistency sampler starts each step from the mean, so it does not keep the spread.
    spread = out.std().item()
    assert spread == pytest.approx(SPREAD, rel=0.06) or (name == "lcm" and spread < SPREAD)


@pytest.mark.parametrize("order", [2, 3])
def test_the_adaptive_solver_meets_its_tolerance_and_reports_its_work(order):
    x = start(10.0)
    out, info = sampling.sample_dpm_adaptive(
        denoiser, x, 0.3, 10.0, order=order, rtol=0.001, atol=0.0001, disable=True, return_info=True
    )
    assert (out - flow(x, 10.0, 0.3)).abs().max() < 0.02
    assert info["steps"] == info["n_accept"] + info["n_reject"]


def test_the_adaptive_solver_with_noise_keeps_the_distribution():
    x = start(10.0, (4, 4, 32, 32))
    seed = {"seed": 1}
    out = sampling.sample_dpm_adaptive(denoiser, x, 0.05, 10.0, eta=1.0, extra_args=seed, disable=True)
    assert out.std().item() == pytest.approx(SPREAD, rel=0.1)


@pytest.mark.parametrize("calls", [5, 6, 7, 30])
def test_the_fast_solver_uses_exactly_its_budget(calls):
    seen = []

    def counting(x, sigma, **extra):
        seen.append(float(sigma[0]))
        return denoiser(x, sigma)

    x = start(10.0)
    out = sampling.sample_dpm_fast(counting, x, torch.tensor(0.3), torch.tensor(10.0), calls, disable=True)
    assert len(seen) == calls
    assert (out - flow(x, 10.0, 0.3)).abs().max() < 60 / calls**2


def test_churn_adds_noise_only_between_its_bounds():
    sigmas = sampling.get_sigmas_karras(10, 0.1, 10.0)
    levels = []

    def remember(step):
        levels.append(float(step["sigma_hat"] / step["sigma"]))

    churn = {"s_churn": 2.0, "s_tmin": 1.0, "s_tmax": 5.0}
    sampling.sample_euler(denoiser, start(10.0).float(), sigmas, callback=remember, disable=True, **churn)
    inside = [1.0 <= float(sigma) <= 5.0 for sigma in sigmas[:-1]]
    assert [level > 1 for level in levels] == inside


# Others are Euler under another name, choose their own levels, or have a test file of their own.
WITH_EVERY_STEP = set(sampler_names.SAMPLER_NAMES) - {"ddim", "dpm_fast", "uni_pc", "uni_pc_bh2"}


@pytest.mark.parametrize("name", sorted(WITH_EVERY_STEP))
def test_a_sampler_reports_every_step_and_leaves_its_input_alone(name):
    if name == "dpm_adaptive":
        pytest.skip("chooses its own steps")
    sigmas = sampling.get_sigmas_karras(5, 0.1, 10.0)
    x = start(10.0, (1, 4, 4, 4)).float()
    before, seen = x.clone(), []

    def guided(x, sigma, model_options=None, **extra):
        denoised = denoiser(x, sigma)
        for function in (model_options or {}).get("sampler_post_cfg_function", []):
            denoised = function({"denoised": denoised, "uncond_denoised": denoised * 0.9})
        return denoised

    out = sampler(name)(guided, x, sigmas, extra_args={"seed": 3}, callback=seen.append, disable=True)
    assert [step["i"] for step in seen] == [0, 1, 2, 3, 4]
    assert set(seen[0]) >= {"x", "i", "sigma", "sigma_hat", "denoised"}
    assert torch.equal(x, before)
    assert torch.isfinite(out).all()


@pytest.mark.parametrize("name", STOCHASTIC)
def test_the_same_seed_gives_the_same_latent(name):
    sigmas = sampling.get_sigmas_karras(4, 0.1, 10.0)
    x = start(10.0, (1, 4, 4, 4)).float()
    runs = [sampler(name)(denoiser, x, sigmas, extra_args={"seed": s}, disable=True) for s in (7, 7, 8)]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


@pytest.mark.parametrize("name", ["dpmpp_sde", "dpmpp_2m_sde", "dpmpp_2m_sde_heun", "dpmpp_3m_sde"])
def test_noise_drawn_on_the_device_of_a_cpu_latent_is_the_noise_of_the_cpu(name):
    sigmas = sampling.get_sigmas_karras(3, 0.1, 10.0)
    x = start(10.0, (1, 4, 4, 4)).float()
    runs = [
        sampler(kind)(denoiser, x, sigmas, extra_args={"seed": 7}, disable=True)
        for kind in (name, f"{name}_gpu")
    ]
    assert torch.equal(*runs)


def test_noise_on_the_cpu_starts_one_seed_later():
    """The seed itself has made the starting noise, which must not come again."""
    x = torch.zeros(1, 4, 8, 8)
    expected = torch.randn(x.shape, generator=torch.Generator().manual_seed(8))
    assert torch.equal(sampling.default_noise_sampler(x, seed=7)(1.0, 0.5), expected)


def test_brownian_noise_over_two_halves_adds_up_to_the_whole():
    noise = sampling.BrownianTreeNoiseSampler(torch.zeros(1, 4, 8, 8), 0.1, 10.0, seed=3, cpu=True)
    whole = noise(torch.tensor(8.0), torch.tensor(2.0)) * 6**0.5
    halves = noise(torch.tensor(8.0), torch.tensor(5.0)) + noise(torch.tensor(5.0), torch.tensor(2.0))
    assert torch.allclose(whole, halves * 3**0.5, atol=1e-4)
    assert whole.std().item() / 6**0.5 == pytest.approx(1.0, abs=0.2)


def test_brownian_seeds_must_match_the_batch():
    with pytest.raises(ValueError, match="2 seeds for a batch of 3"):
        sampling.BatchedBrownianTree(torch.zeros(3, 1), torch.tensor(0.0), torch.tensor(1.0), seed=[1, 2])


def test_one_brownian_seed_per_sample_makes_each_sample_alone():
    x, levels = torch.zeros(2, 4, 4, 4), (torch.tensor(5.0), torch.tensor(1.0))
    both = sampling.BrownianTreeNoiseSampler(x, 0.1, 10.0, seed=[3, 4], cpu=True)(*levels)
    alone = sampling.BrownianTreeNoiseSampler(x[:1], 0.1, 10.0, seed=[4], cpu=True)(*levels)
    assert torch.equal(both[1:], alone)


def test_an_ancestral_step_keeps_the_variance():
    down, up = sampling.get_ancestral_step(torch.tensor(4.0), torch.tensor(3.0))
    assert float(down**2 + up**2) == pytest.approx(9.0)
    assert sampling.get_ancestral_step(4.0, 3.0, eta=0) == (3.0, 0.0)


def test_the_weights_of_a_multistep_method_are_exact_for_polynomials():
    grid = torch.tensor([5.0, 4.0, 2.5, 2.0, 0.5])
    for power in range(4):
        weights = [sampling.linear_multistep_coeff(4, grid, 3, j) for j in range(4)]
        estimate = sum(w * float(grid[3 - j]) ** power for j, w in enumerate(weights))
        exact = (0.5 ** (power + 1) - 2.0 ** (power + 1)) / (power + 1)
        assert estimate == pytest.approx(exact, rel=1e-9)


def test_an_order_without_history_is_refused():
    with pytest.raises(ValueError, match="needs 3 earlier steps, and step 1 has 1"):
        sampling.linear_multistep_coeff(4, [3.0, 2.0, 1.0], 1, 0)


@pytest.mark.parametrize("run", ["sample_dpm_fast", "sample_dpm_adaptive"])
def test_a_log_sigma_solver_refuses_level_zero(run):
    extra = (5,) if run == "sample_dpm_fast" else ()
    with pytest.raises(ValueError, match="must be above 0"):
        getattr(sampling, run)(denoiser, start(1.0), 0.0, 1.0, *extra, disable=True)


def test_unknown_knobs_are_refused():
    sigmas = sampling.get_sigmas_karras(3, 0.1, 1.0)
    with pytest.raises(ValueError, match="'heun' and 'midpoint'"):
        sampling.sample_dpmpp_2m_sde(denoiser, start(1.0).float(), sigmas, solver_type="euler", disable=True)
    with pytest.raises(ValueError, match="order is 4"):
        sampling.sample_dpm_adaptive(denoiser, start(1.0), 0.1, 1.0, order=4, disable=True)


class _FlowModel:
    """A flow model over the same data: x = (1 - sigma) x0 + sigma noise."""

    def __init__(self):
        class Schedule(comfy.model_sampling.ModelSamplingDiscreteFlow, comfy.model_sampling.CONST):
            pass

        self.inner_model = self
        self.model_sampling = Schedule()

    def __call__(self, x, sigma, **extra):
        sigma = sigma.reshape(-1, 1, 1, 1)
        signal = 1 - sigma
        gain = signal * SPREAD**2 / (signal**2 * SPREAD**2 + sigma**2)
        return MEAN + gain * (x - signal * MEAN)


@pytest.mark.parametrize("name", ["euler", *ODE_WITHOUT_NOISE])
def test_a_flow_model_ends_in_the_distribution_of_the_data(name):
    sigmas = torch.linspace(1, 0, 61)
    noise = torch.randn((1, 4, 64, 64), generator=torch.Generator().manual_seed(1))
    fresh = {} if name == "euler" else {"noise_sampler": sampling.default_noise_sampler(noise, seed=5)}
    out = sampler(name)(_FlowModel(), noise, sigmas, disable=True, **fresh)
    assert out.mean().item() == pytest.approx(MEAN, abs=0.03)
    assert out.std().item() == pytest.approx(SPREAD, rel=0.1)


def test_a_replaced_noise_source_is_used(monkeypatch):
    """Node packs put their own function in the module."""
    monkeypatch.setattr(
        sampling, "default_noise_sampler", lambda x, seed=None: lambda *_: torch.zeros_like(x)
    )
    sigmas = sampling.get_sigmas_karras(4, 0.1, 10.0)
    x = start(10.0).float()
    runs = [
        sampling.sample_euler_ancestral(denoiser, x, sigmas, extra_args={"seed": s}, disable=True)
        for s in (1, 2)
    ]
    assert torch.equal(*runs)
