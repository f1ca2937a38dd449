"""Rule 102: what is shown has the keys of the older interface, and files carry the workflow."""

import json
import os

import pytest
import torch
from PIL import Image

import folder_paths
from comfy.cli_args import args
from comfy_api.latest import io, ui
from comfy_api.latest.ui.audio import encoded_rate
from tests.comfy_execution.rig import Rig, node, nodes, schema_node

PROMPT, INFO = {"1": {"class_type": "X"}}, {"workflow": {"nodes": []}}


class Shown:
    """What `execute` gets, as far as metadata is concerned."""

    hidden = io.HiddenHolder(prompt=PROMPT, extra_pnginfo=INFO)


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    for kind in ("output", "temp", "input"):
        monkeypatch.setattr(folder_paths, f"{kind}_directory", str(tmp_path / kind))
        (tmp_path / kind).mkdir()
    return tmp_path


def path_of(folders, result):
    return folders / result["type"] / result["subfolder"] / result["filename"]


def test_saved_pictures_carry_prompt_and_workflow(folders):
    images = torch.zeros(2, 3, 5, 3)
    images[1, 0, 0] = torch.tensor([1.0, 0.5, 7.0])
    shown = ui.ImageSaveHelper.get_save_images_ui(images, "sub/pic%batch_num%", cls=Shown).as_dict()
    first, second = shown["images"]
    assert first == {"filename": "pic0_00001_.png", "subfolder": "sub", "type": "output"}
    assert (second.filename, second.subfolder, second.type) == (
        "pic1_00002_.png",
        "sub",
        io.FolderType.output,
    )
    with Image.open(path_of(folders, second)) as picture:
        assert picture.size == (5, 3) and picture.getpixel((0, 0)) == (255, 127, 255)
        assert json.loads(picture.text["prompt"]) == PROMPT
        assert json.loads(picture.text["workflow"]) == INFO["workflow"]


def test_files_carry_nothing_without_a_class_or_with_disable_metadata(folders, monkeypatch):
    images = torch.zeros(1, 2, 2, 3)
    plain = ui.ImageSaveHelper.save_images(images, "plain", io.FolderType.output)
    monkeypatch.setattr(args, "disable_metadata", True)
    hidden = ui.ImageSaveHelper.save_images(images, "plain", io.FolderType.output, Shown)
    for result in (*plain, *hidden):
        with Image.open(path_of(folders, result)) as picture:
            assert picture.text == {}
    assert plain[0] != hidden[0]


@pytest.mark.parametrize("kind", ["png", "webp"])
def test_animations_have_all_frames_and_the_workflow(folders, kind):
    images = torch.rand(3, 4, 4, 3, generator=torch.Generator().manual_seed(1))
    if kind == "png":
        shown = ui.ImageSaveHelper.get_save_animated_png_ui(images, "move", Shown, 5.0, 1)
    else:
        shown = ui.ImageSaveHelper.get_save_animated_webp_ui(images, "move", Shown, 5.0, True, 80, 0)
    assert shown.as_dict()["animated"] == (True,)
    path = path_of(folders, shown.results[0])
    with Image.open(path) as picture:
        assert picture.n_frames == 3
        assert picture.info.get("duration", 200) == 200
        if kind == "webp":
            exif = picture.getexif()
            assert exif[0x0110] == f"prompt:{json.dumps(PROMPT)}"
            assert exif[0x010F] == f"workflow:{json.dumps(INFO['workflow'])}"
    if kind == "png":
        assert b"comfworkflow\0" + json.dumps(INFO["workflow"]).encode() in path.read_bytes()


def test_a_single_frame_is_no_animation():
    shown = ui.ImageSaveHelper.get_save_animated_png_ui(torch.zeros(1, 2, 2, 3), "still", None, 5.0, 1)
    assert "animated" not in shown.as_dict()


def test_previews_of_pictures_and_masks_lie_in_the_temporary_folder(folders):
    preview = ui.PreviewImage(torch.ones(1, 2, 3, 3), cls=Shown).as_dict()
    assert preview["animated"] == (False,) and preview["images"][0]["type"] == "temp"
    mask = ui.PreviewMask(torch.full((2, 4, 5), 0.5)).as_dict()
    assert len(mask["images"]) == 2
    with Image.open(path_of(folders, mask["images"][1])) as picture:
        assert picture.size == (5, 4) and picture.getpixel((0, 0)) == (127, 127, 127)


