"""The depot's options: one dataclass, the same for `main.py` and `python -m comfy_depot`.

Sizes and rates are written with a unit ("200G", "5M"); one unit step is 1024.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from comfy_depot.limits import Quota
from comfy_depot.policies import SERVING
from comfy_depot.schemes import TOKENS

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


@dataclass(frozen=True)
class Budget:
    """Bytes, or a share (0..1) of the memory that this process may use."""

    size: int | None = None
    share: float = 0.4

    def of(self, bytes_allowed: Callable[[], int]) -> int:
        """The budget in bytes."""
        return int(bytes_allowed() * self.share) if self.size is None else self.size


@dataclass(frozen=True)
class WarmModels:
    """What is brought in idle time."""

    models: tuple[str, ...] = ()
    """FOLDER/NAME, where "*" stands for anything."""
    popular: int = 0
    """Bytes that the most used models may take."""


@dataclass(frozen=True)
class Options:
    """What the depot may do and where. Every field has an option of the same name (see `add_arguments`)."""

    model_manifests: Path = Path("model_manifests")
    manifest_refresh: float = 300.0
    depot_dir: Path = Path("depot")
    depot_connections: int = 8
    depot_rate: Quota = Quota()
    depot_requests: Quota = Quota()
    depot_reserve: int = 1 << 30
    depot_max_size: int | None = None
    depot_keep_days: float | None = None
    depot_policy: str = "lru"
    depot_preload: int = 4
    depot_warm: WarmModels = field(default_factory=lambda: WarmModels())
    depot_predict: int = 0
    depot_hash: str = "idle"
    depot_allow_hosts: tuple[str, ...] = ()
    depot_tokens: tuple[tuple[str, str], ...] = ()
    allow_pickle: bool = False
    workflow_models: str = "allow-hosts"
    workflow_hosts: tuple[str, ...] = ("huggingface.co",)
    resident_budget: Budget = Budget()
    pin: tuple[str, ...] = ()
    """FOLDER/NAME of models that stay in memory, where "*" stands for anything."""
    pin_group: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """(name, patterns) of each group of such models, each name once."""
    pin_budget: Budget | None = None
    """What they may take together; a share is one of the memory of the device."""
    depot_stream: str = "on"
    depot_scratch: Path | None = None
    depot_off: bool = False

    @property
    def tokens(self) -> Mapping[str, str]:
        """Host -> environment variable with the token that is sent to it, the well-known ones included."""
        return {**TOKENS, **dict(self.depot_tokens)}


def parse_size(text: str) -> int:
    """Bytes from "200G", "1.5M", "4096" (an optional trailing B or iB is accepted)."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?\s*", text, re.IGNORECASE)
    if found is None:
        raise argparse.ArgumentTypeError(f"'{text}' is not a size. Write a number and a unit, such as 200G.")
    return int(float(found.group(1)) * _UNITS[found.group(2).upper()])


def parse_budget(text: str) -> Budget:
    """A budget from "40%" or "20G"; 0 keeps nothing."""
    percent = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", text)
    if percent is None:
        try:
            return Budget(size=parse_size(text))
        except argparse.ArgumentTypeError:
            raise argparse.ArgumentTypeError(
                f"'{text}' is neither a size nor a share. Write a number and a unit, such as 20G, or 40%."
            ) from None
    if float(percent.group(1)) > 100:
        raise argparse.ArgumentTypeError(f"'{text}' is more than there is. Write 0% to 100%.")
    return Budget(share=float(percent.group(1)) / 100)


def parse_rate(text: str) -> Quota:
    """Bytes per second from "50M,civitai.com=5M,*=20M"."""
    return _parse_quota(text, parse_size)


def parse_requests(text: str) -> Quota:
    """Requests per minute from "600,civitai.com=60,*=100"."""
    return _parse_quota(text, _parse_count)


def _parse_quota(text: str, parse: Callable[[str], int]) -> Quota:
    total, hosts = 0, []
    for part in filter(None, (part.strip() for part in text.split(","))):
        host, equals, value = part.rpartition("=")
        if equals and not host.strip():
            raise argparse.ArgumentTypeError(
                f"'{part}' names no host. Write 50M,civitai.com=5M,*=20M: the total, hosts, each other host."
            )
        if equals:
            hosts.append((host.strip().lower(), parse(value)))
        else:
            total = parse(value)
    return Quota(total, tuple(hosts))


