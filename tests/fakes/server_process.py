"""The real server as a process of its own: start, wait for its answer, read its log, stop or kill it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def install_live_pack(base_directory: Path) -> None:
    """Put the node pack of `tests/fakes/live_pack` into a base directory."""
    shutil.copytree(ROOT / "tests/fakes/live_pack", Path(base_directory) / "custom_nodes/live_pack")


def install_compare_pack(base_directory: Path) -> None:
    """Put the node pack of `tests/fakes/compare_pack` into a base directory."""
    shutil.copytree(ROOT / "tests/fakes/compare_pack", Path(base_directory) / "custom_nodes/compare_pack")


class ServerProcess:
    """`python main.py --cpu --base-directory DIR` on a free port of 127.0.0.1; its log is DIR/server.log.

    A context manager that waits for the first answer and stops the server at the end.
    """

    def __init__(
        self,
        base_directory: Path,
        *options: str,
        port: int | None = None,
        main: Path = ROOT / "main.py",
        python: str = sys.executable,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.base_directory = Path(base_directory)
        self.port = port or free_port()
        self.log_file = self.base_directory / "server.log"
        self.command = [
            python,
            str(main),
            "--cpu",
            "--port",
            str(self.port),
            "--base-directory",
            str(self.base_directory),
            "--disable-auto-launch",
            *options,
        ]
        self.environment = {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})}
        self.process: subprocess.Popen[bytes] | None = None
        self.seconds_to_answer: float | None = None

    @property
    def url(self) -> str:
        """Address without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    def start(self, *, seconds: float = 60) -> ServerProcess:
        """Start and wait for GET /system_stats to answer; RuntimeError with the log when it does not."""
        self.base_directory.mkdir(parents=True, exist_ok=True)
        started = time.perf_counter()
        with open(self.log_file, "ab") as log:
            self.process = subprocess.Popen(
                self.command, cwd=self.main_folder, env=self.environment, stdout=log, stderr=subprocess.STDOUT
            )
        while time.perf_counter() - started < seconds:
            if self.process.poll() is not None:
                raise RuntimeError(f"The server ended with code {self.process.returncode}.\n{self.log()}")
            try:
                self.get_json("/system_stats")
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.01)
                continue
            self.seconds_to_answer = time.perf_counter() - started
            return self
        self.kill()
        raise RuntimeError(f"The server gave no answer within {seconds} s.\n{self.log()}")

    def run_to_end(self, *, seconds: float = 60) -> tuple[int, str]:
        """(exit code, log) of a server that is expected not to start."""
        done = subprocess.run(
            self.command, cwd=self.main_folder, env=self.environment, timeout=seconds, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        return done.returncode, done.stdout

    @property
    def main_folder(self) -> str:
        """The folder of the main.py that is run."""
        return str(Path(self.command[1]).parent)

    def stop(self, *, seconds: float = 10) -> int:
        """Ask the server to end (SIGTERM), kill it after a while; returns its exit code."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            return -signal.SIGKILL

    def kill(self) -> None:
        """End the server at once (SIGKILL), as a crash would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def log(self) -> str:
        """Everything written so far."""
        return self.log_file.read_text(encoding="utf-8", errors="replace") if self.log_file.exists() else ""

    def rss_megabytes(self) -> float:
        """Resident memory of the process."""
        import psutil

        assert self.process is not None
        return psutil.Process(self.process.pid).memory_info().rss / 1024 / 1024

    def request(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        """(status, body) of a request; `body` is sent as JSON.

        A status of 400 or more is returned, not raised.
        """
        data = None if body is None else json.dumps(body).encode("utf-8")
        request = urllib.request.Request(
            self.url + path, data=data, method=method, headers={"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as refusal:
            with refusal:
                return refusal.code, refusal.read()

    def get_json(self, path: str) -> Any:
        """The JSON of a GET."""
        return json.loads(self.request("GET", path)[1])

    def post_json(self, path: str, body: Any) -> Any:
        """The JSON of a POST."""
        return json.loads(self.request("POST", path, body)[1])

    def run_prompt(self, prompt: dict[str, Any], *, seconds: float = 60, **fields: Any) -> dict[str, Any]:
        """Queue a prompt and wait for its history entry."""
        answer = self.post_json("/prompt", {"prompt": prompt, **fields})
        if "prompt_id" not in answer:
            raise RuntimeError(f"The prompt was refused: {answer}")
        return self.wait_for_history(answer["prompt_id"], seconds=seconds)

    def wait_for_history(self, prompt_id: str, *, seconds: float = 60) -> dict[str, Any]:
        """The history entry of a prompt, as soon as it is there."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            history = self.get_json(f"/history/{prompt_id}")
            if prompt_id in history:
                return history[prompt_id]
            time.sleep(0.02)
        raise RuntimeError(f"Prompt {prompt_id} has no history after {seconds} s.\n{self.log()}")

    def __enter__(self) -> ServerProcess:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.stop()
