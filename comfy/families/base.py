"""What every family file uses: signatures, and modules of the zoo built around weights that exist already."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from comfy.errors import ModelFileError

if TYPE_CHECKING:
    from comfy.supported_models_base import BASE, ClipTarget

StateDict = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Family:
    """One row of the table of families; a family module holds one as `FAMILY`.

    `accepts` looks at the weights below `prefix` and must hold for every size of the family and for nothing
    else; it is called only when all `keys` are there. `specificity` orders families: higher is asked first.
    `text_encoders` gives, per type of the CLIP loaders ("flux"), what to build for their files.
    """

    name: str
    prefixes: tuple[str, ...]
    keys: tuple[str, ...]
    accepts: Callable[[StateDict, str], bool]
    config: Callable[[StateDict, str], BASE]
    specificity: int = 0
    config_classes: Mapping[str, type] = field(default_factory=dict)
    text_encoders: Mapping[str, Callable[[Sequence[StateDict]], ClipTarget]] = field(default_factory=dict)

    def prefix_in(self, weights: StateDict) -> str | None:
        """The prefix of the diffusion model in `weights`, where this family's is there."""
        for prefix in self.prefixes:
            if all(prefix + key in weights for key in self.keys) and self.accepts(weights, prefix):
                return prefix
        return None

    def share_found(self, weights: StateDict) -> float:
        """How many of the signature's keys are there, 0..1; names the nearest family in an error."""
        best = max(sum(prefix + key in weights for key in self.keys) for prefix in self.prefixes)
        return best / len(self.keys)


def build_empty(make: Callable[[], torch.nn.Module]) -> torch.nn.Module:
    """Build a module without memory for its weights, for `load_exactly`."""
    with torch.device("meta"):
        return make().eval().requires_grad_(False)


def load_exactly(module: torch.nn.Module, weights: StateDict, *, what: str) -> None:
    """Put `weights` into `module` as they are, without a copy; each must be there and have its shape.

    Raises:
        ModelFileError: the weights are not those of this module; the message names `what` and the first keys.
    """
    wanted = {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}
    missing = [key for key in wanted if key not in weights]
    unknown = [key for key in weights if key not in wanted]
    misfits = [key for key in wanted if key in weights and tuple(weights[key].shape) != wanted[key]]
    for problem, keys in (("lacks", missing), ("has unknown", unknown), ("has wrongly shaped", misfits)):
        if keys:
            raise ModelFileError(
                f"The {what} in this file {problem} weights ({len(keys)}): {', '.join(keys[:4])}"
                f"{', ...' if len(keys) > 4 else ''}. The file is damaged or of an unsupported variant."
            )
    with torch.no_grad():
        module.load_state_dict(weights, assign=True, strict=True)
    module.requires_grad_(False)


def count_indices(keys: Iterable[str], pattern: str) -> int:
    """Number of consecutive `pattern.format(0)`, `pattern.format(1)`, ... that begin some key."""
    keys = [key for key in keys if key.startswith(pattern.partition("{")[0])]
    count = 0
    while any(key.startswith(pattern.format(count)) for key in keys):
        count += 1
    return count
