"""Subgraphs that the web page offers: of packs (<pack>/subgraphs/*.json) and our own (blueprints/*.json)."""

from __future__ import annotations

import glob
import hashlib
import os
from dataclasses import dataclass
from typing import Any

from app.custom_node_manager import pack_folders

BLUEPRINTS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "blueprints")


@dataclass(frozen=True)
class Subgraph:
    """A subgraph's file; `source` is "custom_node" or "templates"."""

    path: str
    source: str
    node_pack: str

    @property
    def id(self) -> str:
        """A name that stays the same as long as the file stays in its place."""
        return hashlib.sha256((self.source + self.path.replace(os.sep, "/")).encode("utf-8")).hexdigest()

    def describe(self) -> dict[str, Any]:
        """What a list shows."""
        name = os.path.splitext(os.path.basename(self.path))[0]
        return {"source": self.source, "name": name, "info": {"node_pack": self.node_pack}}

    def describe_with_data(self) -> dict[str, Any]:
        """What a list shows, and the workflow as text."""
        with open(self.path, encoding="utf-8") as file:
            return {**self.describe(), "data": file.read()}


class SubgraphManager:
    """Finds subgraph files, once."""

    def __init__(self) -> None:
        self._found: dict[str, Subgraph] | None = None

    def all(self) -> dict[str, Subgraph]:
        """Id -> subgraph. Empty files are left out: the web page rejects them."""
        if self._found is None:
            packs = [
                Subgraph(file, "custom_node", "custom_nodes." + os.path.basename(os.path.dirname(pack)))
                for pack in pack_folders()
                for file in sorted(glob.glob(os.path.join(glob.escape(pack), "subgraphs", "*.json")))
            ]
            own = [
                Subgraph(file, "templates", "comfyui")
                for file in sorted(glob.glob(os.path.join(glob.escape(BLUEPRINTS), "*.json")))
            ]
            self._found = {
                subgraph.id: subgraph for subgraph in packs + own if os.path.getsize(subgraph.path)
            }
        return self._found
