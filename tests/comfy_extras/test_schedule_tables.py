"""Noise levels of published searches and formulas, and nodes that make conditioning for one family."""

import math

import pytest
import torch
from scipy import stats

from comfy_extras import gits_levels, nodes_gits, nodes_optimalsteps
from comfy_extras.nodes_flux import EmptyFlux2LatentImage, Flux2Scheduler
from comfy_extras.nodes_gits import GITSScheduler
from comfy_extras.nodes_hidream import CLIPTextEncodeHiDream
from comfy_extras.nodes_ideogram4 import Ideogram4Scheduler
from comfy_extras.nodes_ip2p import InstructPixToPixConditioning
from comfy_extras.nodes_lotus import LotusConditioning
from comfy_extras.nodes_lumina2 import CLIPTextEncodeLumina2
from comfy_extras.nodes_optimalsteps import OptimalStepsScheduler
from comfy_extras.nodes_pixart import CLIPTextEncodePixArtAlpha
from comfy_extras.nodes_sd3 import CLIPTextEncodeSD3
from comfy_extras.nodes_sdupscale import SD_4XUpscale_Conditioning


def values(node, *args, **kwargs):
    return node.execute(*args, **kwargs).args


def test_the_table_has_falling_levels_for_each_number_of_steps():
    for strength in [0.8 + 0.05 * i for i in range(15)]:
        rows = gits_levels.levels_of(strength)
        assert [len(row) for row in rows] == list(range(3, 22))
        for row in rows:
            assert (row[0], row[-1]) == (14.61464119, 0.02916753)  # SD1's most and least noise
            assert row == sorted(row, reverse=True)


@pytest.mark.parametrize("node", [GITSScheduler, OptimalStepsScheduler])
def test_a_schedule_ends_without_noise_and_denoise_takes_its_end(node):
    first = 1.2 if node is GITSScheduler else "FLUX"
    (sigmas,) = values(node, first, 10, 1.0)
    assert sigmas.shape == (11,) and sigmas[-1] == 0 and (sigmas.diff() < 0).all()
    (end,) = values(node, first, 10, 0.35)
    assert torch.equal(end, sigmas[-5:])  # round(3.5) is 4 steps
    assert values(node, first, 10, 0.0)[0].shape == (0,)


def test_known_numbers_of_steps_are_the_published_ones():
    (sigmas,) = values(GITSScheduler, 1.2, 2, 1.0)
    assert sigmas.tolist() == pytest.approx([14.61464119, 0.803307, 0.0])
    (sigmas,) = values(OptimalStepsScheduler, "FLUX", 10, 1.0)
    assert sigmas[:3].tolist() == pytest.approx([0.9968, 0.9886, 0.9819])


@pytest.mark.parametrize("levels", [nodes_optimalsteps.LEVELS["Wan"], gits_levels.levels_of(0.8)[-1]])
def test_other_numbers_of_steps_are_read_off_the_logarithm(levels):
    found = nodes_gits.loglinear_interp(levels, 41)  # twice as many
    assert found[::2] == pytest.approx(levels)
    assert found[1::2] == pytest.approx([math.sqrt(a * b) for a, b in zip(levels, levels[1:])])


def test_ideogram_levels_are_quantiles_of_a_logit_normal():
    steps, width, height, mu, std = 8, 1024, 2048, 0.3, 1.5
    (sigmas,) = values(Ideogram4Scheduler, steps, width, height, mu, std)
    mean = mu + math.log(math.sqrt(width * height) / 512)
    normal = stats.norm(mean, std).ppf([1 - i / steps for i in range(1, steps)])
    assert sigmas[1:-1].tolist() == pytest.approx([1 / (1 + math.exp(-x)) for x in normal], rel=1e-5)
    assert sigmas[0] == pytest.approx(1 - 1 / (1 + math.exp(9)))  # a log-SNR of 18 at the most
    assert sigmas[-1] == 0


