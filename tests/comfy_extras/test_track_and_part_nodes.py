"""Tracks, boxes, parts of videos, prompts of MiniMax and written text: nodes around absent networks."""

from __future__ import annotations

import json

import pytest
import torch

from comfy_extras import nodes_minimax_h3 as minimax
from comfy_extras import nodes_seedvr as seedvr
from comfy_extras import nodes_wanmove as wanmove
from comfy_extras.absent_families import FamilyAbsent
from comfy_extras.nodes_minimax_music import EmptyMiniMaxMusic3LatentAudio
from comfy_extras.nodes_rtdetr import BOX_COLORS, DrawBBoxes
from comfy_extras.nodes_textgen import TextGenerate
from tests.comfy_extras.stand_ins import ListeningCLIP, VideoVAE, conditioning, pictures

LINE = {
    "width": 100, "height": 50, "start_x": 0.0, "start_y": 0.5, "mid_x": 0.5, "mid_y": 0.0, "end_x": 1.0,
    "end_y": 0.5, "num_frames": 5, "num_tracks": 3, "track_spread": 0.1,
}  # fmt: skip


@pytest.mark.parametrize(
    ("how", "x"),
    [
        ("linear", [0, 25, 50, 75, 100]),
        ("ease_in", [0, 6.25, 25, 56.25, 100]),
        ("ease_out", [0, 43.75, 75, 93.75, 100]),
        ("ease_in_out", [0, 15.625, 50, 84.375, 100]),
        ("constant", [0, 0, 0, 0, 0]),
    ],
)
def test_points_move_side_by_side_at_the_pace_of_the_easing(how, x):
    tracks, length = wanmove.GenerateTracks.execute(**LINE, interpolation=how).args
    path = tracks["track_path"]
    assert length == 5 and tuple(path.shape) == (5, 3, 2)
    assert path[:, 1, 0].tolist() == pytest.approx(x)
    assert path[0, :, 1].tolist() == pytest.approx([25 - 7.5, 25, 25 + 7.5])  # across the way


def test_a_curve_bends_to_its_control_point_and_a_mask_hides_frames():
    mask = torch.zeros(5, 2, 2)
    mask[1:3] = 1
    tracks, _ = wanmove.GenerateTracks.execute(**LINE, bezier=True, track_mask=mask).args
    assert tracks["track_path"][2, 1].tolist() == pytest.approx([50, 12.5])
    assert tracks["track_visibility"].flatten().tolist() == [False, True, True, False, False]


def test_tracks_come_from_text_and_are_joined():
    text = json.dumps([[{"x": 1, "y": 2}, {"x": 3, "y": 4}], [{"x": 5, "y": 6}, {"x": 7, "y": 8}]])
    tracks, length = wanmove.WanMoveTracksFromCoords.execute(text).args
    assert length == 2 and tracks["track_path"].tolist() == [[[1, 2], [5, 6]], [[3, 4], [7, 8]]]
    (joined,) = wanmove.WanMoveConcatTrack.execute(tracks, tracks).args
    assert joined["track_path"].shape == (2, 4, 2) and joined["track_visibility"].shape == (2, 4)
    with pytest.raises(ValueError, match="WanMoveTracksFromCoords has no tracks. Give a list of tracks"):
        wanmove.WanMoveTracksFromCoords.execute("no json")


def test_what_is_at_the_start_of_a_track_is_carried_along_it():
    path = torch.tensor([[[4.0 + 2 * frame, 20.0]] for frame in range(17)])  # 8 pixels in 4 frames
    tracks = {"track_path": path, "track_visibility": torch.ones(17, 1).bool()}
    size = {"width": 64, "height": 48, "length": 17, "batch_size": 1}
    values = {"positive": conditioning(), "negative": conditioning(), "vae": VideoVAE(), **size}
    frame = pictures(1)
    out = wanmove.WanMoveTrackToVideo.execute(**values, strength=1.0, tracks=tracks, start_image=frame).args
    latent = out[0][0][1]["concat_latent_image"]
    start = VideoVAE().encode(frame)[0, :, 0, 2, 0]
    for step in range(5):
        torch.testing.assert_close(latent[0, :, step, 2, step], start)
    assert torch.all(latent[0, :, 4, 0] == 0.5)  # gray elsewhere


