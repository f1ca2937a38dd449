"""SD2.1 unCLIP: recognised with its vision model, its noise beside diffusers' scheduler, pictures mixed."""

import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.models.embeddings import get_timestep_embedding

import comfy.clip_vision
import comfy.sd
import comfy.supported_models
import comfy.unclip
from tests.comfy import tiny_sdxl, tiny_vision

WIDTH = 48  # of the vectors
SD21 = {**tiny_sdxl.SD2, "adm_in_channels": 2 * WIDTH}
VISION = "embedder.model."


@pytest.fixture(scope="module")
def reference():
    return tiny_vision.clip(projection=WIDTH)


@pytest.fixture(scope="module")
def weights(reference):
    text = tiny_sdxl.in_open_clip(tiny_sdxl.text_encoder(128))
    made = tiny_sdxl.checkpoint(SD21, {"cond_stage_model.model.": text})
    return {**made, **tiny_sdxl.below(VISION, tiny_vision.in_open_clip(reference))}


@pytest.fixture(scope="module")
def loaded(weights):
    return comfy.sd.load_state_dict_guess_config(dict(weights), output_clipvision=True)


def output(*vectors):
    """What a vision model gave for these vectors."""
    out = comfy.clip_vision.Output()
    out["image_embeds"] = torch.stack(vectors)
    return out


def entry(*vectors, strength=1.0, noise=0.0):
    return {"clip_vision_output": output(*vectors), "strength": strength, "noise_augmentation": noise}


def numbers(seed):
    return torch.randn(WIDTH, generator=torch.Generator().manual_seed(seed))


def test_a_checkpoint_has_all_four_parts(loaded, reference):
    model, clip, vae, vision = loaded
    assert type(model.model).__name__ == "SD21UNCLIP" and clip is not None and vae is not None
    image = tiny_vision.pictures()
    pixels = comfy.clip_vision.clip_preprocess(image, 56)
    with torch.no_grad():
        expected = reference(pixel_values=pixels).image_embeds
    torch.testing.assert_close(vision.encode_image(image).image_embeds, expected)
    for width, name in ((2048, "SD21UnclipH"), (1536, "SD21UnclipL")):
        full = {**tiny_sdxl.SD2, "context_dim": 1024, "model_channels": 320, "adm_in_channels": width}
        kind = getattr(comfy.supported_models, name)
        assert kind.matches({**full, "use_temporal_attention": False})
        assert kind(full).noise_aug_config["timestep_dim"] == width // 2


def test_without_being_asked_for_the_vision_model_is_left_out(weights):
    assert comfy.sd.load_state_dict_guess_config(dict(weights), output_model=False)[3] is None


def test_the_vector_conditioning_reaches_the_network(loaded):
    model = loaded[0].model
    y = model.encode_adm(unclip_conditioning=[entry(numbers(1))], device="cpu", seed=3)
    x, context = torch.randn(1, 4, 8, 8), torch.randn(1, 77, 128)
    with torch.no_grad():
        plain = model.apply_model(x, torch.ones(1), c_crossattn=context, y=torch.zeros_like(y))
        told = model.apply_model(x, torch.ones(1), c_crossattn=context, y=y)
    assert y.shape == (1, 2 * WIDTH) and not torch.allclose(plain, told, atol=1e-4)
    assert torch.equal(model.encode_adm(device="cpu"), torch.zeros(1, 2 * WIDTH))


@pytest.mark.parametrize(("amount", "level"), [(0.0, 0), (0.3, 300), (1.0, 999)])
def test_noise_is_that_of_the_cosine_schedule_of_diffusers(loaded, amount, level):
    scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    noise = torch.randn(1, WIDTH, generator=torch.Generator().manual_seed(7 - 10))
    clean = numbers(1)[None]
    noisy = scheduler.add_noise(clean, noise, torch.tensor([level]))
    embedded = get_timestep_embedding(torch.tensor([level]), WIDTH, True, 0)
    expected = torch.cat([noisy, embedded], dim=1) * 0.5
    pictures = [entry(clean[0], strength=0.5, noise=amount)]
    found = loaded[0].model.encode_adm(unclip_conditioning=pictures, seed=7, device="cpu")
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-4)