@pytest.mark.parametrize(
    ("steps", "size", "mu"),
    [
        (10, (1024, 1024), 8.73809524e-05 * 4096 + 1.89833333),
        (200, (1024, 1024), 0.00016927 * 4096 + 0.45666666),
        (7, (2048, 2048), 0.00016927 * 16384 + 0.45666666),  # large: the number of steps does not count
    ],
)
def test_flux2_times_are_shifted_by_size_and_steps(steps, size, mu):
    (sigmas,) = values(Flux2Scheduler, steps, *size)
    assert sigmas.shape == (steps + 1,) and sigmas[0] == 1 and sigmas[-1] == 0
    middle = sigmas[steps // 2]
    t = 1 - (steps // 2) / steps
    assert middle == pytest.approx(1 / (1 + math.exp(-mu) * (1 / t - 1)), rel=1e-5)


def test_flux2_latents_have_128_channels_at_a_sixteenth():
    assert values(EmptyFlux2LatentImage, 512, 256, 2)[0]["samples"].shape == (2, 128, 16, 32)


class _Vae:
    """Latents that are the picture in blocks of 8."""

    def encode(self, pixels):
        return torch.nn.functional.avg_pool2d(pixels[..., :3].movedim(-1, 1), 8)


def test_a_picture_that_is_changed_by_instructions_stands_beside_the_noise():
    pixels = torch.rand(1, 21, 16, 3)
    sides = [[torch.ones(1, 2, 3), {"strength": 0.5}]], [[torch.zeros(1, 2, 3), {}]]
    positive, negative, latent = values(InstructPixToPixConditioning, *sides, pixels, _Vae())
    expected = _Vae().encode(pixels[:, 2:18])  # the middle
    for side in (positive, negative):
        assert torch.equal(side[0][1]["concat_latent_image"], expected)
    assert positive[0][1]["strength"] == 0.5 and sides[0][0][1] == {"strength": 0.5}
    assert latent["samples"].shape == expected.shape and not latent["samples"].any()


def test_the_upscaler_sees_the_small_picture_from_minus_one_to_one():
    images = torch.rand(2, 32, 48, 3)
    sides = [[[torch.ones(1, 2, 3), {}]]] * 2
    out = SD_4XUpscale_Conditioning.execute(images, *sides, 4.0, 0.3).args
    assert out[2]["samples"].shape == (2, 4, 32, 48)
    for side in out[:2]:
        torch.testing.assert_close(side[0][1]["concat_image"], images.movedim(-1, 1) * 2 - 1)
        assert side[0][1]["noise_augmentation"] == 0.3
    assert SD_4XUpscale_Conditioning.execute(images, *sides, 2.0, 0.0).args[2]["samples"].shape[2:] == (
        16,
        24,
    )


def test_lotus_has_two_tokens_in_the_place_of_a_prompt():
    ((prompt, extras),) = LotusConditioning.execute().args[0]
    assert prompt.shape == (1, 2, 1024) and prompt.dtype == torch.float32 and extras == {}
    assert prompt.isfinite().all() and prompt[0, 0, 0] == -0.3134765625
    assert not torch.equal(prompt[:, 0], prompt[:, 1])


# --- prompts in parts ---


class _Clip:
    """Remembers what it is to encode; a chunk of tokens holds four words."""

    def __init__(self, *parts):
        self.parts = parts

    def tokenize(self, text):
        words = text.split() or [""]
        chunks = [words[i : i + 4] for i in range(0, len(words), 4)]
        return {part: [[f"{part}:{word}" for word in chunk] for chunk in chunks] for part in self.parts}

    def encode_from_tokens_scheduled(self, tokens, add_dict=None):
        return tokens, add_dict


def test_sd3_gets_a_prompt_for_each_encoder_with_equally_many_chunks():
    clip = _Clip("g", "l", "t5xxl")
    ((tokens, _),) = values(CLIPTextEncodeSD3, clip, "a b c d e", "x", "", "none")
    assert tokens == {"l": [["l:a", "l:b", "l:c", "l:d"], ["l:e"]], "g": [["g:x"], ["g:"]], "t5xxl": []}
    ((tokens, _),) = values(CLIPTextEncodeSD3, clip, "", "", "t", "empty_prompt")
    assert tokens == {"l": [["l:"]], "g": [["g:"]], "t5xxl": [["t5xxl:t"]]}


def test_hidream_gets_a_prompt_for_each_of_four_encoders():
    clip = _Clip("g", "l", "t5xxl", "llama")
    ((tokens, _),) = values(CLIPTextEncodeHiDream, clip, "a", "b", "c", "d")
    assert tokens == {"l": [["l:a"]], "g": [["g:b"]], "t5xxl": [["t5xxl:c"]], "llama": [["llama:d"]]}


@pytest.mark.parametrize(
    ("node", "texts", "missing", "family"),
    [
        (CLIPTextEncodeSD3, ("a", "b", "c", "none"), "g", "SD3"),
        (CLIPTextEncodeHiDream, ("a", "b", "c", "d"), "t5xxl", "HiDream"),
    ],
)
def test_encoders_of_another_family_are_refused(node, texts, missing, family):
    with pytest.raises(ValueError, match=f"no encoder '{missing}', it has l. The node is for {family}"):
        node.execute(_Clip("l"), *texts)


def test_pixart_knows_the_size_and_lumina_a_sentence():
    ((tokens, known),) = values(CLIPTextEncodePixArtAlpha, _Clip("t5xxl"), 640, 480, "a")
    assert tokens == {"t5xxl": [["t5xxl:a"]]} and known == {"width": 640, "height": 480}
    ((tokens, _),) = values(CLIPTextEncodeLumina2, _Clip("gemma"), "a cat", "alignment")
    words = " ".join(word.removeprefix("gemma:") for chunk in tokens["gemma"] for word in chunk)
    assert words.startswith("You are an assistant designed to generate high-quality images")
    assert words.endswith("<Prompt Start> a cat")
    with pytest.raises(RuntimeError, match="The clip input is empty"):
        CLIPTextEncodeLumina2.execute(None, "a cat", "alignment")
