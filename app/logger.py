"""The log: to the terminal, and the last lines of everything written there for the web page's log panel."""

from __future__ import annotations

import collections
import datetime
import logging
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

Entry = dict[str, str]

# Module-level because packs call get_logs() and on_flush() without an object at hand.
_logs: collections.deque[Entry] = collections.deque(maxlen=300)
_streams: list[LogInterceptor] = []
_lock = threading.Lock()


class LogInterceptor:
    """A text stream that passes everything on to another and remembers it as entries {t: time, m: text}."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        # Bounded as well: nobody has to flush.
        self._fresh: collections.deque[Entry] = collections.deque(maxlen=_logs.maxlen)
        self._callbacks: list[Callable[[list[Entry]], None]] = []

    def write(self, text: str) -> int:
        """Remember and pass on. A line drawn over itself ("\\r") replaces its last state."""
        entry = {"t": datetime.datetime.now().isoformat(), "m": text}
        with _lock:
            if text.startswith("\r") and _logs and _logs[-1]["m"].startswith("\r"):
                _logs.pop()
            _logs.append(entry)
            self._fresh.append(entry)
        return self._stream.write(text)

    def flush(self) -> None:
        """Flush, and hand what came since the last flush to the listeners."""
        self._stream.flush()
        with _lock:
            fresh = list(self._fresh)
            self._fresh.clear()
        if fresh:
            for callback in list(self._callbacks):
                callback(fresh)

    def on_flush(self, callback: Callable[[list[Entry]], None]) -> None:
        """Call `callback(entries)` after each flush."""
        self._callbacks.append(callback)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def get_logs() -> collections.deque[Entry]:
    """The last lines, oldest first."""
    return _logs


def on_flush(callback: Callable[[list[Entry]], None]) -> None:
    """Call `callback(entries)` whenever something new was written."""
    for stream in _streams:
        stream.on_flush(callback)


def setup_logger(
    log_level: str = "INFO",
    capacity: int = 300,
    use_stdout: bool = False,
    files: Iterable[tuple[str, str]] = (),
) -> None:
    """Send the root logger to the terminal and to files, each a (level, path), and listen in on both standard
    streams. OSError for a file that cannot be written.

    A second call changes nothing.
    """
    global _logs
    if _streams:
        return
    _logs = collections.deque(_logs, maxlen=capacity)
    sys.stdout, sys.stderr = LogInterceptor(sys.stdout), LogInterceptor(sys.stderr)
    _streams.extend([sys.stdout, sys.stderr])
    root = logging.getLogger()
    root.setLevel(log_level)
    errors = _handler(sys.stderr, log_level)
    root.addHandler(errors)
    if use_stdout:
        errors.setLevel(max(errors.level, logging.ERROR))
        rest = _handler(sys.stdout, log_level)
        rest.addFilter(lambda record: record.levelno < logging.ERROR)
        root.addHandler(rest)
    for level, path in files:
        _log_to_file(root, level, path)


def _log_to_file(root: logging.Logger, level: str, path: str) -> None:
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setLevel(level)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root.addHandler(handler)
    root.setLevel(min(root.level, handler.level))


def _handler(stream: Any, level: str) -> logging.Handler:
    handler = logging.StreamHandler(stream)
    handler.setLevel(level)
    handler.setFormatter(logging.Formatter("%(message)s"))
    return handler


# Said again at the end of the start-up, where they are seen.
STARTUP_WARNINGS: list[str] = []


def log_startup_warning(message: str) -> None:
    """Warn now, and again when the start-up is over."""
    logging.warning(message)
    STARTUP_WARNINGS.append(message)


def print_startup_warnings() -> None:
    """Repeat the warnings of the start-up, once."""
    for message in STARTUP_WARNINGS:
        logging.warning(message)
    STARTUP_WARNINGS.clear()
