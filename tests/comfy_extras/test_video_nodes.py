"""Nodes of model families that need no network: shapes and values by their definition."""

from __future__ import annotations

import importlib
import json
import math

import numpy as np
import pytest
import torch

from tests.comfy_extras.stand_ins import ListeningCLIP, VideoVAE, conditioning, pictures

VIDEO = {"width": 64, "height": 48, "length": 17, "batch_size": 2}


def run(topic, name, **values):
    module = importlib.import_module(f"comfy_extras.nodes_{topic}")
    entry = getattr(module, name, None) or importlib.import_module(f"comfy_extras.{topic}").__dict__[name]
    output = entry.execute(**values)
    return output.args if hasattr(output, "args") else output


def guided(vae=None):
    return {"positive": conditioning(1.0), "negative": conditioning(2.0), "vae": vae or VideoVAE()}


def extras(side):
    return side[0][1]


@pytest.mark.parametrize(
    ("topic", "name", "values", "shape"),
    [
        ("ace", "EmptyAceStepLatentAudio", {"seconds": 10.0, "batch_size": 2}, (2, 8, 16, 107)),
        ("ace", "EmptyAceStep15LatentAudio", {"seconds": 10.0, "batch_size": 2}, (2, 64, 250)),
        ("ar_video", "EmptyARVideoLatent", VIDEO, (2, 16, 5, 6, 8)),
        ("chroma_radiance", "EmptyChromaRadianceLatentImage", {"width": 64, "height": 48}, (1, 3, 48, 64)),
        ("cosmos", "EmptyCosmosLatentVideo", VIDEO, (2, 16, 3, 6, 8)),
        ("hidream_o1", "EmptyHiDreamO1LatentImage", {"width": 64, "height": 48}, (1, 3, 48, 64)),
        ("hunyuan", "EmptyHunyuanLatentVideo", VIDEO, (2, 16, 5, 6, 8)),
        ("hunyuan", "EmptyHunyuanVideo15Latent", VIDEO, (2, 32, 5, 3, 4)),
        ("hunyuan", "EmptyHunyuanImageLatent", {"width": 640, "height": 320}, (1, 64, 10, 20)),
        ("hunyuan3d", "EmptyLatentHunyuan3Dv2", {"resolution": 100, "batch_size": 1}, (1, 64, 100)),
        ("lt", "EmptyLTXVLatentVideo", {"width": 96, "height": 64, "length": 33}, (1, 128, 5, 2, 3)),
        ("mochi", "EmptyMochiLatentVideo", {**VIDEO, "length": 25}, (2, 12, 5, 6, 8)),
        (
            "qwen",
            "EmptyQwenImageLayeredLatentImage",
            {"width": 64, "height": 48, "layers": 3},
            (1, 16, 4, 6, 8),
        ),
        (
            "stable_cascade",
            "StableCascade_EmptyLatentImage",
            {"width": 840, "height": 420, "compression": 42},
            (1, 16, 10, 20),
        ),
    ],
)
def test_empty_latents_have_the_shape_of_their_model(topic, name, values, shape):
    samples = run(topic, name, **values)[0]["samples"]
    assert tuple(samples.shape) == shape
    assert not samples.any()


def test_a_video_of_wan_begins_with_its_frames_and_the_rest_is_gray():
    frames = pictures(5)
    positive, negative, latent = run("wan", "WanImageToVideo", **guided(), **VIDEO, start_image=frames)
    expected = VideoVAE().encode(torch.cat([frames, torch.full((12, 48, 64, 3), 0.5)]))
    for side in (positive, negative):
        torch.testing.assert_close(extras(side)["concat_latent_image"], expected)
        assert extras(side)["concat_mask"][0, 0, :, 0, 0].tolist() == [0, 0, 1, 1, 1]
    assert latent["samples"].shape == (2, 16, 5, 6, 8)


def test_first_and_last_frames_of_wan():
    first, last = pictures(1), pictures(2)
    values = {**guided(), **VIDEO, "start_image": first, "end_image": last}
    positive, _, _ = run("wan", "WanFirstLastFrameToVideo", **values)
    video = torch.cat([first, torch.full((14, 48, 64, 3), 0.5), last])
    torch.testing.assert_close(extras(positive)["concat_latent_image"], VideoVAE().encode(video))
    # Four channels per latent frame; the first one stands for the first frame four times.
    mask = extras(positive)["concat_mask"][0, :, :, 0, 0]
    assert mask.T.tolist() == [[0] * 4, [1] * 4, [1] * 4, [1] * 4, [1, 1, 0, 0]]


