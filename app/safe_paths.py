"""The one gate for file names that arrive over HTTP."""

from __future__ import annotations

import os


def inside(root: str, *parts: str, links_may_leave: bool = False) -> str | None:
    """The absolute path of `parts` below `root`; None when "..", an absolute name or a link leads out of it.

    `links_may_leave` is for folders where only the machine's owner can make links.
    """
    if any("\0" in part for part in parts):
        return None
    path = os.path.abspath(os.path.join(root, *parts))
    resolve = os.path.abspath if links_may_leave else os.path.realpath
    real_root = resolve(root)
    try:
        stays = os.path.commonpath((real_root, resolve(path))) == real_root
    except ValueError:  # different drives
        return None
    return path if stays else None


def quoted(name: str) -> str:
    """`name` as a quoted string of an HTTP header, without line breaks."""
    plain = "".join(character for character in name if character.isprintable())
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'
