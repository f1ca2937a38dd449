"""The core nodes, on a real tiny checkpoint and real files."""

import json
import subprocess
import sys

import pytest
import torch
from PIL import Image

import comfy.cli_args
import comfy.picture_files
import comfy.utils
import folder_paths
import nodes
from comfy import sampler_names
from tests.comfy import tiny_sd1
from tests.comfy.test_taesd import author_files, tiny_autoencoder


@pytest.fixture(autouse=True)
def folders(tmp_path):
    """Input, output and temp folders of the test's own."""
    kinds = ("input", "output", "temp")
    before = {kind: folder_paths.get_directory_by_type(kind) for kind in kinds}
    for kind in kinds:
        (tmp_path / kind).mkdir()
        getattr(folder_paths, f"set_{kind}_directory")(str(tmp_path / kind))
    yield tmp_path
    for kind, path in before.items():
        getattr(folder_paths, f"set_{kind}_directory")(path)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """(MODEL, CLIP, VAE) from a checkpoint file in the models folder."""
    import safetensors.torch

    folder = tmp_path_factory.mktemp("checkpoints")
    safetensors.torch.save_file(tiny_sd1.checkpoint(), folder / "tiny.safetensors")
    paths = folder_paths.folder_names_and_paths["checkpoints"][0]
    folder_paths.add_model_folder_path("checkpoints", str(folder))
    yield nodes.CheckpointLoaderSimple().load_checkpoint("tiny.safetensors")
    paths.remove(str(folder))


def gradient(height=16, width=24, channels=3):
    """A picture without two equal rows or columns."""
    count = height * width * channels
    return torch.linspace(0, 1, count).reshape(1, height, width, channels)


def latent(height=8, width=16, batch=2):
    count = batch * 4 * height * width
    return {"samples": torch.arange(count, dtype=torch.float32).reshape(batch, 4, height, width)}


# --- all nodes ------------------------------------------------------------------------------------


def test_nodes_and_their_inputs_are_listed_without_torch_and_pillow():
    code = (
        "import sys, nodes; [c.INPUT_TYPES() for c in nodes.NODE_CLASS_MAPPINGS.values()]; "
        "assert not {'torch', 'numpy', 'PIL', 'diffusers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", sorted(nodes.NODE_CLASS_MAPPINGS))
def test_a_node_declares_what_the_ui_needs(name):
    node = nodes.NODE_CLASS_MAPPINGS[name]
    inputs = node.INPUT_TYPES()
    assert callable(getattr(node, node.FUNCTION))
    assert node.CATEGORY
    assert isinstance(node.RETURN_TYPES, tuple)
    assert node.__name__ == name
    assert node.DESCRIPTION.endswith(".")
    for declared in inputs["required"].values():
        assert isinstance(declared[0], (str, list))


def test_samplers_that_a_pack_adds_are_in_the_list(monkeypatch):
    monkeypatch.setattr(sampler_names, "SAMPLER_NAMES", sampler_names.SAMPLER_NAMES)
    sampler_names.SAMPLER_NAMES.append("of a pack")
    try:
        assert "of a pack" in nodes.KSampler.INPUT_TYPES()["required"]["sampler_name"][0]
    finally:
        sampler_names.SAMPLER_NAMES.remove("of a pack")


# --- from prompt to picture -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def sampled(loaded):
    """(LATENT, IMAGE) of one prompt."""
    model, clip, vae = loaded
    with torch.inference_mode():
        sides = [nodes.CLIPTextEncode().encode(clip, text)[0] for text in ("a red circle", "")]
        (empty,) = nodes.EmptyLatentImage().generate(64, 32, 2)
        (latents,) = nodes.KSampler().sample(model, 1, 2, 5.0, "euler", "normal", *sides, empty)
        return latents, nodes.VAEDecode().decode(vae, latents)[0]


