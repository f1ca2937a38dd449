"""Masks made, changed and joined; pictures and latents pasted through them."""

import numpy as np
import pytest
import scipy.ndimage
import torch

import folder_paths
from comfy_extras import nodes_mask as nodes


def values(*shape, seed=1):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def pasted(destination, source, x, y, weight):
    """numpy's own: pixel by pixel, whatever lies outside is left out."""
    out = destination.copy()
    for row in range(source.shape[0]):
        for column in range(source.shape[1]):
            place = row + y, column + x
            if 0 <= place[0] < out.shape[0] and 0 <= place[1] < out.shape[1]:
                share = weight[row, column]
                out[place] = share * source[row, column] + (1 - share) * out[place]
    return out


@pytest.mark.parametrize(("x", "y"), [(0, 0), (3, 2), (9, 1), (-2, -3), (-9, 0), (20, 20)])
@pytest.mark.parametrize("with_mask", [False, True])
def test_a_picture_is_pasted_where_it_fits(x, y, with_mask):
    destination, source = values(1, 8, 10, 3), values(1, 4, 6, 3, seed=2)
    mask = values(1, 4, 6, seed=3) if with_mask else None
    out = nodes.ImageCompositeMasked.execute(destination, source, x, y, False, mask)[0]
    weight = np.ones((4, 6)) if mask is None else mask[0].numpy()
    assert np.allclose(out[0].numpy(), pasted(destination[0].numpy(), source[0].numpy(), x, y, weight))


def test_a_source_of_other_channels_batch_and_size():
    destination, source = values(3, 8, 8, 4), torch.full((1, 2, 2, 3), 0.25)
    out = nodes.ImageCompositeMasked.execute(destination, source, 0, 0, True)[0]
    assert torch.allclose(out, torch.tensor([0.25, 0.25, 0.25, 1.0]).expand(3, 8, 8, 4))


def test_a_latent_is_pasted_in_units_of_eight_pixels():
    destination, source = {"samples": values(1, 4, 6, 6), "kept": 1}, {"samples": values(1, 4, 2, 3, seed=2)}
    before = destination["samples"].clone()
    out = nodes.LatentCompositeMasked.execute(destination, source, 16, 8, False)[0]
    assert torch.equal(out["samples"][:, :, 1:3, 2:5], source["samples"]) and out["kept"] == 1
    assert torch.equal(destination["samples"], before)  # the input is not changed


def test_frames_of_a_video_latent_are_pasted_through_one_mask():
    destination, source = torch.zeros(1, 4, 3, 6, 6), torch.ones(1, 4, 3, 2, 2)
    mask = torch.tensor([[[1.0, 0.0], [0.5, 0.0]]])
    out = nodes.composite(destination, source, 8, 0, mask)
    assert out[0, 0, 2, :2, 1:3].tolist() == [[1.0, 0.0], [0.5, 0.0]]


def test_the_methods_that_packs_call():
    mask = values(2, 5, 6)
    assert torch.equal(nodes.InvertMask().invert(mask)[0], 1 - mask)
    assert nodes.MaskToImage().mask_to_image(mask)[0].shape == (2, 5, 6, 3)
    assert torch.equal(nodes.GrowMask().expand_mask(mask, 0, True)[0], mask)


def test_a_channel_becomes_a_mask():
    image = values(1, 4, 5, 4)
    for index, channel in enumerate(["red", "green", "blue", "alpha"]):
        assert torch.equal(nodes.ImageToMask.execute(image, channel)[0], image[..., index])
    with pytest.raises(ValueError, match="no alpha"):
        nodes.ImageToMask.execute(image[..., :3], "alpha")


def test_only_one_colour_is_in_the_mask():
    image = torch.tensor([[[[1.0, 0.502, 0.25], [1.0, 0.5, 0.25]]]])
    assert nodes.ImageColorToMask.execute(image, 0xFF8040)[0].tolist() == [[[1.0, 1.0]]]
    assert nodes.ImageColorToMask.execute(image, 0xFF8041)[0].sum() == 0


def test_a_mask_of_one_value():
    out = nodes.SolidMask.execute(0.25, 6, 4)[0]
    assert out.shape == (1, 4, 6) and (out == 0.25).all()


def test_a_rectangle_of_a_mask():
    mask = values(2, 8, 9)
    assert torch.equal(nodes.CropMask.execute(mask, 3, 2, 99, 4)[0], mask[:, 2:6, 3:])
    with pytest.raises(ValueError, match=r"\(9, 2\), outside of the mask, which is 9 x 8"):
        nodes.CropMask.execute(mask, 9, 2, 3, 3)


@pytest.mark.parametrize(("operation", "function"), [
    ("multiply", np.multiply), ("add", np.add), ("subtract", np.subtract),
    ("and", lambda a, b: np.logical_and(a > 0.5, b > 0.5)),
    ("or", lambda a, b: np.logical_or(a > 0.5, b > 0.5)),
    ("xor", lambda a, b: np.logical_xor(a > 0.5, b > 0.5)),
])  # fmt: skip
def test_masks_are_combined_where_they_meet(operation, function):
    destination, source = values(1, 6, 7), values(1, 4, 4, seed=2)
    out = nodes.MaskComposite.execute(destination, source, 5, 3, operation)[0]
    expected = destination.numpy().copy()
    expected[0, 3:, 5:] = np.clip(function(expected[0, 3:, 5:], source.numpy()[0, :3, :2]), 0, 1)
    assert np.allclose(out.numpy(), expected)


def test_a_mask_beyond_the_edge_changes_nothing():
    destination = values(1, 6, 7)
    assert torch.equal(nodes.MaskComposite.execute(destination, values(1, 2, 2), 7, 0, "add")[0], destination)


def test_edges_fade():
    out = nodes.FeatherMask.execute(torch.ones(1, 4, 5), 2, 4, 0, 9)[0][0].numpy()
    across = np.array([0.5, 1, 1, 1, 1])
    down = np.array([0.25, 0.5, 0.75, 1]) * np.array([1, 0.75, 0.5, 0.25])
    assert np.allclose(out, down[:, None] * across[None, :])


@pytest.mark.parametrize("steps", [1, 3, -2, 40])
@pytest.mark.parametrize("tapered", [True, False])
def test_masks_grow_and_shrink_as_scipy_says(steps, tapered):
    mask = values(2, 12, 17)
    corner = 0 if tapered else 1
    footprint = np.array([[corner, 1, corner], [1, 1, 1], [corner, 1, corner]])
    filtered = scipy.ndimage.grey_dilation if steps > 0 else scipy.ndimage.grey_erosion
    expected = mask.numpy()
    for _ in range(abs(steps)):
        expected = np.stack([filtered(one, footprint=footprint) for one in expected])
    assert np.array_equal(nodes.GrowMask.execute(mask, steps, tapered)[0].numpy(), expected)


def test_a_threshold_is_not_above_itself():
    out = nodes.ThresholdMask.execute(torch.tensor([[[0.4, 0.5, 0.6]]]), 0.5)[0]
    assert out.tolist() == [[[0.0, 0.0, 1.0]]]


def test_masks_are_shown_in_gray(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path))
    out = nodes.MaskPreview.execute(torch.full((2, 4, 5), 0.5))
    names = [file["filename"] for file in out.ui.as_dict()["images"]]
    from PIL import Image

    with Image.open(tmp_path / names[1]) as file:
        assert (file.size, file.getpixel((0, 0))) == ((5, 4), (127, 127, 127))
