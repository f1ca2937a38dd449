"""Servers that residency.py measures, and what the kernel tells of them: files opened, bytes, CPU time."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import shlex
import socket
import struct
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

OPEN, ACCESS = 0x20, 0x1
SECONDS_TO_ANSWER = 600.0


class FileWatch:
    """Counts how often files are opened and read, by anybody (inotify). To map a file it must be opened."""

    def __init__(self, paths: list[Path]) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._queue = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self._names = {}
        for path in paths:
            watch = self._libc.inotify_add_watch(self._queue, os.fsencode(path), OPEN | ACCESS)
            if watch < 0:
                raise OSError(ctypes.get_errno(), f"{path} cannot be watched (inotify)")
            self._names[watch] = path.name

    def take(self) -> dict[str, int]:
        """{name: how often it was opened or read since the last call}. Raises OSError if some were lost."""
        found: dict[str, int] = {}
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._queue, 1 << 16):
                place = 0
                while place < len(data):
                    watch, mask, _, length = struct.unpack_from("iIII", data, place)
                    place += 16 + length
                    if watch not in self._names:
                        raise OSError("the kernel lost events of the model files (inotify)")
                    if mask & (OPEN | ACCESS):
                        found[self._names[watch]] = found.get(self._names[watch], 0) + 1
        return found


@dataclass(frozen=True)
class Usage:
    """What a process has used since it was started; `a - b` is what it used in between."""

    read_bytes: int = 0
    """From a disk, mapped pages included."""
    rchar: int = 0
    """By `read` and the like, from whatever."""
    major_faults: int = 0
    rss: int = 0

    def __sub__(self, other: Usage) -> Usage:
        return Usage(*(getattr(self, name) - getattr(other, name) for name in vars(self)))


def usage_of(pid: int) -> Usage:
    """Of a process that we may look into."""
    io = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return Usage(int(io["read_bytes"]), int(io["rchar"]), int(status[9]), pages * os.sysconf("SC_PAGE_SIZE"))


def cpu_seconds(pid: int) -> float:
    """CPU time of all threads so far, to the nanosecond; what others do counts little in it."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(OSError):  # a thread that has ended
            total += int(Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()[0])
    return total / 1e9


@dataclass(frozen=True)
class Run:
    """One prompt."""

    workflow: str
    wall: float
    """Seconds from the request to the message that it is done."""
    cpu: float
    """Seconds that the server computed for it."""
    opened: dict[str, int]
    """{model file: how often it was opened or read meanwhile}"""


@dataclass
class Server:
    """A running server and what was measured on it. An asynchronous context manager."""

    name: str
    url: str
    pid: int
    fields: dict[str, Any] = field(default_factory=dict)
    """Other fields of each request."""
    is_ours: bool = True
    first: list[Run] = field(default_factory=list)
    switched: list[Run] = field(default_factory=list)
    repeated: list[Run] = field(default_factory=list)
    used: Usage = field(default_factory=Usage)
    noted: dict[str, float] = field(default_factory=dict)
    """What our server counts itself, over the switches."""

    async def __aenter__(self) -> Server:
        self._client = uuid.uuid4().hex
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=SECONDS_TO_ANSWER))
        address = f"{self.url}/ws?clientId={self._client}"
        self._socket = await self._session.ws_connect(address, max_msg_size=0)
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._socket.close()
        await self._session.close()

    async def run(self, workflow: str, prompt: dict[str, Any], watch: FileWatch) -> Run:
        """Run a prompt to its end. SystemExit with the server's message if it fails."""
        watch.take()
        cpu, started = cpu_seconds(self.pid), time.perf_counter()
        answer = await self.post("/prompt", {"prompt": prompt, "client_id": self._client, **self.fields})
        if not answer or "prompt_id" not in answer:
            raise SystemExit(f"{self.name} refused {workflow}: {answer}")
        await self._end_of(answer["prompt_id"], workflow)
        wall = time.perf_counter() - started
        return Run(workflow, wall, cpu_seconds(self.pid) - cpu, watch.take())

    async def _end_of(self, prompt_id: str, workflow: str) -> None:
        while True:
            message = await self._socket.receive(SECONDS_TO_ANSWER)
            if message.type != aiohttp.WSMsgType.TEXT:
                if message.type == aiohttp.WSMsgType.BINARY:
                    continue
                raise SystemExit(f"{self.name} closed the connection in {workflow}.")
            event = json.loads(message.data)
            if event["data"].get("prompt_id") != prompt_id:
                continue
            if event["type"] == "execution_error":
                error = event["data"]
                message = f"{error['node_type']}: {error['exception_message']}"
                raise SystemExit(f"{self.name}: {workflow}: {message}")
            if event["type"] == "execution_success":
                return

    async def post(self, path: str, body: Any) -> Any:
        """The JSON of a POST, None where there is none."""
        async with self._session.post(self.url + path, json=body) as answer:
            text = await answer.text()
            return json.loads(text) if text.startswith("{") else None

    async def pins_are_ready(self) -> None:
        """Wait until our server has loaded ahead what is pinned."""
        states: set[str] = {"loading"} if self.is_ours else set()
        while states & {"waiting", "fetching", "loading"}:
            await asyncio.sleep(0.2)
            async with self._session.get(f"{self.url}/depot/models") as answer:
                pins = (await answer.json())["memory"]["pins"]
            states = {model["state"] for pin in pins for model in pin["models"]}

    async def counts(self) -> dict[str, float]:
        """What our server counts of models in memory, all in one dictionary; empty for others."""
        if not self.is_ours:
            return {}
        async with self._session.get(f"{self.url}/depot/stats") as answer:
            stats = await answer.json()
        memory = {**stats["memory"], **stats["memory"].get("patched", {})}
        names = ("loads", "evictions", "moves", "bytes_moved", "computed", "put_back", "bytes_kept")
        return {name: memory[name] for name in names if name in memory} | {"hits": stats["resident"]["hits"]}


# --- starting them ---


@dataclass(frozen=True)
class Program:
    """How a server is started."""

    name: str
    python: str
    root: Path
    flags: str
    environment: dict[str, str]
    is_ours: bool


@contextlib.contextmanager
def started(program: Program, base: Path, models: Path, cpu: int | None) -> Iterator[Server]:
    """The running server. `base` is a folder of its own, in which `models` is linked.

    Raises:
        SystemExit: it ended, or does not answer.
    """
    for name in ("input", "output", "temp", "user", "custom_nodes"):
        (base / name).mkdir(parents=True, exist_ok=True)
    (base / "models").symlink_to(models.resolve())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    pinned = [] if cpu is None else ["taskset", "-c", str(cpu)]
    command = [*pinned, program.python, str(program.root / "main.py"), "--port", str(port),
               "--base-directory", str(base), "--disable-auto-launch",
               "--disable-all-custom-nodes", *shlex.split(program.flags)]
    log = base / "log.txt"
    with open(log, "w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, cwd=program.root,
                                   env=program.environment)
    try:
        server = Server(program.name, f"http://127.0.0.1:{port}", process.pid, is_ours=program.is_ours)
        _wait_for(f"{server.url}/system_stats", process, log)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline and process.poll() is None:
        refused = contextlib.suppress(urllib.error.URLError, ConnectionError)
        with refused, urllib.request.urlopen(url, timeout=5):
            return
        time.sleep(0.1)
    raise SystemExit(f"The server does not answer at {url}:\n{log.read_text()[-2000:]}")