def test_a_prompt_becomes_pictures(sampled):
    latents, images = sampled
    assert latents["samples"].shape == (2, 4, 4, 8)
    assert images.shape == (2, 16, 32, 3)
    assert 0 <= images.min() < images.max() <= 1


def test_a_picture_goes_through_the_vae_whole_and_in_tiles(loaded, sampled):
    latents, images = sampled
    with torch.inference_mode():
        (tiled,) = nodes.VAEDecodeTiled().decode(loaded[2], latents, 64, 16)
        (encoded,) = nodes.VAEEncode().encode(loaded[2], images)
        (in_tiles,) = nodes.VAEEncodeTiled().encode(loaded[2], images, 64, 16)
    assert torch.allclose(tiled, images, atol=1e-4)
    assert encoded["samples"].shape == in_tiles["samples"].shape == (2, 4, 4, 8)


def test_the_masked_part_of_a_picture_is_painted_anew(loaded, sampled):
    mask = torch.zeros(1, 16, 32)
    mask[:, 4:8, 4:8] = 1
    with torch.inference_mode():
        (masked,) = nodes.VAEEncodeForInpaint().encode(loaded[2], sampled[1], mask, grow_mask_by=2)
        sides = nodes.InpaintModelConditioning().encode([[1, {}]], [[2, {}]], sampled[1], loaded[2], mask)
    assert masked["noise_mask"].sum() == 25
    assert sides[0][0][1]["concat_mask"].shape == (1, 1, 16, 32)
    assert set(sides[2]) == {"samples", "noise_mask"}


def test_two_samplers_share_the_steps_of_one_picture(loaded):
    model, clip, _ = loaded
    with torch.inference_mode():
        sides = [nodes.CLIPTextEncode().encode(clip, text)[0] for text in ("a red circle", "")]
        (empty,) = nodes.EmptyLatentImage().generate(64, 64)
        node = nodes.KSamplerAdvanced()
        settings = (1, 4, 5.0, "euler", "normal", *sides)
        (whole,) = node.sample(model, "enable", *settings, empty, 0, 10000, "disable")
        (half,) = node.sample(model, "enable", *settings, empty, 0, 2, "enable")
        (rest,) = node.sample(model, "disable", *settings, half, 2, 10000, "disable")
    assert torch.allclose(rest["samples"], whole["samples"], atol=1e-3)


def test_an_earlier_layer_of_the_text_encoder_gives_another_conditioning(loaded):
    clip = loaded[1]
    with torch.inference_mode():
        (skipped,) = nodes.CLIPSetLastLayer().set_last_layer(clip, -2)
        both = [nodes.CLIPTextEncode().encode(c, "a red circle")[0][0][0] for c in (clip, skipped)]
    assert not torch.allclose(*both)


def test_a_checkpoint_without_text_encoder_says_so():
    with pytest.raises(RuntimeError, match="this checkpoint has no text encoder. Load one"):
        nodes.CLIPTextEncode().encode(None, "a red circle")


# --- conditioning ---------------------------------------------------------------------------------


def cond(value, length=4, **extras):
    return [[torch.full((1, length, 3), float(value)), extras]]


def test_conditioning_is_combined_and_appended():
    first, second = cond(1), cond(2)
    (both,) = nodes.ConditioningCombine().combine(first, second)
    assert both[0] is first[0]
    assert both[1] is second[0]
    (joined,) = nodes.ConditioningConcat().concat(cond(1), cond(2, 2))
    assert joined[0][0][0, :, 0].tolist() == [1, 1, 1, 1, 2, 2]


def test_conditioning_is_averaged_with_the_shorter_one_padded(caplog):
    pooled = [{"pooled_output": torch.full((1, 2), v)} for v in (1.0, 3.0)]
    (mixed,) = nodes.ConditioningAverage().addWeighted(
        cond(1, **pooled[0]), [*cond(2, 2, **pooled[1]), *cond(9)], 0.25
    )
    assert mixed[0][0][0, :, 0].tolist() == [1.75, 1.75, 0.25, 0.25]
    assert mixed[0][1]["pooled_output"].tolist() == [[2.5, 2.5]]
    assert "uses only the first of the 2" in caplog.text


