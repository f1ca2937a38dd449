"""A depot's transfers for a test, and the same in a process of its own that a test may kill.

    with transfers(tmp_path) as ours:
        file = ours.fetch(entry(url), tmp_path / "models" / "a.safetensors").wait()

Run as a program it fetches one file: python -m tests.fakes.fetching STATE_DIR DESTINATION URL SHA256 HEADER
"""

from __future__ import annotations

import atexit
import functools
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from comfy_depot.aria2 import Daemon, binary
from comfy_depot.limits import Limits
from comfy_depot.manifest import Entry
from comfy_depot.options import Options
from comfy_depot.services import Patience
from comfy_depot.stream import Streams
from comfy_depot.transfers import Transfers

ROOT = Path(__file__).resolve().parents[2]
QUICK = Patience(tries=2, first_pause=0.05, longest_pause=1.0)


@contextmanager
def transfers(
    folder: Path,
    *,
    events: list[dict[str, Any]] | None = None,
    patience: Patience = QUICK,
    daemon: Daemon | None = None,
    limits: Limits | None = None,
    streams: Streams | None = None,
    is_bundle_needed: Callable[[Entry], bool] = lambda entry: False,
    **options: Any,
) -> Iterator[Transfers]:
    """Transfers that may reach loopback, with their state under `folder`; closed at the end.

    All share one aria2 daemon, to save its start; `daemon` gives another.
    """
    given = {"depot_allow_hosts": ("127.0.0.1", "localhost"), "depot_reserve": 0, **options}
    heard: list[dict[str, Any]] = [] if events is None else events
    ours = Transfers(
        Options(depot_dir=folder / "state", **given),
        publish=lambda event, data: heard.append(data),
        patience=patience,
        daemon=daemon or shared_daemon(),
        limits=limits,
        streams=streams,
        is_bundle_needed=is_bundle_needed,
    )
    try:
        yield ours
    finally:
        ours.close()


@functools.cache
def shared_daemon() -> Daemon:
    """A daemon for all tests of this process."""
    folder = tempfile.TemporaryDirectory()
    daemon = Daemon(Path(folder.name), allow_hosts=("127.0.0.1", "localhost"))
    atexit.register(folder.cleanup)
    atexit.register(daemon.close)
    return daemon


def entry(*urls: str, name: str = "a.safetensors", **fields: Any) -> Entry:
    """A manifest entry of the folder checkpoints."""
    return Entry("checkpoints", name, tuple(urls), **fields)


def fetcher(
    folder: Path, destination: Path, url: str, sha256: str = "", *, header: str = "", stderr: Any = None
) -> subprocess.Popen[bytes]:
    """A process of its own that fetches `url` and ends; `header` is a value for Authorization."""
    given = [str(folder), str(destination), url, sha256, header]
    return subprocess.Popen([sys.executable, "-m", "tests.fakes.fetching", *given], cwd=ROOT, stderr=stderr)


def plain_aria2(url: str, file: Path, *options: str) -> subprocess.Popen[bytes]:
    """aria2c as anybody would use it: eight connections, resuming, straight to the final name."""
    command = [binary(), "--quiet", "--no-conf", "-c", "-x8", "-s8", "-k1M", *options]
    return subprocess.Popen([*command, f"--dir={file.parent}", f"--out={file.name}", url])


def until(is_true: Callable[[], Any], seconds: float = 10.0) -> None:
    """Return as soon as a condition holds; fail after some seconds."""
    end = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < end, "the condition did not come true"
        time.sleep(0.002)


if __name__ == "__main__":
    state, target, where, digest, secret = sys.argv[1:6]
    logging.basicConfig(level=logging.DEBUG)
    names = {"Authorization": secret} if secret else {}
    mine = Daemon(Path(state), allow_hosts=("127.0.0.1", "localhost"))
    with transfers(Path(state), daemon=mine) as own:
        own.fetch(entry(where, sha256=digest or None, headers=names), Path(target)).wait()
