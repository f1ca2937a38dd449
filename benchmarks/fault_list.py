"""The faults of `download_faults.py`: what is done to one download, as a function of a seed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from comfy_depot import download, stream, windows
from comfy_depot.aria2 import Daemon
from comfy_depot.errors import WrongContent
from comfy_depot.manifest import Entry
from comfy_depot.services import Patience
from comfy_depot.stream import Streams
from comfy_depot.transfers import Transfers
from tests.fakes.fetching import entry, fetcher, transfers
from tests.fakes.origin import Fault, Hit, Origin, safetensors, sha256

MIB = 1 << 20
TOKEN = "hf_0f6b4bd7_secret"
SIGNATURE = "sig=SECRET"
HEADERS = {"Authorization": "Bearer $FAULTS_TOKEN"}
PATIENT = Patience(tries=8, first_pause=0.1, longest_pause=1.0, silence=1.0, stall=4.0)
RATE = 8.0 * MIB
LONGEST = 90.0  # seconds of one run


class Bench:
    """What all runs share: the origin, one depot in this process, and eight others that wait for work."""

    def __init__(self, folder: Path, origin: Origin) -> None:
        self.folder, self.origin = folder, origin
        self._ends = contextlib.ExitStack()
        self._depot: Transfers | None = None
        self._eight: list[Connection] = []
        self.events: list[dict[str, Any]] = []
        self.streams = Streams()

    def __enter__(self) -> Bench:
        """From now on small files with a digest come in windows and are streamed too, as large ones are."""
        self._usual = windows.LEAST_PIECES, download.LEAST_TO_DIGEST_AHEAD, stream.LEAST_TO_STREAM
        windows.LEAST_PIECES, download.LEAST_TO_DIGEST_AHEAD, stream.LEAST_TO_STREAM = 2, MIB, MIB
        return self

    def __exit__(self, *_: object) -> None:
        windows.LEAST_PIECES, download.LEAST_TO_DIGEST_AHEAD, stream.LEAST_TO_STREAM = self._usual
        self._ends.close()

    @property
    def depot(self) -> Transfers:
        """Transfers with a daemon that no fault kills."""
        if self._depot is None:
            self._depot = self._ends.enter_context(
                transfers(self.folder / "shared", events=self.events, patience=PATIENT,
                          streams=self.streams)
            )
        return self._depot

    @property
    def eight(self) -> list[Connection]:
        """Pipes to eight processes, each with transfers and a daemon of its own."""
        if not self._eight:
            context = multiprocessing.get_context("spawn")
            for number in range(8):
                here, there = context.Pipe()
                process = context.Process(target=serve, args=(there, str(self.folder / f"one-{number}")))
                process.start()
                self._eight.append(here)
                self._ends.callback(process.join)
                self._ends.callback(here.send, None)
        return self._eight


class Run:
    """One download and what became of it."""

    def __init__(self, fault: str, seed: int, bench: Bench) -> None:
        self.fault, self.seed, self.bench = fault, seed, bench
        self.rng = random.Random(f"{fault} {seed}")
        self.body = safetensors(self.rng.randrange(MIB, 8 * MIB), seed)
        self.right = {sha256(self.body)}
        self.folder = bench.folder / f"{fault}-{seed}"
        self.file = self.folder / "models" / "a.safetensors"
        self.folder.mkdir()
        self.paths = [f"/{fault}/{seed}"]
        self.events: list[dict[str, Any]] = []
        self.looks = self.early = self.kills = self.faults = self.bytes_moved = self.streamed = 0
        self.leaks: set[str] = set()
        self.takeover: float | None = None
        self.error = ""
        self.owner = bench.origin.netloc  # the host to which the token belongs
        self.is_right = self.is_mixed = False

    def grow(self, size: int) -> None:
        """Another size than the usual 1 to 8 MiB."""
        self.body = safetensors(size, self.seed)
        self.right = {sha256(self.body)}

    def put(self, **behaviour: Any) -> str:
        """Place the file at the origin, behind a token and a redirect to a signed address elsewhere."""
        given = {"token": TOKEN, "signed_ttl": 60.0, "signed_host": "localhost", "rate": RATE, **behaviour}
        return self.bench.origin.put(self.paths[0], self.body, **given)

    def entry(self, *urls: str, with_digest: bool | None = None) -> Entry:
        """The entry of a manifest, with a digest in half of the runs."""
        wants = self.rng.random() < 0.5 if with_digest is None else with_digest
        return entry(*urls, headers=HEADERS, sha256=max(self.right) if wants else None)

    def bring(self, wanted: Entry, depot: Transfers | None = None) -> None:
        """Fetch in this process and wait."""
        deadline = time.monotonic() + LONGEST

        def check() -> None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"not done after {LONGEST:.0f} s")

        streams = self.bench.streams
        with streams.wanted(self.file):
            (depot or self.bench.depot).fetch(wanted, self.file).wait(check=check)
        if (loaded := streams.take(self.file)) is not None:
            self.streamed += 1
            if loaded.tensors["w"].numpy().tobytes() != self.file.read_bytes()[-loaded.tensors["w"].numel():]:
                raise AssertionError("the tensors are not those of the file")

    @contextlib.contextmanager
    def own_depot(self) -> Iterator[tuple[Transfers, Daemon]]:
        """Transfers with a daemon of its own, which may be hurt."""
        daemon = Daemon(self.folder / "state", allow_hosts=("127.0.0.1", "localhost"))
        with transfers(self.folder, events=self.events, patience=PATIENT, daemon=daemon,
                       streams=self.bench.streams) as depot:
            try:
                daemon.ensure()
                yield depot, daemon
            finally:
                daemon.close()

    def process(self, url: str) -> subprocess.Popen[bytes]:
        """A process that fetches the file; what it says goes into a file of the run."""
        with open(self.folder / "process.log", "ab") as said:
            return fetcher(self.folder, self.file, url, header="Bearer $FAULTS_TOKEN", stderr=said)

    def hits(self) -> list[Hit]:
        """The requests of this run."""
        mine = {prefix + path for path in self.paths for prefix in ("", "/signed")}
        return [hit for hit in list(self.bench.origin.log) if hit.path in mine]

    def sent(self) -> int:
        """Body bytes so far."""
        return sum(hit.sent for hit in self.hits())

    def messages(self) -> Iterator[str]:
        """What a page or a user is told."""
        yield from (json.dumps(event) for event in list(self.events) + self.bench.events[-500:])
        yield self.error

    def digest_there(self) -> str:
        """The sha256 of what stands under the final name."""
        return hashlib.sha256(self.file.read_bytes()).hexdigest()

    def until_sent(self, count: int) -> None:
        """Wait until the origin has sent so much."""
        deadline = time.monotonic() + LONGEST
        while self.sent() < count and not self.file.exists() and time.monotonic() < deadline:
            time.sleep(0.005)

    def end(self) -> None:
        """Count, and remove what is large."""
        self.bytes_moved = self.sent()
        self.faults = max(self.faults, sum(hit.status >= 400 for hit in self.hits()))
        if self.file.exists():
            self.is_right = self.digest_there() in self.right and not self.error
            self.is_mixed = not self.is_right and not self.error
        for large in self.folder.rglob("*.part"):
            large.unlink()
        shutil.rmtree(self.folder / "models", ignore_errors=True)
        for path in self.paths:
            self.bench.origin.assets.pop(path, None)


def now_and_then(
    run: Run, share: float, most: int, make: Callable[[], Fault]
) -> Callable[[Hit], Fault | None]:
    """A fault for a share of the requests that would bring more than a look, and not for ever."""
    left = [most]

    def fault_for(hit: Hit) -> Fault | None:
        if hit.range == "bytes=0-0" or left[0] == 0 or run.rng.random() > share:
            return None
        left[0] -= 1
        run.faults += 1
        return make()

    return fault_for


# -- sources


def calm(run: Run) -> None:
    """Nothing happens: the control."""
    run.bring(run.entry(run.put()))


def resets(run: Run) -> None:
    """Connections are reset in the middle."""
    fault = now_and_then(run, 0.6, 12, lambda: Fault(reset_at=run.rng.randrange(len(run.body) // 2)))
    run.bring(run.entry(run.put(fault_for=fault)))


def cuts(run: Run) -> None:
    """Bodies end too early, cleanly."""
    fault = now_and_then(run, 0.6, 12, lambda: Fault(truncate_at=run.rng.randrange(len(run.body) // 2)))
    run.bring(run.entry(run.put(fault_for=fault)))


def busy(run: Run) -> None:
    """403, 429 and 5xx, with and without Retry-After, for looks and in the middle."""
    left = [run.rng.randrange(1, PATIENT.tries)]  # more in a row, and a source is given up

    def fault_for(hit: Hit) -> Fault | None:
        if left[0] == 0 or run.rng.random() > 0.5:
            return None
        left[0] -= 1
        wish = run.rng.choice([None, "0", "1"])
        return Fault(status=run.rng.choice([403, 429, 500, 502, 503, 504]), retry_after=wish)

    run.bring(run.entry(run.put(fault_for=fault_for)))


def stalls(run: Run) -> None:
    """Connections stay open and bring nothing more."""
    fault = now_and_then(run, 0.4, 6, lambda: Fault(stall_at=run.rng.randrange(len(run.body) // 2)))
    run.bring(run.entry(run.put(fault_for=fault)))


def ranges_ignored(run: Run) -> None:
    """Some requests for a range are answered with the whole file; every second origin knows no ranges."""
    fault = now_and_then(run, 0.5, 6, lambda: Fault(ignores_range=True))
    run.bring(run.entry(run.put(fault_for=fault, ranges=run.seed % 2 == 0)))


def expiry_storm(run: Run) -> None:
    """Signed addresses live a moment only, and connections end early: each next request comes too late."""
    run.grow(run.rng.randrange(4 * MIB, 8 * MIB))
    cut = now_and_then(run, 1.0, 100, lambda: Fault(truncate_at=run.rng.randrange(MIB // 4, 2 * MIB)))
    run.bring(run.entry(run.put(signed_ttl=run.rng.uniform(0.4, 1.0), rate=RATE / 2, fault_for=cut)))


def swapped(run: Run) -> None:
    """The file at the origin becomes another one of the same size, at a random moment."""
    after = run.rng.randrange(len(run.body))
    new = safetensors(len(run.body), run.seed + 10_000)
    url = run.put(swap_after=after, swap_to=new)
    wants_digest = run.rng.random() < 0.5
    old, run.right = run.right, {sha256(new)}
    wanted = run.entry(url, with_digest=wants_digest)
    run.right |= set() if wants_digest else old
    try:
        run.bring(wanted)
    except WrongContent:  # the old file came as a whole, and the manifest wants the new one
        if not wants_digest or run.sent() < after:
            raise
        run.bring(wanted)


def wrong_mirror(run: Run) -> None:
    """One of two mirrors serves other bytes: all, or a single one."""
    bad = bytearray(run.body)
    if run.seed % 2:
        bad = bytearray(safetensors(len(run.body), run.seed + 10_000))
    else:
        bad[run.rng.randrange(200, len(bad))] ^= 1
    run.paths.append(f"{run.paths[0]}/bad")
    good = run.bench.origin.put(run.paths[0], run.body, rate=RATE)
    wrong = run.bench.origin.put(run.paths[1], bytes(bad), rate=RATE)
    wrong = run.bench.origin.at("localhost", wrong) if run.rng.random() < 0.5 else wrong
    urls = run.rng.sample([wrong, good], 2)
    run.owner = urls[0].split("/")[2]
    run.bring(run.entry(*urls, with_digest=True))


# -- our own side


def hurt_while_it_comes(run: Run, most: int, hurt: Callable[[Daemon], None], *, kills: bool = True) -> None:
    """Do something to the daemon at random moments of a download."""
    with run.own_depot() as (depot, daemon):
        wanted = run.entry(run.put())
        moments = sorted(run.rng.sample(range(len(run.body)), run.rng.randint(1, most)))

        def strike() -> None:
            for moment in moments:
                run.until_sent(moment)
                with contextlib.suppress(ProcessLookupError):
                    if run.file.exists():
                        return
                    hurt(daemon)
                    run.kills += kills
                    run.faults += 1

        thread = threading.Thread(target=strike)
        thread.start()
        try:
            run.bring(wanted, depot)
        finally:
            thread.join()


def aria2c_killed(run: Run) -> None:
    """SIGKILL of aria2c, once or twice."""
    hurt_while_it_comes(run, 2, lambda daemon: os.kill(daemon.aria2c_pid or 0x7FFFFFFF, signal.SIGKILL))


def gate_killed(run: Run) -> None:
    """SIGKILL of the gate, once or twice."""
    hurt_while_it_comes(run, 2, lambda daemon: os.kill(_gate(daemon), signal.SIGKILL))


def aria2c_hangs(run: Run) -> None:
    """SIGSTOP of aria2c."""
    hurt_while_it_comes(
        run, 1, lambda daemon: os.kill(daemon.aria2c_pid or 0x7FFFFFFF, signal.SIGSTOP), kills=False
    )


def gate_hangs(run: Run) -> None:
    """SIGSTOP of the gate."""
    hurt_while_it_comes(run, 1, lambda daemon: os.kill(_gate(daemon), signal.SIGSTOP), kills=False)


def _gate(daemon: Daemon) -> int:
    return daemon._process.pid if daemon._process else 0x7FFFFFFF


def server_killed(run: Run) -> None:
    """SIGKILL of the whole process, once or twice; the next one starts after it or waits already."""
    url = run.put()
    moments = sorted(run.rng.sample(range(len(run.body)), run.rng.randint(1, 2)))
    holder, waiting = run.process(url), None
    for moment in moments:
        if waiting is None and run.rng.random() < 0.5:
            run.until_sent(1)
            waiting = run.process(url)
            time.sleep(0.8)  # it has started and waits
        run.until_sent(moment)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        run.kills += not run.file.exists()
        run.faults += 1
        asked, killed_at = len(run.hits()), time.monotonic()
        if waiting is not None:
            while len(run.hits()) == asked and waiting.poll() is None:
                time.sleep(0.005)
            if not run.file.exists():
                run.takeover = max(run.takeover or 0.0, time.monotonic() - killed_at)
        holder, waiting = waiting or run.process(url), None
    if holder.wait(LONGEST) != 0:
        run.error = f"the process ended with {holder.returncode}"


def eight_processes(run: Run) -> None:
    """Eight processes ask for the same file at once."""
    run.grow(32 * MIB)
    wanted = run.entry(run.put(rate=6 * RATE))
    for pipe in run.bench.eight:
        pipe.send((str(run.file), wanted))
    answers = [pipe.recv() for pipe in run.bench.eight]
    run.error = " ".join(filter(None, answers))


def serve(pipe: Connection, folder: str) -> None:
    """One of the eight: fetch what is asked for, until None."""
    daemon = Daemon(Path(folder) / "state", allow_hosts=("127.0.0.1", "localhost"))
    with transfers(Path(folder), patience=PATIENT, daemon=daemon) as depot:
        daemon.ensure()
        while (order := pipe.recv()) is not None:
            try:
                depot.fetch(order[1], Path(order[0])).wait()
                pipe.send("")
            except OSError as error:
                pipe.send(str(error))
    daemon.close()


FAULTS: dict[str, tuple[Callable[[Run], None], int]] = {
    "calm": (calm, 6),
    "resets": (resets, 6),
    "cuts": (cuts, 6),
    "busy": (busy, 8),
    "stalls": (stalls, 12),
    "ranges_ignored": (ranges_ignored, 6),
    "expiry_storm": (expiry_storm, 6),
    "swapped": (swapped, 6),
    "wrong_mirror": (wrong_mirror, 6),
    "aria2c_killed": (aria2c_killed, 3),
    "gate_killed": (gate_killed, 3),
    "aria2c_hangs": (aria2c_hangs, 10),
    "gate_hangs": (gate_hangs, 10),
    "server_killed": (server_killed, 2),
    "eight_processes": (eight_processes, 1),
}
"""{name: (what is done, how many runs at a time)}"""
