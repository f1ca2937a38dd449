"""Sets of pictures, videos and texts: read, written, changed, shuffled, encoded and kept."""

import numpy as np
import pytest
import torch
from PIL import Image

import folder_paths
from comfy_api.latest import InputImpl, Types
from comfy_extras import dataset_files as files
from comfy_extras import dataset_texts as words
from comfy_extras import dataset_training as training
from comfy_extras import dataset_videos as videos
from comfy_extras import nodes_dataset as nodes


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Input, output and datasets folders of the test's own."""
    for name in ("input", "output"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(folder_paths, f"{name}_directory", str(tmp_path / name))
    monkeypatch.setitem(
        folder_paths.folder_names_and_paths, "datasets", ([str(tmp_path / "datasets")], set())
    )
    return tmp_path


def gray(*levels, side=8):
    return [torch.full((1, side, side, 3), level / 255) for level in levels]


def levels_of(images):
    return [round(image.mean().item() * 255) for image in images]


def put(folder, level, text=None):
    folder.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (level,) * 3).save(folder)
    if text is not None:
        folder.with_suffix(".txt").write_text(text)


def test_pictures_of_a_folder_come_in_the_order_of_their_names(folders):
    for name, level in (("b.png", 2), ("a.PNG", 1), ("c.webp", 3)):
        put(folders / "input" / "set" / name, level)
    (folders / "input" / "set" / "notes.md").write_text("x")
    assert levels_of(files.LoadImageDataSetFromFolderNode.execute("set")[0]) == [1, 2, 3]


def test_captions_and_repeated_folders(folders):
    root = folders / "input" / "set"
    put(root / "a.png", 1, " one \n")
    put(root / "3_cats" / "b.png", 2, "cat")
    put(root / "dogs" / "c.png", 3)
    images, texts = files.LoadImageTextDataSetFromFolderNode.execute("set").args
    assert levels_of(images) == [1, 2, 2, 2, 3] and texts == ["one", "cat", "cat", "cat", ""]


@pytest.mark.parametrize("name", ["../output", "/etc", "set/../../output"])
@pytest.mark.parametrize(
    "node", [files.LoadImageDataSetFromFolderNode, files.LoadVideoTextDataSetFromFolderNode]
)
def test_no_folder_outside_is_read(folders, name, node):
    with pytest.raises(ValueError, match="leads out of"):
        node.execute(name)


def test_a_folder_without_pictures_is_named(folders):
    (folders / "input" / "empty").mkdir()
    with pytest.raises(ValueError, match="no file in .*empty"):
        files.LoadImageDataSetFromFolderNode.execute("empty")


def test_pictures_are_saved_with_their_texts(folders):
    batch = torch.cat(gray(10, 20))
    save = files.SaveImageTextDataSetToFolderNode.execute
    save([batch, *gray(30)], ["new/set"], ["p"], ["overwrite"], ["ten", "twenty"])
    folder = folders / "output" / "new" / "set"
    assert sorted(path.name for path in folder.iterdir()) == [
        "p_00000.png", "p_00000.txt", "p_00001.png", "p_00001.txt", "p_00002.png",
    ]  # fmt: skip
    with Image.open(folder / "p_00002.png") as file:
        assert file.getpixel((0, 0)) == (30, 30, 30)
    files.SaveImageDataSetToFolderNode.execute(gray(1), ["new/set"], ["p"], ["increment"])
    assert len(list(folder.glob("*.png"))) == 4


@pytest.mark.parametrize(("folder", "prefix"), [("../out", "p"), ("set", "../../p")])
def test_nothing_is_written_outside(folders, folder, prefix):
    with pytest.raises(ValueError, match="leads out of"):
        files.SaveImageDataSetToFolderNode.execute(gray(1), [folder], [prefix], ["overwrite"])
    assert not list(folders.rglob("*.png"))


# --- pictures ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("node", "length", "shape"), [
    (nodes.ResizeImagesByShorterEdgeNode, 10, (10, 20)), (nodes.ResizeImagesByLongerEdgeNode, 10, (5, 10)),
])  # fmt: skip
def test_one_side_has_the_length(node, length, shape):
    assert node.execute(torch.rand(2, 20, 40, 3), length)[0].shape == (2, *shape, 3)


def test_the_middle_is_cut_out():
    image = torch.rand(2, 20, 31, 3)
    assert torch.equal(nodes.CenterCropImagesNode.execute(image, 10, 8)[0], image[:, 6:14, 10:20])
    assert torch.equal(nodes.CenterCropImagesNode.execute(image, 100, 8)[0], image[:, 6:14])


def test_a_random_part_follows_its_seed():
    image = torch.rand(2, 20, 30, 3)
    state = np.random.get_state()[1].tolist()
    first, again = (nodes.RandomCropImagesNode.execute(image, 8, 6, 2**63 + 1)[0] for _ in range(2))
    random = np.random.RandomState((2**63 + 1) % (2**32 - 1))
    left, top = random.randint(0, 23), random.randint(0, 15)
    assert torch.equal(first, image[:, top : top + 6, left : left + 8]) and torch.equal(first, again)
    assert np.random.get_state()[1].tolist() == state  # others' random numbers are left alone