@pytest.mark.parametrize(
    ("node", "arguments", "values"),
    [
        ("ConditioningSetArea", (64, 128, 8, 16, 2.0), {"area": (16, 8, 2, 1), "strength": 2.0}),
        (
            "ConditioningSetAreaPercentage",
            (0.5, 0.25, 0.1, 0.2, 1.0),
            {"area": ("percentage", 0.25, 0.5, 0.2, 0.1)},
        ),
        ("ConditioningSetAreaStrength", (3.0,), {"strength": 3.0}),
    ],
)
def test_a_conditioning_is_given_a_place(node, arguments, values):
    before = cond(1)
    (after,) = nodes.NODE_CLASS_MAPPINGS[node]().append(before, *arguments)
    assert after[0][1].items() >= values.items()
    assert before[0][1] == {}


def test_a_conditioning_is_given_a_mask_a_time_and_nothing():
    (masked,) = nodes.ConditioningSetMask().append(cond(1), torch.ones(4, 4), "mask bounds", 0.5)
    assert masked[0][1]["mask"].shape == (1, 4, 4)
    assert masked[0][1]["set_area_to_bounds"] is True
    (timed,) = nodes.ConditioningSetTimestepRange().set_range(cond(1), 0.1, 0.6)
    assert timed[0][1] == {"start_percent": 0.1, "end_percent": 0.6}
    (zero,) = nodes.ConditioningZeroOut().zero_out(cond(1, pooled_output=torch.ones(1, 2)))
    assert not zero[0][0].any()
    assert not zero[0][1]["pooled_output"].any()


# --- latents --------------------------------------------------------------------------------------


def test_latents_taken_from_a_batch_keep_their_noise():
    batch = {**latent(batch=3), "noise_mask": torch.arange(2.0).reshape(2, 1, 1, 1)}
    (one,) = nodes.LatentFromBatch().frombatch(batch, 2, 5)
    assert torch.equal(one["samples"], batch["samples"][2:])
    assert one["batch_index"] == [2]
    assert one["noise_mask"].flatten().tolist() == [0.0]
    assert nodes.LatentFromBatch().frombatch({**batch, "batch_index": [7, 8, 9]}, 1, 1)[0]["batch_index"] == [
        8
    ]


def test_a_repeated_batch_gets_other_noise():
    batch = {**latent(batch=2), "batch_index": [3, 4], "noise_mask": torch.arange(2.0).reshape(2, 1, 1, 1)}
    (out,) = nodes.RepeatLatentBatch().repeat(batch, 3)
    assert out["samples"].shape[0] == 6
    assert out["batch_index"] == [3, 4, 5, 6, 7, 8]
    assert out["noise_mask"].flatten().tolist() == [0.0, 1.0] * 3


@pytest.mark.parametrize(
    ("width", "height", "shape"),
    [(256, 128, (16, 32)), (0, 128, (16, 32)), (256, 0, (16, 32)), (0, 0, (8, 16)), (8, 8, (8, 8))],
)
def test_latents_are_scaled_to_pixels(width, height, shape):
    (out,) = nodes.LatentUpscale().upscale(latent(), "bilinear", width, height, "disabled")
    assert out["samples"].shape[2:] == shape


@pytest.mark.parametrize("node", ["EmptyLatentImage", "EmptyImage"])
def test_a_batch_that_no_memory_could_hold_is_refused_before_it_is_made(node, monkeypatch):
    monkeypatch.setattr("comfy.model_management.get_total_memory", lambda device=None: 32 << 20)
    make = nodes.NODE_CLASS_MAPPINGS[node]().generate
    make(512, 512, 4)
    with pytest.raises(ValueError, match=r"4096 (latents|pictures) of 512 x 512 need about .* GB of memory"):
        make(512, 512, 4096)