def test_statistics_of_a_file_centre_the_vectors_and_are_saved(weights):
    mean, deviation = numbers(5), numbers(6).abs() + 0.5
    extra = {"noise_augmentor.data_mean": mean, "noise_augmentor.data_std": deviation}
    model = comfy.sd.load_state_dict_guess_config({**weights, **extra}, output_clip=False, output_vae=False)[
        0
    ]
    plain = comfy.unclip.NoiseAugmentation(WIDTH)
    centred = plain.noised((numbers(1)[None] - mean) / deviation, 0.4, torch.Generator().manual_seed(-10))
    found = model.model.encode_adm(unclip_conditioning=[entry(numbers(1), noise=0.4)], seed=0, device="cpu")
    expected = torch.cat([centred[:, :WIDTH] * deviation + mean, centred[:, WIDTH:]], dim=1)
    torch.testing.assert_close(found, expected)
    saved = model.model.state_dict_for_saving()
    assert torch.equal(saved["noise_augmentor.data_mean"], mean)


def test_several_pictures_are_summed_and_get_a_little_noise(loaded):
    augment = loaded[0].model.noise_augmentor
    pictures = [entry(numbers(1), numbers(2), strength=0.7), entry(numbers(3), strength=0.2)]
    found = augment.vector_conditioning(pictures, 0, 0.05, "cpu")
    generator = torch.Generator()
    parts = []
    for vector, strength in ((numbers(1), 0.7), (numbers(2), 0.7), (numbers(3), 0.2)):
        generator.manual_seed(-10)
        parts.append(augment.noised(vector[None], 0.0, generator)[:, :WIDTH] * strength)
    torch.testing.assert_close(found, augment.noised(sum(parts), 0.05, generator))
    assert not torch.allclose(found, augment.vector_conditioning(pictures, 1, 0.05, "cpu"))


def test_vectors_of_another_vision_model_are_refused(loaded):
    with pytest.raises(ValueError, match="as 48 numbers, this one was encoded as 32.*unCLIPCheckpointLoader"):
        loaded[0].model.encode_adm(unclip_conditioning=[entry(torch.zeros(32))], device="cpu")


def test_a_saved_checkpoint_loads_again(loaded, tmp_path):
    path = tmp_path / "saved.safetensors"
    comfy.sd.save_checkpoint(str(path), *loaded)
    again = comfy.sd.load_checkpoint_guess_config(str(path), output_clipvision=True)
    image = tiny_vision.pictures()
    expected = loaded[3].encode_image(image).image_embeds
    torch.testing.assert_close(again[3].encode_image(image).image_embeds, expected)


def test_sdxl_takes_pictures_in_place_of_the_pooled_prompt():
    """Several are summed without more noise; sizes follow as ever."""
    text = tiny_sdxl.checkpoint(tiny_sdxl.BASE, {})
    model = comfy.sd.load_state_dict_guess_config(text, output_clip=False, output_vae=False)[0].model
    vectors = [torch.randn(96, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)]
    sizes = {"width": 64, "height": 48, "device": "cpu"}
    plain = model.encode_adm(pooled_output=torch.zeros(1, 96), **sizes)
    pictures = [entry(vectors[0], strength=0.5), entry(vectors[1])]
    told = model.encode_adm(unclip_conditioning=pictures, pooled_output=torch.ones(1, 96), seed=4, **sizes)
    assert torch.equal(told[:, 96:], plain[:, 96:])
    augment = comfy.unclip.NoiseAugmentation(96)
    expected = augment.vector_conditioning(pictures, 4, 0.0, "cpu")[:, :96]
    torch.testing.assert_close(told[:, :96], expected)
    torch.testing.assert_close(told[:, :96], (0.5 * vectors[0] + vectors[1])[None], atol=0.05, rtol=0)
    with pytest.raises(ValueError, match="as 96 numbers.*for SDXL ViT-bigG"):
        model.encode_adm(unclip_conditioning=[entry(torch.zeros(32))], **sizes)
