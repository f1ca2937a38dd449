"""What a manifest says: one `Entry` per model that can be fetched.

A manifest is a JSON file of the form `{folder: {filename: url}}`; `model_manifests/README.md` gives the whole
format, each rule with its reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Entry:
    """A model that a manifest names.

    `name` uses "/" between subfolders on every system. `headers` are kept as written: "Bearer $HF_TOKEN" is
    expanded only at the moment it is sent, so that no token reaches a log, a state file or an answer.
    """

    folder: str
    name: str
    urls: tuple[str, ...]
    size: int | None = None
    sha256: str | None = None
    headers: Mapping[str, str] = field(default=_NO_HEADERS, hash=False)
    group: str | None = None
    license: str | None = None
    gated: bool = False

    @property
    def key(self) -> str:
        """`folder/name`, the form in which the command line and the log write it."""
        return f"{self.folder}/{self.name}"
