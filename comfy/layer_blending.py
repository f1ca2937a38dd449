"""Layers of a picture mixed with those below, as painting programs do. Pixels are (..., 4) of linear light.

The colours of a mode are computed in linear or in perceptual (sRGB) light. `normal` layers add to what is
below; all other modes only change what is there.
"""

import numpy as np

_SMALLEST = 1e-6
_LUMINANCE = (0.2224884, 0.71690369, 0.06060791)  # of sRGB adapted to D50


def to_linear(values: np.ndarray) -> np.ndarray:
    """Linear light of sRGB values."""
    values = np.asarray(values, dtype=np.float32)
    curve = ((np.maximum(values, 0) + 0.055) / 1.055) ** 2.4
    return np.where(values <= 0.04045, values / 12.92, curve).astype(np.float32)


def to_srgb(values: np.ndarray) -> np.ndarray:
    """sRGB values of linear light."""
    values = np.asarray(values, dtype=np.float32)
    curve = 1.055 * np.maximum(values, 0) ** (1 / 2.4) - 0.055
    return np.where(values <= 0.0031308, values * 12.92, curve).astype(np.float32)


def _quotient(top, bottom):
    """0 where nothing can be divided by."""
    return np.where(np.abs(bottom) >= _SMALLEST, top / np.where(np.abs(bottom) >= _SMALLEST, bottom, 1), 0)


def _dodge(below, light):
    """`below` divided by what `light` leaves; black stays black."""
    full = np.where(light >= 1 - _SMALLEST, 1.0, np.minimum(_quotient(below, 1 - light), 1))
    return np.where(below <= 0, 0.0, full)


def _burn(below, light):
    """The opposite of dodge: white stays white."""
    return 1 - _dodge(1 - below, 1 - light)


def _hard(below, above):
    darker, lighter = 2 * above * below, 1 - 2 * (1 - above) * (1 - below)
    return np.minimum(np.where(above > 0.5, lighter, darker), 1)


def _vivid(below, above):
    return np.where(above <= 0.5, _burn(below, 2 * above), _dodge(below, 2 * above - 1))


def _pin(below, above):
    return np.where(above > 0.5, np.maximum(below, 2 * above - 1), np.minimum(below, 2 * above))


# --- modes that mix colours instead of channels -----------------------------------------------------------


def _extremes(color):
    return color.min(axis=-1, keepdims=True), color.max(axis=-1, keepdims=True)


def _hue(below, above):
    """The hue of `above` with the value and the saturation of `below`."""
    low, high = _extremes(above)
    floor, value = _extremes(below)
    scale = _quotient(value - floor, high - low)
    return np.where(high - low <= _SMALLEST, below, above * scale + value - high * scale)


def _saturation(below, above):
    """The saturation (of HSV) of `above` with the hue and the value of `below`."""
    low, high = _extremes(above)
    floor, value = _extremes(below)
    scale = _quotient(_quotient(high - low, high) * value, value - floor)
    return np.where(value - floor <= _SMALLEST, value, below * scale + (1 - scale) * value)


def _color(below, above):
    """The hue and the saturation (of HSL) of `above` with the lightness of `below`."""
    lightness, own = (sum(_extremes(color)) / 2 for color in (below, above))
    room, own_room = np.minimum(lightness, 1 - lightness), np.minimum(own, 1 - own)
    scale = _quotient(room, own_room)
    offset = np.where(lightness > 0.5, 1 - 2 * room, 0) + np.where(own > 0.5, 2 * room - scale, 0)
    return np.where(own_room <= _SMALLEST, lightness, above * scale + offset)


def _luminosity(below, above):
    """The luminance of `above` with the colour of `below`, gray where that is black."""
    own, wanted = ((color * np.float32(_LUMINANCE)).sum(axis=-1, keepdims=True) for color in (below, above))
    return np.where(own <= _SMALLEST, wanted, below * _quotient(wanted, own))


# mode -> (is it computed in linear light?, the colours of below and above)
MODES = {
    "normal": (True, lambda below, above: above),
    "multiply": (True, lambda below, above: below * above),
    "screen": (False, lambda below, above: 1 - (1 - below) * (1 - above)),
    "overlay": (False, lambda below, above: np.where(
        below < 0.5, 2 * below * above, 1 - 2 * (1 - below) * (1 - above))),
    "darken": (True, np.minimum),
    "lighten": (True, np.maximum),
    "color-dodge": (False, _dodge),
    "color-burn": (False, _burn),
    "hard-light": (False, _hard),
    "soft-light": (False, lambda below, above: below * (below + 2 * above * (1 - below))),
    "difference": (False, lambda below, above: np.abs(below - above)),
    "exclusion": (False, lambda below, above: below + above - 2 * below * above),
    "linear-dodge": (True, lambda below, above: below + above),
    "linear-burn": (False, lambda below, above: below + above - 1),
    "vivid-light": (False, _vivid),
    "pin-light": (False, _pin),
    "linear-light": (False, lambda below, above: below + 2 * above - 1),
    "hard-mix": (False, lambda below, above: np.where(below + above < 1, 0.0, 1.0)),
    "subtract": (True, lambda below, above: np.maximum(below - above, 0)),
    "divide": (True, lambda below, above: np.clip(below / np.maximum(above, _SMALLEST), 0, 1)),
    "grain-extract": (False, lambda below, above: below - above + 0.5),
    "grain-merge": (False, lambda below, above: below + above - 0.5),
    "hue": (False, _hue),
    "saturation": (False, _saturation),
    "color": (False, _color),
    "luminosity": (True, _luminosity),
}  # fmt: skip


def _added(below, above, opacity):
    """Source over destination, colours not multiplied by opacity."""
    alpha = opacity + (1 - opacity) * below[..., 3:]
    color = below[..., :3] + (above[..., :3] - below[..., :3]) * _quotient(opacity, alpha)
    return np.concatenate((color, alpha), axis=-1)


def blended(mode: str, below: np.ndarray, above: np.ndarray, opacity: float) -> np.ndarray:
    """A layer (..., 4) over what is below it (..., 4). A mode that is not known is `normal`."""
    is_linear, mix = MODES.get(mode, MODES["normal"])
    coverage = above[..., 3:] * opacity
    if mix is MODES["normal"][1]:
        return _added(below, above, coverage).astype(np.float32)
    colors = (below[..., :3], above[..., :3])
    mixed = mix(*colors) if is_linear else to_linear(mix(*(to_srgb(color) for color in colors)))
    color = mixed * coverage + below[..., :3] * (1 - coverage)
    # Nothing is there to be changed where it is transparent below.
    color = np.where((below[..., 3:] == 0) | (coverage == 0), below[..., :3], color)
    return np.concatenate((color, below[..., 3:]), axis=-1).astype(np.float32)