def test_drawn_tracks_have_their_colour_where_the_point_is():
    tracks = {"track_path": torch.full((2, 1, 2), 20.0), "track_visibility": torch.ones(2, 1).bool()}
    how = {"line_resolution": 4, "circle_size": 5, "opacity": 1.0, "line_width": 2}
    (drawn,) = wanmove.WanMoveVisualizeTracks.execute(torch.zeros(1, 48, 64, 3), **how, tracks=tracks).args
    assert drawn.shape == (2, 48, 64, 3)
    assert (drawn[0, 20, 20] * 255).round().tolist() == list(wanmove.COLORS[0])
    assert not drawn[0, 40, 60].any()


@pytest.mark.parametrize("form", ["one", "list", "per picture"])
def test_boxes_are_drawn_in_the_colour_of_their_class(form):
    box = {"x": 10, "y": 20, "width": 30, "height": 20, "label": "car", "score": 0.9}
    boxes = {"one": box, "list": [box], "per picture": [[box]]}[form]
    (drawn,) = DrawBBoxes.execute(boxes, torch.zeros(1, 60, 80, 3)).args
    assert (drawn[0, 20, 30] * 255).round().tolist() == list(BOX_COLORS[2])  # cars are the third class
    assert not drawn[0, 38:, 50:].any()
    (on_black,) = DrawBBoxes.execute(boxes).args
    assert on_black.shape == (1, 40, 40, 3)


@pytest.mark.parametrize(("frames", "filled"), [(1, 1), (3, 5), (5, 5), (7, 9)])
def test_videos_are_filled_up_for_seedvr(frames, filled):
    (out,) = seedvr.SeedVR2Preprocess.execute(pictures(frames, 33, 50, 4)).args
    assert out.shape == (1, filled, 48, 64, 3)
    assert torch.equal(out[0, -1, :33, :50], pictures(frames, 33, 50, 4)[-1, ..., :3])
    assert not out[:, :, 33:].any() and not out[:, :, :, 50:].any()


def test_parts_of_a_video_are_cut_and_joined_again():
    samples = torch.rand(1, 16, 11, 2, 2)
    manual = {"chunking_mode": "manual", "frames_per_chunk": 13}
    parts, shared = seedvr.SeedVR2TemporalChunk.execute({"samples": samples}, 2, manual).args
    assert [part["samples"].shape[2] for part in parts] == [4, 4, 4, 4, 3] and shared == 2
    (joined,) = seedvr.SeedVR2TemporalMerge.execute(parts, [shared]).args
    torch.testing.assert_close(joined["samples"], samples)


def test_parts_fade_where_they_share_frames():
    first, second = ({"samples": torch.full((1, 16, 6, 1, 1), value)} for value in (0.0, 1.0))
    (joined,) = seedvr.SeedVR2TemporalMerge.execute([first, second], [4]).args
    values = joined["samples"][0, 0].flatten().tolist()
    assert values == pytest.approx([0, 0, 0, 0, 1, 1, 1, 1])  # the step lies in the middle third


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: seedvr.SeedVR2Preprocess.execute(pictures(1, 1, 9)), "pictures of 9x1. Sides have 2 pixels"),
        (
            lambda: seedvr.SeedVR2TemporalChunk.execute({"samples": torch.zeros(1, 4, 3, 2, 2)}, 0, {}),
            r"SeedVR2TemporalChunk takes latents of SeedVR2's VAE, \(B, 16, T, H, W\)",
        ),
        (
            lambda: seedvr.SeedVR2TemporalChunk.execute(
                {"samples": torch.zeros(1, 16, 3, 2, 2)},
                0,
                {"chunking_mode": "manual", "frames_per_chunk": 6},
            ),
            "frames_per_chunk is 6. It is one of 1, 5, 9",
        ),
        (
            lambda: seedvr.SeedVR2TemporalMerge.execute(
                [{"samples": torch.zeros(1, 16, 3, 2, size)} for size in (2, 3)], [1]
            ),
            "part 1 has the shape .* Only the last part may have another length",
        ),
    ],
)
def test_wrong_parts_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("length", "latents", "sound"), [(1, 2, 8), (5, 2, 8), (6, 7, 37), (22, 7, 37), (39, 12, 65)]
)
def test_videos_of_minimax_have_lengths_that_it_knows(length, latents, sound):
    (out,) = minimax.EmptyMiniMaxH3LatentAV.execute(64, 96, length).args
    video, audio = out["samples"].unbind()
    assert video.shape == (1, 24, latents, 6, 4) and audio.shape == (1, 32, 2, sound)


