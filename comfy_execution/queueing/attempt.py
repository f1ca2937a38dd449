"""What the running prompt has done so far, in a file that survives the death of the process.

The file has a JSON list per line: the number of the attempt, and one entry. The first names the prompt by its
row in the journal. An entry is there as soon as it is written, also when this process is killed (see
`kept_file.py`):

    [12, {"sequence": 7}]                     the prompt that runs
    [12, {"shown": "9", "what": {...}}]       a node has shown something: written before the client is told
    [12, {"done": "9"}]                       ... and has finished
    [12, {"number": [...], "is": 4}]          a call of `folder_paths.get_save_image_path` got this number
    [12, {"counted": true}]                   the death of this process is counted already
    [12, {"stopped": true}]                   this process was asked to stop: no death

The next attempt writes over it from the start, and what is left of the one before has another number. A file
that grows or is replaced for each prompt would be some file systems' reason to wait for the disk.

When the prompt is run again, outputs that had finished are shown as they were if no other node needs them and
their files are not in the temp folder, which is emptied at each start.
A file that is saved again gets its old number: it takes the place of its former self.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from comfy_execution.graph_utils import is_link
from comfy_execution.queueing.kept_file import KeptFile
from comfy_execution.utils import get_executing_context

log = logging.getLogger(__name__)

Shown = dict[str, Any]
"""{"meta": ..., "output": ...} of a node."""
Call = tuple[str, int, str, int]
"""(node id, list index, file name without number, how many calls with all of this came before)"""

SECONDS_A_CLOCK_MAY_LAG = 0.05
LONGEST_SILENCE = 2.0
"""Seconds after its last sign of life in which a process may have saved a file."""


class PastAttempt:
    """What the file says about an attempt that did not end."""

    def __init__(self, path: Path) -> None:
        self.attempt = 0
        self.size = 0
        self.sequence: int | None = None
        self.shown: dict[str, Shown] = {}
        self.done: set[str] = set()
        self.numbers: dict[Call, tuple[int, float]] = {}
        self.counted = False
        self.stopped = False
        with contextlib.suppress(FileNotFoundError):
            self.size = self._read(path.read_bytes())

    def _read(self, content: bytes) -> int:
        """Take the entries of the first attempt in the file; gives where they end."""
        end = 0
        for line in content.splitlines(keepends=True):
            try:
                number, entry = json.loads(line)
                if self.sequence is not None and number != self.attempt or not line.endswith(b"\n"):
                    break
                self.attempt = int(number)
                self._take(entry)
            except (ValueError, KeyError, TypeError):  # left over, or the last line of a killed process
                break
            end += len(line)
        return end

    def _take(self, entry: Mapping[str, Any]) -> None:
        if "sequence" in entry:
            self.sequence = int(entry["sequence"])
        elif "shown" in entry:
            self.shown[entry["shown"]] = entry["what"]
        elif "done" in entry:
            self.done.add(entry["done"])
        elif "number" in entry:
            node_id, list_index, name, ordinal = entry["number"]
            self.numbers[node_id, list_index, name, ordinal] = (entry["is"], entry["at"])
        self.counted |= "counted" in entry
        self.stopped |= "stopped" in entry

    def entries(self) -> list[dict[str, Any]]:
        """What the next attempt takes over."""
        found: list[dict[str, Any]] = [{"shown": node, "what": what} for node, what in self.shown.items()]
        found += [{"done": node} for node in self.done]
        found += [
            {"number": list(call), "is": number, "at": at} for call, (number, at) in self.numbers.items()
        ]
        return found


class AttemptFile:
    """The file, open as long as its journal. An error is said once and ends the writing of this attempt."""

    def __init__(self, path: Path, *, flushes: bool = False) -> None:
        self.past = PastAttempt(path)
        self._path = path
        self._flushes = flushes
        self._attempt = self.past.attempt
        self._end = self.past.size
        self._file = self._open(path)

    def _open(self, path: Path) -> KeptFile | None:
        try:
            return KeptFile(path)
        except OSError as error:
            self._complain(error)
            return None

    def begin(self, entries: list[Mapping[str, Any]], encode: Callable[[Any], str]) -> None:
        """The next attempt, with these entries. Many are written beside: they are all there, or none."""
        self._attempt += 1
        content = b"".join(self._line(entry, encode) for entry in entries)
        self._end = 0
        if len(entries) == 1 and self._file is not None:
            self._write(content)
            return
        beside = self._path.with_name(self._path.name + ".new")
        self.close()
        self._file = self._open(beside)
        self._write(content)
        try:
            os.replace(beside, self._path)
        except OSError as error:
            self._complain(error)

    def add(self, entry: Mapping[str, Any], encode: Callable[[Any], str] = json.dumps) -> None:
        """One more entry."""
        self._write(self._line(entry, encode))

    def close(self) -> None:
        """Write no more."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _line(self, entry: Mapping[str, Any], encode: Callable[[Any], str]) -> bytes:
        return f"[{self._attempt}, {encode(entry)}]\n".encode()

    def _write(self, content: bytes) -> None:
        if self._file is None:
            return
        try:
            self._file.write(content, self._end)
            self._end += len(content)
            if self._flushes:
                self._file.flush()
        except OSError as error:
            self._complain(error)
            self.close()

    def _complain(self, error: OSError) -> None:
        log.error("%s cannot be written (%s). If the server dies now, outputs of the running prompt are made "
                  "again.", self._path, error)


