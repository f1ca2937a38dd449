"""Command line of the server, as data: groups of options, one line each.

`args` is a module-level mutable namespace because node packs read it at import time (`from comfy.cli_args
import args`). It holds the defaults until `parse()` fills it in place; importing this module reads no command
line.
"""
from __future__ import annotations

import argparse
import enum
import os
import re
from collections.abc import Callable, Iterable, Sequence


class LatentPreviewMethod(enum.Enum):
    """How a picture is made from a latent while it is sampled."""

    NoPreviews = "none"
    Auto = "auto"
    Latent2RGB = "latent2rgb"
    TAESD = "taesd"

    @classmethod
    def from_string(cls, value: str) -> LatentPreviewMethod | None:
        """The method of that name, or None for an unknown one."""
        return next((method for method in cls if method.value == value), None)


class PerformanceFeature(enum.Enum):
    """Optimisations that may cost quality, chosen with --fast."""

    Fp16Accumulation = "fp16_accumulation"
    Fp8MatrixMultiplication = "fp8_matrix_mult"
    CublasOps = "cublas_ops"
    AutoTune = "autotune"


def _enum_type(kind: type[enum.Enum]) -> Callable[[str], enum.Enum]:
    def convert(text: str) -> enum.Enum:
        try:
            return kind(text)
        except ValueError:
            names = ", ".join(str(member.value) for member in kind)
            raise argparse.ArgumentTypeError(f"{text!r} is not one of: {names}") from None
    convert.__name__ = kind.__name__
    return convert


