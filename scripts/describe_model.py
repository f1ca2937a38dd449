"""What a model file holds: the family that it is recognised as, and its weights with indices folded.

python scripts/describe_model.py models/diffusion_models/some_file.safetensors
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


def folded(weights: Mapping) -> list[tuple[str, str, str]]:
    """(name with indices as ranges, shape, dtype) of each kind of weight, in the order of the file."""
    kinds: dict[tuple[str, str, str], list[tuple[int, ...]]] = defaultdict(list)
    for key, tensor in weights.items():
        numbers = tuple(int(number) for number in re.findall(r"(?<=\.)\d+(?=\.)", key))
        pattern = re.sub(r"(?<=\.)\d+(?=\.)", "{}", key)
        kinds[pattern, str(list(tensor.shape)), str(tensor.dtype).removeprefix("torch.")].append(numbers)
    return [
        (pattern.format(*(_range(column) for column in zip(*rows))), shape, dtype)
        for (pattern, shape, dtype), rows in kinds.items()
    ]


def _range(numbers: Iterable[int]) -> str:
    found = sorted(set(numbers))
    if len(found) == 1:
        return str(found[0])
    is_whole = found == list(range(found[0], found[-1] + 1))
    return f"{{{found[0]}..{found[-1]}}}" if is_whole else f"{{{','.join(map(str, found))}}}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    file = parser.parse_args(arguments).file
    import comfy.errors
    import comfy.families
    import comfy.utils

    try:
        weights, metadata = comfy.utils.load_torch_file(str(file), return_metadata=True)
    except (OSError, comfy.errors.ModelFileError) as error:
        print(error, file=sys.stderr)
        return 1
    found = comfy.families.recognise(weights)
    print(found[0].name if found else comfy.families.unknown_architecture(weights, str(file)))
    for name, text in sorted((metadata or {}).items()):
        print(f"{name}: {text[:200]}")
    for name, shape, dtype in folded(weights):
        print(f"  {name}  {shape} {dtype}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