class ShownOutputs(dict[str, Shown]):
    """What nodes show, by node id; each is in the attempt's file before anybody is told."""

    def __init__(self, attempt: Attempt) -> None:
        super().__init__()
        self._attempt = attempt

    def __setitem__(self, node_id: str, shown: Shown) -> None:
        super().__setitem__(node_id, shown)
        self._attempt.note_shown(node_id, shown)

    def restore(self, shown: Mapping[str, Shown]) -> None:
        """These are in the file already."""
        super().update(shown)


class Attempt:
    """A prompt that runs now."""

    def __init__(
        self,
        file: AttemptFile,
        sequence: int,
        *,
        encode: Callable[[Any], str],
        alive_until: float = 0.0,
        temp_directory: Callable[[], str] | None = None,
    ) -> None:
        """`alive_until`: until when, in seconds, the process before may have saved files."""
        is_again = file.past.sequence == sequence
        self._past = file.past if is_again else None
        self._file = file
        self._encode = encode
        self._alive_until = alive_until
        self._temp_directory = temp_directory
        self._calls: Counter[tuple[str, int, str]] = Counter()
        self._cached: frozenset[str] = frozenset()
        self.outputs = ShownOutputs(self)
        file.begin([{"sequence": sequence}, *(file.past.entries() if is_again else ())], encode)

    def _add(self, entry: Mapping[str, Any]) -> None:
        self._file.add(entry, self._encode)

    # -- outputs -------------------------------------------------------------------------------------------

    def note_shown(self, node_id: str, shown: Shown) -> None:
        """A node shows something; of a stored result it has finished too."""
        self._add({"shown": node_id, "what": shown})
        if node_id in self._cached:
            self._add({"done": node_id})

    def note_done(self, node_id: str) -> None:
        """A node has finished."""
        if node_id in self.outputs:
            self._add({"done": node_id})

    def outputs_to_run(
        self, prompt: Mapping[str, Any], outputs: Iterable[str], cached: Iterable[str]
    ) -> list[str]:
        """The outputs without those that had finished in the past attempt and that no other node needs; these
        are put into `self.outputs`, with what their expansions had shown. `cached` have stored results. What
        showed files of the temp folder runs again: the folder is emptied at each start.
        """
        self._cached = frozenset(cached)
        wanted = list(outputs)
        if self._past is None:
            return wanted
        lost = _with_temporary_files(self._past.shown)
        finished = {
            node_id for node_id in wanted if node_id in self._past.done & self._past.shown.keys() - lost
        }
        left = [node_id for node_id in wanted if node_id not in finished]
        finished -= _needed_by(left, prompt)
        self.outputs.restore({
            node_id: shown
            for node_id, shown in self._past.shown.items()
            if node_id in finished or shown.get("meta", {}).get("real_node_id") in finished
        })
        return [node_id for node_id in wanted if node_id not in finished]

    # -- numbers of files ----------------------------------------------------------------------------------

    def number_for(self, folder: str, name: str, free: int) -> int:
        """The number of a file to be saved: that of the past attempt if all files from there on are its own,
        else the `free` one. Called by `folder_paths.get_save_image_path`.
        """
        context = get_executing_context()
        if context is None:
            return free
        if self._temp_directory is not None and _is_below(folder, self._temp_directory()):
            return free
        path = os.path.join(folder, name)
        place = (context.node_id, context.list_index or 0, path)
        call = (*place, self._calls[place])
        self._calls[place] += 1
        number, given_at = self._number_again(call, folder, name) or (free, time.time())
        self._add({"number": list(call), "is": number, "at": given_at})
        return number

    def _number_again(self, call: Call, folder: str, name: str) -> tuple[int, float] | None:
        """(number, when it was given first), or None if a new one is needed."""
        if self._past is None or call not in self._past.numbers:
            return None
        number, given_at = self._past.numbers[call]
        next_one = min(
            (other for key, (other, _) in self._past.numbers.items() if key[2] == call[2] and other > number),
            default=None,
        )
        for other, changed_at in _numbered_files(folder, name):
            if other < number or (next_one is not None and other >= next_one):
                continue
            earliest = given_at - SECONDS_A_CLOCK_MAY_LAG
            if not earliest <= changed_at <= self._alive_until:
                log.warning("A file %s_%05d in %s was saved by somebody else since the server stopped: "
                            "the picture gets a new number.", name, other, folder)
                return None
        return number, given_at


def _needed_by(roots: Iterable[str], prompt: Mapping[str, Any]) -> set[str]:
    """All nodes above these."""
    found: set[str] = set()
    waiting = list(roots)
    while waiting:
        for value in prompt.get(waiting.pop(), {}).get("inputs", {}).values():
            if is_link(value) and value[0] not in found:
                found.add(value[0])
                waiting.append(value[0])
    return found


def _with_temporary_files(shown: Mapping[str, Shown]) -> set[str]:
    """The nodes that showed a file of the temp folder, by themselves or in their expansions."""
    found = set()
    for node_id, what in shown.items():
        if _names_temporary_file(what.get("output")):
            found |= {node_id, what.get("meta", {}).get("real_node_id", node_id)}
    return found


def _names_temporary_file(output: Any) -> bool:
    waiting = [output]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if value.get("type") == "temp" and "filename" in value:
                return True
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
    return False


def _is_below(path: str, directory: str) -> bool:
    return os.path.join(os.path.abspath(path), "").startswith(os.path.join(os.path.abspath(directory), ""))


def _numbered_files(folder: str, name: str) -> list[tuple[int, float]]:
    """(number, time of the last change) of each file `name_<number>...`."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for entry in os.scandir(folder):
            number = re.match(r"_(\d+)(?:[_.]|$)", entry.name[len(name):])
            if number is not None and entry.name.startswith(name):
                found.append((int(number.group(1)), entry.stat().st_mtime))
    return found
