"""Guidance and activation patches, beside the papers' code in diffusers or arithmetic by hand."""

import pytest
import torch
from diffusers import LCMScheduler
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg
from diffusers.utils.torch_utils import apply_freeu, fourier_filter

from comfy import guidance, model_sampling


def tensor(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("multiplier", [0.0, 0.7, 1.0])
def test_rescaled_guidance_is_that_of_the_paper_in_velocity(multiplier):
    x, v_cond, v_uncond, sigma = tensor(0, 2, 4, 8, 8) * 3, tensor(1, 2, 4, 8, 8), tensor(2, 2, 4, 8, 8), 1.7

    def clean(velocity):
        return x / (sigma**2 + 1) - velocity * sigma / (sigma**2 + 1) ** 0.5

    guided = v_uncond + 5.0 * (v_cond - v_uncond)
    expected = clean(rescale_noise_cfg(guided, v_cond, guidance_rescale=multiplier))
    sigmas = torch.full((2,), sigma)
    found = guidance.rescaled(clean(v_cond), clean(v_uncond), x, sigmas, 5.0, multiplier)
    assert torch.allclose(found, expected, atol=1e-5)


def test_what_a_negative_side_shares_with_the_positive_one_has_no_weight():
    empty, direction = tensor(0, 1, 4, 8, 8), tensor(1, 1, 4, 8, 8)
    other = guidance.without_direction(tensor(2, 1, 4, 8, 8), direction)
    assert abs(float((other * direction).sum())) < 1e-4
    positive = empty + direction
    plain = guidance.perp_neg(positive, empty, empty, 1.0, 5.0)
    assert torch.allclose(plain, empty + 5 * direction, atol=1e-5)
    shared = guidance.perp_neg(positive, empty + 0.8 * direction, empty, 1.0, 5.0)
    assert torch.allclose(shared, plain, atol=1e-4)
    own = guidance.perp_neg(positive, empty + 0.8 * direction + other, empty, 0.5, 5.0)
    assert torch.allclose(own, plain - 5 * 0.5 * other, atol=1e-4)


@pytest.mark.parametrize("shape", [(2, 6, 16, 16), (1, 3, 12, 20)])
def test_low_frequencies_are_scaled_as_freeu_does_it(shape):
    x = tensor(3, *shape)
    expected = fourier_filter(x, threshold=1, scale=0.3)
    assert torch.allclose(guidance.scale_low_frequencies(x, 1, 0.3), expected, atol=1e-5)
    assert torch.allclose(guidance.scale_low_frequencies(x, 1, 1.0), x, atol=1e-5)


def test_the_backbone_is_amplified_as_freeu_does_it():
    h, skip = tensor(4, 2, 8, 16, 16), tensor(5, 2, 8, 16, 16)
    expected, _ = apply_freeu(0, h.clone(), skip.clone(), s1=0.9, s2=0.2, b1=1.3, b2=1.4)
    assert torch.allclose(guidance.amplify_backbone(h, 1.3), expected, atol=1e-6)


def test_the_second_freeu_amplifies_most_where_most_is_active():
    h = tensor(6, 1, 4, 5, 5)
    h[0, :, 2, 3], h[0, :, 1, 0] = 9.0, -9.0
    out = guidance.amplify_backbone_where_active(h, 1.4)
    factor = out[:, :2] / h[:, :2]
    assert torch.allclose(factor[0, :, 2, 3], torch.tensor(1.4)) and torch.equal(out[:, 2:], h[:, 2:])
    assert torch.allclose(factor[0, :, 1, 0], torch.tensor(1.0))
    assert ((factor > 0.999) & (factor < 1.401)).all()


def test_a_gray_mask_opens_pixel_by_pixel():
    sampling = type("S", (model_sampling.ModelSamplingDiscrete, model_sampling.EPS), {})()
    sigmas = torch.cat([sampling.sigma(torch.linspace(999, 0, 11)), torch.zeros(1)])
    mask = torch.tensor([0.0, 0.2, 0.5, 0.9, 1.0]).reshape(1, 1, 1, 5)
    masks = [guidance.differential_mask(mask, sigma[None], sigmas, sampling) for sigma in sigmas[:-1]]
    counts = [int(opened.sum()) for opened in masks]
    assert counts == sorted(counts) and counts[0] == 1 and counts[-1] == 5
    half = guidance.differential_mask(mask, sigmas[:1], sigmas, sampling, strength=0.5)
    assert torch.allclose(half.flatten(), torch.tensor([0.0, 0.1, 0.25, 0.45, 1.0]))


def test_a_consistency_model_is_read_as_its_scheduler_does_it():
    sampling = type("S", (model_sampling.ModelSamplingDiscreteDistilled, model_sampling.LCM), {})()
    scheduler = LCMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    kept = torch.arange(1, 51) * 20 - 1
    alphas = scheduler.alphas_cumprod[kept]
    assert torch.allclose(sampling.sigmas, ((1 - alphas) / alphas).sqrt(), rtol=1e-4)
    assert torch.equal(sampling.timestep(sampling.sigmas).long(), kept)
    assert torch.allclose(sampling.sigma(kept), sampling.sigmas, rtol=1e-5)
    sigma, output, x = sampling.sigmas[[24]], tensor(7, 1, 4, 8, 8), tensor(8, 1, 4, 8, 8)
    c_skip, c_out = scheduler.get_scalings_for_boundary_condition_discrete(int(kept[24]))
    expected = c_out * (x - sigma * output) + c_skip * x
    assert torch.allclose(sampling.calculate_denoised(sigma, output, x), expected, atol=1e-5)