@pytest.mark.parametrize(
    ("format", "quality"), [("flac", "128k"), ("mp3", "V0"), ("mp3", "320k"), ("opus", "64k")]
)
def test_sound_is_saved_with_the_workflow(folders, format, quality):
    import av

    wave = torch.sin(torch.arange(44100) / 20).repeat(1, 2, 1) * 0.5
    shown = ui.AudioSaveHelper.get_save_audio_ui(
        {"waveform": wave, "sample_rate": 44100}, "tone", Shown, format, quality
    ).as_dict()
    path = path_of(folders, shown["audio"][0])
    assert sorted(os.listdir(path.parent)) == [path.name]  # nothing unfinished beside it
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        assert stream.codec_context.name.startswith(format) and stream.layout.name == "stereo"
        assert stream.sample_rate == encoded_rate(format, 44100)
        metadata = {**container.metadata, **stream.metadata}
        assert json.loads(metadata.get("prompt") or metadata["PROMPT"]) == PROMPT
        samples = sum(frame.samples for frame in container.decode(stream))
    assert samples / stream.sample_rate == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize(("rate", "encoded"), [(8000, 8000), (22050, 24000), (44100, 48000), (96000, 48000)])
def test_opus_takes_the_next_rate_that_it_knows(rate, encoded):
    assert encoded_rate("opus", rate) == encoded and encoded_rate("flac", rate) == rate


def test_several_sounds_get_files_of_their_own_and_none_is_overwritten():
    audio = {"waveform": torch.zeros(2, 1, 100), "sample_rate": 8000}
    names = [
        result.filename
        for _ in range(2)
        for result in ui.AudioSaveHelper.save_audio(audio, "tone", io.FolderType.output)
    ]
    assert len(set(names)) == 4


@pytest.mark.parametrize(
    ("audio", "format", "message"),
    [
        (
            {"waveform": torch.zeros(1, 1, 8), "sample_rate": 8000},
            "wav",
            "cannot be saved as 'wav'. There are: flac",
        ),
        (
            {"waveform": torch.zeros(1, 3, 8), "sample_rate": 8000},
            "flac",
            "3 channels cannot be saved. Mix it",
        ),
    ],
)
def test_sound_that_cannot_be_saved_is_refused(audio, format, message):
    with pytest.raises(ValueError, match=message):
        ui.AudioSaveHelper.save_audio(audio, "tone", io.FolderType.output, format=format)


def test_other_things_are_shown_by_their_keys(folders):
    saved = ui.SavedResult("a.mp4", "", io.FolderType.output)
    assert ui.PreviewVideo([saved]).as_dict() == {"images": [saved], "animated": (True,)}
    assert ui.PreviewText("hello").as_dict() == {"text": ("hello",)}
    assert ui.PreviewUI3D("a.glb", {"fov": 9}).as_dict() == {"result": ["a.glb", {"fov": 9}, None]}
    assert ui.PreviewUI3DAdvanced("a.glb", {}, [1]).as_dict() == {"result": ["a.glb", {}, [1]]}
    background = ui.PreviewUI3D("a.glb", {}, bg_image=torch.zeros(1, 2, 2, 3)).as_dict()["result"][2]
    assert (folders / background).is_file() and background.startswith("temp/bg_")
    sound = ui.PreviewAudio({"waveform": torch.zeros(1, 1, 100), "sample_rate": 8000}).as_dict()["audio"]
    assert sound[0]["type"] == "temp"


def test_rule_102_history_of_a_schema_node_and_of_the_older_preview_have_one_shape(monkeypatch):
    rig = Rig()
    picture = schema_node(lambda cls: io.NodeOutput(torch.zeros(1, 2, 2, 3)), outputs=[io.Image.Output()])
    shows = schema_node(
        lambda cls, images: io.NodeOutput(ui=ui.PreviewImage(images, cls=cls)),
        [io.Image.Input("images")],
        (),
        is_output_node=True,
    )
    for name, klass in {"Picture": picture, "Shows": shows}.items():
        monkeypatch.setitem(nodes.NODE_CLASS_MAPPINGS, name, klass)
    prompt = {
        "1": node("Picture"),
        "2": node("Shows", images=["1", 0]),
        "3": node("PreviewImage", images=["1", 0]),
    }
    outputs = rig.run(prompt).outputs
    new, old = outputs["2"], outputs["3"]
    assert old["images"][0].keys() == new["images"][0].keys() and new["animated"] == [False]
