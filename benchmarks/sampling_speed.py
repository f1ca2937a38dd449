"""Steps per second of full-size models, ours beside upstream ComfyUI's, on the CPU in fp32.

    python benchmarks/sampling_speed.py --upstream ../ComfyUI --upstream-python ../ComfyUI/venv/bin/python

Both programs load the same file of random weights (SD1.5: 2 GB) in processes of their own, and then sample in
turns, so that whatever else the machine does hits both. Each turn is a whole call of KSampler with guidance
and the VAE's decoding. The first turn of each, which is the first picture after the load, is told apart.
`--family sdxl --tiny` compares SDXL's shapes with a shallower UNet: two of the full size need 28 GB.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import parity_upstream


def worker(checkpoint: str, size: int, steps: int) -> None:
    """Sample once for every line on stdin, and print the seconds."""
    answers = sys.stdout
    sys.stdout = sys.stderr  # what the libraries print is no answer
    sys.argv = [sys.argv[0], "--cpu"]
    parity_upstream.prepare_upstream()
    import torch

    import comfy.sample
    import comfy.sd

    torch.set_num_threads(2)
    started = time.perf_counter()
    model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(checkpoint)
    loaded = time.perf_counter() - started
    with torch.inference_mode():
        sides = [clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in ("a horse", "blurry")]
        latent = torch.zeros(1, 4, size // 8, size // 8)
        print(json.dumps({"load": loaded}), file=answers, flush=True)
        for _ in sys.stdin:
            started = time.perf_counter()
            samples = comfy.sample.sample(
                model, comfy.sample.prepare_noise(latent, 42), steps, 5.0, "euler", "normal", *sides, latent,
                disable_pbar=True, seed=42,
            )  # fmt: skip
            sampled = time.perf_counter()
            vae.decode(samples)
            turn = {
                "sample": sampled - started,
                "picture": time.perf_counter() - started,
                "peak": peak_bytes(),
            }
            print(json.dumps(turn), file=answers, flush=True)


def peak_bytes() -> int:
    """Largest resident size of this process so far, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


class Program:
    """One of the two, running as a worker."""

    def __init__(self, python: str, root: Path, env: dict, options, checkpoint: Path):
        command = [python, str(Path(__file__).resolve()), "--worker", "--checkpoint", str(checkpoint),
                   "--size", str(options.size), "--steps", str(options.steps)]  # fmt: skip
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, env=env, cwd=root, text=True, **pipes)
        self.turns: list[dict[str, float]] = []
        self.load = self._answer()["load"]

    def _answer(self) -> dict[str, float]:
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"The worker ended with {self.process.wait()}: {self.process.args}")
        return json.loads(line)

    def turn(self) -> None:
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self.turns.append(self._answer())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--upstream", help="checkout of upstream ComfyUI")
    parser.add_argument(
        "--upstream-python", default=sys.executable, help="python with upstream's requirements"
    )
    parser.add_argument("--stubs", help="folder put on upstream's path as well")
    parser.add_argument("--checkpoint", help="use this file instead of writing one")
    parser.add_argument("--family", default="sd1", choices=parity_upstream.FAMILIES)
    parser.add_argument("--tiny", action="store_true", help="a smaller UNet of the same shapes")
    parser.add_argument("--size", type=int, default=256, help="pixels of the pictures")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3, help="turns that count")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.checkpoint, options.size, options.steps)
        return
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(
            options.checkpoint or Path(folder) / f"random-{options.family}.safetensors"
        ).resolve()
        if not options.checkpoint:
            kind = {"dtype_name": "float16", "family": options.family}
            parity_upstream.write_in_own_process(checkpoint, tiny=options.tiny, **kind)
        compare(options, checkpoint)


def compare(options, checkpoint: Path) -> None:
    running = {}
    try:
        for name, (python, root, env) in parity_upstream.programs(options).items():
            running[name] = Program(python, root, env, options, checkpoint)
        for _ in range(options.rounds + 1):
            for program in running.values():
                program.turn()
    finally:
        for program in running.values():
            program.process.kill()
    report(running, options.steps)


def report(running: dict[str, Program], steps: int) -> None:
    """Medians of the turns that count, and what the first picture and the memory cost."""
    print(f"{'':<10}{'steps/s':>9}{'picture':>10}{'load':>9}{'first picture':>15}{'peak memory':>13}")
    medians = {}
    for name, program in running.items():
        first, *others = program.turns
        sample, picture = (statistics.median(turn[kind] for turn in others) for kind in ("sample", "picture"))
        medians[name] = sample, picture, first["picture"], program.turns[-1]["peak"]
        print(
            f"{name:<10}{steps / sample:>9.3f}{picture:>8.2f} s{program.load:>7.2f} s"
            f"{first['picture']:>13.2f} s{program.turns[-1]['peak'] / 1e9:>10.2f} GB"
            f"   turns: {', '.join(format(turn['sample'], '.2f') for turn in others)} s"
        )
    ratios = [ours / theirs for ours, theirs in zip(medians["ours"], medians["upstream"], strict=True)]
    print(
        "ours over upstream: sampling {:.3f}, picture {:.3f}, first picture {:.3f}, memory {:.3f}".format(
            *ratios
        )
    )


if __name__ == "__main__":
    main()