def test_latents_are_scaled_turned_mirrored_and_cut():
    samples = latent()["samples"]
    assert nodes.LatentUpscaleBy().upscale(latent(), "nearest-exact", 1.5)[0]["samples"].shape[2:] == (12, 24)
    (turned,) = nodes.LatentRotate().rotate(latent(), "90 degrees")
    assert torch.equal(turned["samples"][0, 0, 0], samples[0, 0, :, 0].flip(0))
    assert torch.equal(nodes.LatentRotate().rotate(latent(), "none")[0]["samples"], samples)
    (upside_down,) = nodes.LatentFlip().flip(latent(), "x-axis: vertically")
    assert torch.equal(upside_down["samples"][:, :, 0], samples[:, :, -1])
    (mirrored,) = nodes.LatentFlip().flip(latent(), "y-axis: horizontally")
    assert torch.equal(mirrored["samples"][..., 0], samples[..., -1])
    (cut,) = nodes.LatentCrop().crop(latent(16, 16), 64, 64, 128, 16)
    assert torch.equal(cut["samples"], latent(16, 16)["samples"][:, :, 2:10, 8:16])


def test_latents_are_pasted_and_blended():
    base, patch = {"samples": torch.zeros(1, 4, 16, 16)}, {"samples": torch.ones(1, 4, 8, 8)}
    (hard,) = nodes.LatentComposite().composite(base, patch, 64, 32)
    assert hard["samples"].sum() == 4 * 64
    assert hard["samples"][0, 0, 4, 8] == 1
    (soft,) = nodes.LatentComposite().composite(base, patch, 32, 32, feather=16)
    assert soft["samples"][0, 0, 4, 4:12].tolist() == pytest.approx(
        [0.25, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.25]
    )
    (over_the_edge,) = nodes.LatentComposite().composite(base, patch, 96, 96)
    assert over_the_edge["samples"].sum() == 4 * 16
    (mixed,) = nodes.LatentBlend().blend(base, patch, 0.25)
    assert mixed["samples"].unique().tolist() == [0.75]
    with pytest.raises(ValueError, match="blend_mode is 'add'"):
        nodes.LatentBlend().blend(base, patch, 0.5, "add")


def test_a_noise_mask_is_set_without_touching_the_original():
    before = latent()
    (after,) = nodes.SetLatentNoiseMask().set_mask(before, torch.ones(8, 16))
    assert after["noise_mask"].shape == (1, 1, 8, 16)
    assert "noise_mask" not in before


def test_saved_latents_are_loaded_again(folders):
    saved = nodes.SaveLatent().save(latent(), "mine", {"1": {}}, {"workflow": {"nodes": []}})
    name = saved["ui"]["latents"][0]["filename"]
    (again,) = nodes.LoadLatent().load(f"{name} [output]")
    assert torch.equal(again["samples"], latent()["samples"])
    assert nodes.LoadLatent.VALIDATE_INPUTS(f"{name} [output]") is True
    assert "Invalid latent file: gone.latent" in nodes.LoadLatent.VALIDATE_INPUTS("gone.latent")
    header = comfy.utils.safetensors_header(str(folders / "output" / name))
    assert json.loads(json.loads(header)["__metadata__"]["workflow"]) == {"nodes": []}


# --- saving pictures ------------------------------------------------------------------------------


