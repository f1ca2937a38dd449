"""What a switch of patches costs, in milliseconds: the patcher alone, no prompt around it.

    python benchmarks/patch_switch.py

Two models of SD1.5's depth (684 tensors) and a tenth of its width, each plain and with LoRAs on 184 weights,
are loaded in random order on the CPU. A repeat loads the one that is loaded already. `anew` computes the
patched weights, as it is when nothing is kept. Beside it: weights computed, which must be none.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

QUANTILES = (0.5, 0.9, 0.99)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--switches", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    import torch

    from comfy import patched_weights
    from comfy.cli_args import args

    args.cpu = True
    with torch.inference_mode():
        views = _views(torch)
        times: dict[str, list[float]] = {"switch": [], "repeat": [], "anew": []}
        for view in views:
            _load(view)
        before, last = patched_weights.stats()["computed"], None
        chance = random.Random(options.seed)
        for _ in range(options.switches):
            last = chance.choice([view for view in views if view is not last])
            times["switch"].append(_load(last))
            times["repeat"].append(_load(last))
        computed = patched_weights.stats()["computed"] - before
        for number in range(30):
            patched_weights.release(views[0].model)
            times["anew"].append(_load(views[1 + number % 2]))
    for name, found in times.items():
        found.sort()
        shown = "  ".join(f"p{quantile * 100:.0f} {found[int(len(found) * quantile)]:.2f}"
                          for quantile in QUANTILES)
        print(f"{name:8} {len(found)} times, ms: {shown}  most {found[-1]:.2f}")
    print(f"weights computed in {options.switches} switches: {computed}")


def _views(torch):
    """Patchers of two models: the first plain and twice patched, the second plain and once."""
    from diffusers import UNet2DConditionModel

    from comfy.model_patcher import ModelPatcher

    cpu = torch.device("cpu")
    bases = []
    for seed in range(2):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(
            block_out_channels=(32, 64, 64, 64), cross_attention_dim=64, attention_head_dim=8,
            norm_num_groups=8,
        )
        bases.append(ModelPatcher(torch.nn.Sequential(unet).requires_grad_(False).eval(), cpu, cpu))
    return [bases[0], _patched(bases[0], 1), _patched(bases[0], 2), bases[1], _patched(bases[1], 3)]


def _patched(base, seed: int):
    """A clone with a difference on every matrix."""
    import torch

    clone, generator = base.clone(), torch.Generator().manual_seed(seed)
    matrices = {key: weight for key, weight in base.model.state_dict().items()
                if key.endswith("weight") and weight.dim() == 2}
    clone.add_patches({key: ("diff", (0.01 * torch.randn(weight.shape, generator=generator),))
                       for key, weight in matrices.items()})
    return clone


def _load(view) -> float:
    from comfy import model_management

    started = time.perf_counter()
    model_management.load_models_gpu([view])
    return (time.perf_counter() - started) * 1000


if __name__ == "__main__":
    main()
