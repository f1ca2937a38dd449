"""Transparent pictures on one another, taken apart and put together."""

import pytest
import torch

from comfy_extras import nodes_compositing as nodes


def values(*shape, seed=1):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


# Colour and opacity of the source (s, a) over the destination (d, b), colours times their opacity.
RULES = {
    "ADD": lambda s, a, d, b: (min(s + d, 1), min(a + b, 1)),
    "CLEAR": lambda s, a, d, b: (0, 0),
    "DARKEN": lambda s, a, d, b: (s * (1 - b) + d * (1 - a) + min(s, d), a + b - a * b),
    "DST": lambda s, a, d, b: (d, b),
    "DST_ATOP": lambda s, a, d, b: (d * a + s * (1 - b), a),
    "DST_IN": lambda s, a, d, b: (d * a, b * a),
    "DST_OUT": lambda s, a, d, b: (d * (1 - a), b * (1 - a)),
    "DST_OVER": lambda s, a, d, b: (d + s * (1 - b), a + b - a * b),
    "LIGHTEN": lambda s, a, d, b: (s * (1 - b) + d * (1 - a) + max(s, d), a + b - a * b),
    "MULTIPLY": lambda s, a, d, b: (s * d, a * b),
    "OVERLAY": lambda s, a, d, b: (2 * s * d if 2 * d < b else a * b - 2 * (b - s) * (a - d), a + b - a * b),
    "SCREEN": lambda s, a, d, b: (s + d - s * d, a + b - a * b),
    "SRC": lambda s, a, d, b: (s, a),
    "SRC_ATOP": lambda s, a, d, b: (s * b + d * (1 - a), b),
    "SRC_IN": lambda s, a, d, b: (s * b, a * b),
    "SRC_OUT": lambda s, a, d, b: (s * (1 - b), a * (1 - b)),
    "SRC_OVER": lambda s, a, d, b: (s + d * (1 - a), a + b - a * b),
    "XOR": lambda s, a, d, b: (s * (1 - b) + d * (1 - a), a + b - 2 * a * b),
}


def test_all_modes_are_offered_in_their_order():
    assert [mode.name for mode in nodes.PorterDuffMode] == list(RULES)
    assert nodes.PorterDuffMode.ADD.value == 0


@pytest.mark.parametrize("mode", RULES)
def test_each_mode_follows_its_rule(mode):
    source, destination = values(1, 3, 4, 3), values(1, 3, 4, 3, seed=2)
    masks = values(2, 1, 3, 4, seed=3)
    color, mask = nodes.PorterDuffImageComposite.execute(source, masks[0], destination, masks[1], mode).args
    for y in range(3):
        for x in range(4):
            a, b = (1 - masks[:, 0, y, x]).tolist()
            for channel in range(3):
                s, d = (image[0, y, x, channel].item() for image in (source, destination))
                premultiplied, alpha = RULES[mode](s * a, a, d * b, b)
                expected = min(max(premultiplied / alpha, 0), 1) if alpha > 1e-5 else 0
                assert color[0, y, x, channel].item() == pytest.approx(expected, abs=1e-5)
            assert mask[0, y, x].item() == pytest.approx(1 - alpha, abs=1e-5)


def test_sources_of_other_sizes_are_fitted_and_the_shortest_batch_counts():
    color, mask = nodes.PorterDuffImageComposite.execute(
        torch.full((3, 4, 4, 3), 0.5),
        torch.zeros(2, 9, 9),
        values(2, 8, 10, 3),
        torch.ones(5, 2, 2),
        "SRC_OVER",
    ).args
    assert torch.allclose(color, torch.full((2, 8, 10, 3), 0.5)) and torch.allclose(
        mask, torch.zeros(2, 8, 10)
    )


def test_pictures_of_unlike_channels_are_refused():
    with pytest.raises(ValueError, match="4 channels, the destination 3"):
        one = torch.zeros(1, 2, 2)
        nodes.PorterDuffImageComposite.execute(values(1, 2, 2, 4), one, values(1, 2, 2, 3), one, "DST")


def test_transparency_goes_off_and_on_again():
    image = values(2, 5, 6, 4)
    color, mask = nodes.SplitImageWithAlpha.execute(image).args
    assert torch.equal(color, image[..., :3]) and torch.allclose(mask, 1 - image[..., 3])
    assert torch.allclose(nodes.JoinImageWithAlpha.execute(color, mask)[0], image)


def test_a_picture_without_transparency_has_an_empty_mask():
    assert nodes.SplitImageWithAlpha.execute(values(1, 5, 6, 3))[1].sum() == 0


def test_a_mask_of_another_size_and_number_is_fitted():
    out = nodes.JoinImageWithAlpha.execute(
        values(1, 8, 8, 3), torch.stack((torch.zeros(2, 2), torch.ones(2, 2)))
    )
    assert out[0].shape == (2, 8, 8, 4)
    assert (out[0][0, ..., 3] == 1).all() and (out[0][1, ..., 3] == 0).all()
