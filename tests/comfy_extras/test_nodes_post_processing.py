"""Pictures blended, filtered, reduced to few colours, resized, batched, and given the colours of others."""

import numpy as np
import pytest
import scipy.ndimage
import torch
from PIL import Image

from comfy.color_quantizing import bayer_matrix
from comfy.color_spaces import lab_to_rgb, rgb_to_lab
from comfy_extras import nodes_post_processing as nodes
from comfy_extras.image_resizing import resized


def values(*shape, seed=1):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def smooth(batch, height, width, seed=1):
    small = values(batch, 3, 5, 6, seed=seed)
    large = torch.nn.functional.interpolate(small, size=(height, width), mode="bicubic")
    return large.clamp(0, 1).movedim(1, -1).contiguous()


def soft_light(a, b):
    curve = ((16 * a - 12) * a + 4) * a if a <= 0.25 else a**0.5
    return a - (1 - 2 * b) * a * (1 - a) if b <= 0.5 else a + (2 * b - 1) * (curve - a)


@pytest.mark.parametrize(("mode", "rule"), [
    ("normal", lambda a, b: b), ("multiply", lambda a, b: a * b), ("screen", lambda a, b: a + b - a * b),
    ("overlay", lambda a, b: 2 * a * b if a <= 0.5 else 1 - 2 * (1 - a) * (1 - b)),
    ("soft_light", soft_light), ("difference", lambda a, b: a - b),
])  # fmt: skip
def test_pictures_are_blended(mode, rule):
    first, second = values(1, 4, 5, 3), values(1, 4, 5, 3, seed=2)
    out = nodes.Blend.execute(first, second, 0.75, mode)[0]
    mixed = np.vectorize(rule)(first.double().numpy(), second.double().numpy())
    assert np.allclose(out.numpy(), np.clip(0.25 * first.numpy() + 0.75 * mixed, 0, 1), atol=1e-6)


def test_an_unknown_blend_mode_is_refused():
    with pytest.raises(ValueError, match="no blend mode 'dissolve'"):
        nodes.Blend.blend_mode(values(1, 2, 2, 3), values(1, 2, 2, 3), "dissolve")


def test_the_second_picture_is_fitted_to_the_first():
    out = nodes.Blend.execute(values(2, 8, 10, 4), torch.full((1, 4, 4, 3), 0.5), 1.0, "normal")[0]
    assert out.shape == (2, 8, 10, 4) and torch.allclose(out[..., :3], torch.tensor(0.5))


def kernel_by_hand(radius, sigma):
    place = np.linspace(-1, 1, 2 * radius + 1)
    kernel = np.exp(-(place[:, None] ** 2 + place[None, :] ** 2) / (2 * sigma**2))
    return kernel / kernel.sum()


@pytest.mark.parametrize(("radius", "sigma"), [(1, 1.0), (4, 0.3), (9, 2.0)])
def test_blur_and_sharpening_convolve_with_a_mirror_at_the_edges(radius, sigma):
    image = values(1, 16, 20, 3)
    kernel = kernel_by_hand(radius, sigma)

    def filtered(weights):
        channels = [
            scipy.ndimage.convolve(image[0, ..., c].double().numpy(), weights, mode="mirror")
            for c in range(3)
        ]
        return np.stack(channels, axis=-1)

    blurred = filtered(kernel)
    assert np.allclose(nodes.Blur.execute(image, radius, sigma)[0][0].numpy(), blurred, atol=1e-5)
    sharp = image[0].numpy() + 5 * (image[0].numpy() - blurred)
    assert np.allclose(
        nodes.Sharpen.execute(image, radius, sigma, 0.5)[0][0].numpy(), np.clip(sharp, 0, 1), atol=1e-4
    )


def test_a_kernel_larger_than_the_picture_is_refused():
    with pytest.raises(ValueError, match="radius of 9 pixels does not fit into a picture of 20 x 8"):
        nodes.Blur.execute(values(1, 8, 20, 3), 9, 1.0)


def test_few_colours_are_those_of_pillow():
    image = smooth(2, 20, 30)
    out = nodes.Quantize.execute(image, 8, "floyd-steinberg")[0]
    for found, one in zip(out, image):
        picture = Image.fromarray((one * 255).byte().numpy())
        palette = picture.quantize(colors=8)
        expected = picture.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG).convert("RGB")
        assert np.array_equal((found * 255).round().byte().numpy(), np.asarray(expected))


def test_transparency_survives_few_colours():
    image = values(1, 8, 8, 4)
    assert torch.equal(nodes.Quantize.execute(image, 4, "none")[0][..., 3], image[..., 3])


def test_bayers_matrix():
    ranks = [[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]]
    assert np.array_equal((bayer_matrix(4) + 0.5) * 16 - 0.5, ranks)


