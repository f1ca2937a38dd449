"""Reused steps: decisions beside arithmetic by hand, and whole runs on real samplers."""

import logging

import pytest
import torch

import comfy.easy_cache
import comfy.patcher_extension
import comfy.sample
import comfy.samplers
import comfy.sd
from comfy_extras.nodes_easycache import EasyCache, LazyCache
from tests.comfy import tiny_sd1
from tests.comfy.toy_model import latents, prompt, toy_model


class Sampling:
    """Noise falls from 10 to 0 evenly."""

    def percent_to_sigma(self, percent):
        return 10.0 * (1.0 - percent)


def filled(*values, rows=16):
    """One sample of each value."""
    return torch.tensor(values).reshape(-1, 1, 1, 1).expand(-1, 4, rows, rows).clone()


# (sigma, input, what the network would give, what comes out: by hand for a threshold of 0.2)
STEPS = [
    (9.5, 11.0, 4.5, 4.5),  # before the start, but the first output is kept
    (9.0, 10.0, 4.0, 4.0),  # output and input changed by 0.5 and 1: rate 0.5
    (8.0, 9.5, 9.9, 9.5 - 6.0),  # guess 0.5 * 0.5 / 4 = 0.06: reused
    (7.0, 9.0, 9.9, 9.0 - 6.0),  # and 0.5 * 1.0 / 4 = 0.13: together 0.19, reused
    (6.0, 8.0, 3.0, 3.0),  # and 0.25: computed; output changed by 1, input by 2: rate 0.5
    (5.0, 7.5, 9.9, 7.5 - 5.0),  # 0.5 * 0.5 / 3 = 0.08: reused
    (0.5, 7.4, 1.0, 1.0),  # after the end
]


def lazily():
    return comfy.easy_cache.LazyReuse(0.2, 0.1, 0.9, channels=4).started(Sampling())


def test_whole_steps_are_reused_while_the_guessed_changes_stay_below_the_threshold():
    state, computed = lazily(), []
    for sigma, value, made, expected in STEPS:

        def network(x, timestep, made=made, sigma=sigma):
            computed.append(sigma)
            return filled(made)

        out = state.predict(network, filled(value), torch.tensor([sigma]))
        torch.testing.assert_close(out, filled(expected))
    assert computed == [9.5, 9.0, 6.0, 0.5] and state.skipped == 3


def easily():
    return comfy.easy_cache.EasyReuse(0.2, 0.1, 0.9, channels=4).started(Sampling())


@pytest.mark.parametrize("apart", [True, False])
def test_the_first_conditioning_decides_for_all_whether_they_share_a_call_or_not(apart):
    """The second one's network gives the opposite."""
    state, computed, last = easily(), [], 0.0
    steps = [(8.5, *STEPS[0][1:]), *STEPS[1:]]  # it begins to learn at the start
    for sigma, value, made, expected in steps:

        def network(x, t, context, options, made=made, sigma=sigma):
            computed.append((sigma, *options["uuids"]))
            results = {"a": made, "b": -made}
            return filled(*(results[name] for name in options["uuids"]))

        last = made if expected == made else last
        state.is_skipping = False  # a step begins
        for names in (("a",), ("b",)) if apart else (("a", "b"),):
            options = {"uuids": list(names), "sigmas": torch.tensor([sigma])}
            x = filled(*[value] * len(names))
            out = state.forward(network, x, None, None, options)
            torch.testing.assert_close(out, filled(*(expected - 2 * last * (name == "b") for name in names)))
    whole = {sigma for sigma, *_ in computed}
    size = len(computed) // (2 if apart else 1)
    assert size == len(whole) == 4 and 8.0 not in whole and 6.0 in whole


def test_a_step_with_an_unknown_conditioning_is_computed():
    state = easily()

    def forward(name, value, made):
        options = {"uuids": [name], "sigmas": torch.tensor([5.0])}
        state.is_skipping = False
        return state.forward(lambda *_: filled(made), filled(value), None, options)

    forward("a", 10.0, 4.5)
    forward("a", 9.0, 4.0)
    torch.testing.assert_close(forward("a", 8.9, 0.0), filled(3.9))  # reused
    state.differences.clear()
    torch.testing.assert_close(forward("a", 8.8, 7.0), filled(7.0))


def test_another_size_begins_anew(caplog):
    state = lazily()
    for value, made in ((10.0, 4.5), (9.0, 4.0)):
        state.predict(lambda *_, made=made: filled(made), filled(value), torch.tensor([5.0]))
    with caplog.at_level(logging.WARNING):
        out = state.predict(lambda *_: filled(1.0, rows=8), filled(9.0, rows=8), torch.tensor([4.0]))
    torch.testing.assert_close(out, filled(1.0, rows=8))
    assert "changed its size" in caplog.text and state.rate is None


def run(model, steps=10, cfg=3.0, conds=None):
    """A run of Euler on a MODEL, and how often its network was called."""
    calls = []

    def count(executor, *args, **kwargs):
        calls.append(args[0].shape[0])
        return executor(*args, **kwargs)

    watched = model.clone()
    watched.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.APPLY_MODEL, "count", count)
    watched.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, "count", count)
    guider = comfy.samplers.CFGGuider(watched)
    guider.set_conds(*(conds or (prompt(1), prompt(2))))
    guider.set_cfg(cfg)
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "karras", steps)
    latent = torch.zeros_like(latents(5, batch=1, rows=8, columns=8))
    noise = comfy.sample.prepare_noise(latent, 42)
    euler = comfy.samplers.sampler_object("euler")
    return guider.sample(noise, latent, euler, sigmas, disable_pbar=True), len(calls)


def reusing(node, model, threshold, start=0.1, end=0.95):
    return node().patch(model, threshold, start, end, True)[0]


def test_a_run_calls_the_model_less_often_and_the_next_one_begins_anew(caplog):
    model = toy_model()
    plain, all_calls = run(model)
    assert all_calls == 10
    lazy = reusing(LazyCache, model, 0.2)
    with caplog.at_level(logging.INFO):
        found, calls = run(lazy)
    assert 3 <= calls < all_calls
    assert f"LazyCache: {all_calls - calls} of 10 steps were reused" in caplog.text
    assert "changes add up to" in caplog.text
    assert not torch.equal(found, plain)
    assert torch.equal(run(lazy)[0], found) and torch.equal(run(model)[0], plain)
    assert torch.equal(run(reusing(LazyCache, model, 0.0))[0], plain)
    assert run(reusing(LazyCache, model, 3.0, start=0.5))[1] > run(reusing(LazyCache, model, 3.0))[1]


def test_a_real_networks_calls_are_reused_for_both_sides():
    without = {"output_vae": False, "output_clip": False}
    model = comfy.sd.load_state_dict_guess_config(tiny_sd1.checkpoint(), **without)[0]
    generator = torch.Generator().manual_seed(1)
    conds = [[[torch.randn(1, 77, 64, generator=generator), {}]] for _ in range(2)]
    plain, all_calls = run(model, steps=6, conds=conds)
    easy = reusing(EasyCache, model, 0.5)
    found, calls = run(easy, steps=6, conds=conds)
    assert all_calls == 12 and 6 + 3 <= calls < all_calls  # the model, and the network inside of it
    assert not torch.equal(found, plain)
    assert torch.equal(run(reusing(EasyCache, model, 0.0), steps=6, conds=conds)[0], plain)