def _parse_count(text: str) -> int:
    if not re.fullmatch(r"\s*[0-9]{1,9}\s*", text):
        raise argparse.ArgumentTypeError(
            f"'{text}' is not a number of requests per minute. Write 600, or 0 for any."
        )
    return int(text)


def parse_days(text: str) -> float:
    """A number of days, 0 or more."""
    if not re.fullmatch(r"\d+(?:\.\d+)?", text):
        raise argparse.ArgumentTypeError(f"'{text}' is no number of days. Write 0 or more, such as 7.")
    return float(text)


def parse_limit(text: str) -> int:
    """How many rows to show."""
    if not re.fullmatch("[0-9]{1,18}", text):
        raise argparse.ArgumentTypeError(f"'{text}' is no number of rows. Write 0 or more, such as 100.")
    return int(text)


def parse_port(text: str) -> int:
    """A port of TCP, where 0 is any that is free."""
    if not re.fullmatch("[0-9]{1,5}", text) or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"'{text}' is no port. Write 1 to 65535, or 0 for a free one.")
    return int(text)


def parse_connections(text: str) -> int:
    """The number of connections to one file, 1 to 16 (aria2 takes no more to one server)."""
    if not text.isdigit() or not 1 <= int(text) <= 16:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of connections. Write 1 to 16.")
    return int(text)


def parse_warm(text: str) -> WarmModels:
    """Models and a size from "checkpoints/base.safetensors,loras/style-*,popular=50G"."""
    models, popular = [], 0
    for part in filter(None, (part.strip() for part in text.split(","))):
        if part.startswith("popular="):
            popular = parse_size(part.removeprefix("popular="))
        elif "/" in part:
            models.append(part)
        else:
            raise argparse.ArgumentTypeError(
                f"'{part}' names no folder. Write FOLDER/NAME, as loras/{part}, or popular=50G."
            )
    return WarmModels(tuple(models), popular)


def parse_pin(text: str) -> str:
    """A pattern of models, FOLDER/GLOB."""
    folder, _, name = text.strip().partition("/")
    if not folder or not name:
        raise argparse.ArgumentTypeError(
            f"'{text}' names no {'model' if folder and '/' in text else 'folder'}. Write FOLDER/GLOB, such "
            "as checkpoints/sdxl*."
        )
    return text.strip()


def parse_pin_group(text: str) -> tuple[str, tuple[str, ...]]:
    """(name, patterns) from "video=checkpoints/wan*,vae/wan*"."""
    name, _, globs = text.partition("=")
    patterns = tuple(parse_pin(glob) for glob in globs.split(",") if glob.strip())
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,60}", name.strip()) or not patterns:
        raise argparse.ArgumentTypeError(
            f"'{text}' is no group. Write NAME=FOLDER/GLOB,FOLDER/GLOB, such as "
            "video=checkpoints/wan*,vae/wan*, with a name of letters, digits and _.-"
        )
    return name.strip(), patterns


