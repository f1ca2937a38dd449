"""Tracks of objects as masks, videos and coloured pictures, and SCAIL's conditioning by them."""

import av
import pytest
import torch

import folder_paths
from comfy_extras import nodes_sam3, nodes_scail
from comfy_extras.object_tracks import unpacked
from comfy_extras.scail_masks import mask_channels
from comfy_extras.video_conditioning import during
from tests.comfy_extras.stand_ins import VideoVAE, conditioning, pictures

BLUE, RED, GREEN = [0, 0, 1], [1, 0, 0], [0, 1, 0]


def masks():
    """(3 frames, 3 objects, 8, 16): right, left, and in the middle from the second frame on."""
    found = torch.zeros(3, 3, 8, 16, dtype=torch.bool)
    found[:, 0, :, 12:], found[:, 1, :4, :2], found[1:, 2, :, 6:9] = True, True, True
    return found


def track(found=None):
    found = masks() if found is None else found
    weights = torch.tensor([1, 2, 4, 8, 16, 32, 64, 128])
    packed = (found.unflatten(-1, (-1, 8)) * weights).sum(-1).to(torch.uint8)
    return {"packed_masks": packed, "orig_size": (8, 16), "n_frames": 3, "scores": [0.5, 1.0, 1.0]}


NOTHING = {"packed_masks": None, "orig_size": (8, 16), "n_frames": 3}


def test_a_byte_is_eight_pixels_from_the_left():
    assert torch.equal(unpacked(track()["packed_masks"]), masks())


@pytest.mark.parametrize(
    ("indices", "objects"), [("", [0, 1, 2]), ("2, 0", [0, 2]), ("1,9,x", [1]), ("9", [])]
)
def test_a_mask_has_the_objects_that_are_named(indices, objects):
    (mask,) = nodes_sam3.SAM3_TrackToMask.execute(track(), indices).args
    assert torch.equal(mask, masks()[:, objects].any(dim=1).float())
    assert not nodes_sam3.SAM3_TrackToMask.execute(NOTHING, indices).args[0].any()


@pytest.mark.parametrize("given", [track, lambda: NOTHING])
def test_the_preview_is_a_video_of_the_objects_in_colours(monkeypatch, tmp_path, given):
    monkeypatch.setattr(folder_paths, "get_temp_directory", lambda: str(tmp_path))
    shown = nodes_sam3.SAM3_TrackPreview.execute(given(), torch.zeros(3, 65, 128, 3), 1.0, 12.0)
    (told,) = shown.ui.as_dict()["images"]
    with av.open(str(tmp_path / told["filename"])) as video:
        assert video.streams.video[0].average_rate == 12
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert [frame.shape for frame in frames] == [(64, 128, 3)] * 3
    corner = torch.tensor([0.12, 0.47, 0.71]) * 255 if given is track else torch.zeros(3)
    assert (torch.from_numpy(frames[0][3, 124]).float() - corner).abs().max() < 25
    assert frames[0][60, 4].max() < 12


def colored(driving, indices="", sort_by="none", replacement=False, reference=None):
    return nodes_scail.SCAIL2ColoredMask.execute(driving, indices, sort_by, replacement, reference).args


@pytest.mark.parametrize(
    ("sort_by", "indices", "right", "left", "middle"),
    [
        ("none", "", BLUE, RED, GREEN),
        ("left_to_right", "", RED, BLUE, GREEN),
        ("area", "", BLUE, RED, GREEN),
        ("left_to_right", "0", [0, 0, 0], BLUE, [0, 0, 0]),
    ],
)
def test_people_have_the_colours_of_their_order(sort_by, indices, right, left, middle):
    moving, still = colored(track(), indices, sort_by, reference=track())
    assert [moving[1, 2, x].tolist() for x in (14, 0, 7)] == [right, left, middle]
    assert moving[0, 2, 7].tolist() == [0, 0, 0]
    assert torch.equal(still[moving.any(-1)], moving[moving.any(-1)])
    assert still[0, 2, 7].tolist() == [1, 1, 1]


def test_replacement_swaps_the_backgrounds_and_a_mask_is_one_person():
    moving, still = colored(track(), replacement=True, reference=torch.eye(4))
    assert moving[0, 7, 0].tolist() == [1, 1, 1]
    assert torch.equal(still, torch.eye(4)[None, ..., None] * torch.tensor([0.0, 0.0, 1.0]))
    assert colored(NOTHING)[1].eq(1).all()