def test_vace_tells_what_is_kept_and_what_is_to_change():
    mask = torch.zeros(17, 48, 64)
    mask[:, :, 32:] = 1
    video = pictures(17)
    values = {**guided(), **VIDEO, "strength": 0.8, "control_video": video, "control_masks": mask}
    positive, _, latent, trimmed = run("wan", "WanVaceToVideo", **values, reference_image=pictures(1))
    kept, changed = extras(positive)["vace_frames"][0].split(16, dim=1)
    encoded = VideoVAE().encode(video)
    torch.testing.assert_close(kept[:, :, 1:, :, :4], encoded[..., :4])
    torch.testing.assert_close(changed[:, :, 1:, :, 4:], encoded[..., 4:])
    assert torch.all(kept[:, :, 1:, :, 4:] == 0.5)
    told = extras(positive)["vace_mask"][0]
    assert tuple(told.shape) == (1, 64, 6, 6, 8)
    assert told[:, :, 1:, :, 4:].min() == 1 and not told[:, :, 0].any() and not told[..., :4].any()
    assert (latent["samples"].shape[2], trimmed) == (6, 1)


def test_latent_frames_are_trimmed_at_the_beginning():
    samples = torch.arange(5.0).view(1, 1, 5, 1, 1)
    (out,) = run("wan", "TrimVideoLatent", samples={"samples": samples, "kind": "x"}, trim_amount=2)
    assert out["samples"].flatten().tolist() == [2, 3, 4]
    assert out["kind"] == "x"


def test_a_point_that_rests_keeps_its_place():
    track = [{"x": 32.0, "y": 24.0}] * 121
    values = {**guided(), **VIDEO, "batch_size": 1, "temperature": 220.0, "topk": 1}
    frame = pictures(1)
    positive, _, _ = run("wan", "WanTrackToVideo", **values, tracks=json.dumps([track]), start_image=frame)
    mask = 1 - extras(positive)["concat_mask"]
    assert tuple(mask.shape) == (1, 4, 5, 6, 8)
    assert torch.all(mask[:, :, 0] == 1)
    nearest = mask[0, 0, 1].flatten().argmax().item()
    assert (nearest // 8, nearest % 8) in [(y, x) for y in (2, 3) for x in (3, 4)]  # the middle
    with_nothing = run("wan", "WanTrackToVideo", **values, tracks="[]", start_image=frame)
    assert "concat_mask" in extras(with_nothing[0])


def test_wan_animate_says_what_is_wrong_with_its_pose_video():
    values = {**guided(), **VIDEO, "video_frame_offset": 9, "pose_video": pictures(9)}
    with pytest.raises(
        ValueError, match=r"pose_video has 9 frames, but this part begins at 9\. Give a longer"
    ):
        run("wan", "WanAnimate2ToVideo", **values)
    values = {
        **guided(),
        **VIDEO,
        "video_frame_offset": 0,
        "pose_start_percent": 0.5,
        "pose_end_percent": 0.2,
    }
    with pytest.raises(ValueError, match=r"pose_start_percent \(0.5\) lies behind pose_end_percent \(0.2\)"):
        run("wan", "WanAnimate2ToVideo", **values)


def test_a_pose_applies_to_a_part_of_sampling():
    values = {
        **guided(),
        **VIDEO,
        "video_frame_offset": 0,
        "pose_video": pictures(4),
        "pose_end_percent": 0.8,
    }
    positive, *_ = run("wan", "WanAnimate2ToVideo", **values)
    spans = [
        (part["start_percent"], part["end_percent"], "pose_video_latent" in part) for _, part in positive
    ]
    assert spans == [(0.0, 0.8, True), (0.8, 1.0, False)]


@pytest.mark.parametrize("stretch", [True, False])
def test_noise_levels_of_ltx_video(stretch):
    latent = {"samples": torch.zeros(1, 128, 4, 16, 32)}  # 2048 latent pixels
    values = {"steps": 8, "max_shift": 2.05, "base_shift": 0.95, "stretch": stretch, "terminal": 0.1}
    (sigmas,) = run("lt", "LTXVScheduler", **values, latent=latent)
    shift = math.exp(0.95 + (2048 - 1024) / (4096 - 1024) * (2.05 - 0.95))
    time = np.linspace(1, 0, 9)[:-1]
    expected = shift / (shift + 1 / time - 1)
    if stretch:
        expected = 1 - (1 - expected) * 0.9 / (1 - expected[-1])
        assert sigmas[-2].item() == pytest.approx(0.1)
    np.testing.assert_allclose(sigmas.numpy(), [*expected, 0], rtol=1e-5)


def ltxv(**more):
    latent = {"samples": torch.zeros(1, 128, 5, 2, 3)}
    return {**guided(VideoVAE(128, 32, 8)), "latent": latent, "frame_idx": 0, "strength": 0.7, **more}


def test_a_guide_of_ltx_video_stands_behind_the_latent_and_tells_its_place():
    image = pictures(17, 64, 96)
    positive, negative, latent = run("lt", "LTXVAddGuide", **ltxv(image=image, frame_idx=17))
    assert latent["samples"].shape[2] == 7
    assert latent["noise_mask"].flatten().tolist() == pytest.approx([1.0] * 5 + [0.3] * 2)
    places = extras(positive)["keyframe_idxs"]  # (1, 3, 2 * 2 * 3, begin and end)
    assert tuple(places.shape) == (1, 3, 12, 2)
    assert places[0, :, 0].tolist() == [[17, 25], [0, 32], [0, 32]]
    assert places[0, :, -1].tolist() == [[25, 33], [32, 64], [64, 96]]
    assert extras(negative)["guide_attention_entries"][0]["latent_shape"] == [2, 2, 3]
    positive, _, cropped = run("lt", "LTXVCropGuides", positive=positive, negative=negative, latent=latent)
    assert cropped["samples"].shape[2] == 5
    assert extras(positive)["keyframe_idxs"] is None


def test_a_guide_at_the_beginning_has_one_frame_in_its_first_latent_frame():
    positive, _, _ = run("lt", "LTXVAddGuide", **ltxv(image=pictures(9, 64, 96)))
    times = extras(positive)["keyframe_idxs"][0, 0, ::6]
    assert times.tolist() == [[0, 1], [1, 9]]


def test_guides_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"4 latent frames and would begin at 2, but the latent has only 5"):
        run("lt", "LTXVAddGuide", **ltxv(image=pictures(33, 64, 96), frame_idx=9))
    lora = {"reference_downscale_factor": 2}
    with pytest.raises(ValueError, match=r"guides that are 2 times smaller than the latent, but 3x2"):
        run("lt", "LTXVAddGuide", **ltxv(image=pictures(1), iclora_parameters=lora))
    joined = {"samples": torch.zeros(1, 64, 5, 2, 3)}
    with pytest.raises(ValueError, match=r"64 channels and the guide 128\. Add guides to a video latent"):
        run("lt", "LTXVAddGuide", **ltxv(image=pictures(1), latent=joined))


