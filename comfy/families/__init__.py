"""The model families, one file each, found by file name: a module here that holds a `FAMILY` is a family."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Sequence
from typing import TYPE_CHECKING

from comfy import file_kinds
from comfy.errors import UnknownArchitecture
from comfy.families.base import Family, StateDict

if TYPE_CHECKING:
    from comfy.supported_models_base import ClipTarget


@functools.lru_cache(maxsize=1)
def families() -> tuple[Family, ...]:
    """All families, the most specific signature first."""
    modules = (
        importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)
    )
    found = [module.FAMILY for module in modules if hasattr(module, "FAMILY")]
    return tuple(sorted(found, key=lambda family: (-family.specificity, family.name)))


def recognise(weights: StateDict) -> tuple[Family, str] | None:
    """The family of these weights and the prefix of its diffusion model; None for an unknown one."""
    for family in families():
        prefix = family.prefix_in(weights)
        if prefix is not None:
            return family, prefix
    return None


def text_target(files: Sequence[StateDict], clip_type: str) -> ClipTarget:
    """Which text encoders to build for the weights of these files, for a type of the CLIP loaders.

    Raises:
        UnknownArchitecture: no family has such text encoders; the message says what was found.
    """
    makers = [found.text_encoders[clip_type] for found in families() if clip_type in found.text_encoders]
    for make in makers:
        target = make(files)
        if target is not None:
            return target
    known = ", ".join(sorted({name for family in families() for name in family.text_encoders}))
    held = "; ".join(f"{len(weights)} tensors, such as '{next(iter(weights), '')}'" for weights in files)
    kinds = dict.fromkeys(str(kind) for kind in map(kind_of_file, files) if kind and "text" not in kind.title)
    raise UnknownArchitecture(
        f"These files are no text encoders of the type '{clip_type}' (known types: {known}). "
        f"They hold: {held}. {' '.join([*kinds, 'Choose'])} the files, or the type, of the model that they "
        "are for."
    )


def kind_of_file(weights: StateDict) -> file_kinds.FileKind | None:
    """Which kind of model file these weights are, for errors of loaders of other kinds."""
    return file_kinds.kind_of(weights, is_diffusion_model=recognise(weights) is not None)


def told_of_file(weights: StateDict) -> str:
    """A sentence about a file of another kind than was asked for: what it looks like, or what it holds."""
    names = ", ".join(f"'{name}'" for name in list(weights)[:3])
    return str(kind_of_file(weights) or f"It holds {len(weights)} tensors{names and f', such as {names}'}.")


def unknown_architecture(weights: StateDict, path: str) -> UnknownArchitecture:
    """The error for weights of no known family: what was found, and what comes nearest."""
    names = list(weights)
    sample = ", ".join(f"'{name}'" for name in names[:3]) + (", ..." if len(names) > 3 else "")
    near = max(families(), key=lambda family: family.share_found(weights))
    known = ", ".join(sorted({family.name for family in families()}))
    if near.share_found(weights) > 0.3:
        guess = f"It comes nearest to {near.name}, but is of another variant or incomplete."
    else:
        guess = str(file_kinds.kind_of(names) or "It resembles none of them.")
    return UnknownArchitecture(
        f"'{path}' is of no model family that is known here ({known}). {guess} "
        f"It holds {len(names)} tensors: {sample or 'none'}."
    )
