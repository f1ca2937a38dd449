"""The check that names what a picture shows is right on drawn shapes, and refuses everything else."""

import numpy as np
import pytest

from scripts import demo_shapes


@pytest.mark.parametrize(("colour", "shape"), demo_shapes.KINDS)
def test_names_drawn_shapes_also_under_noise(colour, shape):
    rng = np.random.default_rng(5)
    for noise in (0.0, 0.02, 0.05):
        picture = demo_shapes.draw_random(rng, colour, shape)
        picture = np.clip(picture + rng.normal(0, noise, picture.shape), 0, 1)
        seen = demo_shapes.look(picture)
        assert (seen.colour, seen.shape) == (colour, shape), (noise, seen)


def test_sees_nothing_on_a_plain_background():
    seen = demo_shapes.look(np.full((64, 64, 3), 0.94))
    assert (seen.colour, seen.shape, seen.area) == (None, None, 0)


def test_sees_no_shape_in_static():
    seen = demo_shapes.look(np.random.default_rng(1).uniform(0, 1, (64, 64, 3)))
    assert seen.shape is None


def test_names_no_colour_that_is_far_from_the_palette():
    picture = demo_shapes.draw("circle", (0.0, 0.0, 0.0), centre=(32, 32), radius=18)
    seen = demo_shapes.look(picture)
    assert (seen.colour, seen.shape) == (None, "circle")


def test_names_no_shape_for_an_outline_that_fits_none():
    picture = demo_shapes.draw("square", demo_shapes.COLOURS["red"], centre=(32, 32), radius=20)
    picture[20:44, 20:44] = demo_shapes.BACKGROUND  # a frame
    assert demo_shapes.look(picture).shape is None


def test_looks_at_the_largest_thing_only():
    picture = demo_shapes.draw("circle", demo_shapes.COLOURS["blue"], centre=(36, 36), radius=18)
    picture[2:8, 2:8] = demo_shapes.COLOURS["red"]
    seen = demo_shapes.look(picture)
    assert (seen.colour, seen.shape) == ("blue", "circle")


def test_an_unknown_shape_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"Unknown shape 'star'\. Use one of: circle, square, triangle\."):
        demo_shapes.draw("star", (1, 0, 0), centre=(32, 32), radius=10)


def test_captions_are_those_listed():
    rng = np.random.default_rng(0)
    known = set(demo_shapes.all_captions())
    assert demo_shapes.prompt_for("red", "circle") in known
    assert all(demo_shapes.caption(rng, *demo_shapes.random_kind(rng)) in known for _ in range(50))
