"""Tiny autoencoders in their author's layout give what the zoo's own give."""

import pytest
import torch
from diffusers import AutoencoderTiny

import comfy.sd
import comfy.taesd
from comfy.errors import ModelFileError
from comfy.taesd.taesd import TAESD, weights_of


def tiny_autoencoder(latent_channels=4, features=8):
    """The zoo's, of few features and random weights that keep the size of what passes through."""
    torch.manual_seed(3)
    widths = (features,) * 4
    zoo = AutoencoderTiny(
        latent_channels=latent_channels, encoder_block_out_channels=widths, decoder_block_out_channels=widths
    )
    return zoo.eval().requires_grad_(False)


def author_files(zoo, folder, name="taesd", suffix="safetensors"):
    """Its weights as the two files that users have; the paths of encoder and decoder."""
    paths = []
    for half, module, first in (("encoder", zoo.encoder, 0), ("decoder", zoo.decoder, 1)):
        weights = {}
        for key, tensor in module.state_dict().items():
            _, number, rest = key.split(".", 2)
            weights[f"{int(number) + first}.{rest}"] = tensor
        paths.append(folder / f"{name}_{half}.{suffix}")
        if suffix == "safetensors":
            comfy.utils.save_torch_file(weights, paths[-1])
        else:
            torch.save(weights, paths[-1])
    return paths


@pytest.mark.parametrize(("name", "channels"), [("taesd", 4), ("taesdxl", 4), ("taesd3", 16), ("taef1", 16)])
def test_as_vae_it_gives_what_the_zoo_gives_for_scaled_latents(tmp_path, name, channels):
    zoo = tiny_autoencoder(channels)
    weights = weights_of(name, *author_files(zoo, tmp_path, name))
    assert "1.weight" in {key.removeprefix("taesd_decoder.") for key in weights}
    vae, (scale, shift) = comfy.sd.VAE(sd=weights), comfy.taesd.LATENTS[name]
    assert (vae.latent_channels, vae.downscale_ratio, vae.output_channels) == (channels, 8, 3)
    image = torch.rand(2, 16, 24, 3)
    latents = zoo.encode(image.movedim(-1, 1) * 2 - 1).latents
    torch.testing.assert_close(vae.encode(image), latents / scale + shift)
    decoded = zoo.decode(latents).sample.movedim(1, -1)
    expected = ((decoded + 1) / 2).clamp(0, 1)
    torch.testing.assert_close(vae.decode(latents / scale + shift), expected, rtol=1e-4, atol=1e-5)


def test_a_half_alone_and_pickled_files_load(tmp_path):
    zoo = tiny_autoencoder()
    encoder, decoder = author_files(zoo, tmp_path, suffix="pth")
    latents = torch.randn(1, 4, 2, 3)
    only = TAESD(None, decoder)
    assert only.taesd_encoder is None
    torch.testing.assert_close(only.decode(latents), zoo.decoder(latents))
    image = torch.rand(1, 3, 16, 8)
    torch.testing.assert_close(TAESD(encoder).encode(image), zoo.encoder(image))


def test_other_files_are_refused_with_what_is_wrong(tmp_path):
    encoder, decoder = author_files(tiny_autoencoder(), tmp_path)
    with pytest.raises(ModelFileError, match="TAESD decoder in this file"):
        TAESD(None, encoder)
    comfy.utils.save_torch_file({"conv_in.weight": torch.zeros(1)}, decoder)
    with pytest.raises(ModelFileError, match="no file of a TAESD decoder: .* 'conv_in.weight'"):
        TAESD(None, decoder)


def test_a_name_is_offered_when_both_its_files_are_there():
    names = ["taesd_decoder.pth", "taesd_decoder.safetensors", "taesd_encoder.pth", "taef1_decoder.pth"]
    assert comfy.taesd.available(names) == ["taesd"]
    assert comfy.taesd.files_of("taesd", names) == ("taesd_encoder.pth", "taesd_decoder.safetensors")
    assert comfy.taesd.files_of("taesdxl", names) is None
