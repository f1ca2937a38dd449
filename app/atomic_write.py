"""Write a file beside its place, then rename it there: a reader never sees half of it."""

from __future__ import annotations

import os
import uuid


def path_beside(path: str) -> str:
    """A hidden name in the same folder, for a file that is not whole yet."""
    return os.path.join(os.path.dirname(path), f".writing-{uuid.uuid4().hex}")


def write_atomically(path: str, content: bytes) -> None:
    """Replace the file at `path`. On an OSError the old file stands unchanged."""
    beside = path_beside(path)
    try:
        with open(beside, "xb") as file:
            file.write(content)
        os.replace(beside, path)
    except OSError:
        if os.path.exists(beside):
            os.unlink(beside)
        raise