def test_values_are_adjusted():
    image = torch.tensor([[[[0.2, 0.5, 0.8]]]])
    for node, values, wanted in (
        (nodes.NormalizeImagesNode, (0.5, 0.5), [-0.6, 0.0, 0.6]),
        (nodes.AdjustBrightnessNode, (1.5,), [0.3, 0.75, 1.0]),
        (nodes.AdjustContrastNode, (2.0,), [0.0, 0.5, 1.0]),
    ):
        assert node.execute(image, *values)[0][0, 0, 0].tolist() == pytest.approx(wanted, abs=1e-6)


def test_pictures_and_texts_are_shuffled_together():
    order = np.random.RandomState(5).permutation(6).tolist()
    images = gray(*range(6))
    assert levels_of(nodes.ShuffleDatasetNode.execute([torch.cat(images[:4]), *images[4:]], [5])[0]) == order
    shuffled, texts = nodes.ShuffleImageTextDatasetNode.execute(images, list("012345"), [5]).args
    assert levels_of(shuffled) == order and texts == [str(number) for number in order]
    moved, told = videos.ShuffleVideoTextDatasetNode.execute(list("abcdef"), list("012345"), [5]).args
    assert "".join(moved) == "".join("abcdef"[number] for number in order) and told == texts
    assert videos.ShuffleVideoDatasetNode.execute(list("abcdef"), [5])[0] == moved