def test_first_and_last_pictures_of_minimax_are_encoded_and_seen():
    clip = ListeningCLIP()
    frames = {"first_frame": pictures(2), "last_frame": pictures(1, 80, 60)}
    values = {"clip": clip, "vae": VideoVAE(24, 16), "prompt": "p", "width": 64, "height": 96, "length": 22}
    positive, _ = minimax.MiniMaxH3ImageToVideo.execute(**values, **frames).args
    known = positive[0][1]["minimax_keyframes"]
    assert [one["resolved_frame_index"] for one in known] == [0, 21]
    assert [tuple(one.shape) for one in clip.asked[0][1]["images"]] == [(1, 96, 64, 3)] * 2
    assert known[0]["latent"].shape == (1, 24, 1, 6, 4)


def guide(**more):
    (latent,) = minimax.EmptyMiniMaxH3LatentAV.execute(64, 96, 22).args
    values = {"positive": conditioning(), "latent": latent, "frame_idx": 0, "vae": VideoVAE(24, 16)}
    return minimax.MiniMaxH3AddGuide.execute(**{**values, **more}).args[0]


def test_guides_of_minimax_add_up():
    once = guide(image=pictures(1), frame_idx=-1)
    twice = guide(positive=once, image=pictures(7))
    known = twice[0][1]["minimax_keyframes"]
    assert [one["resolved_frame_index"] for one in known] == [21, 0]
    assert known[1]["latent"].shape[2] == 2  # 5 of the 7 frames


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "has nothing to add. Connect image or audio"),
        ({"image": pictures(1), "vae": None}, "cannot encode what it was given without vae"),
        ({"image": pictures(1), "frame_idx": 22}, "1 frames at frame_idx 22 does not fit into the 22 frames"),
        ({"image": pictures(9), "frame_idx": 20}, "5 frames at frame_idx 20 does not fit into the 22 frames"),
        (
            {"latent": {"samples": torch.zeros(1, 24, 2, 2, 2)}},
            "takes latents of MiniMax H3: video and sound",
        ),
    ],
)
def test_wrong_guides_of_minimax_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        guide(**values)


def test_references_of_minimax_are_numbered_in_their_order():
    clip = ListeningCLIP()
    values = {
        "clip": clip,
        "vae": VideoVAE(24, 16),
        "audio_vae": None,
        "prompt": "p",
        "width": 64,
        "height": 96,
    }
    references = {
        "ref_images": {"ref_image_0": pictures(1, 300, 200)},
        "ref_videos": {"ref_video_0": pictures(24)},
    }
    positive, _ = minimax.MiniMaxH3ReferenceToVideo.execute(**values, length=22, **references).args
    items = clip.asked[0][1]["minimax_ref_items"]
    assert [item["type"] for item in items] == ["image", "video"]
    assert items[1]["timestamps"] == [0.0, 0.5]
    blocks = positive[0][1]["minimax_refs"]
    assert [block["kind"] for block in blocks] == ["image", "video"]
    assert (blocks[0]["latent_h"], blocks[0]["latent_w"]) == (6, 4)  # as many pixels as the video
    with pytest.raises(ValueError, match="A reference video has 3 frames. MiniMax H3 needs 5 at least"):
        minimax.MiniMaxH3ReferenceToVideo.execute(
            **values, length=22, ref_videos={"ref_video_0": pictures(3)}
        )


def test_silence_of_minimax_music():
    (out,) = EmptyMiniMaxMusic3LatentAudio.execute(10.0, 2).args
    assert out["samples"].shape == (2, 128, 861)  # 44.1 kHz in hops of 512


def test_text_is_written_by_a_clip_that_can_and_refused_by_others():
    class WritingCLIP(ListeningCLIP):
        def generate(self, tokens, **how):
            return [tokens["text"], how["temperature"], how["do_sample"], how["max_length"]]

        def decode(self, written):
            return " ".join(map(str, written))

    sampled = {"sampling_mode": "on", "temperature": 0.5}
    assert TextGenerate.execute(WritingCLIP(), "hello", 9, sampled).args == ("hello 0.5 True 9",)
    assert TextGenerate.execute(WritingCLIP(), "hello", 9, {"sampling_mode": "off"}).args == (
        "hello 1.0 False 9",
    )
    with pytest.raises(FamilyAbsent, match="^TextGenerate needs text-generating language models"):
        TextGenerate.execute(ListeningCLIP(), "hello", 9, sampled)
