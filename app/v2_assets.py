"""The list of files that clients of the v2 interface have uploaded; the files are in `content_store`.

One entry per file: the same bytes with the same ending are one asset, whoever sends them. The list is an
SQLite file in the user folder, which several servers may share.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import folder_paths
from app import content_store, v2_shapes
from app.content_store import Stored

SCHEMA = """
CREATE TABLE IF NOT EXISTS assets (id TEXT PRIMARY KEY, name TEXT UNIQUE, hash TEXT, size INTEGER,
    content_type TEXT, file_path TEXT, tags TEXT, created REAL);
CREATE INDEX IF NOT EXISTS assets_by_hash ON assets (hash);
"""
COLUMNS = "id, name, hash, size, content_type, file_path, created"
BUSY_SECONDS = 10.0


@dataclass(frozen=True)
class Asset:
    """An uploaded file. `name` is what loader nodes take, `file_path` what its client called it."""

    id: str
    name: str
    hash: str
    size: int
    content_type: str
    file_path: str
    created: float

    @property
    def path(self) -> str:
        """Where it should be."""
        return content_store.path_of(self.name)

    @property
    def is_there(self) -> bool:
        """Is the file still in the input folder?"""
        return os.path.isfile(self.path)

    def describe(self, base: str, *, created_new: bool | None = None) -> dict[str, Any]:
        """As clients see it."""
        about = {
            "id": self.id, "hash": self.hash, "size_bytes": self.size, "content_type": self.content_type,
            "file_path": self.file_path,
            "created_at": datetime.fromtimestamp(self.created, timezone.utc).isoformat(),
            "url": v2_shapes.content_url(self.id, base), "url_expires_at": v2_shapes.kept_until(),
        }  # fmt: skip
        return about if created_new is None else {**about, "created_new": created_new}


class AssetIndex:
    """The list. Each call opens the file anew: uploads are rare, and other servers write too."""

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        folder = folder_paths.get_system_user_directory("assets")
        os.makedirs(folder, exist_ok=True)
        connection = sqlite3.connect(os.path.join(folder, "assets.db"), timeout=BUSY_SECONDS)
        try:
            connection.executescript(SCHEMA)
            with connection:
                yield connection
        finally:
            connection.close()

    def get(self, asset_id: str) -> Asset | None:
        """The asset of that id."""
        return self._first("id=?", asset_id)

    def by_hash(self, content_hash: str) -> Asset | None:
        """An asset with these bytes whose file is there."""
        return next((asset for asset in self._all("hash=?", content_hash) if asset.is_there), None)

    def add(
        self, stored: Stored, content_type: str, file_path: str, tags: Sequence[str] = ()
    ) -> Asset:
        """The asset of a file that was stored; the one that was there before, if there is one."""
        row = (
            str(uuid.uuid4()), stored.name, stored.hash, stored.size, content_type, file_path,
            json.dumps(list(tags)), time.time(),
        )  # fmt: skip
        with self._open() as db:
            db.execute("INSERT OR IGNORE INTO assets VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        asset = self._first("name=?", stored.name)
        assert asset is not None
        return asset

    def delete(self, asset: Asset) -> None:
        """Take it off the list, and its file out of the input folder."""
        with self._open() as db:
            db.execute("DELETE FROM assets WHERE id=?", (asset.id,))
        with contextlib.suppress(FileNotFoundError):
            os.unlink(asset.path)

    def _first(self, condition: str, value: str) -> Asset | None:
        found = self._all(condition, value)
        return found[0] if found else None

    def _all(self, condition: str, value: str) -> list[Asset]:
        with self._open() as db:
            rows = db.execute(f"SELECT {COLUMNS} FROM assets WHERE {condition} ORDER BY created", (value,))
            return [Asset(*row) for row in rows]