def test_pictures_that_look_alike_are_left_out():
    ramp = torch.linspace(0, 1, 64).view(1, 1, 64, 1).expand(1, 64, 64, 3)
    noisy = (ramp + 0.02 * torch.rand(ramp.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    kept = nodes.ImageDeduplicationNode.execute([torch.cat((ramp, noisy)), ramp.flip(2)], [0.95])[0]
    assert len(kept) == 2 and torch.equal(kept[0], ramp) and torch.equal(kept[1], ramp.flip(2))
    assert len(nodes.ImageDeduplicationNode.execute([ramp, ramp.flip(2)], [0.0])[0]) == 1


def test_a_grid_has_its_cells_in_order():
    grid = nodes.ImageGridNode.execute(gray(10, 20, 30), [2], [32], [40], [4])[0]
    assert grid.shape == (1, 84, 68, 3)
    cells = [grid[0, y, x, 0].item() * 255 for y, x in ((5, 5), (5, 40), (50, 5), (50, 40), (41, 5))]
    assert cells == pytest.approx([10, 20, 30, 0, 0], abs=0.01)
    with pytest.raises(ValueError, match="no picture"):
        nodes.ImageGridNode.execute([], [2], [32], [40], [4])


def test_lists_become_one():
    assert levels_of(nodes.MergeImageListsNode.execute([torch.cat(gray(1, 2)), *gray(3)])[0]) == [1, 2, 3]


@pytest.mark.parametrize(("node", "values", "wanted"), [
    (words.TextToLowercaseNode, (), " some text "), (words.TextToUppercaseNode, (), " SOME TEXT "),
    (words.TruncateTextNode, (5,), " Some"), (words.AddTextPrefixNode, ("a",), "a Some Text "),
    (words.AddTextSuffixNode, ("z",), " Some Text z"),
    (words.ReplaceTextNode, ("Text", "word"), " Some word "),
    (words.StripWhitespaceNode, (), "Some Text"),
])  # fmt: skip
def test_texts_are_changed(node, values, wanted):
    assert node.execute(" Some Text ", *values)[0] == wanted


# --- videos -----------------------------------------------------------------------------------------------


@pytest.fixture(params=["in memory", "in a file"])
def video(request, tmp_path):
    """Twelve frames, each 20 levels lighter than the one before."""
    images = torch.cat(gray(*range(0, 240, 20), side=32))
    made = InputImpl.VideoFromComponents(Types.VideoComponents(images=images, frame_rate=4))
    if request.param == "in memory":
        return made
    path = tmp_path / "v.mp4"
    made.save_to(str(path))
    return InputImpl.VideoFromFile(str(path))


def frames_of(video):
    """Numbers of the frames of a video."""
    return [round(image.mean().item() * 255 / 20) for image in video.get_components().images]


@pytest.mark.parametrize(("count", "strategy", "wanted"), [
    (3, "head", [0, 1, 2]), (2, "tail", [10, 11]), (4, "uniform", [0, 4, 7, 11]), (1, "uniform", [6]),
    (99, "uniform", list(range(12))),
    (4, "random", sorted(np.random.RandomState(7).choice(12, size=4, replace=False).tolist())),
])  # fmt: skip
def test_frames_are_taken(video, count, strategy, wanted):
    assert frames_of(videos.VideoFrameSampleNode.execute(video, count, strategy, 7)[0]) == wanted


def test_frames_of_a_part_are_counted_from_its_beginning(video):
    part = videos.VideoTemporalCropNode.execute(video, 4, 5)[0]
    assert frames_of(part) == [4, 5, 6, 7, 8]
    assert frames_of(videos.VideoFrameSampleNode.execute(part, 3, "uniform", 0)[0]) == [4, 6, 8]


def test_a_part_ends_with_the_video(video):
    assert frames_of(videos.VideoTemporalCropNode.execute(video, 10, 50)[0]) == [10, 11]
    assert frames_of(videos.VideoTemporalCropNode.execute(video, 99, 5)[0]) == [11]


def test_a_random_part_of_a_video(video):
    first = np.random.RandomState(3).randint(0, 8)
    part = videos.VideoRandomTemporalCropNode.execute(video, 5, 3)[0]
    assert frames_of(part) == list(range(first, first + 5))


def test_videos_of_a_folder_with_their_texts(folders):
    (folders / "input" / "set").mkdir()
    images = torch.cat(gray(0, 100, side=32))
    made = InputImpl.VideoFromComponents(Types.VideoComponents(images=images, frame_rate=2))
    made.save_to(str(folders / "input" / "set" / "v.mp4"))
    (folders / "input" / "set" / "v.txt").write_text("a video")
    found, texts = files.LoadVideoTextDataSetFromFolderNode.execute("set").args
    assert texts == ["a video"] and found[0].get_frame_count() == 2
    assert files.LoadVideoDataSetFromFolderNode.execute("set")[0][0].get_dimensions() == (32, 32)


# --- training data ----------------------------------------------------------------------------------------


class Vae:
    def encode(self, pixels):
        return pixels.mean(dim=(1, 2, 3)).view(-1, 1, 1, 1)


class Clip:
    def tokenize(self, text):
        return text

    def encode_from_tokens_scheduled(self, tokens):
        return [[torch.tensor([float(len(tokens))]), {"pooled_output": None}]]


@pytest.mark.parametrize(("texts", "lengths"), [
    (["a", "bc", "a"], [1, 2, 1]), (["abc"], [3, 3, 3]), (None, [0, 0, 0]), ([], [0, 0, 0]),
])  # fmt: skip
def test_pictures_and_texts_are_encoded(texts, lengths):
    images = [torch.cat((image, image), dim=-1) for image in gray(51, 102, 153)]  # more than three channels
    latents, conditioning = training.MakeTrainingDataset.execute(images, [Vae()], [Clip()], texts).args
    assert [latent["samples"].item() for latent in latents] == pytest.approx([0.2, 0.4, 0.6])
    assert [entry[0][0].item() for entry in conditioning] == lengths


def test_texts_must_be_as_many_as_pictures():
    with pytest.raises(ValueError, match="2 texts for 3 pictures"):
        training.MakeTrainingDataset.execute(gray(1, 2, 3), [Vae()], [Clip()], ["a", "b"])


def samples(*sizes):
    latents = [{"samples": torch.full((1, 4, *size), float(number))} for number, size in enumerate(sizes)]
    return latents, [[[torch.tensor([number]), {}]] for number in range(len(sizes))]


def test_training_data_is_saved_and_loaded(folders):
    latents, conditioning = samples((2, 2), (2, 3), (3, 2))
    training.SaveTrainingDataset.execute(latents, conditioning, ["project/run"], [2])
    names = sorted(path.name for path in (folders / "datasets" / "project" / "run").iterdir())
    assert names == ["metadata.json", "shard_0000.pkl", "shard_0001.pkl"]
    options = training.LoadTrainingDataset.INPUT_TYPES()["required"]["folder_name"][1]["options"]
    assert options == ["project/run"]
    loaded, entries = training.LoadTrainingDataset.execute("project/run").args
    assert [latent["samples"].shape[-2:] for latent in loaded] == [(2, 2), (2, 3), (3, 2)]
    assert [entry[0][0].item() for entry in entries] == [0, 1, 2]


@pytest.mark.parametrize(
    ("name", "reason"), [("..", "leads out of"), (".", "Name a folder"), ("", "Name a folder")]
)
def test_training_data_needs_a_folder_of_its_own(folders, name, reason):
    with pytest.raises(ValueError, match=reason):
        training.SaveTrainingDataset.execute(*samples((2, 2)), [name], [2])


def test_data_that_is_not_there_is_named(folders):
    with pytest.raises(ValueError, match="no training data in .*gone"):
        training.LoadTrainingDataset.execute("gone")


def test_a_file_that_would_run_code_is_refused(folders):
    folder = folders / "datasets" / "bad"
    folder.mkdir(parents=True)
    torch.save({"latents": [np.random.RandomState], "conditioning": []}, folder / "shard_0000.pkl")
    import pickle

    with pytest.raises(pickle.UnpicklingError):
        training.LoadTrainingDataset.execute("bad")


def test_latents_of_one_size_are_put_together():
    latents, conditioning = samples((2, 2), (2, 3), (2, 2))
    batches, entries = training.ResolutionBucket.execute(latents, conditioning).args
    assert [batch["samples"].shape for batch in batches] == [(2, 4, 2, 2), (1, 4, 2, 3)]
    assert [[entry[0].item() for entry in bucket] for bucket in entries] == [[0, 2], [1]]
    with pytest.raises(ValueError, match="3 latents and 2 conditionings"):
        training.ResolutionBucket.execute(latents, conditioning[:2])
