"""Files in the input folder that are called by their content: `input/assets/<BLAKE3 of the bytes>.png`.

Uploads of the v2 interface and inputs that a prompt names by URL stand here. The same bytes are there once,
a name never means other bytes, and loader nodes open them as `assets/<digest>.png`. A file is written beside
its place and renamed when it is whole.
"""

from __future__ import annotations

import filecmp
import os
import re
from dataclasses import dataclass

import folder_paths
from app.atomic_write import path_beside

SUBFOLDER = "assets"
HASH_PREFIX = "blake3:"
_EXTENSION = re.compile(r"\.[a-z0-9]{1,10}")


class TooLargeError(ValueError):
    """More bytes came than may be kept."""


@dataclass(frozen=True)
class Stored:
    """A file that is there: its name below the input folder, `blake3:<hex>`, and its bytes."""

    name: str
    hash: str
    size: int


def extension_of(filename: str) -> str:
    """The ending of a name in small letters, with its dot; empty for none that a file should have."""
    ending = os.path.splitext(filename)[1].lower()
    return ending if _EXTENSION.fullmatch(ending) else ""


def path_of(name: str) -> str:
    """Where a stored file is."""
    return os.path.join(folder_paths.get_input_directory(), *name.split("/"))


class Receiver:
    """Takes a file piece by piece; `keep` gives it its name. A context manager: what is not kept is deleted.

    `most_bytes` is the limit (TooLargeError); None for none.
    """

    def __init__(self, most_bytes: int | None = None) -> None:
        from blake3 import blake3

        self.most_bytes = most_bytes
        self.size = 0
        self.head = b""
        self._digest = blake3()
        folder = os.path.join(folder_paths.get_input_directory(), SUBFOLDER)
        os.makedirs(folder, exist_ok=True)
        self._path: str | None = path_beside(os.path.join(folder, "new"))
        self._file = open(self._path, "xb")

    def write(self, piece: bytes) -> None:
        """The next bytes."""
        self.size += len(piece)
        if self.most_bytes is not None and self.size > self.most_bytes:
            raise TooLargeError(f"it has more than {self.most_bytes:,} bytes")
        if len(self.head) < 4096:
            self.head = (self.head + piece)[:4096]
        self._digest.update(piece)
        self._file.write(piece)

    @property
    def hash(self) -> str:
        """`blake3:<hex>` of what has come."""
        return HASH_PREFIX + self._digest.hexdigest()

    def keep(self, extension: str) -> Stored:
        """The file is whole: give it its name, with this ending."""
        assert self._path is not None
        self._file.close()
        stored = Stored(f"{SUBFOLDER}/{self._digest.hexdigest()}{extension}", self.hash, self.size)
        final = path_of(stored.name)
        if os.path.isfile(final) and filecmp.cmp(final, self._path, shallow=False):
            os.unlink(self._path)  # the file that is there keeps its date
        else:  # also when somebody has written other bytes under that name
            os.replace(self._path, final)
        self._path = None
        return stored

    def __enter__(self) -> Receiver:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
        if self._path is not None:
            os.unlink(self._path)
