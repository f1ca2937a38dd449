"""Videos are made, saved, opened and cut by real encoders and decoders."""

import asyncio
import json
from fractions import Fraction

import av
import numpy
import pytest
import torch

import execution
import folder_paths
import nodes
from comfy_api.latest import io
from comfy_extras import nodes_video
from comfy_extras.nodes_video import (
    CreateVideo,
    GetVideoComponents,
    LoadVideo,
    SaveVideo,
    SaveWEBM,
    VideoSlice,
)

HEIGHT, WIDTH, FPS = 32, 48, 8


@pytest.fixture
def folders(tmp_path, monkeypatch):
    for name in ("input", "output"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(folder_paths, f"{name}_directory", str(tmp_path / name))
    return tmp_path


def gray_levels(count=8):
    """Frames that are told apart by their brightness."""
    levels = torch.linspace(0.1, 0.9, count).view(-1, 1, 1, 1)
    return levels.expand(count, HEIGHT, WIDTH, 3).contiguous()


def tone(seconds=1.0, rate=32000):
    time = torch.arange(int(seconds * rate)) / rate
    return {"waveform": torch.sin(2 * torch.pi * 440 * time).view(1, 1, -1) * 0.5, "sample_rate": rate}


def clone_of(node, prompt=None, extra=None):
    """The class as the executor calls it."""
    hidden = {io.Hidden.prompt: prompt, io.Hidden.extra_pnginfo: extra}
    return node.PREPARE_CLASS_CLONE({"hidden_inputs": hidden})


def saved(video, folders, format="auto", codec=None, **encoding):
    chosen = {"codec": codec or "auto", **({"encoding": encoding} if encoding else {})}
    node = clone_of(SaveVideo, {"1": {}}, {"workflow": {"nodes": []}})
    output = node.execute(video, "clips/c", {"format": format, "codec": chosen})
    (file,) = output.ui.as_dict()["images"]
    return folders / "output" / file["subfolder"] / file["filename"]


def brightness(images):
    return images.mean(dim=(1, 2, 3))


@pytest.mark.parametrize(("node", "inputs", "outputs"), [
    (SaveWEBM, "images filename_prefix codec fps crf", "IMAGE"),
    (SaveVideo, "video filename_prefix format codec", "VIDEO"),
    (CreateVideo, "images fps audio bit_depth", "VIDEO"),
    (GetVideoComponents, "video", "IMAGE AUDIO FLOAT INT COMBO"),
    (LoadVideo, "file", "VIDEO"),
    (VideoSlice, "video start_time duration strict_duration", "VIDEO"),
])  # fmt: skip
def test_inputs_and_outputs_are_those_of_workflows(node, inputs, outputs):
    assert " ".join(each.id for each in node.define_schema().inputs) == inputs
    assert " ".join(node.RETURN_TYPES) == outputs


@pytest.mark.parametrize(("format", "codec", "suffix", "name"), [
    ("auto", None, "mp4", "h264"), ("mkv", "h264", "mkv", "h264"), ("webm", "av1", "webm", "av1"),
])  # fmt: skip
def test_a_video_comes_back_from_its_file(folders, format, codec, suffix, name):
    video = CreateVideo.execute(gray_levels(), FPS, tone())[0]
    path = saved(video, folders, format, codec)
    assert path.name == f"c_00001_.{suffix}"
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec.canonical_name == name
        assert json.loads(container.metadata.get("workflow") or container.metadata["WORKFLOW"]) == {
            "nodes": []
        }
    path.rename(folders / "input" / path.name)
    images, audio, fps, bits, space = GetVideoComponents.execute(LoadVideo.execute(path.name)[0]).result
    assert images.shape == (8, HEIGHT, WIDTH, 3) and (fps, bits, space) == (FPS, 8, "sRGB")
    torch.testing.assert_close(brightness(images), brightness(gray_levels()), atol=0.03, rtol=0)
    # The tone is still one of 440 Hz.
    samples = audio["waveform"][0, 0].numpy()
    spectrum = numpy.abs(numpy.fft.rfft(samples))
    assert spectrum.argmax() * audio["sample_rate"] / len(samples) == pytest.approx(440, abs=3)


def test_less_quality_makes_a_smaller_file(folders):
    noise = torch.rand(4, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    video = CreateVideo.execute(noise, FPS)[0]
    sizes = [
        saved(video, folders, "mp4", "h264", encoding="re-encode", crf=crf, color_space="auto").stat().st_size
        for crf in (10.0, 45.0)
    ]
    assert sizes[1] < sizes[0] / 3


def test_a_color_space_is_written_into_the_file(folders):
    video = CreateVideo.execute(gray_levels(2), FPS)[0]
    path = saved(video, folders, "mp4", "h264", encoding="re-encode", crf=23.0, color_space="HDR PQ")
    path.rename(folders / "input" / path.name)
    result = GetVideoComponents.execute(LoadVideo.execute(path.name)[0]).result
    assert result[3:] == (10, "HDR PQ")


def test_ten_bits_are_kept(folders):
    path = saved(CreateVideo.execute(gray_levels(2), FPS, bit_depth=10)[0], folders)
    with av.open(str(path)) as container:
        assert container.streams.video[0].format.name == "yuv420p10le"


@pytest.mark.parametrize(("start", "duration", "expected"), [
    (0.5, 0.25, [4, 5]), (-0.25, 0.0, [6, 7]), (0.0, 0.0, range(8)), (0.75, 5.0, [6, 7]),
])  # fmt: skip
def test_a_part_has_the_frames_of_its_time(start, duration, expected):
    video = CreateVideo.execute(gray_levels(), FPS)[0]
    images = VideoSlice.execute(video, start, duration, False)[0].get_components().images
    torch.testing.assert_close(
        brightness(images), brightness(gray_levels())[list(expected)], atol=0.03, rtol=0
    )


def test_a_part_that_is_too_short_is_an_error_if_wished():
    video = CreateVideo.execute(gray_levels(), FPS)[0]
    with pytest.raises(ValueError, match=r"video is 1 s long: it has no 3 s from 0 s on. Choose a shorter"):
        VideoSlice.execute(video, 0.0, 3.0, True)


@pytest.mark.parametrize(("codec", "name"), [("vp9", "vp9"), ("av1", "av1")])
def test_pictures_are_saved_as_webm(folders, codec, name):
    node = clone_of(SaveWEBM, {"1": {"inputs": {}}})
    output = node.execute(gray_levels(), "w", codec, 12.5, 20.0)
    (file,) = output.ui.as_dict()["images"]
    assert torch.equal(output[0], gray_levels())
    with av.open(str(folders / "output" / file["filename"])) as container:
        stream = container.streams.video[0]
        assert (stream.codec.canonical_name, stream.average_rate) == (name, Fraction(25, 2))
        frames = [frame.to_ndarray(format="rgb24").mean() / 255 for frame in container.decode(stream)]
        assert json.loads(container.metadata["PROMPT"]) == {"1": {"inputs": {}}}
    assert frames == pytest.approx(brightness(gray_levels()).tolist(), abs=0.03)
    assert [path.name for path in (folders / "output").iterdir()] == ["w_00001_.webm"]


def test_vp9_keeps_transparency(folders):
    images = torch.cat([gray_levels(2), torch.full((2, HEIGHT, WIDTH, 1), 0.25)], dim=-1)
    file = clone_of(SaveWEBM).execute(images, "w", "vp9", 8.0, 10.0).ui.as_dict()["images"][0]
    with av.open(str(folders / "output" / file["filename"])) as container:
        stream = container.streams.video[0]
        assert container.streams.video[0].metadata.get("alpha_mode") == "1"
        decoder = av.CodecContext.create("libvpx-vp9", "r")
        frames = [one for packet in container.demux(stream) for one in decoder.decode(packet)]
    alpha = frames[0].to_ndarray(format="rgba")[..., 3]
    assert alpha.mean() / 255 == pytest.approx(0.25, abs=0.03)


def test_a_file_that_cannot_be_encoded_leaves_nothing(folders):
    two_channels = torch.zeros(1, HEIGHT, WIDTH, 2)
    with pytest.raises(ValueError, match="shape"):
        nodes_video.write_webm(str(folders / "x.webm"), two_channels, codec="vp9", fps=8, crf=30, metadata={})
    assert [path.name for path in folders.iterdir() if path.is_file()] == []


def test_no_pictures_are_no_video():
    with pytest.raises(ValueError, match="no pictures to save"):
        clone_of(SaveWEBM).execute(torch.zeros(0, 8, 8, 3), "w", "vp9", 8.0, 30.0)


def test_only_videos_of_the_input_folder_are_listed(folders):
    for name in ("b.mp4", "a.webm", "c.png", "d.txt"):
        (folders / "input" / name).write_bytes(b"")
    assert LoadVideo.INPUT_TYPES()["required"]["file"][1]["options"] == ["a.webm", "b.mp4"]
    assert LoadVideo.validate_inputs("a.webm") is True
    assert "Invalid video file: z.mp4" in LoadVideo.validate_inputs("z.mp4")


@pytest.mark.parametrize("inputs", [
    {"format": "mp4", "codec": "h264"}, {"format": "auto", "codec": "auto"}, {"format": "auto"},
    {"format": "mp4", "format.codec": "h264", "format.codec.encoding": "auto"},
])  # fmt: skip
def test_prompts_of_older_clients_are_valid(folders, monkeypatch, inputs):
    (folders / "input" / "a.mp4").write_bytes(b"")
    for node in (LoadVideo, SaveVideo):
        monkeypatch.setitem(nodes.NODE_CLASS_MAPPINGS, node.GET_SCHEMA().node_id, node)
    prompt = {
        "1": {"class_type": "LoadVideo", "inputs": {"file": "a.mp4"}},
        "2": {"class_type": "SaveVideo", "inputs": {"video": ["1", 0], "filename_prefix": "x", **inputs}},
    }
    assert asyncio.run(execution.validate_prompt("p", prompt, None))[0]
