"""The demo ControlNet puts a shape where a silhouette says, as far as its strength says."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from scripts import demo_drawing, demo_shapes
from scripts.train_demo_control import ControlledArtist, overlap, place, silhouette

DATA = Path(__file__).parent / "data"
CONTROL = DATA / "demo_silhouette.safetensors"
CORNER = ((18.0, 20.0), 13.0)


@pytest.fixture(scope="module")
def artist():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # nothing in so small a model is worth sharing
    yield ControlledArtist(DATA / "demo_shapes.safetensors", CONTROL)
    torch.set_num_threads(threads)


def test_the_silhouette_says_where_and_which_and_the_prompt_which_colour(artist):
    hint = silhouette("triangle", *CORNER)
    picture = artist.draw_at("a red shape", hint, seed=3)
    seen = demo_shapes.look(picture)
    assert (seen.colour, seen.shape) == ("red", "triangle"), seen
    assert overlap(picture, hint) > 0.7


def test_the_strength_says_how_much(artist):
    hint = silhouette("square", *CORNER)
    shares = [overlap(artist.draw_at("a blue square", hint, seed=4, strength=s), hint) for s in (0, 1)]
    assert shares[0] < 0.45 and shares[1] > 0.7, shares


def test_a_control_that_does_not_apply_changes_nothing(artist):
    plain = artist.draw("a green circle", seed=5)
    off = artist.draw_at("a green circle", silhouette("circle", *CORNER), seed=5, strength=0)
    assert np.array_equal(plain, off)


@pytest.mark.slow
def test_every_kind_of_shape_is_put_where_it_should_be(artist):
    right = 0
    for seed, colour, shape in demo_drawing.tasks(15):
        hint = silhouette(shape, *place(np.random.default_rng(seed)))
        picture = artist.draw_at(f"a {colour} shape", hint, seed=seed)
        right += demo_shapes.look(picture).colour == colour and overlap(picture, hint) >= 0.7
    assert right >= 13


def test_the_file_is_small_and_says_what_it_is():
    assert CONTROL.stat().st_size < 1.6e6
    with safe_open(CONTROL, "pt") as file:
        assert file.metadata()["modelspec.architecture"] == "stable-diffusion-v1/controlnet"
        assert "controlnet_cond_embedding.conv_in.weight" in file.keys()  # noqa: SIM118 (no dictionary)
