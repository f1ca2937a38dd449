"""How nodes declare numeric inputs."""

from __future__ import annotations

# The largest side of a picture that a node accepts, in pixels.
MAX_RESOLUTION = 16384

# Pixels per unit of the areas and positions that nodes take in pixels.
PIXELS_PER_LATENT = 8


def number_input(kind, default, low, high, step=None, tooltip=None, **more):
    """The declaration of a number; what is None is left out."""
    options = {"default": default, "min": low, "max": high, "step": step, "tooltip": tooltip, **more}
    return (kind, {name: value for name, value in options.items() if value is not None})


def int_input(default, low, high, step=None, tooltip=None, **more):
    """A whole number."""
    return number_input("INT", default, low, high, step, tooltip, **more)


def float_input(default, low, high, step=0.01, tooltip=None, **more):
    """A number in steps of a hundredth."""
    return number_input("FLOAT", default, low, high, step, tooltip, **more)


def pixels_input(default=0, low=0, tooltip=None, step=8):
    """A length or position in pixels."""
    return int_input(default, low, MAX_RESOLUTION, step, tooltip)


def strength_input():
    """The weight of a conditioning."""
    return float_input(1.0, 0.0, 10.0, tooltip="How much this conditioning weighs where it applies.")