def test_an_unknown_order_is_refused():
    with pytest.raises(ValueError, match="sort_by is size. It is one of none, left_to_right, area"):
        colored(track(), sort_by="size")


def test_channels_are_seven_colours_of_four_frames():
    video = torch.zeros(5, 16, 16, 3)
    video[0, :8, :8] = torch.tensor([1.0, 1.0, 1.0])
    video[2, 8:, :4] = torch.tensor([0.0, 1.0, 1.0])
    found = mask_channels(video)
    assert found.shape == (1, 2, 28, 2, 2)
    expected = torch.zeros(1, 2, 4, 7, 2, 2)
    expected[0, 0, :, 0, 0, 0] = 1  # the first frame stands for four
    expected[0, 1, 1, 6, 1, 0] = 0.5
    assert torch.equal(found, expected.flatten(2, 3))


def test_values_of_a_part_of_the_sampling_leave_the_rest_as_it_was():
    parts = during(conditioning(), {"a": 1}, 0.25, 1.0)
    assert [(one["start_percent"], one["end_percent"], one.get("a")) for _, one in parts] == [
        (0.0, pytest.approx(0.25, abs=1e-4), None),
        (0.25, 1.0, 1),
    ]
    late = [[None, {"start_percent": 0.5}]]
    assert during(late, {"a": 1}, 0.0, 0.4) == late
    with pytest.raises(ValueError, match="begins at 0.9 and ends at 0.1. Let it end later"):
        during(late, {}, 0.9, 0.1)


def scail(**options):
    base = {"pose_strength": 0.5, "pose_start": 0.0, "pose_end": 1.0, "video_frame_offset": 0}
    base |= {"previous_frame_count": 5, **options}
    return nodes_scail.WanSCAILToVideo.execute(
        conditioning(), conditioning(), VideoVAE(), 64, 32, 9, 1, **base
    ).args


def test_scail_has_poses_at_half_size_and_a_latent_for_each_reference():
    poses, references = pictures(12, 16, 32), pictures(2, 32, 64)
    positive, negative, latent, offset = scail(
        pose_video=poses,
        pose_video_mask=poses[:8],
        reference_image=references,
        reference_image_mask=references,
    )
    ((_, values),) = positive
    assert values["ref_mask_flag"] is True
    assert torch.allclose(values["pose_video_latent"], VideoVAE().encode(poses[:5]) / 2, atol=1e-6)
    assert torch.allclose(values["reference_latents"][1], VideoVAE().encode(references[1:]), atol=1e-5)
    found = values["ref_mask_28ch"]
    assert torch.equal(found[:, :1], mask_channels(references[1:]))
    assert torch.equal(found[:, 1:2], mask_channels(references[:1])) and not found[:, 2:].any()
    assert torch.equal(values["driving_mask_28ch"], mask_channels(poses[:5]))
    assert latent["samples"].shape == (1, 16, 3, 4, 8) and not latent["samples"].any()
    assert set(negative[0][1]) == set(values) and offset == 9


def test_scail_goes_on_after_frames_and_skips_poses_that_are_over():
    frames = pictures(7, 32, 64)
    positive, _, latent, offset = scail(
        previous_frames=frames, video_frame_offset=20, pose_video=pictures(15, 16, 32)
    )
    assert offset == 20 - 5 + 9
    assert "pose_video_latent" not in positive[0][1]
    assert torch.allclose(latent["samples"][:, :, :2], VideoVAE().encode(frames[-5:]), atol=1e-5)
    assert latent["noise_mask"].flatten(2)[0, 0].view(3, -1).mean(1).tolist() == [0, 0, 1]


def test_scail_replacing_people_blackens_what_is_around_the_reference():
    mask = torch.zeros(1, 32, 64, 3)
    mask[:, :, :32, 2] = 1
    positive, *_ = scail(
        replacement_mode=True, reference_image=torch.ones(1, 32, 64, 3), reference_image_mask=mask
    )
    (found,) = positive[0][1]["reference_latents"]
    assert found[..., :4].eq(1).all() and not found[..., 4:].any()
