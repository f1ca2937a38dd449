"""Samplers that choose their own noise levels, called like all others: with a schedule, of which they take
the first level and the last one above zero.
"""

from comfy.k_diffusion import sampling


def _smallest_positive(sigmas):
    return sigmas[-2] if sigmas[-1] == 0 else sigmas[-1]


def dpm_fast(model, noise, sigmas, extra_args, callback, disable, **options):
    """`sample_dpm_fast` with as many evaluations as the schedule has steps."""
    if len(sigmas) <= 1:
        return noise
    last, options = _smallest_positive(sigmas), {"extra_args": extra_args, "callback": callback, **options}
    return sampling.sample_dpm_fast(
        model, noise, last, sigmas[0], len(sigmas) - 1, disable=disable, **options
    )


def dpm_adaptive(model, noise, sigmas, extra_args, callback, disable, **options):
    """`sample_dpm_adaptive` between the ends of the schedule."""
    if len(sigmas) <= 1:
        return noise
    last, options = _smallest_positive(sigmas), {"extra_args": extra_args, "callback": callback, **options}
    return sampling.sample_dpm_adaptive(model, noise, last, sigmas[0], disable=disable, **options)