def test_video_and_sound_are_joined_and_taken_apart():
    video = {"samples": torch.ones(1, 128, 5, 2, 3), "noise_mask": torch.zeros(1, 1, 5, 1, 1)}
    audio = {"samples": torch.ones(1, 8, 20, 16) * 2, "type": "audio"}
    (joined,) = run("lt", "LTXVConcatAVLatent", video_latent=video, audio_latent=audio)
    assert joined["samples"].is_nested
    first, second = run("lt", "LTXVSeparateAVLatent", av_latent=joined)
    assert torch.equal(first["samples"], video["samples"]) and torch.equal(
        second["samples"], audio["samples"]
    )
    assert not first["noise_mask"].any() and second["noise_mask"].all()
    shorter = {"samples": torch.ones(1, 8, 15, 16) * 3}
    (replaced,) = run("lt", "LTXVConcatAVLatent", video_latent=joined, audio_latent=shorter)
    sound = replaced["samples"].unbind()[1]
    assert sound.shape[2] == 20 and sound[:, :, :15].eq(3).all() and not sound[:, :, 15:].any()
    with pytest.raises(
        ValueError, match=r"cannot replace one of \(1, 8, 20, 16\): only the length may differ"
    ):
        run("lt", "LTXVConcatAVLatent", video_latent=joined, audio_latent={"samples": torch.ones(1, 8, 9, 9)})


def test_compression_changes_a_picture_more_the_stronger_it_is():
    y, x = torch.meshgrid(torch.linspace(0, 1, 51), torch.linspace(0, 1, 64), indexing="ij")
    image = torch.stack([x, y, (x * 9).sin().abs()], dim=-1)[None]
    fine, coarse = (run("lt", "LTXVPreprocess", image=image, img_compression=crf)[0] for crf in (5, 50))
    assert fine.shape == (1, 50, 64, 3)  # even sides
    near, far = ((made - image[:, :50]).abs().mean() for made in (fine, coarse))
    assert near < 0.02 < far < 0.2
    assert run("lt", "LTXVPreprocess", image=image, img_compression=0)[0] is image


