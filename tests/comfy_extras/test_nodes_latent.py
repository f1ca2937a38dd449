"""Arithmetic with latents, beside the same written out; noise levels that were optimised."""

import numpy as np
import pytest
import torch

import comfy.sample
from comfy_extras import nodes_align_your_steps, nodes_latent
from tests.comfy.toy_model import latents, toy_model
from tests.comfy_extras.test_guidance_nodes import evaluate, patched


def latent(seed=0, batch=2, **more):
    return {"samples": latents(seed, batch, rows=6, columns=8), **more}


def made(node, *args):
    return patched(node, *args)["samples"]


def test_sums_differences_and_products():
    a, b = latent(1), latent(2, batch=1)
    assert torch.equal(made(nodes_latent.LatentAdd, a, b), a["samples"] + b["samples"])
    assert torch.equal(made(nodes_latent.LatentSubtract, a, b), a["samples"] - b["samples"])
    assert torch.equal(made(nodes_latent.LatentMultiply, a, -0.5), a["samples"] * -0.5)
    masked = latent(1, noise_mask="kept")
    assert patched(nodes_latent.LatentMultiply, masked, 2.0)["noise_mask"] == "kept"
    wide = {"samples": latents(3, 2, rows=6, columns=16)}
    scaled = torch.nn.functional.interpolate(wide["samples"][..., 4:12], (6, 8), mode="bilinear")
    assert torch.allclose(made(nodes_latent.LatentAdd, a, wide), a["samples"] + scaled, atol=1e-6)


def test_between_two_latents_directions_and_lengths_are_mixed_apart():
    a, b = latent(1), latent(2)
    found = made(nodes_latent.LatentInterpolate, a, b, 0.3)
    for sample, row, column in ((0, 0, 0), (1, 5, 7), (1, 2, 3)):
        x, y = (one["samples"][sample, :, row, column] for one in (a, b))
        towards = 0.3 * x / x.norm() + 0.7 * y / y.norm()
        expected = towards / towards.norm() * (0.3 * x.norm() + 0.7 * y.norm())
        torch.testing.assert_close(found[sample, :, row, column], expected)
    nothing = {"samples": torch.zeros(2, 4, 6, 8)}
    assert torch.isfinite(made(nodes_latent.LatentInterpolate, nothing, b, 0.5)).all()


@pytest.mark.parametrize(("dim", "axis"), [("x", 3), ("-x", 3), ("y", 2), ("-y", 2)])
def test_latents_are_put_together_along_an_axis(dim, axis):
    a, b = latent(1), latent(2, batch=1)
    parts = [a["samples"], b["samples"].repeat(2, 1, 1, 1)]
    expected = torch.cat(parts[::-1] if "-" in dim else parts, dim=axis)
    assert torch.equal(made(nodes_latent.LatentConcat, a, b, dim), expected)


@pytest.mark.parametrize(
    ("index", "amount", "kept"),
    [
        (2, 3, slice(2, 5)),
        (7, 5, slice(7, 8)),
        (99, 2, slice(7, 8)),
        (-3, 2, slice(5, 7)),
        (-99, 2, slice(0, 2)),
    ],
)
def test_a_part_is_cut_out(index, amount, kept):
    a = latent(1)
    assert torch.equal(made(nodes_latent.LatentCut, a, "x", index, amount), a["samples"][..., kept])


def test_parts_along_an_axis_become_a_batch():
    a = latent(1)
    found = made(nodes_latent.LatentCutToBatch, a, "x", 3)  # 8 columns: two parts of three
    expected = [a["samples"][sample, :, :, start : start + 3] for sample in (0, 1) for start in (0, 3)]
    assert torch.equal(found, torch.stack(expected))
    assert made(nodes_latent.LatentCutToBatch, a, "y", 99).shape == (2, 4, 6, 8)
    assert patched(nodes_latent.LatentCutToBatch, a, "t", 1) is a
    video = {"samples": torch.randn(1, 4, 5, 6, 8)}
    assert made(nodes_latent.LatentCutToBatch, video, "t", 2).shape == (2, 4, 2, 6, 8)


