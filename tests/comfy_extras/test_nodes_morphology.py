"""Morphology, luma and chroma, edges."""

import numpy as np
import pytest
import scipy.ndimage
import torch

from comfy_extras.nodes_canny import Canny
from comfy_extras.nodes_morphology import ImageRGBToYUV, ImageYUVToRGB, Morphology


def values(*shape, seed=1):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def dilation(image, size, origin=0):
    return scipy.ndimage.maximum_filter(
        image, size=(size, size), mode="constant", cval=-np.inf, origin=origin
    )


def erosion(image, size, origin=0):
    return scipy.ndimage.minimum_filter(image, size=(size, size), mode="constant", cval=np.inf, origin=origin)


@pytest.mark.parametrize("size", [3, 4, 7])
@pytest.mark.parametrize(("operation", "rule"), [
    ("erode", lambda d, e, x: e(x)), ("dilate", lambda d, e, x: d(x)),
    ("open", lambda d, e, x: d(e(x))), ("close", lambda d, e, x: e(d(x))),
    ("gradient", lambda d, e, x: d(x) - e(x)), ("top_hat", lambda d, e, x: x - d(e(x))),
    ("bottom_hat", lambda d, e, x: e(d(x)) - x),
])  # fmt: skip
def test_each_operation_is_that_of_scipy(operation, rule, size):
    image = values(1, 12, 15, 1)
    out = Morphology.execute(image, operation, size)[0]
    mirrored = -1 if size % 2 == 0 else 0  # a dilation uses the square turned round
    expected = rule(
        lambda x: dilation(x, size, mirrored), lambda x: erosion(x, size), image[0, ..., 0].numpy()
    )  # fmt: skip
    assert np.allclose(out[0, ..., 0].numpy(), expected)


def test_opening_never_adds_light():
    image = values(1, 12, 15, 3)
    assert (Morphology.execute(image, "open", 4)[0] <= image).all()


def test_an_unknown_operation_is_refused():
    with pytest.raises(ValueError, match="no operation 'melt'"):
        Morphology.execute(values(1, 4, 4, 3), "melt", 3)


def test_luma_and_chroma_of_known_colours():
    colors = torch.tensor([[[[1.0, 1.0, 1.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]]])
    y, u, v = ImageRGBToYUV.execute(colors).args
    assert y.shape == colors.shape
    assert y[0, 0, :, 0].tolist() == pytest.approx([1.0, 0.299, 0.114])
    assert u[0, 0, :, 0].tolist() == pytest.approx([0.5, 0.5 - 0.299 * 0.564, 0.5 + 0.886 * 0.564])
    assert v[0, 0, :, 0].tolist() == pytest.approx([0.5, 0.5 + 0.701 * 0.713, 0.5 - 0.114 * 0.713])
    assert torch.allclose(ImageYUVToRGB.execute(y, u, v)[0], colors, atol=1e-6)


def squares(*levels):
    """One below the other, each on 40 x 40; their borders lie on pixels, not between them."""
    image = torch.zeros(1, 40 * len(levels), 40, 3)
    for index, level in enumerate(levels):
        top = 40 * index
        image[:, top + 9 : top + 31, 9:31] = level / 2
        image[:, top + 10 : top + 30, 10:30] = level
    return image


def test_the_edge_of_a_square_is_one_closed_line():
    edges = Canny.execute(squares(1.0), 0.4, 0.8)[0]
    assert edges.shape == (1, 40, 40, 3) and set(edges.unique().tolist()) == {0.0, 1.0}
    line = edges[0, ..., 0].numpy()
    assert line[20].sum() == 2 and line[:, 20].sum() == 2  # one pixel thick on each side
    inside, count = scipy.ndimage.label(line == 0)
    assert count == 2 and inside[20, 20] != inside[0, 0]


def test_gradients_count_by_their_strength():
    """From 0 by h / 2 to h, Sobel gives 4 times the blurred rise over the two pixels around."""
    weights = np.exp(-(np.arange(-2, 3) ** 2) / 2)
    weights /= weights.sum()
    rise = np.convolve([0.0] * 4 + [0.25] + [0.5] * 4, weights, mode="valid")
    response = 4 * (rise[3] - rise[1])
    below, above = (Canny.execute(squares(0.5), 0.1, response + change)[0].sum() for change in (-0.01, 0.01))
    assert below > 0 and above == 0


def test_weak_edges_count_where_they_touch_strong_ones():
    image = squares(0.3, 0.3)
    image[:, 10:30, 10:14] = 1.0  # only the upper square has a strong side
    edges = Canny.execute(image, 0.2, 1.0)[0][0, ..., 0]
    assert edges[20, 28:33].sum() == 1 and edges[40:].sum() == 0


def test_thresholds_in_the_wrong_order_are_refused():
    with pytest.raises(ValueError, match="low_threshold .* above high_threshold"):
        Canny.execute(squares(1.0), 0.8, 0.4)