def _ram_budget(text: str) -> int | float:
    """Bytes (int), or a fraction of free RAM (float)."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) *(?:(%)|([KMGT]?)i?B?)", text.strip(), re.IGNORECASE)
    if found is None or (found[2] and float(found[1]) > 100):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no amount of RAM. Write a size such as 8G or 500M, a share such as 25%, or 0"
        )
    if found[2]:
        return float(found[1]) / 100
    return int(float(found[1]) * 1024 ** " KMGT".index(found[3].upper() or " "))


def _count_from(least: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} on")
        return int(text)
    return convert


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds greater than 0")
    return seconds


def _hosts(text: str) -> str | tuple[str, ...]:
    """`any`, `off`, or names of hosts."""
    word = text.strip().lower()
    if word in ("any", "off"):
        return word
    hosts = tuple(host.strip() for host in word.split(",") if host.strip())
    if not hosts or any("/" in host for host in hosts):
        raise argparse.ArgumentTypeError(f"{text!r} is not any, off, or hosts: example.com,10.0.0.5:80")
    return hosts


def _megabytes(text: str) -> float:
    try:
        return _seconds(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of MB greater than 0") from None


def _existing_directory(text: str) -> str:
    if not os.path.isdir(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a folder. Create it first, or name another one")
    return os.path.abspath(text)


LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


class _Verbose(argparse.Action):
    """`--verbose`, `--verbose LEVEL` and `--verbose LEVEL FILE`, any number of them: `verbose` is the most
    talkative level of the terminal, and `log_files` has (level, file) of each file.
    """

    def __call__(self, parser, namespace, values, option_string=None):
        level, *files = values or ["DEBUG"]
        if level.upper() not in LOG_LEVELS or len(files) > 1:
            levels = ", ".join(LOG_LEVELS)
            parser.error(f"argument {option_string}: takes nothing, a LEVEL, or a LEVEL and a FILE, and "
                         f"{' '.join(values)!r} is none of these. Levels: {levels}")
        if files:
            namespace.log_files = [*namespace.log_files, (level.upper(), files[0])]
            return
        namespace.log_levels = [*namespace.log_levels, level.upper()]
        setattr(namespace, self.dest, min(namespace.log_levels, key=LOG_LEVELS.index))


def _flag(help_text: str) -> dict:
    return {"action": "store_true", "help": help_text}


def _value(kind: Callable, default, metavar: str, help_text: str, **more) -> dict:
    return {"type": kind, "default": default, "metavar": metavar, "help": help_text, **more}


SERVER = {
    "--listen": _value(
        str,
        "127.0.0.1",
        "IP",
        "address to listen on; several with commas; alone: every address",
        nargs="?",
        const="0.0.0.0,::",
    ),
    "--port": _value(int, 8188, "PORT", "port of the web page and the API"),
    "--tls-keyfile": _value(str, None, "FILE", "private key for https; needs --tls-certfile"),
    "--tls-certfile": _value(str, None, "FILE", "certificate for https; needs --tls-keyfile"),
    "--enable-cors-header": _value(
        str, None, "ORIGIN", "let pages of this origin call the API; alone: any origin", nargs="?", const="*"
    ),
    "--max-upload-size": _value(float, 100, "MB", "largest accepted request body"),
    "--webhook-hosts": _value(
        _hosts, "any", "HOST,...",
        "whom webhooks of prompts may call: any (public addresses), off, or these hosts (default: any)",
    ),
    "--input-hosts": _value(
        _hosts, "any", "HOST,...",
        "where inputs that a prompt names by URL may be fetched: any (public addresses), off, or these hosts "
        "(default: any)",
    ),
    "--max-input-size": _value(_megabytes, 512, "MB", "largest input that is fetched by URL (default: 512)"),
    "--input-timeout": _value(
        _seconds, 120.0, "SECONDS", "an input that is not fetched after this time is refused (default: 120)"
    ),
    "--enable-compress-response-body": _flag("compress answers with gzip when the client accepts it"),
    "--auto-launch": _flag("open the web page in a browser after the start"),
    "--disable-auto-launch": _flag("do not open a browser"),
    "--multi-user": _flag("keep settings and files per user"),
    "--front-end-version": _value(
        str,
        "comfyanonymous/ComfyUI@latest",
        "OWNER/REPO@VERSION",
        "web page to fetch; the installed frontend package is served instead",
    ),
    "--front-end-root": _value(
        _existing_directory, None, "DIR", "serve the web page from this folder instead"
    ),
    "--feature-flag": _value(
        str, [], "KEY[=VALUE]", "set a flag that clients read from /features", action="append"
    ),
    "--list-feature-flags": _flag("print the known feature flags as JSON and leave"),
    "--comfy-api-base": _value(str, "https://api.comfy.org", "URL", "base address of paid API nodes"),
    "--dont-print-server": _flag("do not print progress of the server"),
    "--verbose": {
        "action": _Verbose,
        "nargs": "*",
        "default": "INFO",
        "metavar": ("LEVEL", "FILE"),
        "help": "log level of the terminal: DEBUG, INFO, WARNING, ERROR, CRITICAL; alone: DEBUG; with a FILE "
        "that level is also written into the file. May be given several times",
    },
    "--log-stdout": _flag("log to the standard output instead of the standard error"),
    "--quick-test-for-ci": _flag("load everything, then leave"),
}
FOLDERS = {
    "--base-directory": _value(
        _existing_directory, None, "DIR", "folder that holds models, input, output, custom_nodes"
    ),
    "--models-directory": _value(_existing_directory, None, "DIR", "folder of the models"),
    "--output-directory": _value(str, None, "DIR", "folder for saved files"),
    "--input-directory": _value(str, None, "DIR", "folder for uploaded files"),
    "--temp-directory": _value(str, None, "DIR", "a folder `temp` in here is emptied at each start"),
    "--user-directory": _value(_existing_directory, None, "DIR", "folder for settings and workflows"),
    "--extra-model-paths-config": _value(
        str, None, "FILE", "YAML file with further model folders", nargs="+", action="append"
    ),
    "--database-url": _value(str, None, "URL", "accepted for launch scripts"),
}
QUEUE = {
    "--journal": _value(
        str, None, "PATH", "file that keeps the queue and the history, or `off` (default: in the user folder)"
    ),
    "--journal-sync": _value(
        str, "normal", "MODE",
        "normal: an accepted prompt survives a killed server; full: a power failure too, at the disk's speed",
        choices=["normal", "full"],
    ),
    "--start-paused": _flag("start no prompt before POST /depot/queue/resume"),
    "--max-queue": _value(
        _count_from(1), 100_000, "N", "prompts that may wait; more are answered with 503 (default: 100000)"
    ),
    "--merge-requests": _value(
        _count_from(1), 1, "N",
        "sample up to N waiting prompts as one batch when they differ only in seed, texts, cfg and picture; "
        "how many pays is measured (default: 1, each alone)",
    ),
    "--prompt-timeout": _value(
        _seconds, None, "SECONDS", "stop a prompt after this time unless it brings its own timeout_seconds"
    ),
    "--history-size": _value(
        _count_from(1), 10_000, "N", "finished prompts that are remembered (default: 10000)"
    ),
    "--max-deaths": _value(
        _count_from(0), 2, "N",
        "set a prompt aside when the server has died so often in a row while it ran (default: 2; 0: never)",
    ),
}
NODES = {
    "--disable-all-custom-nodes": _flag("load no node pack"),
    "--whitelist-custom-nodes": _value(str, [], "NAME", "packs to load all the same", nargs="+"),
    "--force": _flag('every prompt runs as if it asked for `"force": true`: stored results are not used'),
    "--disable-api-nodes": _flag(
        "load no nodes that call paid services, and forbid the page to reach the internet"
    ),
    "--disable-metadata": _flag("write no prompt and workflow into saved files"),
    "--enable-manager": _flag("load the manager package"),
    "--enable-assets": _flag("keep a database of assets"),
    "--enable-asset-hashing": _flag("hash assets"),
}
PREVIEWS = {
    "--preview-method": _value(_enum_type(LatentPreviewMethod), LatentPreviewMethod.Auto, "METHOD",
                               "pictures while sampling: none, auto, latent2rgb, taesd"),
    "--preview-size": _value(int, 512, "PIXELS", "longest side of a preview"),
}
DEVICES = {
    "--cuda-device": _value(
        str, None, "ID", "GPU to use, as nvidia-smi numbers them; several with commas, or `all`"
    ),
    "--default-device": _value(int, None, "ID", "GPU to use first; the others stay visible"),
    "--directml": _value(int, None, "DEVICE", "use torch-directml", nargs="?", const=-1),
    "--oneapi-device-selector": _value(str, None, "SELECTOR", "value for ONEAPI_DEVICE_SELECTOR"),
    "--reserve-vram": _value(float, None, "GB", "GPU memory to leave to other programs"),
    "--vram-headroom": _value(float, 0, "GB", "GPU memory to keep free on top of the estimate"),
    "--async-offload": _value(
        int, None, "LAYERS", "so many layers' weights are on their way while one computes (default: 1)",
        nargs="?", const=2,
    ),
    "--disable-async-offload": _flag("copy streamed weights when they are needed, and not ahead"),
    "--disable-smart-memory": _flag("move models out of the GPU after each use"),
    "--disable-pinned-memory": _flag("do not page-lock host memory for weights"),
    "--disable-mmap": _flag("read model files into memory instead of mapping them"),
    "--mmap-torch-files": _flag("map .ckpt and .pt files"),
    "--deterministic": _flag("prefer deterministic algorithms"),
    "--default-hashing-function": _value(
        str,
        "sha256",
        "NAME",
        "hash that tells equal uploads: md5, sha1, sha256, sha512",
        choices=["md5", "sha1", "sha256", "sha512"],
    ),
    "--fast": _value(
        _enum_type(PerformanceFeature), None, "FEATURE", "optimisations that may cost quality", nargs="*"
    ),
    "--cpu-vae": _flag("run the VAE on the CPU"),
    "--force-channels-last": _flag("channels-last weights"),
    "--force-non-blocking": _flag("non-blocking copies everywhere"),
    "--disable-xformers": _flag("do not use xformers"),
    "--supports-fp8-compute": _flag("treat the device as able to compute in fp8"),
}
# One option of each of these groups at most.
EXCLUSIVE = {
    "memory": {
        "--gpu-only": _flag("keep everything on the GPU"),
        "--highvram": _flag("keep models on the GPU after use"),
        "--lowvram": _flag("keep half of a model on the GPU at most; the rest comes layer by layer"),
        "--novram": _flag("keep no weights on the GPU; they come layer by layer"),
        "--cpu": _flag("use the CPU for everything"),
    },
    "cache": {
        "--cache-budget": _value(
            _ram_budget,
            None,
            "SIZE|PERCENT",
            "keep results of all workflows within this much RAM: 8G, 25%% of what is free at the start, "
            "0 for those of the last workflow only (default: 25%%)",
        ),
        "--cache-classic": _flag("keep results of the last workflow"),
        "--cache-lru": _value(int, 0, "N", "keep results of the last N nodes used"),
        "--cache-none": _flag("keep no result"),
        "--no-cache": {**_flag("the same as --cache-none"), "dest": "cache_none"},
        "--cache-ram": _value(
            float,
            None,
            "GB",
            "keep results of all workflows while RAM is free: drop those of the running workflow when less "
            "than the first number of GB is free (default: 10%% of RAM, 2 to 10), others below the second "
            "(default: the first)",
            nargs="*",
        ),
    },
    "precision": {
        "--force-fp32": _flag("fp32 everywhere"),
        "--force-fp16": _flag("fp16 everywhere"),
    },
    "diffusion model precision": {
        "--fp32-unet": _flag("diffusion model in fp32"),
        "--fp64-unet": _flag("diffusion model in fp64"),
        "--bf16-unet": _flag("diffusion model in bf16"),
        "--fp16-unet": _flag("diffusion model in fp16"),
        "--fp8_e4m3fn-unet": _flag("weights in fp8 e4m3fn"),
        "--fp8_e5m2-unet": _flag("weights in fp8 e5m2"),
        "--fp8_e8m0fnu-unet": _flag("weights in fp8 e8m0fnu"),
    },
    "VAE precision": {
        "--fp16-vae": _flag("VAE in fp16"),
        "--fp32-vae": _flag("VAE in fp32"),
        "--bf16-vae": _flag("VAE in bf16"),
    },
    "text encoder precision": {
        "--fp8_e4m3fn-text-enc": _flag("weights in fp8 e4m3fn"),
        "--fp8_e5m2-text-enc": _flag("weights in fp8 e5m2"),
        "--fp16-text-enc": _flag("text encoder in fp16"),
        "--fp32-text-enc": _flag("text encoder in fp32"),
        "--bf16-text-enc": _flag("text encoder in bf16"),
    },
    "attention": {
        "--use-split-cross-attention": _flag("attention in slices"),
        "--use-quad-cross-attention": _flag("sub-quadratic attention"),
        "--use-pytorch-cross-attention": _flag("torch's scaled dot product attention"),
        "--use-sage-attention": _flag("sage attention"),
        "--use-flash-attention": _flag("flash attention"),
        "--use-ck-attention": _flag("composable-kernel attention"),
    },
    "upcast": {
        "--force-upcast-attention": _flag("attention in fp32"),
        "--dont-upcast-attention": _flag("never attention in fp32"),
    },
    "manager": {
        "--disable-manager-ui": _flag("hide the manager's pages"),
        "--enable-manager-legacy-ui": _flag("use the manager's old pages"),
    },
    "malloc": {
        "--cuda-malloc": _flag("CUDA's allocator (cudaMallocAsync)"),
        "--disable-cuda-malloc": _flag("torch's own allocator (the default)"),
    },
}
# Options of launch scripts that change nothing here: accepted, and said once at the start.
WITHOUT_EFFECT = (
    "--normalvram",
    "--disable-ipex-optimize",
    "--high-ram",
    "--fast-disk",
    "--disable-cuda-graphs",
    "--debug-hang",
    "--disable-nvml-pressure",
    "--enable-dynamic-vram",
    "--disable-dynamic-vram",
    "--enable-triton-backend",
    "--disable-triton-backend",
    "--fp16-intermediates",
    "--windows-standalone-build",
)


class _Parser(argparse.ArgumentParser):
    """Answers a wrong option with one sentence: the usage of so many options would hide it."""

    def error(self, message: str):
        self.exit(2, f"{self.prog}: {message}. For all options: python {self.prog} --help\n")

# Options that ask for something this version does not do: accepted, and said in --help and once at the start.
NOT_YET = (
    "--front-end-version", "--comfy-api-base", "--dont-print-server", "--database-url", "--enable-manager",
    "--disable-manager-ui", "--enable-manager-legacy-ui", "--enable-assets", "--enable-asset-hashing",
    "--directml", "--mmap-torch-files", "--fast", "--supports-fp8-compute",
    "--use-ck-attention", "--dont-upcast-attention",
)  # fmt: skip


def _add(container: argparse._ActionsContainer, name: str, spec: dict) -> None:
    note = " (no effect in this version)" if name in NOT_YET else ""
    container.add_argument(name, **{**spec, "help": spec["help"] + note})


def build_parser() -> argparse.ArgumentParser:
    """A parser with every option of the server, grouped for --help."""
    new = _Parser(prog="main.py", description="ComfyUI Depot: the server and its web page.")
    for title, options in (("server", SERVER), ("folders", FOLDERS), ("queue", QUEUE), ("nodes", NODES),
                           ("previews", PREVIEWS), ("devices", DEVICES)):
        group = new.add_argument_group(title)
        for name, spec in options.items():
            _add(group, name, spec)
    for title, options in EXCLUSIVE.items():
        group = new.add_argument_group(title).add_mutually_exclusive_group()
        for name, spec in options.items():
            _add(group, name, spec)
    for name in WITHOUT_EFFECT:
        new.add_argument(name, action="store_true", help=argparse.SUPPRESS)
    new.set_defaults(log_files=[], log_levels=[])
    return new


parser = build_parser()
args = parser.parse_args([])


def parse(argv: Sequence[str] | None = None, *,
          extend: Iterable[Callable[[argparse.ArgumentParser], None]] = ()) -> argparse.Namespace:
    """Read the command line (default: the process's own) into `args`, in place, and return it.

    `extend` holds functions that add the options of other packages to the parser first.
    """
    for add_arguments in extend:
        add_arguments(parser)
    args.__dict__.clear()
    parser.parse_args(argv, namespace=args)
    if len(args.cache_ram or ()) > 2:
        parser.error(f"argument --cache-ram: takes at most two numbers of GB, not {len(args.cache_ram)}")
    if args.gpu_only and args.enable_dynamic_vram:
        parser.error("argument --enable-dynamic-vram: not with --gpu-only, under which no weight leaves "
                     "the GPU. Leave out one of the two")
    if args.fast == []:
        args.fast = list(PerformanceFeature)
    if args.disable_auto_launch:
        args.auto_launch = False
    return args


def options_without_effect(namespace: argparse.Namespace) -> list[str]:
    """The accepted options that were given and change nothing."""
    values = {name: name[2:].replace("-", "_") for name in (*WITHOUT_EFFECT, *NOT_YET)}
    return [name for name, key in values.items() if getattr(namespace, key) != parser.get_default(key)]


def enables_dynamic_vram() -> bool:
    """Weights are never paged here; packs ask."""
    return False