def test_ordered_dithering_keeps_the_mean_where_no_colour_is_near():
    gray = torch.full((1, 16, 32, 3), 0.35)
    gray[:, :, :8], gray[:, :, 8:16] = 0.0, 1.0
    out = nodes.Quantize.execute(gray, 2, "bayer-4")[0][:, :, 16:]
    assert len(out.unique()) == 2  # a pattern, and not one flat colour
    plain = nodes.Quantize.execute(gray, 2, "none")[0][:, :, 16:]
    assert len(plain.unique()) == 1


@pytest.mark.parametrize(("shape", "steps", "wanted"), [
    ((100, 200), 1, (724, 1448)), ((512, 512), 64, (1024, 1024)), ((100, 333), 64, (576, 1856)),
])  # fmt: skip
def test_pictures_of_an_area(shape, steps, wanted):
    out = nodes.ImageScaleToTotalPixels.execute(torch.zeros(1, *shape, 1), "nearest-exact", 1.0, steps)[0]
    assert out.shape[1:3] == wanted


@pytest.mark.parametrize(("how", "wanted"), [
    ({"resize_type": "scale by multiplier", "multiplier": 1.5}, (30, 60)),
    ({"resize_type": "scale dimensions", "width": 30, "height": 0, "crop": "center"}, (15, 30)),
    ({"resize_type": "scale dimensions", "width": 0, "height": 30, "crop": "center"}, (30, 60)),
    ({"resize_type": "scale dimensions", "width": 0, "height": 0, "crop": "center"}, (20, 40)),
    ({"resize_type": "scale dimensions", "width": 7, "height": 9, "crop": "disabled"}, (9, 7)),
    ({"resize_type": "scale longer dimension", "longer_size": 100}, (50, 100)),
    ({"resize_type": "scale shorter dimension", "shorter_size": 10}, (10, 20)),
    ({"resize_type": "scale width", "width": 10}, (5, 10)),
    ({"resize_type": "scale height", "height": 10}, (10, 20)),
    ({"resize_type": "scale total pixels", "megapixels": 0.05}, (162, 324)),
    ({"resize_type": "match size", "match": torch.zeros(1, 6, 5), "crop": "disabled"}, (6, 5)),
    ({"resize_type": "match size", "match": torch.zeros(1, 6, 5, 3), "crop": "center"}, (6, 5)),
    ({"resize_type": "scale to multiple", "multiple": 16}, (16, 32)),
    ({"resize_type": "scale to multiple", "multiple": 64}, (20, 40)),
])  # fmt: skip
@pytest.mark.parametrize("kind", ["picture", "mask"])
def test_every_way_to_a_size(how, wanted, kind):
    pixels = values(2, 20, 40, 3) if kind == "picture" else values(2, 20, 40)
    out = nodes.ResizeImageMaskNode.execute(pixels, "area", how)[0]
    assert out.shape == (2, *wanted, *pixels.shape[3:])


def test_a_crop_cuts_and_does_not_stretch():
    image = torch.zeros(1, 10, 30, 1)
    image[:, :, 10:20] = 1
    how = {"resize_type": "scale dimensions", "width": 5, "height": 5, "crop": "center"}
    assert (resized(image, how, "area") == 1).all()
    assert (resized(image, {**how, "crop": "disabled"}, "area") == 0).any()


def test_multiples_are_cut_from_the_middle():
    ramp = torch.arange(22.0).view(1, 1, 22).expand(1, 16, 22)
    out = resized(ramp, {"resize_type": "scale to multiple", "multiple": 8}, "nearest-exact")
    assert torch.equal(out[0, 0], torch.arange(3.0, 19.0))


@pytest.mark.parametrize("name", ["longer_size", "shorter_size"])
def test_a_length_of_nothing_is_refused(name):
    kind = f"scale {name.split('_')[0]} dimension"
    with pytest.raises(ValueError, match=f"{name} is 0"):
        resized(values(1, 4, 4), {"resize_type": kind, name: 0}, "area")


def test_pictures_of_unlike_shapes_become_one_batch():
    first, alike, large = (
        torch.full((1, 4, 6, 3), 0.2),
        torch.full((2, 4, 6, 4), 0.4),
        torch.full((1, 8, 9, 1), 0.6),
    )
    out = nodes.BatchImagesNode.execute({"a": first, "b": alike, "c": large})[0]
    assert out.shape == (4, 4, 6, 4)
    assert out[0, 0, 0].tolist() == pytest.approx([0.2, 0.2, 0.2, 1.0])
    assert out[3, 0, 0].tolist() == pytest.approx([0.6, 1.0, 1.0, 1.0])


