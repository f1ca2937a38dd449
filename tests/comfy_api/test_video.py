"""Videos are what they were after they were saved."""

import io as streams
import json
from fractions import Fraction

import pytest
import torch

from comfy_api.latest import Input, InputImpl, Types


def parts(frames=8, rate=8, channels=1, height=32, width=48):
    """Frames that grow lighter, and a tone."""
    light = torch.linspace(0.1, 0.9, frames).view(-1, 1, 1, 1).expand(frames, height, width, 3)
    audio = None
    if channels:
        wave = torch.sin(torch.arange(frames * 16000 // rate) * 0.1).repeat(1, channels, 1) * 0.5
        audio = {"waveform": wave, "sample_rate": 16000}
    return Types.VideoComponents(images=light, audio=audio, frame_rate=Fraction(rate))


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("video") / "a.mp4")
    InputImpl.VideoFromComponents(parts()).save_to(path, metadata={"prompt": {"1": "ä"}})
    return path


def test_a_video_is_read_as_it_was_saved(file):
    video = InputImpl.VideoFromFile(file)
    assert isinstance(video, Input.Video)
    assert (video.get_dimensions(), video.get_frame_count(), video.get_frame_rate()) == ((48, 32), 8, 8)
    assert (video.get_bit_depth(), video.get_color_space()) == (8, "sRGB")
    assert video.get_duration() == pytest.approx(1.0, abs=0.1)
    assert "mp4" in video.get_container_format().split(",")
    read = video.get_components()
    assert read.images.shape == (8, 32, 48, 3) and read.alpha is None and read.frame_rate == 8
    assert (read.images.mean((1, 2, 3)) - parts().images.mean((1, 2, 3))).abs().max() < 0.03
    assert read.audio["sample_rate"] == 16000
    assert read.audio["waveform"].shape[:2] == (1, 1)
    assert read.audio["waveform"].std() == pytest.approx(0.35, abs=0.05)
    assert json.loads(read.metadata["prompt"]) == {"1": "ä"}


def test_a_part_of_a_video_begins_and_ends_where_it_should(file):
    video = InputImpl.VideoFromFile(file)
    part = video.as_trimmed(0.5, 0.25)
    assert (part.get_active_trim_window(), part.get_frame_count(), part.get_duration()) == (
        (0.5, 0.25),
        2,
        0.25,
    )
    read = part.get_components()
    assert (read.images.mean((1, 2, 3)) - parts().images[4:6].mean((1, 2, 3))).abs().max() < 0.03
    assert read.audio["waveform"].shape[-1] == pytest.approx(4000, abs=1100)
    assert InputImpl.VideoFromFile(file, start_time=-0.25).get_frame_count() in (2, 3)
    assert video.as_trimmed(0.5, 9.0, strict_duration=True) is None
    assert video.as_trimmed(0.5, 9.0, strict_duration=False).get_frame_count() == 4


def test_a_video_that_is_encoded_as_wished_is_copied_and_others_are_not(file, tmp_path):
    video = InputImpl.VideoFromFile(file)
    copied, encoded = streams.BytesIO(), streams.BytesIO()
    video.save_to(copied, metadata={"workflow": 5})
    video.save_to(encoded, crf=40)
    assert copied.getbuffer().nbytes > encoded.getbuffer().nbytes
    again = InputImpl.VideoFromFile(copied)
    assert torch.equal(again.get_components().images, video.get_components().images)
    assert {"prompt", "workflow"} <= again.get_components().metadata.keys()
    part = str(tmp_path / "part.mkv")
    video.as_trimmed(0.0, 0.5).save_to(part)
    saved = InputImpl.VideoFromFile(part)
    assert saved.get_components().images.shape[0] == 4 and "matroska" in saved.get_container_format()


@pytest.mark.parametrize("depth", [8, 10])
def test_the_depth_of_colours_is_kept(tmp_path, depth):
    video = InputImpl.VideoFromComponents(parts(channels=0), bit_depth=depth)
    assert video.get_bit_depth() == depth
    path = str(tmp_path / "a.mp4")
    video.save_to(path)
    saved = InputImpl.VideoFromFile(path)
    assert saved.get_bit_depth() == depth and saved.get_components().audio is None


def test_a_video_in_memory_answers_like_one_in_a_file():
    video = InputImpl.VideoFromComponents(parts())
    assert (video.get_dimensions(), video.get_frame_count(), video.get_duration()) == ((48, 32), 8, 1.0)
    part = video.as_trimmed(0.5, 0.5)
    assert part.get_frame_count() == 4
    assert video.as_trimmed(0.5, 2.0) is None


def test_wide_colours_are_named_in_the_file(tmp_path):
    path = str(tmp_path / "a.mp4")
    InputImpl.VideoFromComponents(parts(channels=0)).save_to(path, color_space="HDR")
    saved = InputImpl.VideoFromFile(path)
    assert (saved.get_color_space(), saved.get_bit_depth()) == ("HDR", 10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "webm", "codec": "h264"}, "A webm file cannot hold h264"),
        ({"color_space": "CMYK"}, "Colour space 'CMYK' is not known. There are: sRGB"),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        InputImpl.VideoFromComponents(parts()).save_to(str(tmp_path / "x.mp4"), **options)


def test_a_video_that_cannot_be_finished_leaves_no_file(tmp_path):
    broken = parts(channels=3)
    with pytest.raises(ValueError, match="3 channels cannot be saved"):
        InputImpl.VideoFromComponents(broken).save_to(str(tmp_path / "x.mp4"))
    assert list(tmp_path.iterdir()) == []


def test_a_file_without_pictures_says_so(tmp_path):
    from comfy_api.latest.ui.audio import write_audio

    path = str(tmp_path / "a.flac")
    write_audio(path, torch.zeros(1, 800), 8000, format="flac", quality="", metadata={})
    with pytest.raises(ValueError, match="has no video in it"):
        InputImpl.VideoFromFile(path).get_dimensions()


def test_containers_and_codecs_can_be_chosen_from():
    assert Types.VideoCodec.as_input() == ["auto", "h264", "av1"]
    assert Types.VideoContainer.as_input() == ["auto", "mp4", "mkv", "webm"]
    assert [Types.VideoContainer.get_extension(kind) for kind in ("auto", "webm")] == ["mp4", "webm"]