def test_a_batch_of_two_latents_keeps_which_picture_of_the_seed_each_is():
    found = patched(nodes_latent.LatentBatch, latent(1, batch_index=[4, 2]), latent(2, batch=3))
    assert found["samples"].shape[0] == 5 and found["batch_index"] == [4, 2, 0, 1, 2]
    assert torch.equal(found["samples"][2:], latent(2, batch=3)["samples"])


def test_a_batch_gets_the_same_noise_or_noise_of_its_own():
    behave = nodes_latent.LatentBatchSeedBehavior
    fixed = patched(behave, latent(1, batch=3, batch_index=[2, 5, 6]), "fixed")
    noise = comfy.sample.prepare_noise(fixed["samples"], 7, fixed["batch_index"])
    assert torch.equal(noise[0], noise[1]) and torch.equal(noise[0], noise[2])
    assert "batch_index" not in patched(behave, fixed, "random")


def test_bright_places_are_compressed_by_reinhards_curve():
    (operation,) = nodes_latent.LatentOperationTonemapReinhard().op(0.7)
    a = latent(1)
    found = made(nodes_latent.LatentApplyOperation, a, operation)
    for sample, after in zip(a["samples"], found):
        length = sample.norm(dim=0)
        top = (length.mean() + 5 * length.std()) * 0.7
        expected = length / (1 + length / top)
        torch.testing.assert_close(after.norm(dim=0), expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(after / after.norm(dim=0), sample / length, atol=1e-4, rtol=1e-4)


def test_directions_are_sharpened_beside_the_sum_over_neighbours():
    (operation,) = nodes_latent.LatentOperationSharpen().op(2, 0.8, 0.05)
    x = latent(1)["samples"]
    length = x.norm(dim=1, keepdim=True)
    weights = torch.tensor(
        [[np.exp(-(i * i + j * j) / 4 / (2 * 0.64)) for i in range(-2, 3)] for j in range(-2, 3)]
    )
    weights = (weights / weights.sum()).float()
    padded = torch.nn.functional.pad(x / length, (2, 2, 2, 2), mode="reflect")
    blurred = sum(weights[j, i] * padded[:, :, j : j + 6, i : i + 8] for i in range(5) for j in range(5))
    expected = length * (x / length + 0.5 * (x / length - blurred))
    torch.testing.assert_close(operation(latent=x), expected, atol=1e-4, rtol=1e-4)


def test_an_operation_changes_the_guidance_or_the_one_side_there_is():
    model = patched(nodes_latent.LatentApplyOperationCFG, toy_model(), lambda latent: latent * 0.5)
    found, cond, uncond, _ = evaluate(model)
    torch.testing.assert_close(found, uncond + 2.5 * (cond - uncond), atol=1e-4, rtol=1e-4)
    alone, cond, *_ = evaluate(model, cfg=1.0)
    expected = 0.5 * (cond - alone) + alone  # the negative side is empty: nothing
    assert torch.isfinite(expected).all() and not torch.allclose(alone, cond, atol=1e-3)


@pytest.mark.parametrize("kind", ["SD1", "SDXL", "SVD"])
def test_optimised_levels_are_the_published_ones_and_even_in_the_logarithm_between(kind):
    published = nodes_align_your_steps.NOISE_LEVELS[kind]
    node = nodes_align_your_steps.AlignYourStepsScheduler()
    assert node.get_sigmas(kind, 10, 1.0)[0].tolist() == pytest.approx([*published[:-1], 0.0])
    twenty = node.get_sigmas(kind, 20, 1.0)[0]
    assert twenty[2:-1:2].tolist() == pytest.approx(published[1:-1], rel=1e-5)
    assert float(twenty[5]) == pytest.approx((published[2] * published[3]) ** 0.5, rel=1e-5)
    assert node.get_sigmas(kind, 10, 0.3)[0].tolist() == pytest.approx([*published[7:-1], 0.0])
    assert len(node.get_sigmas(kind, 10, 0.0)[0]) == 0 and len(published) == 11 and published[-1] > 0
