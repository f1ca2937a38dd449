"""SeedVR2's results in the size and the colours of the originals."""

import pytest
import torch

from comfy_extras.nodes_seedvr import SeedVR2PostProcessing


def processed(images, originals, method="none"):
    return SeedVR2PostProcessing.execute(images, originals, method).args[0]


def rand(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def test_what_was_filled_up_is_cut_off_and_sides_are_even():
    images = rand(5, 32, 48, 3)
    assert torch.equal(processed(images, rand(3, 31, 41, 3)), images[:3, :30, :40])
    assert torch.equal(processed(images[None], rand(3, 32, 48, 3)), images[None, :3])


def test_videos_decoded_as_one_are_told_apart_by_their_originals():
    images = rand(10, 8, 8, 3)
    found = processed(images, rand(2, 4, 8, 8, 3))
    assert torch.equal(found, torch.cat([images[:4], images[5:9]]))


def test_transparency_is_that_of_the_original():
    originals = rand(1, 8, 8, 4)
    assert torch.equal(processed(rand(1, 8, 8, 3), originals)[..., 3], originals[..., 3])


@pytest.mark.parametrize(("method", "within"), [("wavelet", 1e-5), ("adain", 1e-3), ("lab", 2e-2)])
def test_a_tint_is_taken_back(method, within):
    original = rand(1, 32, 32, 3) * 0.5 + 0.2
    tinted = original + torch.tensor([0.1, -0.05, 0.02])
    assert (processed(tinted, original, method) - original).abs().max() < within


def test_adain_has_the_mean_and_deviation_of_each_channel():
    images, original = rand(1, 32, 32, 3) * 0.2 + 0.4, rand(1, 32, 34, 3) * 0.5 + 0.25
    found = processed(images, original[:, :, :32], "adain")
    assert torch.allclose(found.mean((1, 2)), original[:, :, :32].mean((1, 2)), atol=1e-4)
    assert torch.allclose(found.std((1, 2)), original[:, :, :32].std((1, 2)), rtol=0.01)


def test_wavelets_keep_details_that_the_original_lacks():
    detail = 0.1 * (-1.0) ** torch.arange(64).view(1, 1, 64, 1).expand(1, 64, 64, 3)
    found = processed(0.3 + detail, torch.full((1, 64, 64, 3), 0.6), "wavelet")
    assert torch.allclose(found[:, :, 8:56], (0.6 + detail)[:, :, 8:56], atol=0.03)


def test_pictures_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"images are \(8, 8, 3\), not \(T, H, W, C\)"):
        processed(rand(8, 8, 3), rand(1, 8, 8, 3))