@pytest.mark.parametrize(
    ("pose", "step"), [("Static", (0, 0, 0)), ("Pan Right", (1, 0, 0)), ("Zoom In", (0, 0, 2))]
)
def test_rays_of_a_camera_that_moves(pose, step):
    values = {"camera_pose": pose, "width": 64, "height": 36, "length": 9, "speed": 2.0}
    embedding, *size = run("camera_trajectory", "WanCameraEmbedding", **values)
    assert tuple(embedding.shape) == (1, 24, 3, 36, 64) and size == [64, 36, 9]
    moment, direction = embedding[0].unflatten(0, (6, 4))[:, -1, -1, 20, 40].split(3)  # of the last frame
    seen = torch.tensor([(40.5 / 64 - 0.5) / 0.5, (20.5 / 36 - 0.5) / 0.5, 1.0])
    torch.testing.assert_close(direction, seen / seen.norm())
    place = torch.tensor(step, dtype=torch.float32) * 1.5 * 2.0 * 8 / 9
    torch.testing.assert_close(moment, torch.linalg.cross(place, direction))


def test_pictures_of_an_instruction_are_numbered_and_sized():
    clip = ListeningCLIP()
    values = {"clip": clip, "prompt": "do it", "vae": VideoVAE(), "image1": pictures(1, 50, 100)}
    (out,) = run("qwen", "TextEncodeQwenImageEditPlus", **values, image3=pictures(1, 80, 80))
    text, how = clip.asked[0]
    seen = "<|vision_start|><|image_pad|><|vision_end|>"
    assert text == f"Picture 1: {seen}Picture 3: {seen}do it"
    assert [tuple(one.shape[1:3]) for one in how["images"]] == [(272, 543), (384, 384)]
    assert [tuple(one.shape[-2:]) for one in extras(out)["reference_latents"]] == [(91, 181), (128, 128)]


@pytest.mark.parametrize(
    ("topic", "name"), [("boogu", "TextEncodeBooguEdit"), ("mage", "TextEncodeMageFlowEdit")]
)
def test_both_sides_get_the_pictures_of_an_instruction(topic, name):
    clip = ListeningCLIP()
    values = {"clip": clip, "prompt": "do", "negative_prompt": "not", "vae": VideoVAE()}
    images = {"image_10": pictures(1, 64, 64), "image_2": pictures(1, 32, 64)}
    positive, negative, *_ = run(topic, name, **values, images=images)
    assert [text for text, _ in clip.asked] == ["do", "not"]
    assert len(clip.asked[0][1]["images"]) == 2
    for side in (positive, negative):
        assert len(extras(side)["reference_latents"]) == 2


def test_joyimage_takes_single_pictures_of_known_sizes():
    clip = ListeningCLIP()
    run("joyimage", "TextEncodeJoyImageEdit", clip=clip, prompt="p", images={"image0": pictures(1, 30, 90)})
    assert tuple(clip.asked[0][1]["images"][0].shape) == (1, 576, 1728, 3)
    with pytest.raises(ValueError, match="takes single pictures, but was given a batch of 2"):
        run("joyimage", "TextEncodeJoyImageEdit", clip=clip, prompt="p", images={"image0": pictures(2)})


def test_cosmos_fills_between_given_ends():
    values = {"vae": VideoVAE(16, 8, 8), **VIDEO, "length": 33, "start_image": pictures(1)}
    (latent,) = run("cosmos", "CosmosImageToVideoLatent", **values, end_image=pictures(9))
    assert latent["noise_mask"][0, 0, :, 0, 0].tolist() == [0, 1, 1, 0, 0]
    assert latent["samples"][:, :, 1:3].eq(0).all() and latent["samples"].shape[0] == 2
    (predict,) = run("cosmos", "CosmosPredict2ImageToVideoLatent", **{**values, "vae": VideoVAE()})
    assert predict["samples"][0, :2, -1, 0, 0].tolist() == pytest.approx([-0.7571, -0.7089])


def test_first_frames_take_mean_and_deviation_of_those_behind_them_within_limits():
    generator = torch.Generator().manual_seed(0)
    samples = torch.randn(1, 4, 8, 8, 8, generator=generator)
    samples[:, :, :2] = samples[:, :, :2] * 1.2 + 0.2
    values = {"latent": {"samples": samples}, "start_frame_count": 2, "reference_frame_count": 5}
    (out,) = run("kandinsky5", "NormalizeVideoLatentStart", **values)
    first, reference = out["samples"][:, :, :2], samples[:, :, 2:7]
    assert first.mean((0, 1, 3, 4)).tolist() == pytest.approx([reference.mean().item()] * 2, abs=1e-5)
    assert first.std((0, 1, 3, 4)).tolist() == pytest.approx([reference.std().item()] * 2, abs=1e-5)
    assert torch.equal(out["samples"][:, :, 2:], samples[:, :, 2:])