def _merged(groups: Iterable[tuple[str, tuple[str, ...]]]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Groups that are given several times hold all that was said of them."""
    found: dict[str, tuple[str, ...]] = {}
    for name, patterns in groups:
        found[name] = (*found.get(name, ()), *patterns)
    return tuple(found.items())


def parse_downloads(text: str) -> int:
    """The number of downloads at once, 0 to 16."""
    if not text.isdigit() or int(text) > 16:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of downloads. Write 0 to 16.")
    return int(text)


def parse_hosts(text: str) -> tuple[str, ...]:
    """Host names from "a.example,b.example"."""
    return tuple(host.strip().lower() for host in text.split(",") if host.strip())


def parse_seconds(text: str) -> float:
    """Seconds from 0 to a year."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 366 * 86400:
        raise argparse.ArgumentTypeError(f"'{text}' is no number of seconds. Write 0 or more, such as 300.")
    return seconds


def parse_tokens(text: str) -> tuple[tuple[str, str], ...]:
    """(host, name of an environment variable) pairs from "a.example=A_TOKEN,b.example:8080=B_TOKEN"."""
    tokens = []
    for pair in filter(None, (part.strip() for part in text.split(","))):
        found = re.fullmatch(r"([A-Za-z0-9.-]+(?::[0-9]{1,5})?)=([A-Za-z_][A-Za-z0-9_]*)", pair)
        if found is None:
            raise argparse.ArgumentTypeError(
                f"'{pair.partition('=')[0]}' is not followed by =NAME. Write HOST=NAME, where NAME is the "
                "environment variable that holds the token, and never the token itself."
            )
        tokens.append((found[1].lower(), found[2]))
    return tuple(tokens)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the depot's options, as a group of their own, to `parser`."""
    group = parser.add_argument_group("depot", "models that are fetched when a workflow needs them")
    add = group.add_argument
    add("--model-manifests", type=Path, metavar="DIR",
        help="folder of the manifests (default: model_manifests/ of the base directory, else beside main.py)")
    add("--manifest-refresh", type=parse_seconds, default=Options.manifest_refresh, metavar="SECONDS",
        help="how often lists that model_versions.json names are compared with their digests; 0: only when "
             "asked (default: 300)")
    add("--depot-dir", type=Path, metavar="DIR",
        help="the depot's state (default: depot/ under the base directory)")
    add("--depot-connections", type=parse_connections, default=Options.depot_connections, metavar="N",
        help="connections to one file, 1-16 (default: 8)")
    add("--depot-rate", type=parse_rate, default=Quota(), metavar="BYTES,HOST=BYTES,...",
        help="limit of all downloads together per second, and of single hosts, such as 50M,civitai.com=5M; "
             "*=20M is for each other host (default: no limit)")
    add("--depot-requests", type=parse_requests, default=Quota(), metavar="N,HOST=N,...",
        help="limit of requests per minute, in total and to single hosts, such as 600,civitai.com=60 "
             "(default: no limit)")
    add("--depot-reserve", type=parse_size, default=Options.depot_reserve, metavar="BYTES",
        help="free space to leave on the disk (default: 1G)")
    add("--depot-max-size", type=parse_size, metavar="BYTES",
        help="what the depot's own models may take, such as 200G; others are evicted for a new one "
             "(default: the disk, less the reserve)")
    add("--depot-keep-days", type=parse_days, metavar="DAYS",
        help="evict models that were not used for so long (default: never)")
    add("--depot-policy", choices=SERVING, default=Options.depot_policy,
        help="which models are evicted first (default: lru, the least recently used)")
    add("--depot-preload", type=parse_downloads, default=Options.depot_preload, metavar="N",
        help="models that are fetched ahead at once for prompts in the queue, 0-16; they give way to a node "
             "that waits (default: 4)")
    add("--depot-warm", type=parse_warm, default=WarmModels(), metavar="FOLDER/NAME,...,popular=SIZE",
        help="models that are brought in idle time, such as checkpoints/base.safetensors,loras/style-*; with "
             "popular=50G also the most used ones up to that size (default: none)")
    add("--depot-predict", type=parse_size, default=Options.depot_predict, metavar="BYTES",
        help="fetch in idle time what a tenant will probably ask for next; so much per day may be fetched in "
             "vain (default: 0, never)")
    add("--depot-hash", choices=("idle", "off"), default=Options.depot_hash,
        help="compute the sha256 of model files on local disks while no prompt and no download is there, at "
             "most 100 MiB per second and not on battery (default: idle)")
    add("--depot-allow-hosts", type=parse_hosts, default=(), metavar="HOST,...",
        help="hosts that may be reached although their address is private or loopback: a mirror of your own")
    add("--depot-tokens", type=parse_tokens, default=(), metavar="HOST=NAME,...",
        help="environment variables whose tokens are sent to hosts of your own over https (known already: "
             "huggingface.co=HF_TOKEN, civitai.com=CIVITAI_TOKEN, modelscope.cn=MODELSCOPE_API_TOKEN)")
    add("--allow-pickle", action="store_true", help="also fetch formats that can hold code, as .ckpt")
    add("--workflow-models", choices=("off", "ask", "allow-hosts"), default=Options.workflow_models,
        help="models that a posted workflow names and nobody else: leave them alone, keep them until "
             "they are accepted, or take up those at --workflow-hosts and keep others (default: allow-hosts)")
    add("--workflow-hosts", type=parse_hosts, default=Options.workflow_hosts, metavar="HOST,...",
        help="hosts whose models are taken up from workflows (default: huggingface.co)")
    _add_memory_arguments(add)
    add("--depot-stream", choices=("on", "off"), default=Options.depot_stream,
        help="load a .safetensors file while it arrives, so that the node that waits has it as soon as it is "
             "verified (default: on)")
    add("--depot-scratch", type=Path, metavar="DIR",
        help="where archives lie while models are unpacked from them, such as /dev/shm: at most half of it "
             "is taken, and what does not fit goes to the state folder (default: the state folder)")
    add("--depot-off", action="store_true", help="no manifest, no download, no access log")


def _add_memory_arguments(add: Callable[..., object]) -> None:
    """Those of models in memory."""
    add("--resident-budget", type=parse_budget, default=Options.resident_budget, metavar="SIZE|PERCENT",
        help="memory in which loaded models stay, so that no loader reads a file twice, such as 20G or 40%%; "
             "0 keeps nothing beyond what is in use (default: 40%% of the memory)")
    add("--pin", type=parse_pin, action="append", metavar="FOLDER/GLOB",
        help="models that stay in memory and on the GPU whatever happens, such as checkpoints/sdxl*; they "
             "are loaded at start. May be given several times")
    add("--pin-group", type=parse_pin_group, action="append", metavar="NAME=FOLDER/GLOB,...",
        help="models that are pinned together; one group is active at a time, the first one at the first "
             "start. May be given several times")
    add("--pin-budget", type=parse_budget, metavar="SIZE|PERCENT",
        help="memory that pinned models may take together, such as 60G, or 50%% of the GPU's memory (without "
             "a GPU: of the machine's) (default: no limit but the memory)")


def from_args(args: argparse.Namespace, *, base_directory: Path | None = None) -> Options:
    """Options from a parsed command line; what was not given is placed under `base_directory`.

    Manifests are looked for under the base directory first and beside the program otherwise, so that
    `--base-directory` alone moves a whole installation and a fresh folder still has the shipped manifests.
    """
    program = Path(__file__).resolve().parent.parent
    base = (base_directory or program).resolve()
    manifests = getattr(args, "model_manifests", None)
    if manifests is None:
        of_base = base / "model_manifests"
        manifests = of_base if of_base.is_dir() else program / "model_manifests"
    return Options(
        model_manifests=Path(manifests).resolve(),
        manifest_refresh=getattr(args, "manifest_refresh", Options.manifest_refresh),
        depot_dir=Path(getattr(args, "depot_dir", None) or base / "depot").resolve(),
        depot_connections=getattr(args, "depot_connections", Options.depot_connections),
        depot_rate=getattr(args, "depot_rate", Options.depot_rate),
        depot_requests=getattr(args, "depot_requests", Options.depot_requests),
        depot_reserve=getattr(args, "depot_reserve", Options.depot_reserve),
        depot_max_size=getattr(args, "depot_max_size", None),
        depot_keep_days=getattr(args, "depot_keep_days", None),
        depot_policy=getattr(args, "depot_policy", Options.depot_policy),
        depot_preload=getattr(args, "depot_preload", Options.depot_preload),
        depot_warm=getattr(args, "depot_warm", WarmModels()),
        depot_predict=getattr(args, "depot_predict", Options.depot_predict),
        depot_hash=getattr(args, "depot_hash", Options.depot_hash),
        depot_allow_hosts=tuple(getattr(args, "depot_allow_hosts", ())),
        depot_tokens=tuple(getattr(args, "depot_tokens", ())),
        allow_pickle=bool(getattr(args, "allow_pickle", False)),
        workflow_models=getattr(args, "workflow_models", Options.workflow_models),
        workflow_hosts=tuple(getattr(args, "workflow_hosts", Options.workflow_hosts)),
        resident_budget=getattr(args, "resident_budget", Options.resident_budget),
        pin=tuple(getattr(args, "pin", None) or ()),
        pin_group=_merged(getattr(args, "pin_group", None) or ()),
        pin_budget=getattr(args, "pin_budget", None),
        depot_stream=getattr(args, "depot_stream", Options.depot_stream),
        depot_scratch=_absolute(getattr(args, "depot_scratch", None)),
        depot_off=bool(getattr(args, "depot_off", False)),
    )


def _absolute(path: Path | None) -> Path | None:
    return None if path is None else path.absolute()
