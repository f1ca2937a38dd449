"""Replace a small file in one step: a reader sees the old one or the new one, and never a half."""

from __future__ import annotations

import os
from pathlib import Path


def beside(path: Path, tag: str = "") -> Path:
    """The hidden place of the new content until it is whole; `tag` keeps writers apart that share no lock."""
    return path.with_name(f".{path.name}.{tag}.new" if tag else f".{path.name}.new")


def replace_file(path: Path, content: str | bytes, *, tag: str = "", durable: bool = False) -> None:
    """Put `content` at `path`; `durable` waits for the disk.

    Raises OSError with the old file unchanged and nothing of the new one left: a full disk keeps no scraps.
    """
    new = beside(path, tag)
    try:
        with open(new, "wb") as file:
            file.write(content.encode("utf-8") if isinstance(content, str) else content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(new, path)
    except OSError:
        new.unlink(missing_ok=True)
        raise
