"""Folders of scripts that the web page loads: our own (web/<name>/) and those of node packs."""

from __future__ import annotations

import os

import nodes

OWN = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "web")


def web_directories() -> dict[str, str]:
    """Name below /extensions -> folder. Our own names cannot be taken by a pack."""
    own = sorted(entry.name for entry in os.scandir(OWN) if entry.is_dir()) if os.path.isdir(OWN) else []
    return {**nodes.EXTENSION_WEB_DIRS, **{name: os.path.join(OWN, name) for name in own}}
