"""Steps per second of a full-size SD1.5 model, ours beside upstream ComfyUI's, on the CPU in fp32.

    python benchmarks/sampling_speed.py --upstream ../ComfyUI --upstream-python ../ComfyUI/venv/bin/python

Both programs load the same file of random weights (2 GB) in processes of their own, and then sample in turns,
so that whatever else the machine does hits both. Each turn is a whole call of KSampler with guidance. The
first turn of each is not counted.
"""

import argparse
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
    model, clip, _, _ = comfy.sd.load_checkpoint_guess_config(checkpoint)
    with torch.inference_mode():
        sides = [clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in ("a horse", "blurry")]
        latent = torch.zeros(1, 4, size // 8, size // 8)
        print("ready", file=answers, flush=True)
        for _ in sys.stdin:
            started = time.perf_counter()
            comfy.sample.sample(
                model, comfy.sample.prepare_noise(latent, 42), steps, 5.0, "euler", "normal", *sides, latent,
                disable_pbar=True, seed=42,
            )  # fmt: skip
            print(time.perf_counter() - started, file=answers, flush=True)


class Program:
    """One of the two, running as a worker."""

    def __init__(self, python: str, root: Path, env: dict, options, checkpoint: Path):
        command = [python, str(Path(__file__).resolve()), "--worker", "--checkpoint", str(checkpoint),
                   "--size", str(options.size), "--steps", str(options.steps)]  # fmt: skip
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, env=env, cwd=root, text=True, **pipes)
        self.seconds: list[float] = []
        self._answer()

    def _answer(self) -> str:
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"The worker ended with {self.process.wait()}: {self.process.args}")
        return line

    def turn(self) -> None:
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self.seconds.append(float(self._answer()))


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
    parser.add_argument("--size", type=int, default=256, help="pixels of the pictures")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3, help="turns that count")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.checkpoint, options.size, options.steps)
        return
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(options.checkpoint or Path(folder) / "random-sd15.safetensors").resolve()
        if not options.checkpoint:
            parity_upstream.write_in_own_process(checkpoint, tiny=False, dtype_name="float16")
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
    median = {name: statistics.median(program.seconds[1:]) for name, program in running.items()}
    for name, program in running.items():
        turns = ", ".join(f"{seconds:.2f}" for seconds in program.seconds[1:])
        print(f"{name:<10}{options.steps / median[name]:8.3f} steps/s   turns: {turns} s")
    print(f"ours takes {median['ours'] / median['upstream']:.3f} of upstream's time")


if __name__ == "__main__":
    main()
