"""Tar archives: headers walked one after another, plain by offset or through a decompressor.

The standard library's `tarfile` reads a header of any announced length into memory and understands sparse
files and links, all of which a model does not need and a bomb does. So the few fields that matter are read
here: name, size and kind of POSIX (ustar, pax) and GNU headers.
"""

from __future__ import annotations

import contextlib
import importlib
import lzma
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

from comfy_depot.archives import (
    CHUNK_BYTES,
    LARGEST_DIRECTORY,
    ArchiveRefused,
    Bytes,
    Member,
    check_count,
    check_name,
    check_ratio,
    cut_off,
    plain,
)

BLOCK = 512
COMPRESSIONS: Mapping[bytes, str] = MappingProxyType(
    {b"\x1f\x8b": "gz", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zst"}
)
LARGEST_EXTENSION = 64 << 10  # of one header with a long name or attributes
MOST_DECODER_BYTES = 256 << 20  # xz and zstd say themselves how much memory they need
INPUT_BYTES = 1 << 18
_LONG_NAME, _LONG_LINK, _ATTRIBUTES, _ALL_ATTRIBUTES, _SPARSE = b"L", b"K", b"x", b"g", b"S"
_FILES = (b"0", b"\0", b"7")
_WITHOUT_DATA = {b"1": "a hard link", b"2": "a symbolic link", b"3": "a device", b"4": "a device",
                 b"5": "a folder", b"6": "a pipe"}
_ADVICE = "Take the model from elsewhere, or pack it anew with plain files."


class TarArchive:
    """See `archives.Archive`; a plain tar."""

    def __init__(self, source: Bytes) -> None:
        self._source = source

    def members(self) -> Iterator[Member]:
        """Walk the headers. Damage is noticed when it is come to."""
        return _Walk(self._source).members()

    def chunks(self, member: Member) -> Iterator[bytes]:
        """The bytes of a member."""
        position, end = member.detail, member.detail + member.size
        while position < end:
            chunk = self._source.read_at(position, min(CHUNK_BYTES, end - position))
            if not chunk:
                raise cut_off("the archive")
            position += len(chunk)
            yield chunk


class PackedTar(TarArchive):
    """A compressed tar: it goes forwards only, and every byte that comes out is counted."""

    def __init__(self, source: Bytes, compression: str) -> None:
        self._bytes_packed = source.size
        self._unpacked = _Unpacked(source, compression)
        super().__init__(self._unpacked)
        if not is_header(self._source.read_at(0, BLOCK)):
            raise ArchiveRefused(
                f"what is compressed in it ({compression}) is no tar archive. Pack it anew as "
                f"tar.{compression}, or as zip."
            )

    def members(self) -> Iterator[Member]:
        """Walk to the end, and through what stands behind it: only there a checksum may follow."""
        for member in super().members():
            check_ratio(member.end, self._bytes_packed, f"with its member {member.name[:200]!r} it")
            yield member
        position = self._unpacked.position
        while chunk := self._unpacked.read_at(position, CHUNK_BYTES):
            position += len(chunk)


def is_header(block: bytes) -> bool:
    """Whether a block has the checksum of a tar header."""
    with contextlib.suppress(ArchiveRefused):
        return len(block) == BLOCK and any(block) and _number(block[148:156]) == _checksum(block)
    return False


def _checksum(block: bytes) -> int:
    return sum(block[:148]) + 8 * 0x20 + sum(block[156:])


def _number(text: bytes) -> int:
    """A field of a header: octal digits, or binary where the first bit is set."""
    if text[:1] and text[0] & 0x80:
        if text[0] != 0x80:
            raise ArchiveRefused(f"a header in it has a size below zero. {_ADVICE}")
        return int.from_bytes(text[1:], "big")
    digits = text.split(b"\0")[0].strip()
    if digits.strip(b"01234567"):
        raise ArchiveRefused(f"a header in it has a number that is none. {_ADVICE}")
    return int(digits or b"0", 8)


@dataclass
class _Walk:
    """From header to header."""

    source: Bytes
    position: int = 0
    bytes_of_extensions: int = 0
    name: str | None = None
    attributes: dict[str, str] = field(default_factory=dict)

    def members(self) -> Iterator[Member]:
        """Each member; ArchiveRefused where the walk cannot go on or goes wrong."""
        count = 0
        while (header := self._header()) is not None:
            begin, kind, size = self.position, header[156:157], _number(header[124:136])
            self.position += BLOCK
            if kind in (_LONG_NAME, _LONG_LINK, _ATTRIBUTES, _ALL_ATTRIBUTES):
                self._extend(kind, size)
                continue
            count += 1
            check_count(count)
            yield self._member(header, kind, size, begin)
            self.name, self.attributes = None, {}

    def _header(self) -> bytes | None:
        """The next header, or None at the mark of the end."""
        block = self.source.read_at(self.position, BLOCK)
        if len(block) < BLOCK:
            raise cut_off("it has no end: it")
        if not any(block):
            return None
        if not is_header(block):
            raise ArchiveRefused(
                f"what stands at byte {self.position:,} is no header of a tar archive. It is damaged: choose "
                "another url in the manifest, or pack it anew."
            )
        return block

    def _member(self, header: bytes, kind: bytes, size: int, begin: int) -> Member:
        if kind == _SPARSE:
            raise ArchiveRefused(f"a member of it is a sparse file. {_ADVICE[:-1]} (tar without --sparse).")
        if "size" in self.attributes:
            size = _decimal(self.attributes["size"])
        if kind in _WITHOUT_DATA and size:
            what = _WITHOUT_DATA[kind]
            raise ArchiveRefused(f"{what} in it has a size, so that its end is uncertain. {_ADVICE}")
        name = self.attributes.get("path") or self.name or _name_of(header)
        check_name(name)
        if self.position + size > self.source.size:
            raise cut_off(f"its member {name[:200]!r} is longer than all that can be there: it")
        data, self.position = self.position, self.position + -(-size // BLOCK) * BLOCK
        return Member(plain(name), size, begin, data + size, _problem(kind, name, self.attributes), data)

    def _extend(self, kind: bytes, size: int) -> None:
        """Take in a header that says more of the next one."""
        self.bytes_of_extensions += size
        if size > LARGEST_EXTENSION or self.bytes_of_extensions > LARGEST_DIRECTORY:
            raise ArchiveRefused(f"a header in it announces {size:,} bytes of attributes. {_ADVICE}")
        text = self.source.read_at(self.position, size)
        if len(text) < size:
            raise cut_off("it")
        self.position += -(-size // BLOCK) * BLOCK
        if kind == _LONG_NAME:
            self.name = text.split(b"\0")[0].decode("utf-8", "surrogateescape")
        elif kind == _ATTRIBUTES:
            self.attributes = _attributes(text)
        elif kind == _ALL_ATTRIBUTES and {"path", "size", "linkpath"} & _attributes(text).keys():
            raise ArchiveRefused(f"a header in it gives all members one name or size. {_ADVICE}")


def _problem(kind: bytes, name: str, attributes: Mapping[str, str]) -> str | None:
    """Why a member cannot be a model."""
    if kind in _WITHOUT_DATA:
        return f"it is {_WITHOUT_DATA[kind]}, which is never followed or made. Name a file of the archive"
    if kind not in _FILES or name.endswith("/"):
        return "it is no plain file. Name a file of the archive"
    if any(key.startswith("GNU.sparse.") for key in attributes):
        return "it is a sparse file. Pack it anew without --sparse"
    return None


def _name_of(header: bytes) -> str:
    """The name in a header, with the prefix that POSIX has for long ones."""
    name, prefix = header[:100].split(b"\0")[0], header[345:500].split(b"\0")[0]
    if prefix and header[257:263] == b"ustar\0":
        name = prefix + b"/" + name
    return name.decode("utf-8", "surrogateescape")


def _attributes(text: bytes) -> dict[str, str]:
    """The records "LENGTH KEY=VALUE\\n" of a pax header."""
    found = {}
    while text.strip(b"\0"):
        length, _, rest = text.partition(b" ")
        end = int(length) if length.isdigit() and len(length) < 8 else 0
        key, equals, value = text[len(length) + 1 : end].partition(b"=")
        if not equals or end > len(text) or text[end - 1 : end] != b"\n" or not rest:
            raise ArchiveRefused(f"a header with attributes in it cannot be read. {_ADVICE}")
        found[key.decode("utf-8", "replace")] = value[:-1].decode("utf-8", "surrogateescape")
        text = text[end:]
    return found


def _decimal(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise ArchiveRefused(f"a header in it has a size that is none. {_ADVICE}")
    return int(text)


class _Decoder(Protocol):
    @property
    def eof(self) -> bool:
        """Whether the stream has ended."""

    def feed(self, data: bytes) -> bytes:
        """At most CHUNK_BYTES of what comes out; with empty data, more of what was fed before."""

    def left_over(self) -> bytes:
        """What was fed behind the end."""


class _Unpacked:
    """`Bytes` of what comes out of a decompressor; offsets only grow, but for the last block that was
    read."""

    size = 1 << 62  # nobody knows

    def __init__(self, source: Bytes, compression: str) -> None:
        self._source, self._compression = source, compression
        self._decoder = _DECODERS[compression]()
        self._bytes_in = self._bytes_out = 0
        self._ready = bytearray()
        self._is_over = False
        self.position = 0
        """The offset of the first byte that is still known."""

    def read_at(self, offset: int, count: int) -> bytes:
        """`count` bytes from `offset` on, where everything before is forgotten."""
        if offset < self.position:
            raise RuntimeError("a compressed archive is read forwards only")  # a mistake of the caller
        while self._bytes_out < offset + count and self._decode(keep_from=offset):
            pass
        self._forget(offset)
        return bytes(self._ready[:count]) if offset == self.position else b""

    def _forget(self, offset: int) -> None:
        gone = min(offset - self.position, len(self._ready))
        del self._ready[:gone]
        self.position += gone

    def _decode(self, *, keep_from: int) -> bool:
        """Let some more bytes out; False at the end of everything."""
        self._forget(min(keep_from, self._bytes_out))
        try:
            chunk = self._decoder.feed(b"")
            while not chunk:
                if self._decoder.eof and not self._next_stream():
                    return False
                data = self._source.read_at(self._bytes_in, INPUT_BYTES)
                if not data:
                    raise cut_off("its compressed stream")
                self._bytes_in += len(data)
                chunk = self._decoder.feed(data)
        except _stream_errors() as error:
            raise ArchiveRefused(
                f"its compressed stream ({self._compression}) cannot be read ({error}). It is damaged, or "
                "needs more memory than is given to it: choose another url in the manifest, or pack it anew."
            ) from None
        self._ready += chunk
        self._bytes_out += len(chunk)
        check_ratio(self._bytes_out, self._bytes_in, "it")
        return True

    def _next_stream(self) -> bool:
        """Several streams may stand one behind another; zeros behind the last one are padding."""
        rest = b"" if self._is_over else self._decoder.left_over()
        self._bytes_in -= len(rest)
        while not rest.strip(b"\0"):
            self._bytes_in += len(rest)
            rest = self._source.read_at(self._bytes_in, INPUT_BYTES)
            if not rest:
                self._is_over = True
                return False
        self._bytes_in += len(rest) - len(rest.lstrip(b"\0"))
        self._decoder = _DECODERS[self._compression]()
        return True


class _Gz:
    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    def feed(self, data: bytes) -> bytes:
        return self._zlib.decompress(self._zlib.unconsumed_tail + data, CHUNK_BYTES) if not self.eof else b""

    def left_over(self) -> bytes:
        return self._zlib.unused_data


class _Xz:
    """The interface that the decompressors of xz and zstd have in the standard library."""

    def __init__(self) -> None:
        self._coder = self._make()

    def _make(self) -> Any:
        return lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=MOST_DECODER_BYTES)

    @property
    def eof(self) -> bool:
        return bool(self._coder.eof)

    def feed(self, data: bytes) -> bytes:
        if self.eof or not (data or not self._coder.needs_input):
            return b""
        return bytes(self._coder.decompress(data, CHUNK_BYTES))

    def left_over(self) -> bytes:
        return bytes(self._coder.unused_data)


class _Zst(_Xz):
    def _make(self) -> Any:
        module = zstd()
        if module is None:
            raise ArchiveRefused(
                "it is compressed with zstd, which this Python cannot read. Run: pip install backports.zstd"
            )
        window = MOST_DECODER_BYTES.bit_length() - 1
        return module.ZstdDecompressor(options={module.DecompressionParameter.window_log_max: window})


def zstd() -> Any:
    """The module for zstd: in the standard library from Python 3.14 on, as a package before; None without."""
    for name in ("compression.zstd", "backports.zstd"):
        with contextlib.suppress(ImportError):
            return importlib.import_module(name)
    return None


def _stream_errors() -> tuple[type[Exception], ...]:
    """What decompressors raise for a stream that is not as it should be."""
    module = zstd()
    return (zlib.error, lzma.LZMAError, ValueError, *(() if module is None else (module.ZstdError,)))


_DECODERS: Mapping[str, type[_Decoder]] = MappingProxyType({"gz": _Gz, "xz": _Xz, "zst": _Zst})