def test_a_saved_picture_carries_prompt_and_workflow(folders):
    prompt, workflow = {"3": {"class_type": "KSampler"}}, {"nodes": [{"id": 3}], "extra": "é"}
    saved = nodes.SaveImage().save_images(gradient(), "ComfyUI", prompt, {"workflow": workflow})
    assert saved["ui"] == {
        "images": [{"filename": "ComfyUI_00001_.png", "subfolder": "", "type": "output"}]
    }
    assert torch.equal(saved["result"][0], gradient()), "the pictures are handed on"
    with Image.open(folders / "output" / "ComfyUI_00001_.png") as picture:
        assert json.loads(picture.text["prompt"]) == prompt
        assert json.loads(picture.text["workflow"]) == workflow
        pixels = torch.tensor(list(picture.get_flattened_data() if hasattr(picture, "get_flattened_data")
                                   else picture.getdata()))  # fmt: skip
    expected = (gradient()[0] * 255).to(torch.uint8).reshape(-1, 3)
    assert torch.equal(pixels.to(torch.uint8), expected)


def test_pictures_are_numbered_on_and_leave_nothing_else(folders):
    batch = gradient().repeat(2, 1, 1, 1)
    nodes.SaveImage().save_images(batch, "sub/a_%batch_num%")
    nodes.SaveImage().save_images(gradient(), "sub/a_0")
    names = sorted(path.name for path in (folders / "output" / "sub").iterdir())
    assert names == ["a_0_00001_.png", "a_0_00002_.png", "a_1_00002_.png"]


def test_no_metadata_is_written_when_that_is_asked(folders, monkeypatch):
    monkeypatch.setattr(comfy.cli_args.args, "disable_metadata", True)
    nodes.SaveImage().save_images(gradient(), "ComfyUI", {"1": {}}, {"workflow": {}})
    with Image.open(folders / "output" / "ComfyUI_00001_.png") as picture:
        assert picture.text == {}


