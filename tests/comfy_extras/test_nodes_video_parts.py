"""Key frames of WanDancer, levels of VOID's masks, Trellis 2's empty latent."""

import pytest
import torch

from comfy_extras import nodes_trellis2, nodes_void, nodes_wandancer


def sound(seconds, rate=300):
    return {"waveform": torch.arange(round(seconds * rate)).view(1, 1, -1).float(), "sample_rate": rate}


def places(mask):
    return mask[:, 0, 0].nonzero().flatten().tolist()


def test_key_frames_are_spread_over_all_segments_of_the_sound():
    # 2 seconds are 2 segments of 30 frames; 6 pictures are 10 frames apart: 0 and 10, and the end.
    images = torch.arange(1.0, 7.0).view(6, 1, 1, 1).expand(6, 2, 2, 3)
    frames, mask, segments = nodes_wandancer.WanDancerPadKeyframesList.execute(images, 30, 3, sound(1.9)).args
    assert [places(one) for one in mask] == [[0, 10, 29], [0, 10, 29], [0, 10]]
    assert [one[one > 0][::12].tolist() for one in frames] == [[1, 2, 3], [3, 4, 5], [5, 6]]
    assert [one["waveform"].shape[-1] for one in segments] == [300, 270, 0]
    assert segments[1]["waveform"][0, 0, 0] == 300 and segments[1]["sample_rate"] == 300
    alone = nodes_wandancer.WanDancerPadKeyframes.execute(images, 30, 1, sound(1.9)).args
    assert torch.equal(alone[0], frames[1]) and torch.equal(alone[1], mask[1])


@pytest.mark.parametrize(("seconds", "count"), [(0.2, 6), (1.0, 0)])
def test_without_sound_or_pictures_no_frame_is_given(seconds, count):
    frames, mask, _ = nodes_wandancer.WanDancerPadKeyframes.execute(
        torch.ones(count, 2, 2, 3), 30, 0, sound(seconds)
    ).args
    assert frames.shape == (30, 2, 2, 3) and not frames.any() and not mask.any()


def test_a_short_end_of_sound_begins_no_segment():
    images = torch.ones(6, 2, 2, 3)
    assert places(nodes_wandancer.WanDancerPadKeyframes.execute(images, 30, 0, sound(1.1)).args[1]) == [
        0, 5, 10, 15, 20, 29,
    ]  # fmt: skip


def test_masks_have_four_levels_and_what_is_removed_is_one():
    values = torch.tensor([[[0.0, 31.0, 32.0, 95.0, 96.0, 191.0, 192.0, 255.0]]])
    expected = torch.tensor([[[255, 255, 192, 192, 128, 128, 0, 0]]]) / 255
    for given in (values, values / 255 - 1e-6):
        (found,) = nodes_void.VOIDQuadmaskPreprocess.execute(given).args
        assert torch.allclose(found, expected)


def test_what_is_dark_grows_by_the_width():
    mask = torch.ones(2, 7, 7)
    mask[0, 3, 3] = 0
    (found,) = nodes_void.VOIDQuadmaskPreprocess.execute(mask, 2).args
    assert found[0, 1:6, 1:6].eq(1).all() and found[0].sum() == 25 and not found[1].any()
    with pytest.raises(ValueError, match=r"a mask of \(7, 7\). It takes \(T, H, W\)"):
        nodes_void.VOIDQuadmaskPreprocess.execute(mask[0], 2)


def test_an_empty_structure_has_32_channels_in_16_cubed():
    (latent,) = nodes_trellis2.EmptyTrellis2LatentStructure.execute(2).args
    assert latent["samples"].shape == (2, 32, 16, 16, 16) and not latent["samples"].any()
    assert latent["type"] == "trellis2"
