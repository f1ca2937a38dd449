"""Time and peak memory of loading a checkpoint, beside reading the file once.

    python benchmarks/load_checkpoint.py [--checkpoint FILE] [--family sdxl] [--dtype float16]

Without a file, a full-size SD1.5 checkpoint of random weights is written to a temporary folder (4 GB in
float32); `--family sdxl` writes SDXL, `--family flux` a transformer of Flux.1 at full width with 5 + 10 of
its 19 + 38 blocks. Each measurement is a process of its own. Peak memory counts what was allocated and what
of the mapped file was touched, as the resident size of the process does, without what the imports take.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import parity_dit
import parity_upstream

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


def peak_bytes() -> int:
    """Largest resident size so far. Not `ru_maxrss`: a child process begins with its parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def load(path: str) -> list:
    """The modules of a checkpoint, or of a diffusion model alone."""
    import comfy.sd
    import comfy.utils
    from comfy.families import kind_of_file
    from comfy.file_kinds import DIFFUSION_MODEL

    if kind_of_file(comfy.utils.load_torch_file(path)) is DIFFUSION_MODEL:
        return [comfy.sd.load_diffusion_model(path).model]
    model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(path)
    return [model.model, clip.cond_stage_model, vae.first_stage_model]


def measure(what: str, path: str) -> dict[str, float]:
    """Seconds and peak bytes of one way to read the file, in this process."""
    from comfy.cli_args import args

    args.cpu = True

    before = peak_bytes()
    started = time.perf_counter()
    if what == "read":
        with open(path, "rb", buffering=0) as file:
            buffer = bytearray(16 << 20)
            while file.readinto(buffer):
                pass
    else:
        parts = load(path)
        if what == "load and touch":  # every weight is used once
            for part in parts:
                for tensor in part.state_dict().values():
                    tensor.sum()
    return {"seconds": time.perf_counter() - started, "bytes": peak_bytes() - before}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", help="use this file instead of writing one")
    parser.add_argument("--family", default="sd1", help="of the written file: sd1, sd2, sdxl or flux")
    parser.add_argument(
        "--dtype", default="float32", choices=["float16", "bfloat16", "float32"], help="of the written file"
    )
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.checkpoint)))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = options.checkpoint or os.path.join(folder, f"random-{options.family}.safetensors")
        if not options.checkpoint:
            if options.family == "flux":
                parity_dit.write_in_own_process(Path(path), family="flux", depth=5, dtype_name=options.dtype)
            else:
                kind = {"dtype_name": options.dtype, "family": options.family}
                parity_upstream.write_in_own_process(Path(path), tiny=False, **kind)
        size = os.path.getsize(path)
        print(f"file: {size / 1e9:.2f} GB")
        for what in ("read", "load", "load and touch"):
            command = [sys.executable, __file__, "--checkpoint", path, "--measure", what]
            result = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
            peak = result["bytes"] / size
            print(f"{what:<15} {result['seconds']:6.2f} s   peak {peak:.2f} x the file")


if __name__ == "__main__":
    main()