def test_a_picture_that_cannot_be_written_leaves_nothing(folders, monkeypatch):
    def fail(*arguments):
        raise OSError("disk full")

    monkeypatch.setattr(comfy.picture_files.os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        nodes.SaveImage().save_images(gradient())
    assert list((folders / "output").iterdir()) == []


def test_a_preview_goes_to_the_temp_folder(folders):
    shown = nodes.PreviewImage().save_images(gradient())["ui"]["images"][0]
    assert shown["type"] == "temp"
    assert (folders / "temp" / shown["filename"]).exists()


# --- loading pictures -----------------------------------------------------------------------------


def save(folder, name, picture, **options):
    picture.save(folder / "input" / name, **options)
    return name


def test_a_picture_is_loaded_with_its_transparency_as_mask(folders):
    picture = Image.new("RGBA", (3, 2), (255, 0, 0, 255))
    picture.putpixel((2, 1), (0, 255, 0, 0))
    image, mask = nodes.LoadImage().load_image(save(folders, "a.png", picture))
    assert image.shape == (1, 2, 3, 3)
    assert image[0, 0, 0].tolist() == [1, 0, 0]
    assert mask.tolist() == [[[0, 0, 0], [0, 0, 1]]]


def test_a_picture_without_transparency_has_an_empty_mask(folders):
    _, mask = nodes.LoadImage().load_image(save(folders, "a.jpg", Image.new("L", (3, 2), 100)))
    assert mask.shape == (1, 64, 64)
    assert not mask.any()


def test_transparent_palette_pictures_have_a_mask(folders):
    picture = Image.new("P", (2, 2), 0)
    picture.putpalette([255, 0, 0, 0, 255, 0])
    picture.putpixel((1, 1), 1)
    _, mask = nodes.LoadImage().load_image(save(folders, "a.png", picture, transparency=1))
    assert mask.tolist() == [[[0, 0], [0, 1]]]


def test_an_animation_becomes_a_batch(folders):
    frames = [Image.new("RGB", (4, 4), (value, 0, 0)) for value in (0, 120, 240)]
    name = save(folders, "a.webp", frames[0], save_all=True, append_images=frames[1:], lossless=True)
    image, mask = nodes.LoadImage().load_image(name)
    assert image.shape[0] == mask.shape[0] == 3
    assert (image[:, 0, 0, 0] * 255).round().tolist() == [0, 120, 240]


def test_a_photo_is_turned_as_its_camera_was(folders):
    picture = Image.new("RGB", (4, 2))
    exif = Image.Exif()
    exif[0x0112] = 6
    image, _ = nodes.LoadImage().load_image(save(folders, "a.jpg", picture, exif=exif))
    assert image.shape == (1, 4, 2, 3)


def test_sixteen_bits_are_scaled_and_not_cut(folders):
    picture = Image.new("I;16", (2, 1))
    picture.putpixel((0, 0), 32768)
    image, _ = nodes.LoadImage().load_image(save(folders, "a.png", picture))
    assert image[0, 0, 0, 0] == pytest.approx(0.5, abs=0.01)


def test_a_truncated_picture_is_loaded_as_far_as_it_goes(folders):
    name = save(folders, "a.jpg", Image.effect_noise((64, 64), 90))
    path = folders / "input" / name
    path.write_bytes(path.read_bytes()[:-600])
    image, _ = nodes.LoadImage().load_image(name)
    assert image.shape == (1, 64, 64, 3)


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n broken"])
def test_a_file_that_is_no_picture_is_named(folders, content):
    (folders / "input" / "a.png").write_bytes(content)
    with pytest.raises(
        comfy.picture_files.UnreadablePicture, match="'a.png' cannot be read as a picture .*upload it"
    ):
        nodes.LoadImage().load_image("a.png")
    with pytest.raises(comfy.picture_files.UnreadablePicture, match="'a.png' cannot be read"):
        nodes.LoadImageMask().load_image("a.png", "red")


def test_a_picture_too_large_to_be_decoded_is_named(folders, monkeypatch):
    name = save(folders, "a.png", Image.new("L", (64, 64)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(comfy.picture_files.UnreadablePicture, match="'a.png'.*4096 pixels. exceeds limit"):
        nodes.LoadImage().load_image(name)


def test_a_missing_picture_is_refused_before_it_runs(folders):
    assert "Invalid image file: gone.png" in nodes.LoadImage.VALIDATE_INPUTS("gone.png")
    save(folders, "a.png", Image.new("RGB", (2, 2)))
    assert nodes.LoadImage.VALIDATE_INPUTS("a.png") is True
    assert nodes.LoadImageMask.VALIDATE_INPUTS("../a.png") is not True


def test_a_picture_has_changed_when_its_content_has(folders):
    save(folders, "a.png", Image.new("RGB", (2, 2)))
    first = nodes.LoadImage.IS_CHANGED("a.png")
    save(folders, "b.png", Image.new("RGB", (2, 2)))
    assert nodes.LoadImage.IS_CHANGED("b.png") == first
    save(folders, "a.png", Image.new("RGB", (2, 2), (1, 1, 1)))
    assert nodes.LoadImage.IS_CHANGED("a.png") != first


def test_pictures_of_other_folders_are_named_by_a_mark(folders):
    Image.new("RGB", (2, 2)).save(folders / "output" / "a.png")
    image, _ = nodes.LoadImageOutput().load_image("a.png [output]")
    assert image.shape == (1, 2, 2, 3)


def test_only_pictures_are_offered(folders):
    save(folders, "b.png", Image.new("RGB", (2, 2)))
    (folders / "input" / "a.txt").write_text("no picture")
    assert nodes.LoadImage.INPUT_TYPES()["required"]["image"][0] == ["b.png"]
    assert nodes.LoadImageMask.INPUT_TYPES()["required"]["image"][0] == ["a.txt", "b.png"]
    folder_paths.set_input_directory(str(folders / "gone"))
    assert nodes.LoadImage.INPUT_TYPES()["required"]["image"][0] == []


@pytest.mark.parametrize(("channel", "value"), [("red", 0.2), ("green", 0.4), ("blue", 0.6), ("alpha", 0.2)])
def test_a_channel_becomes_a_mask(folders, channel, value):
    name = save(folders, "a.png", Image.new("RGBA", (2, 2), (51, 102, 153, 204)))
    (mask,) = nodes.LoadImageMask().load_image(name, channel)
    assert mask.shape == (1, 2, 2)
    assert mask[0, 0, 0] == pytest.approx(value, abs=1e-6)


# --- changing pictures ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "shape"), [((48, 8), (8, 48)), ((0, 8), (8, 12)), ((12, 0), (8, 12)), ((0, 0), (16, 24))]
)
def test_pictures_are_scaled(size, shape):
    (out,) = nodes.ImageScale().upscale(gradient(), "bilinear", *size, "disabled")
    assert out.shape == (1, *shape, 3)


def test_pictures_are_scaled_by_a_factor_inverted_and_batched():
    assert nodes.ImageScaleBy().upscale(gradient(), "lanczos", 0.5)[0].shape == (1, 8, 12, 3)
    assert torch.allclose(nodes.ImageInvert().invert(gradient())[0], 1 - gradient())
    (batch,) = nodes.ImageBatch().batch(gradient(8, 8, 4), gradient(16, 24))
    assert batch.shape == (2, 8, 8, 4)
    assert (batch[1, ..., 3] == 1).all()


def test_an_empty_picture_has_its_colour():
    (image,) = nodes.EmptyImage().generate(4, 2, 3, 0xFF8000)
    assert image.shape == (3, 2, 4, 3)
    assert image[0, 0, 0].tolist() == pytest.approx([1.0, 128 / 255, 0.0])


def test_a_border_is_added_with_a_mask_that_fades_into_the_picture():
    image, mask = nodes.ImagePadForOutpaint().expand_image(gradient(), 8, 0, 0, 16, 4)
    assert image.shape == (1, 32, 32, 3)
    assert torch.equal(image[:, :16, 8:], gradient())
    assert mask.shape == (1, 32, 32)
    assert (mask[0, 16:] == 1).all()
    assert (mask[0, :, :8] == 1).all()
    assert mask[0, 0, 8:12].tolist() == pytest.approx([1, 0.5625, 0.25, 0.0625])
    assert (mask[0, :8, 12:] == 0).all()


def test_a_picture_too_small_for_the_fading_has_a_hard_mask():
    _, mask = nodes.ImagePadForOutpaint().expand_image(gradient(), 8, 0, 0, 0, 40)
    assert mask.unique().tolist() == [0.0, 1.0]


def test_the_vae_loader_opens_the_file_of_the_models_folder(tmp_path, monkeypatch):
    import safetensors.torch

    weights = {key.removeprefix("first_stage_model."): value for key, value in tiny_sd1.checkpoint().items()
               if key.startswith("first_stage_model.")}  # fmt: skip
    safetensors.torch.save_file(weights, tmp_path / "mine.safetensors")
    monkeypatch.setattr(folder_paths, "get_full_path_or_raise", lambda folder, name: str(tmp_path / name))
    (vae,) = nodes.VAELoader().load_vae("mine.safetensors")
    with torch.inference_mode():
        assert vae.decode(torch.zeros(1, 4, 4, 4)).shape == (1, 16, 16, 3)


def test_tiny_autoencoders_are_offered_and_load_when_both_files_are_there(tmp_path):
    paths = folder_paths.folder_names_and_paths["vae_approx"][0]
    folder_paths.add_model_folder_path("vae_approx", str(tmp_path))
    try:
        author_files(tiny_autoencoder(), tmp_path, "taesdxl")
        assert "taesdxl" in nodes.VAELoader.INPUT_TYPES()["required"]["vae_name"][0]
        assert "taesd" not in nodes.VAELoader.vae_list()
        (vae,) = nodes.VAELoader().load_vae("taesdxl")
        assert vae.decode(torch.zeros(1, 4, 2, 3)).shape == (1, 16, 24, 3)
        with pytest.raises(FileNotFoundError, match="taesd_encoder"):
            nodes.VAELoader().load_vae("taesd")
    finally:
        paths.remove(str(tmp_path))
