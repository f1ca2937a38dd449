"""Which family ("base model") a model is of, by the words that a file or a person uses, and by its tensors.

A family is a network that takes the same LoRAs; a variant is what of it a file holds ("flux1", "schnell").
By which tensors each is known stands in `signatures.py`. What fits nothing there is not known: nothing is
guessed from sizes or names of files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from comfy_depot.signatures import ADAPTERS, PREFIXES, WHOLE, Adapter, Shape, Signature

Shapes = Mapping[str, tuple[int, ...]]
"""{tensor: its shape}"""
_SD = "(?:sd|stablediffusion)"


class Model(NamedTuple):
    """What was found out."""

    family: str | None = None
    variant: str | None = None
    """None where nothing tells."""


@dataclass(frozen=True)
class Family:
    """How texts name a family. Patterns are for texts in lower case without blanks and punctuation."""

    said: str
    """How the words of a file, or of a manifest's group, begin that mean it."""
    whole: str
    """What a person writes for all of it; what is behind that names variants."""
    variants: tuple[str, ...] = ()
    """What words can tell; the first counts that they hold."""


FAMILIES: Mapping[str, Family] = {  # the first one counts whose pattern fits
    "sdxl-refiner": Family(rf"{_SD}xl.*refiner", rf"{_SD}xl(?:v?10?)?refiner"),
    "sdxl": Family(rf"{_SD}xl", rf"{_SD}xl(?:v?10?)?(?:base)?", ("inpaint", "edit")),
    "sd1": Family(rf"{_SD}v?1", rf"{_SD}v?1[0-9x]?", ("inpaint", "edit")),
    "sd2": Family(rf"{_SD}v?2", rf"{_SD}v?2[0-9x]?", ("inpaint", "depth")),
    "sd3": Family(rf"{_SD}v?3", rf"{_SD}v?3[0-9x]?", ("3.5-large", "3.5-medium", "3-medium")),
    "flux3": Family("flux3", "flux3"),
    "flux2": Family("flux2", "flux2", ("klein-4b", "klein-9b", "dev")),
    "flux1": Family("flux", "flux1?", ("schnell", "fill", "kontext", "krea", "control", "dev")),
    "chroma": Family("chroma", "chroma1?", ("radiance",)),
    "pixart": Family("pixart", "pixart", ("sigma", "alpha")),
    "hunyuan-dit": Family("hunyuandit", "hunyuandit"),
    "hunyuan-image": Family("hunyuanimage", "hunyuanimage(?:21?)?"),
    "hunyuan-video": Family("hunyuanvideo|framepack", "hunyuanvideo", ("1.5", "framepack", "i2v")),
    "wan": Family("wan(?:video)?(?:v?2|1|[ti]2v|$)", "wan(?:video)?",
                  ("2.2-5b", "2.2-i2v", "2.1-i2v", "2.1-1.3b", "vace", "animate", "2.2", "2.1")),
    "ltx-video": Family("ltx", "ltx(?:v|video)?", ("13b", "2")),
    "cosmos": Family("cosmos", "cosmos", ("predict2", "1")),
    "anima": Family("anima(?:preview|unknown|v?[0-9]|$)", "anima"),
    "auraflow": Family("auraflow", "auraflow"),
    "lumina2": Family("lumina(?:image)?v?2", "lumina(?:image)?2?"),
    "hidream": Family("hidream(?!o1)", "hidream"),
    "qwen-image": Family("qwenimage", "qwen(?:image)?", ("layered", "edit", "2.1")),
    "z-image": Family("zimage", "zimage", ("turbo",)),
    "stable-cascade": Family("stablecascade|wuerstchen", "(?:stable)?cascade", ("stage-b", "stage-c")),
    "kolors": Family("kolors", "kolors"),
    "mochi": Family("mochi", "mochi1?"),
    "ace-step": Family("acestep", "acestep", ("1.5", "1")),
    "stable-audio": Family("stableaudio", "stableaudio"),
}
SAYS_NOTHING = frozenset(("unknown", "none", "custom", "other"))

_UNET_TEXT_KEY = re.compile(
    r"(?:input_blocks|middle_block|output_blocks|down_blocks|mid_block|up_blocks)[._].*transformer_blocks"
    r"[._]0[._]attn2[._]to_k(?:\.(?:lora_down|lora_A|lora_A\.default|lora\.down))?(?:\.weight|\.hada_w1_b)$")
