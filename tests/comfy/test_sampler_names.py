"""The lists of samplers and schedulers."""

import subprocess
import sys

import pytest

from comfy import sampler_names, samplers


def test_the_names_are_known_without_torch():
    code = "import sys, comfy.sampler_names as n; n.samplers(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_name_is_implemented():
    for name in sampler_names.SAMPLER_NAMES:
        assert samplers.sampler_object(name).sampler_function
    assert set(sampler_names.SCHEDULER_NAMES) == set(samplers.SCHEDULER_HANDLERS)


def test_a_name_that_a_pack_adds_or_binds_is_listed(monkeypatch):
    assert samplers.KSampler.SAMPLERS is sampler_names.SAMPLER_NAMES
    monkeypatch.setattr(samplers.KSampler, "SCHEDULERS", [*sampler_names.SCHEDULER_NAMES, "mine"])
    assert sampler_names.schedulers()[-1] == "mine"


def test_an_unknown_sampler_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match="no sampler 'guess'. Known are: euler, "):
        samplers.sampler_object("guess")
