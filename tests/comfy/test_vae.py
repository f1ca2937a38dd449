"""The VAE object: crops, batches, tiles, and tiles when memory runs out."""

import pytest
import torch

import comfy.model_management
import comfy.sd
from tests.comfy import tiny_sd1


@pytest.fixture(scope="module")
def vae():
    torch.manual_seed(5)
    return comfy.sd.VAE(sd=dict(tiny_sd1.tiny_vae().state_dict()))


def test_it_knows_its_numbers(vae):
    assert (vae.downscale_ratio, vae.upscale_ratio, vae.latent_channels, vae.output_channels) == (4, 4, 4, 3)
    assert vae.spacial_compression_encode() == vae.spacial_compression_decode() == 4
    assert vae.temporal_compression_decode() is None
    assert vae.model_size() == vae.get_ram_usage() > 0
    assert vae.process_output(vae.process_input(torch.tensor(0.25))).item() == pytest.approx(0.25)
    assert vae.patcher.model is vae.first_stage_model


def test_pictures_are_cropped_to_whole_latent_pixels_in_the_middle_and_lose_their_alpha(vae):
    pixels = torch.arange(11.0).reshape(1, 1, 11, 1).expand(1, 9, 11, 4)
    cropped = vae.vae_encode_crop_pixels(pixels)
    assert cropped.shape == (1, 8, 8, 3)
    assert cropped[0, 0, :, 0].tolist() == [1, 2, 3, 4, 5, 6, 7, 8]


def test_each_picture_of_a_batch_is_what_it_is_alone(vae, monkeypatch):
    monkeypatch.setattr(comfy.model_management, "get_free_memory", lambda device=None: 0)
    latents = torch.randn(3, 4, 3, 4)
    images = vae.decode(latents)
    assert images.shape == (3, 12, 16, 3) and 0 <= images.min() and images.max() <= 1
    torch.testing.assert_close(images[1:2], vae.decode(latents[1:2]))
    torch.testing.assert_close(vae.encode(images)[2:], vae.encode(images[2:]))


def test_tiles_give_about_the_same_picture(vae):
    latents = torch.randn(1, 4, 8, 8)
    whole, tiled = vae.decode(latents), vae.decode_tiled(latents, tile_x=6, tile_y=6, overlap=2)
    assert tiled.shape == whole.shape
    similarity = torch.corrcoef(torch.stack([tiled.flatten(), whole.flatten()]))[0, 1]
    assert similarity > 0.8  # random weights normalise each tile by its own mean
    image = torch.rand(1, 24, 24, 3)
    assert vae.encode_tiled(image, tile_x=16, tile_y=16, overlap=4).shape == vae.encode(image).shape
    small = torch.randn(1, 4, 3, 3)  # fits into every tile
    torch.testing.assert_close(vae.decode_tiled(small), vae.decode(small))


def test_when_memory_runs_out_it_goes_on_in_tiles_and_says_so(vae, monkeypatch, caplog):
    def limited(function, largest):
        def run(x):
            if max(x.shape[-2:]) > largest:
                raise comfy.model_management.OOM_EXCEPTION("out of memory")
            return function(x)

        return run

    def enlarge(z):
        return z[:, :3].repeat_interleave(4, 2).repeat_interleave(4, 3)

    def shrink(x):
        return torch.nn.functional.avg_pool2d(x, 4)[:, [0, 1, 2, 0]]

    monkeypatch.setattr(vae.first_stage_model, "decode", limited(enlarge, 128))
    monkeypatch.setattr(vae.first_stage_model, "encode", limited(shrink, 1024))
    latents, image = torch.randn(1, 4, 132, 4), torch.rand(1, 16, 1040, 3)
    torch.testing.assert_close(vae.decode(latents), vae.process_output(enlarge(latents)).movedim(1, -1))
    torch.testing.assert_close(vae.encode(image), shrink(vae.process_input(image.movedim(-1, 1))))
    assert caplog.text.count("going on in tiles") == 2


def test_other_errors_are_not_taken_for_a_lack_of_memory(vae, monkeypatch):
    def broken(x):
        raise RuntimeError("size mismatch")

    monkeypatch.setattr(vae.first_stage_model, "decode", broken)
    with pytest.raises(RuntimeError, match="size mismatch"):
        vae.decode(torch.randn(1, 4, 3, 3))


def test_one_frame_of_a_video_latent_is_a_picture(vae):
    latents = torch.randn(1, 4, 1, 3, 3)
    torch.testing.assert_close(vae.decode(latents), vae.decode(latents[:, :, 0]))


@pytest.mark.parametrize("overlap", [8, 16, 500])
def test_an_overlap_as_wide_as_a_tile_is_made_smaller(vae, overlap):
    image = torch.rand(1, 24, 28, 3)
    tiled = vae.encode_tiled(image, tile_x=16, tile_y=16, overlap=overlap)
    assert tiled.shape == vae.encode(image).shape and tiled.isfinite().all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_latents_that_are_no_numbers_are_refused_instead_of_giving_a_black_picture(vae, value):
    latents = torch.zeros(3, 4, 3, 3)
    latents[1, 2, 0, 0] = value
    for decode in (vae.decode, vae.decode_tiled):
        with pytest.raises(ValueError, match=r"no numbers \(NaN or infinity; in 1 of 3\).*try a lower cfg"):
            decode(latents)


def test_a_picture_smaller_than_a_latent_pixel_is_refused(vae):
    for encode in (vae.encode, vae.encode_tiled):
        with pytest.raises(ValueError, match="picture of 9 x 3 is too small.*one latent pixel of 4 x 4"):
            encode(torch.zeros(1, 3, 9, 3))
