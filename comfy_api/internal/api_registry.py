"""The versions of the interface that packs can ask for."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from comfy_api.internal.singleton import ProxiedSingleton


class ComfyAPIBase(ProxiedSingleton):
    """Base of the interface's classes, one per version."""

    VERSION = ""
    STABLE = False


class ComfyAPIWithVersion(NamedTuple):
    """A version and its class."""

    version: str
    api_class: type[ComfyAPIBase]


def parse_version(version: str) -> tuple[int, ...]:
    """A version as numbers to sort by; "latest" comes after all others. ValueError if it is none."""
    if version == "latest":
        return (10**9,)
    if not re.fullmatch(r"v?\d+([._]\d+)*", version):
        raise ValueError(f"{version!r} is no version of the interface. Write 'latest', or numbers: '0.0.2'.")
    return tuple(int(part) for part in re.findall(r"\d+", version))


_versions: list[ComfyAPIWithVersion] = []


def register_versions(versions: list[ComfyAPIWithVersion]) -> None:
    """Set the versions there are."""
    _versions[:] = sorted(versions, key=lambda entry: parse_version(entry.version))


def get_all_versions() -> list[ComfyAPIWithVersion]:
    """The versions there are, oldest first."""
    return list(_versions)


def find_version(version: str) -> Any:
    """The class of a version, or None."""
    return next((entry.api_class for entry in _versions if entry.version == version), None)