def test_masks_become_one_batch():
    out = nodes.BatchMasksNode.execute({"a": torch.zeros(1, 4, 6), "b": torch.ones(2, 9, 9)})[0]
    assert out.shape == (3, 4, 6) and out.mean(dim=(1, 2)).tolist() == [0, 1, 1]


def test_latents_become_one_batch_with_the_numbers_of_their_noise():
    first, second = (
        {"samples": values(2, 4, 3, 3), "kept": 1},
        {"samples": values(1, 4, 6, 6), "batch_index": [7]},
    )
    out = nodes.BatchLatentsNode.execute({"a": first, "b": second})[0]
    assert out["samples"].shape == (3, 4, 3, 3) and out["batch_index"] == [0, 1, 7] and out["kept"] == 1


@pytest.mark.parametrize("function", [nodes.batch_images, nodes.batch_masks, nodes.batch_latents])
def test_a_batch_of_nothing_is_none(function):
    assert function([]) is None


# --- colours ----------------------------------------------------------------------------------------------


def test_lab_of_known_colours():
    """Values of CIE Lab under D65, as tables give them."""
    colors = torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    known = torch.tensor([[100.0, 0.0, 0.0], [0.0, 0.0, 0.0], [53.24, 80.09, 67.20], [32.30, 79.19, -107.86]])
    assert torch.allclose(rgb_to_lab(colors), known, atol=0.05)
    assert torch.allclose(lab_to_rgb(rgb_to_lab(values(50, 3))), values(50, 3), atol=1e-4)


def lab_statistics(frames):
    lab = rgb_to_lab(frames.reshape(-1, 3)).double().numpy()
    return lab.mean(axis=0), np.cov(lab.T, bias=True)


def in_the_middle(batch, seed):
    """Colours so dull that no method leaves the gamut."""
    return 0.4 + 0.2 * smooth(batch, 24, 30, seed=seed)


def transfer(target, reference, method, stats="per_frame", strength=1.0, **more):
    return nodes.ColorTransfer.execute(target, reference, method, {"source_stats": stats, **more}, strength)[
        0
    ]


@pytest.mark.parametrize("method", ["reinhard_lab", "mkl_lab"])
def test_the_statistics_of_lab_become_those_of_the_reference(method):
    target, reference = in_the_middle(2, 1), in_the_middle(2, 5)
    out = transfer(target, reference, method)
    for found, wanted in zip(out, reference):
        mean, covariance = lab_statistics(found)
        wanted_mean, wanted_covariance = lab_statistics(wanted)
        assert np.allclose(mean, wanted_mean, atol=0.02)
        if method == "mkl_lab":
            assert np.allclose(covariance, wanted_covariance, atol=0.1)
        else:
            assert np.allclose(np.diag(covariance), np.diag(wanted_covariance), rtol=0.01)


@pytest.mark.parametrize("method", ["reinhard_lab", "mkl_lab", "histogram"])
def test_one_transform_for_all_frames_keeps_equal_colours_equal(method):
    frame, other = in_the_middle(1, 1), in_the_middle(1, 7)
    target = torch.cat((frame, torch.cat((frame[:, :12], other[:, 12:]), dim=1)))
    reference = in_the_middle(1, 5)
    uniform = transfer(target, reference, method, "uniform")
    assert torch.equal(uniform[0, :12], uniform[1, :12])
    chosen = transfer(target, reference, method, "target_frame", target_index=0)
    assert torch.allclose(chosen[0], transfer(target[:1], reference, method)[0], atol=1e-4)
    each = transfer(target, reference, method, "per_frame")
    assert not torch.allclose(each[0, :12], each[1, :12], atol=1e-3)


def test_a_histogram_becomes_that_of_the_reference():
    target, reference = values(1, 64, 64, 3), values(1, 64, 64, 3, seed=2) ** 2
    out = transfer(target, reference, "histogram")
    for channel in range(3):
        found, wanted = (np.sort(image[0, ..., channel].flatten().numpy()) for image in (out, reference))
        assert np.abs(found - wanted).max() < 0.02


def test_strength_goes_from_the_target_to_the_result():
    target, reference = in_the_middle(1, 1), in_the_middle(1, 5)
    assert transfer(target, reference, "histogram", strength=0) is target
    full, half = (transfer(target, reference, "histogram", strength=strength) for strength in (1.0, 0.5))
    assert torch.allclose(half, (target + full) / 2, atol=1e-5)


def test_transparency_is_no_colour():
    target = torch.cat((in_the_middle(1, 1), values(1, 24, 30, 1)), dim=-1)
    out = transfer(target, in_the_middle(1, 5), "mkl_lab")
    assert torch.equal(out[..., 3], target[..., 3])
