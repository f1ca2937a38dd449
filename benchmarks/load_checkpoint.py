"""Time and peak memory of loading a checkpoint, beside reading the file once.

    python benchmarks/load_checkpoint.py [--checkpoint FILE] [--dtype float32]

Without a file, a full-size SD1.5 checkpoint of random weights is written to a temporary folder (4 GB in
float32). Each measurement is a process of its own. Peak memory counts what was allocated and what of the
mapped file was touched, as the resident size of the process does, without what the imports take.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


def peak_bytes() -> int:
    """Largest resident size so far. Not `ru_maxrss`: a child process begins with its parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def measure(what: str, path: str) -> dict[str, float]:
    """Seconds and peak bytes of one way to read the file, in this process."""
    from comfy.cli_args import args

    args.cpu = True
    import comfy.sd  # what a server has loaded by then
    import comfy.utils

    before = peak_bytes()
    started = time.perf_counter()
    if what == "read":
        with open(path, "rb", buffering=0) as file:
            buffer = bytearray(16 << 20)
            while file.readinto(buffer):
                pass
    else:
        loaded = comfy.sd.load_checkpoint_guess_config(path)
        if what == "load and touch":  # every weight is used once
            parts = [loaded[0].model, loaded[1].cond_stage_model, loaded[2].first_stage_model]
            for part in parts:
                for tensor in part.state_dict().values():
                    tensor.sum()
    return {"seconds": time.perf_counter() - started, "bytes": peak_bytes() - before}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", help="use this file instead of writing one")
    parser.add_argument(
        "--dtype", default="float32", choices=["float16", "float32"], help="of the written file"
    )
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.checkpoint)))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = options.checkpoint or os.path.join(folder, "random-sd15.safetensors")
        if not options.checkpoint:
            from benchmarks.parity_upstream import write_checkpoint

            write_checkpoint(Path(path), tiny=False, dtype_name=options.dtype)
        size = os.path.getsize(path)
        print(f"file: {size / 1e9:.2f} GB")
        for what in ("read", "load", "load and touch"):
            command = [sys.executable, __file__, "--checkpoint", path, "--measure", what]
            result = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
            peak = result["bytes"] / size
            print(f"{what:<15} {result['seconds']:6.2f} s   peak {peak:.2f} x the file")


if __name__ == "__main__":
    main()
