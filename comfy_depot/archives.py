"""The members of an archive, from anything whose bytes can be asked for by offset: a file, or ranges of a
source.

    archive = open_archive(bytes)             zip; tar; tar.gz, tar.xz, tar.zst, which only go forwards
    for member in archive.members():
        for chunk in archive.chunks(member): ...

An archive comes from somebody else, so nothing that it says of itself is believed: names are compared and
never used as paths, sizes are counted, and what a directory or a header may take is limited. Nothing is ever
written here. `ArchiveRefused` says what is wrong and what to do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

MOST_MEMBERS = 100_000
LARGEST_DIRECTORY = 16 << 20  # bytes that describe members: the directory of a zip, the long names of a tar
LARGEST_RATIO = 100
"""Unpacked bytes per packed byte. Weights reach 1.1 to 1.3, text 10; a bomb reaches 1,000."""
RATIO_FREE = 1 << 20  # so much may be unpacked whatever the ratio
CHUNK_BYTES = 1 << 20
_CLIMBS = re.compile(r"(?:^|[\\/])\.\.(?:[\\/]|$)|^[\\/]|^[A-Za-z]:|\0")


class ArchiveRefused(Exception):
    """An archive, or the one member that is asked for, cannot be used; the message says what to do."""


class Scattered(Exception):
    """Too many requests would be needed to read single members; the whole archive is better."""


class Bytes(Protocol):
    """Something with bytes at offsets."""

    size: int

    def read_at(self, offset: int, count: int) -> bytes:
        """`count` bytes, or fewer at the end."""


@dataclass(frozen=True)
class Member:
    """A member of an archive. `problem` says why it cannot be a model, where that is known beforehand."""

    name: str
    size: int
    """Bytes of the unpacked file, as the archive says."""
    start: int
    end: int
    """The part of the archive in which everything of this member lies."""
    problem: str | None = None
    detail: Any = None


class Archive(Protocol):
    """An opened archive."""

    def members(self) -> Iterator[Member]:
        """All members in order. Of an archive that only goes forwards, once, and each before the next."""

    def chunks(self, member: Member) -> Iterator[bytes]:
        """The unpacked bytes of a member; exactly `member.size` of them, or ArchiveRefused."""


def open_archive(source: Bytes) -> Archive:
    """The archive in `source`; its kind is told by its first bytes, never by its name."""
    from comfy_depot import tar_archive, zip_archive

    head = source.read_at(0, tar_archive.BLOCK)
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return zip_archive.ZipArchive(source)
    for magic, compression in tar_archive.COMPRESSIONS.items():
        if head.startswith(magic):
            return tar_archive.PackedTar(source, compression)
    if tar_archive.is_header(head):
        return tar_archive.TarArchive(source)
    other = next((name for magic, name in _OTHERS.items() if head.startswith(magic)), None)
    what = f"it is a {other} archive" if other else "its first bytes are those of no known archive"
    raise ArchiveRefused(
        f"{what}. Models are read from zip, tar, tar.gz, tar.xz and tar.zst: pack it anew as one of these, "
        "or take 'bundle' out of the entry where the url is the model itself."
    )


def is_packed(head: bytes) -> bool:
    """Whether an archive with these first bytes is compressed as a whole: no part can be left out."""
    from comfy_depot.tar_archive import COMPRESSIONS

    return head.startswith(tuple(COMPRESSIONS))


_OTHERS = {b"7z\xbc\xaf\x27\x1c": "7z", b"Rar!": "rar", b"BZh": "bzip2"}


def plain(name: str) -> str:
    """A member's name as a manifest writes it: `tar` may begin each with "./"."""
    while name.startswith("./"):
        name = name[2:].lstrip("/")
    return name


def check_name(name: str) -> None:
    """ArchiveRefused for a name that would leave the folder in which a careless program unpacks."""
    if _CLIMBS.search(name):
        raise ArchiveRefused(
            f"its member {name[:200]!r} is absolute or climbs out of its folder. Such an archive is an "
            "attack or a mistake: take the model from elsewhere, or pack it anew with plain relative names."
        )


def check_count(count: int) -> None:
    """ArchiveRefused for more members than anybody packs."""
    if count > MOST_MEMBERS:
        raise ArchiveRefused(f"it has more than {MOST_MEMBERS:,} members. Split it into several archives.")


def check_ratio(unpacked: int, packed: int, what: str) -> None:
    """ArchiveRefused where more comes out than models can give."""
    if unpacked > packed * LARGEST_RATIO + RATIO_FREE:
        raise ArchiveRefused(
            f"{what} unpacks to {unpacked:,} bytes or more from {packed:,}. More than {LARGEST_RATIO} times "
            "as much as is packed is a bomb and no model: take it from elsewhere."
        )


def cut_off(what: str) -> ArchiveRefused:
    """The error of an archive that ends too early."""
    return ArchiveRefused(
        f"{what} is cut off. The source's copy is damaged or its upload was not finished: "
        "choose another url in the manifest."
    )
