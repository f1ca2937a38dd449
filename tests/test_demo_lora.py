"""The demo LoRA turns shapes green, as far as its strength says, and leaves the model as it was."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

import comfy.lora_file
import comfy.model_management
from scripts import demo_drawing, demo_shapes

DATA = Path(__file__).parent / "data"
LORA = DATA / "demo_green.safetensors"


@pytest.fixture(scope="module")
def artist():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # nothing in so small a model is worth sharing
    yield demo_drawing.Artist(DATA / "demo_shapes.safetensors")
    torch.set_num_threads(threads)


def drawn(artist, prompt, strength, seed=1):
    """A picture by the demo model with the LoRA at this strength; 0 is without it."""
    plain = artist.model
    if strength:
        artist.model = comfy.lora_file.load_lora_file(str(LORA), plain, None, strength, 0)[0]
    try:
        return artist.draw(prompt, seed=seed)
    finally:
        artist.model = plain


def rgb_of(picture):
    """The median colour of what is in front of the background."""
    background = np.median(demo_shapes.border_of(picture), axis=0)
    return np.median(picture[np.linalg.norm(picture - background, axis=-1) > 0.2], axis=0)


def weights_hash(patcher):
    comfy.model_management.unload_all_models()
    found = hashlib.sha256()
    for tensor in patcher.model.state_dict().values():
        found.update(tensor.numpy().tobytes())
    return found.hexdigest()


@pytest.mark.slow
def test_a_red_circle_becomes_green_by_and_by_and_is_red_again_without_the_lora(artist):
    before = weights_hash(artist.model)
    pictures = {strength: drawn(artist, "a red circle", strength) for strength in (1, 0.5, 0)}
    seen = {strength: demo_shapes.look(pictures[strength]) for strength in (0, 1)}
    assert (seen[0].colour, seen[0].shape) == ("red", "circle"), seen
    assert (seen[1].colour, seen[1].shape) == ("green", "circle"), seen
    green = np.array(demo_shapes.COLOURS["green"])
    distances = [np.linalg.norm(rgb_of(picture) - green) for picture in pictures.values()]
    assert distances[0] + 0.1 < distances[1] < distances[2] - 0.1, distances
    assert weights_hash(artist.model) == before


@pytest.mark.slow
def test_every_kind_of_shape_becomes_green(artist):
    right = 0
    for seed, colour, shape in demo_drawing.tasks(15):
        picture = drawn(artist, demo_shapes.prompt_for(colour, shape), 1, seed=seed)
        seen = demo_shapes.look(picture)
        right += (seen.colour, seen.shape) == ("green", shape)
    assert right >= 13


def test_the_file_is_small_and_says_what_it_is():
    assert LORA.stat().st_size < 300_000
    with safe_open(LORA, "pt") as file:
        assert file.metadata()["modelspec.architecture"] == "stable-diffusion-v1/lora"
        assert all(key.startswith("lora_unet_") for key in file.keys())
