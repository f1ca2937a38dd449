"""Lists that are kept elsewhere: `model_versions.json` says which version of each this folder shall hold.

    {"$from": "https://lists.example/model_versions.json",
     "team_models.json": {"url": "https://lists.example/team_models.json", "sha256": "..."}}

A list whose digest differs is fetched (through the same gate as a model), checked, and put into the place of
the old one in one step; a new one that is not what it should be leaves the old one alone. This happens on a
thread of its own and when somebody asks for it, never while a list of models is made. `$from` names further
versions, which are looked up each time; those that stand in this folder's own file count before them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import random
import re
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from comfy_depot import sources
from comfy_depot.catalog import NOT_MANIFESTS
from comfy_depot.errors import DownloadFailed, UnsafeName
from comfy_depot.json_lines import key_lines
from comfy_depot.layout import safe_name
from comfy_depot.manifest import (
    LARGEST_MANIFEST,
    Entry,
    Mistake,
    Problem,
    Reading,
    locate,
    read_manifest,
)
from comfy_depot.options import Options
from comfy_depot.schemes import check_url, is_remote

log = logging.getLogger(__name__)

FILE_NAME = "model_versions.json"
LARGEST_VERSIONS = 1 << 20
_FORM = 'The form is {"list.json": {"url": "https://host/list.json", "sha256": "..."}}.'
_DIGESTS = {"sha256": 64, "md5": 32}


@dataclass(frozen=True)
class Version:
    """Which content a list shall have and where that is."""

    name: str
    url: str
    kind: str
    digest: str
    line: int | None = None

    def is_of(self, content: bytes) -> bool:
        """Whether these bytes are this version."""
        return hashlib.new(self.kind, content, usedforsecurity=False).hexdigest() == self.digest


@dataclass(frozen=True)
class Outcome:
    """What became of a list: "current", "fetched", or "kept" (the old one; `message` says why)."""

    name: str
    state: str
    message: str | None = None


@dataclass(frozen=True)
class Versions:
    """What a file of versions says."""

    lists: tuple[Version, ...] = ()
    source: str | None = None
    problems: tuple[Problem, ...] = ()


def read_versions(text: str, *, file: str = FILE_NAME) -> Versions:
    """Read a file of versions. Never raises: what is wrong stands in `problems`."""
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        message = f"not JSON: {error.msg} at column {error.colno}. Correct this line. {_FORM}"
        return Versions(problems=(Problem(file, error.lineno, message),))
    except RecursionError:
        return Versions(problems=(Problem(file, None, f"nested too deeply. {_FORM}"),))
    except ValueError:  # Python reads no number of more than 4,300 digits
        return Versions(problems=(Problem(file, None, f"a number has too many digits. Correct it. {_FORM}"),))
    if not isinstance(content, dict):
        return Versions(problems=(Problem(file, 1, f"not an object. {_FORM}"),))
    lists: list[Version] = []
    mistakes: list[Mistake] = []
    source = None
    for name, value in content.items():
        try:
            if name == "$from":
                source = _check_address(value)
            elif not name.startswith("$"):
                lists.append(_read_version(name, value))
        except ValueError as error:
            mistakes.append(((name,), f"'{name}': {error}."))
    lines = dict(key_lines(text))
    placed = [replace(one, line=lines.get((one.name,))) for one in lists]
    return Versions(tuple(placed), source, tuple(locate(file, text, mistakes)))


def _read_version(name: str, value: Any) -> Version:
    name = name if name.endswith(".json") else f"{name}.json"
    try:
        safe_name(name)
    except UnsafeName as error:
        raise ValueError(str(error).rstrip(".")) from None
    if "/" in name or name in NOT_MANIFESTS:
        raise ValueError("it is no list of models in this folder. Write a file name, as 'team_models.json'")
    if not isinstance(value, dict):
        raise ValueError('the value is no object. Write {"url": "https://host/list.json", "sha256": "..."}')
    unknown = sorted(value.keys() - {"url", *_DIGESTS})
    if unknown:
        raise ValueError(f"field '{unknown[0]}' is not known. Write url and sha256 (or md5)")
    kinds = [kind for kind in _DIGESTS if value.get(kind) is not None]
    if not kinds:
        raise ValueError("it has no digest, so nobody can tell when it changed. Add \"sha256\" or \"md5\"")
    kind, digest = kinds[0], value[kinds[0]]  # of two the stronger one
    if not isinstance(digest, str) or not re.fullmatch(f"[0-9a-fA-F]{{{_DIGESTS[kind]}}}", digest):
        raise ValueError(f"'{digest}' is no {kind}. Write its {_DIGESTS[kind]} hexadecimal digits")
    return Version(name, _check_address(value.get("url")), kind, digest.lower())


def _check_address(url: Any) -> str:
    if not isinstance(url, str):
        raise ValueError("'url' is missing or no text. Write https://host/list.json")
    if not is_remote(check_url(url)):
        raise ValueError(f"'{url}' is no address of the network. Write https://host/list.json")
    return url


def why_refused(reading: Reading) -> str | None:
    """Why a fetched list must not take the place of the one before, or None when it may.

    Its authors may be others than the owner of this machine: no file, bucket or variable of it is theirs.
    """
    if not reading.is_readable or (reading.problems and not reading.entries):
        return str(reading.problems[0])
    for entry in reading.entries:
        for url in entry.urls:
            if not is_remote(url):
                return (f"'{entry.key}' names a file or bucket of this machine, and a fetched list may not. "
                        "Put such models into a manifest of your own.")
        if any("$" in value for value in entry.headers.values()):
            return (f"'{entry.key}' has a header with a variable of this machine; a fetched list may not. "
                    "Use --depot-tokens HOST=NAME instead.")
    return None


class Lists:
    """The lists of one manifest folder, kept as their versions say. Methods may be called from any thread."""

    def __init__(self, options: Options, *, on_change: Callable[[tuple[Problem, ...]], None]) -> None:
        self.directory = options.model_manifests
        self.options = options
        self._on_change = on_change
        """Called with the mistakes of now after each refresh."""
        self._one_at_a_time = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Refresh now and again and again, on a thread."""
        if self.options.manifest_refresh > 0:
            self._thread = threading.Thread(target=self._run, name="manifest-refresh", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """End the thread; a fetch under way is left to itself."""
        self._stop.set()

    def check(self) -> tuple[Problem, ...]:
        """The mistakes in this folder's versions, without fetching anything."""
        return self._own().problems

    def refresh(self) -> list[Outcome]:
        """Bring each list to the version that is asked for; says what became of each."""
        with self._one_at_a_time:
            own = self._own()
            outcomes, problems, wanted = [], list(own.problems), {one.name: one for one in own.lists}
            if own.source is not None:
                try:
                    further = self._further(own.source)
                    problems += further.problems
                    wanted = {**{one.name: one for one in further.lists}, **wanted}
                except DownloadFailed as error:
                    problems.append(Problem(FILE_NAME, None, f"'$from': {error}"))
            for version in sorted(wanted.values(), key=lambda one: one.name):
                outcome = self._bring(version)
                outcomes.append(outcome)
                if outcome.message is not None:
                    problems.append(Problem(FILE_NAME, version.line, outcome.message))
            self._on_change(tuple(problems))
            return outcomes

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.refresh()
            except Exception:  # the edge of the thread: one bad round must not be the last one
                log.exception("The lists of models could not be refreshed.")
            self._stop.wait(self.options.manifest_refresh * random.uniform(0.9, 1.0))  # nodes spread out

    def _own(self) -> Versions:
        file = self.directory / FILE_NAME
        try:
            return read_versions(file.read_text(encoding="utf-8-sig"))
        except FileNotFoundError:
            return Versions()
        except (OSError, UnicodeDecodeError) as error:
            message = f"cannot be read ({error}). Check the file and its rights, and save it as UTF-8."
            return Versions(problems=(Problem(FILE_NAME, None, message),))

    def _further(self, url: str) -> Versions:
        body = self._read(FILE_NAME, url, LARGEST_VERSIONS)
        return read_versions(body.decode("utf-8", "replace"), file=sources.shown(url))

    def _read(self, name: str, url: str, most_bytes: int) -> bytes:
        entry = Entry(self.directory.name, name, (url,))
        return sources.read(entry, url, most_bytes=most_bytes, allow_hosts=self.options.depot_allow_hosts,
                            tokens=self.options.tokens)

    def _bring(self, version: Version) -> Outcome:
        file = self.directory / version.name
        try:
            if file.exists() and version.is_of(file.read_bytes()):
                return Outcome(version.name, "current")
            body = self._read(version.name, version.url, LARGEST_MANIFEST)
            refusal = self._replace(file, version, body)
        except DownloadFailed as error:
            refusal = f"{error}"
        except OSError as error:
            why = error.strerror or error
            refusal = (f"'{version.name}' cannot be written into {self.directory} ({why}). "
                       "Let this user write there, or choose another folder with --model-manifests.")
        if refusal is None:
            log.info("The list %s was fetched from %s.", version.name, sources.shown(version.url))
            return Outcome(version.name, "fetched")
        log.warning("The list %s stays as it was: %s", version.name, refusal)
        return Outcome(version.name, "kept", f"{refusal} The list stays as it was.")

    def _replace(self, file: Path, version: Version, body: bytes) -> str | None:
        """Put a new list into its place when it is what it should be; else why not."""
        where = sources.shown(version.url)
        if not version.is_of(body):
            return (f"'{version.name}': what {where} sends has another {version.kind} than {FILE_NAME} says. "
                    "Correct the digest there, or publish the list again.")
        with tempfile.TemporaryDirectory(dir=self.directory, prefix=".incoming-") as folder:
            new = Path(folder) / version.name
            with open(new, "wb") as stream:
                stream.write(body)
                stream.flush()
                os.fsync(stream.fileno())
            reason = why_refused(read_manifest(new))
            if reason is not None:
                return f"'{version.name}' from {where} is not used: {reason}"
            os.replace(new, file)
        return None
