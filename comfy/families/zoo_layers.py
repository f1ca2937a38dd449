"""The table between a file's names of a transformer's layers and those of the zoo's module, both ways.

Pure: what is fused in the file (q, k and v in one matrix) becomes views; what stands the other way round is
put round.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch

from comfy import lora_names
from comfy.families.base import StateDict

Names = dict[str, tuple[str, ...]]


def repeated(
    count: int, file_block: str, zoo_block: str, inside: Mapping[str, str | tuple[str, ...]]
) -> Names:
    """`inside` ({layer in the file: layer, or layers, of the zoo}) for each of `count` blocks."""
    rows = {old: (new,) if isinstance(new, str) else tuple(new) for old, new in inside.items()}
    return {
        f"{file_block}.{block}.{old}": tuple(f"{zoo_block}.{block}.{name}" for name in new)
        for block in range(count)
        for old, new in rows.items()
    }


@dataclass(frozen=True)
class ZooLayers:
    """`names`: {layer in the file: its layers in the zoo, one below the other}; others keep their names.

    `swapped` are layers of the zoo whose two halves stand the other way round in the file; `leaves` are names
    of weights that files call otherwise ({"scale": "weight"}), used for the layers of `names` only.
    """

    names: Names
    swapped: frozenset[str] = frozenset()
    leaves: Mapping[str, str] | None = None

    def to_zoo(self, weights: StateDict, rows: Mapping[str, int]) -> dict[str, torch.Tensor]:
        """The weights under the zoo's names; `rows` is {weight of the module: its rows}."""
        out = {}
        for key, tensor in weights.items():
            layer, _, leaf = key.rpartition(".")
            targets = self.names.get(layer, (layer,))
            if layer in self.names:
                leaf = (self.leaves or {}).get(leaf, leaf)
            if targets[0] in self.swapped:
                tensor = _swap_halves(tensor)
            for target, part in zip(targets, _parts(tensor, targets, rows)):
                out[f"{target}.{leaf}" if target else leaf] = part
        return out

    def to_file(self, weights: StateDict) -> dict[str, torch.Tensor]:
        """The opposite of `to_zoo`: what is one layer in the file is put together again."""
        out, used = {}, set()
        names_in_file = {new: old for old, new in (self.leaves or {}).items()}
        for layer, targets in self.names.items():
            for leaf in ("weight", "bias", "scale_weight"):
                keys = [f"{target}.{leaf}" for target in targets if f"{target}.{leaf}" in weights]
                if not keys:
                    continue
                used.update(keys)
                parts = [weights[key] for key in keys]
                tensor = parts[0] if len(parts) == 1 or parts[0].numel() == 1 else torch.cat(parts)
                if targets[0] in self.swapped:
                    tensor = _swap_halves(tensor)
                is_renamed = (
                    leaf in names_in_file and f"{targets[0]}.bias" not in weights and tensor.ndim == 1
                )
                out[f"{layer}.{names_in_file[leaf] if is_renamed else leaf}"] = tensor
        out.update({key: tensor for key, tensor in weights.items() if key not in used})
        if any(key.endswith(".scale_weight") for key in out):
            out["scaled_fp8"] = torch.zeros(2, dtype=torch.float8_e4m3fn)  # two numbers: weights only
        return out

    def is_zoo_layout(self, weights: StateDict) -> bool:
        """Are there layers under names that only the zoo has for them?"""
        own = {target for targets in self.names.values() for target in targets} - set(self.names)
        return any(key.rpartition(".")[0] in own for key in weights)

    def missing(self, weights: StateDict, wanted: StateDict) -> list[str]:
        """What the file lacks, by its own names; `wanted` is the module's state dict."""
        return [key for key in self.to_file(wanted) if key not in weights]

    def lora_names(self, rows: Mapping[str, int]) -> lora_names.Names:
        """Layers of LoRA files: in the file's names, where one is several here, and in the zoo's."""
        names = lora_names.of_fused_layers(self.names, rows)
        for layer, (target, *_) in self.names.items():
            if target in self.swapped:
                key = target + lora_names.WEIGHT
                half = rows[key] // 2
                halves = tuple(
                    lora_names.Rows((key, (0, half - at, half)), at, half, 2 * half) for at in (0, half)
                )
                names.update(dict.fromkeys(lora_names.names_of_layer(layer), halves))
        return names


def _swap_halves(tensor: torch.Tensor) -> torch.Tensor:
    return torch.cat(tensor.chunk(2)[::-1]) if tensor.numel() > 1 else tensor


def _parts(tensor: torch.Tensor, targets: tuple[str, ...], rows: Mapping[str, int]) -> Iterable[torch.Tensor]:
    """A fused weight or bias cut into the rows of each layer; one scale is the scale of all."""
    if len(targets) == 1 or tensor.numel() == 1:
        return [tensor] * len(targets)
    sizes = [rows[f"{target}.weight"] for target in targets]
    if sum(sizes) != tensor.shape[0]:  # of another size: the check of shapes names it
        return [tensor] * len(targets)
    return tensor.split(sizes)