_TEXT_WIDTHS = {768: "sd1", 1024: "sd2", 2048: "sdxl", 1280: "sdxl-refiner"}
_NOT_OF_A_FAMILY = ("time_stack", "temporal")  # video models on the same blocks
_FIRST_LAYERS = ("input_blocks.0.0.weight", "conv_in.weight")
_INPUTS = {9: "inpaint", 8: "edit", 5: "depth"}  # {channels that come in: the variant}
_ENDS = (".lora_down.weight", ".lora_A.weight", ".lora_A.default.weight", ".lora.down.weight", ".down.weight",
         ".hada_w1_b")
"""Of the half of a LoRA's pair that tells how many values come in."""
_BEFORE_MODULES = re.compile(
    r"^(?:base_model\.model\.|lora_unet_|lora_transformer_|lycoris_|model\.diffusion_model\.|diffusion_model\."
    r"|transformer\.|unet\.)+")
_NUMBER = re.compile(r"(?<=_)\d+(?=_|$)")


# --- by words


def plain(words: str) -> str:
    """A text as the patterns want it."""
    return re.sub(r"[^a-z0-9]", "", words.lower())


def by_words(words: str) -> Model | None:
    """The model that a text names with its beginning; None for one that is not known here."""
    text = plain(words)
    for name, family in FAMILIES.items():
        if re.match(family.said, text):
            return Model(name, next((one for one in family.variants if plain(one) in text), None))
    return None


class Asked(NamedTuple):
    """What a person asks for."""

    family: str
    variants: frozenset[str] | None
    """One of these; None: whichever."""


def asked_for(words: str) -> Asked | None:
    """What a person means by "SDXL", "sd 1.5", "flux schnell" or "wan 2.2"; None for what is not known."""
    text = plain(words)
    for name, family in FAMILIES.items():
        found = re.match(family.whole, text)
        if found is None:
            continue
        rest = text[found.end():]
        variants = frozenset(one for one in family.variants if rest in plain(one)) if rest else None
        if variants is None or variants:
            return Asked(name, variants)
    return None


# --- by tensors


def by_tensors(shapes: Shapes) -> Model:
    """What only one family has."""
    modules = _modules(shapes)
    found: Signature | Adapter | None
    if modules:
        found = next((row for row in ADAPTERS if _fits_adapter(row, modules)), None)
    else:
        found = next((row for prefix in PREFIXES for row in WHOLE if _fits(row, shapes, prefix)), None)
    return _unet(shapes) if found is None else Model(found.family, found.variant)


def _fits(row: Signature, shapes: Shapes, prefix: str) -> bool:
    if row.without is not None and prefix + row.without in shapes:
        return False
    return all(prefix + key in shapes and (shape is None or _is_shape(shapes[prefix + key], shape))
               for key, shape in row.tensors.items())


def _is_shape(found: tuple[int, ...], wanted: Shape) -> bool:
    return len(found) == len(wanted) and all(
        number is None or number == here for number, here in zip(wanted, found, strict=True))


def _modules(shapes: Shapes) -> dict[str, tuple[int, int]]:
    """The modules that a LoRA changes, {name with "#" for numbers: (numbers that come in, highest number)};
    nothing for a whole model.
    """
    found: dict[str, tuple[int, int]] = {}
    for key, shape in shapes.items():
        if not key.endswith(_ENDS) or len(shape) < 2:
            continue
        end = next(end for end in _ENDS if key.endswith(end))
        name = _BEFORE_MODULES.sub("", key.removesuffix(end)).replace(".", "_")
        number = _NUMBER.search(name)
        general = _NUMBER.sub("#", name)
        highest = max(found.get(general, (0, 0))[1], int(number[0]) if number else 0)
        found[general] = shape[1], highest
    return found


def _fits_adapter(row: Adapter, modules: Mapping[str, tuple[int, int]]) -> bool:
    for name, (width, number) in row.modules.items():
        if name not in modules:
            return False
        here, highest = modules[name]
        if number not in (0, highest) or width not in (None, here):
            return False
    return True


def _unet(shapes: Shapes) -> Model:
    """Stable Diffusion up to XL: known by the width of the text that its UNet attends to."""
    if any(word in key for key in shapes for word in _NOT_OF_A_FAMILY):
        return Model()
    for key, shape in shapes.items():
        if len(shape) == 2 and _UNET_TEXT_KEY.search(key):
            family = _TEXT_WIDTHS.get(shape[1])
            return Model(family, None if family is None else _input_of(shapes))
    return Model()


def _input_of(shapes: Shapes) -> str | None:
    firsts = (shapes.get(prefix + name) for prefix in PREFIXES for name in _FIRST_LAYERS)
    return next((_INPUTS.get(shape[1]) for shape in firsts if shape is not None and len(shape) == 4), None)
