"""What the scripts that train something for the demo model have in common: command line, and the file."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

from scripts.train_demo_model import MODEL_FILE

log = logging.getLogger("demo_training")


def write(tensors: dict[str, torch.Tensor], target: Path, metadata: dict[str, str]) -> None:
    """Write the file that was trained."""
    save_file(tensors, target, metadata=metadata)
    target.chmod(0o644)  # safetensors writes files that only their owner can read
    log.info("Wrote %s, %.0f KB.", target, target.stat().st_size / 1e3)


def main(
    description: str,
    train: Callable[[Path, Path], None],
    check: Callable[[Path, Path, int, float], float],
    *,
    output: Path,
    required: float,
    good: str,
) -> int:
    """Train and check, or check only; the exit status says whether enough pictures were right.

    `check(model, file, count, strength)` gives the share of pictures that are, as `good` says, right.
    """
    keep_lines = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=description, formatter_class=keep_lines)
    parser.add_argument("--check", type=Path, metavar="FILE", help="do not train; check this file")
    parser.add_argument("--model", type=Path, default=MODEL_FILE, help="the demo model")
    parser.add_argument("--output", type=Path, default=output, help="the file to write")
    parser.add_argument("--count", type=int, default=15, help="pictures to check")
    parser.add_argument("--strength", type=float, default=1.0, help="in the check")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    if args.check is None:
        train(args.model, args.output)
    share = check(args.model, args.check or args.output, args.count, args.strength)
    log.info("%.1f %% of %d pictures %s.", 100 * share, args.count, good)
    return 0 if share >= required else 1
