"""Previews of latents and the progress of a sampler."""

import subprocess
import sys

import pytest
import torch

import comfy.latent_formats
import comfy.progress_bar
import folder_paths
import latent_preview
from comfy.cli_args import LatentPreviewMethod, args
from tests.comfy.test_taesd import author_files, tiny_autoencoder
from tests.comfy.toy_model import toy_model


@pytest.fixture(autouse=True)
def method(monkeypatch):
    """The command line's preview method, put back after the test."""
    monkeypatch.setattr(args, "preview_method", LatentPreviewMethod.Auto)
    monkeypatch.setattr(latent_preview, "_method_before_override", None)
    monkeypatch.setattr(latent_preview, "_said_no_taesd", False)


def previewer(latent_format=None):
    return latent_preview.get_previewer(torch.device("cpu"), latent_format or comfy.latent_formats.SD15())


def test_the_module_does_not_load_torch():
    code = "import sys, latent_preview; assert not {'torch', 'PIL'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_latent_becomes_a_small_picture():
    kind, picture, longest = previewer().decode_latent_to_preview_image("JPEG", torch.zeros(2, 4, 8, 16))
    assert (kind, longest) == ("JPEG", args.preview_size)
    assert picture.size == (16, 8)
    assert picture.getpixel((0, 0)) == (127, 127, 127)


def test_colours_follow_the_factors():
    format_ = comfy.latent_formats.SD15()
    format_.latent_rgb_factors = [[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0], [0, 0, 0]]
    format_.latent_rgb_factors_bias = [0.0, 0.0, -1.0]
    latent = torch.zeros(1, 4, 1, 1)
    latent[:, 0], latent[:, 1] = 5.0, -5.0
    assert previewer(format_).decode_latent_to_preview(latent).getpixel((0, 0)) == (255, 0, 0)


def test_of_a_video_the_first_frame_is_shown():
    video = torch.zeros(1, 4, 3, 8, 8)
    assert previewer().decode_latent_to_preview(video).size == (8, 8)


def test_no_previews_when_not_wanted_or_not_possible():
    args.preview_method = LatentPreviewMethod.NoPreviews
    assert previewer() is None
    args.preview_method = LatentPreviewMethod.Latent2RGB
    assert previewer(comfy.latent_formats.LatentFormat()) is None


def test_taesd_falls_back_and_says_so_once(caplog):
    args.preview_method = LatentPreviewMethod.TAESD
    assert isinstance(previewer(), latent_preview.Latent2RGBPreviewer)
    previewer()
    assert caplog.text.count("TAESD previews are not available") == 1


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("none", "none"),
        ("latent2rgb", "latent2rgb"),
        ("default", "auto"),
        (None, "auto"),
        ("nonsense", "auto"),
    ],
)
def test_a_prompt_may_choose_its_previews_and_the_next_one_starts_afresh(override, expected):
    latent_preview.set_preview_method("taesd")
    latent_preview.set_preview_method(override)
    assert args.preview_method.value == expected


def test_a_callback_reports_each_step_with_a_preview(monkeypatch):
    seen = []
    monkeypatch.setattr(
        comfy.progress_bar,
        "PROGRESS_BAR_HOOK",
        lambda value, total, preview, node_id=None: seen.append((value, total, preview)),
    )
    kept = {}
    callback = latent_preview.prepare_callback(toy_model(), 4, kept)
    x0 = torch.zeros(1, 4, 8, 8)
    callback(0, x0, x0, 4)
    callback(1, x0, x0, 3)
    assert [(value, total) for value, total, _ in seen] == [(1, 4), (2, 3)]
    assert seen[0][2][0] == "JPEG"
    assert kept["x0"] is x0


def test_the_size_limit_is_that_of_the_options(monkeypatch):
    monkeypatch.setattr(args, "preview_size", 99)
    assert latent_preview.MAX_PREVIEW_RESOLUTION == 99
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = latent_preview.nonsense


# --- the tiny decoder -------------------------------------------------------------------------------


@pytest.fixture
def vae_approx(tmp_path):
    """A folder of the test's own for tiny autoencoders."""
    paths = folder_paths.folder_names_and_paths["vae_approx"][0]
    folder_paths.add_model_folder_path("vae_approx", str(tmp_path))
    yield tmp_path
    paths.remove(str(tmp_path))


def test_taesd_decodes_the_latent_as_the_model_samples_it(vae_approx):
    zoo = tiny_autoencoder()
    author_files(zoo, vae_approx)
    args.preview_method = LatentPreviewMethod.TAESD
    latents = torch.randn(2, 4, 3, 5)
    kind, picture, longest = previewer().decode_latent_to_preview_image("JPEG", latents)
    assert (kind, picture.size, longest) == ("JPEG", (40, 24), args.preview_size)
    expected = latent_preview.preview_to_image(zoo.decoder(latents[:1])[0].movedim(0, -1))
    assert picture.tobytes() == expected.tobytes()
    assert previewer().decode_latent_to_preview(latents[:, :, None]).tobytes() == picture.tobytes()
    assert previewer().taesd is previewer().taesd
    args.preview_method = LatentPreviewMethod.Auto
    assert isinstance(previewer(), latent_preview.Latent2RGBPreviewer)


def test_a_tiny_decoder_that_is_broken_costs_no_picture(vae_approx, caplog):
    (vae_approx / "taesd_decoder.safetensors").write_bytes(b"<html>sign in</html>")
    args.preview_method = LatentPreviewMethod.TAESD
    assert isinstance(previewer(), latent_preview.Latent2RGBPreviewer)
    assert "begins like a web page" in caplog.text
    assert previewer(comfy.latent_formats.LatentFormat()) is None
