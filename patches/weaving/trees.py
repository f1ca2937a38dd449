"""Where the files of a core are: a folder, or a commit of a git repository."""

from __future__ import annotations

import os
import re
import subprocess
import weakref
from pathlib import Path
from typing import IO, Protocol

from weaving.errors import Refused
from weaving.patch_files import Version, version_of

OWN_NAME = re.compile(rb'^name\s*=\s*"comfyui-depot"', re.MULTILINE)
VERSION = re.compile(rb'__version__\s*=\s*"([^"]+)"')


class Tree(Protocol):
    """The files of a core."""

    name: str

    def read(self, path: str) -> bytes | None:
        """The content of a file, by its path with "/"; None where there is none."""


class Folder:
    """The files in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = str(folder)

    def read(self, path: str) -> bytes | None:
        try:
            return (self.folder / path).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise Refused(f"{self.folder / path} cannot be read: {error.strerror}.") from error

    def write(self, changes: dict[str, bytes]) -> None:
        """Replace files: all are written beside theirs before the first takes its place."""
        beside = {}
        try:
            for path, data in changes.items():
                file = self.folder / path
                beside[file] = file.with_name(f"{file.name}.{os.getpid()}.weave")
                beside[file].write_bytes(data)
                beside[file].chmod(file.stat().st_mode)
            for file, new in beside.items():
                os.replace(new, file)
        except OSError as error:
            raise Refused(f"{error.filename} cannot be written: {error.strerror}. Make room or correct the "
                          "rights, then run the same command again.") from error
        finally:
            for new in beside.values():
                new.unlink(missing_ok=True)


class Repository:
    """A git repository, asked by plumbing commands only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._reader: subprocess.Popen[bytes] | None = None

    def git(self, *words: str, data: bytes | None = None, environment: dict[str, str] | None = None) -> str:
        """What `git WORDS` writes; Refused with what it complains of."""
        try:
            done = subprocess.run(["git", "-C", str(self.folder), *words], input=data, capture_output=True,
                                  env={**os.environ, **(environment or {})})
        except OSError as error:
            raise Refused(f"git cannot be run: {error.strerror}. Install it first.") from error
        if done.returncode:
            raise Refused(f"git {words[0]} failed: {done.stderr.decode(errors='replace').strip()}")
        return done.stdout.decode().strip()

    def commit(self, ref: str) -> str:
        """The full name of the commit that a name stands for."""
        try:
            return self.git("rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}")
        except Refused:
            raise Refused(f"'{ref}' is neither a folder nor a commit of {self.folder.resolve()}.") from None

    def blob(self, name: str) -> tuple[str, bytes] | None:
        """(object name, content) of "COMMIT:PATH", or None; one process answers all questions."""
        asked, answers = self._pipes()
        asked.write(f"{name}\n".encode())
        asked.flush()
        words = answers.readline().split()
        if len(words) != 3:
            return None
        data = answers.read(int(words[2]) + 1)[:-1]
        return (words[0].decode(), data) if words[1] == b"blob" else None

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        if self._reader is None:
            self._reader = subprocess.Popen(["git", "-C", str(self.folder), "cat-file", "--batch"],
                                            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            weakref.finalize(self, _end, self._reader)
        assert self._reader.stdin is not None and self._reader.stdout is not None
        return self._reader.stdin, self._reader.stdout

    def close(self) -> None:
        """End the process that reads objects."""
        if self._reader is not None:
            _end(self._reader)
            self._reader = None


def _end(reader: subprocess.Popen[bytes]) -> None:
    """End a process that waits for questions."""
    if reader.poll() is None:
        reader.communicate()


class Commit:
    """The files of a commit."""

    def __init__(self, repository: Repository, ref: str) -> None:
        self.repository = repository
        self.id = repository.commit(ref)
        self.name = ref

    def read(self, path: str) -> bytes | None:
        found = self.repository.blob(f"{self.id}:{path}")
        return None if found is None else found[1]


def open_tree(target: str, repository: Path) -> Folder | Commit:
    """The folder or the commit that a word of the command line names."""
    folder = Path(target)
    return Folder(folder.resolve()) if folder.is_dir() else Commit(Repository(repository), target)


def core_of(tree: Tree) -> str:
    """"depot" for our own core, "upstream" for ComfyUI; Refused for what is neither."""
    if OWN_NAME.search(tree.read("pyproject.toml") or b""):
        return "depot"
    if tree.read("folder_paths.py") is None or tree.read("execution.py") is None:
        raise Refused(f"{tree.name} is no ComfyUI: it has no folder_paths.py and execution.py.")
    return "upstream"


def core_version(tree: Tree) -> Version:
    """The version that a core says it has; () where it says none."""
    found = VERSION.search(tree.read("comfyui_version.py") or b"")
    return version_of(found[1].decode()) if found else ()


def version_text(version: Version) -> str:
    """"v0.3.28" of (0, 3, 28)."""
    return f"v{'.'.join(map(str, version))}" if version else "a version without a number"
