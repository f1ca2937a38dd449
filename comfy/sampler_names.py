"""The samplers and schedulers that can be chosen, without importing torch.

Node definitions need these lists long before the first model is used. `comfy.samplers.KSampler` shares the
very same
list objects; node packs append to them, or bind new ones on the class, and `samplers()` / `schedulers()`
follow.
"""

import sys

SAMPLER_NAMES: list[str] = [
    "euler",
    "euler_cfg_pp",
    "euler_ancestral",
    "euler_ancestral_cfg_pp",
    "heun",
    "heunpp2",
    "exp_heun_2_x0",
    "exp_heun_2_x0_sde",
    "dpm_2",
    "dpm_2_ancestral",
    "lms",
    "dpm_fast",
    "dpm_adaptive",
    "dpmpp_2s_ancestral",
    "dpmpp_2s_ancestral_cfg_pp",
    "dpmpp_sde",
    "dpmpp_sde_gpu",
    "dpmpp_2m",
    "dpmpp_2m_cfg_pp",
    "dpmpp_2m_sde",
    "dpmpp_2m_sde_gpu",
    "dpmpp_2m_sde_heun",
    "dpmpp_2m_sde_heun_gpu",
    "dpmpp_3m_sde",
    "dpmpp_3m_sde_gpu",
    "ddpm",
    "lcm",
    "ipndm",
    "ipndm_v",
    "deis",
    "res_multistep",
    "res_multistep_cfg_pp",
    "res_multistep_ancestral",
    "res_multistep_ancestral_cfg_pp",
    "gradient_estimation",
    "gradient_estimation_cfg_pp",
    "er_sde",
    "seeds_2",
    "seeds_3",
    "sa_solver",
    "sa_solver_pece",
    "ddim",
    "uni_pc",
    "uni_pc_bh2",
]

SCHEDULER_NAMES: list[str] = [
    "simple",
    "sgm_uniform",
    "karras",
    "exponential",
    "ddim_uniform",
    "beta",
    "normal",
    "linear_quadratic",
    "kl_optimal",
]


def samplers() -> list[str]:
    """The sampler names as they stand now, with what node packs added."""
    return _current("SAMPLERS", SAMPLER_NAMES)


def schedulers() -> list[str]:
    """The scheduler names as they stand now, with what node packs added."""
    return _current("SCHEDULERS", SCHEDULER_NAMES)


def _current(attribute: str, fallback: list[str]) -> list[str]:
    # Looked up in sys.modules, so that asking for a name never loads torch.
    ksampler = getattr(sys.modules.get("comfy.samplers"), "KSampler", None)
    return getattr(ksampler, attribute, fallback)
