"""A corpus of hostile archives: what succeeds against a careless unpacking gets nowhere here.

Each case is an archive in which a manifest names `a.safetensors`, with the words of its refusal and, where
it is an attack and no mere damage, what it does to a program that unpacks without a thought.
"""

from __future__ import annotations

import io
import lzma
import os
import random
import stat
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from comfy_depot import archives, tar_archive, zip_archive
from comfy_depot.errors import WrongContent
from comfy_depot.manifest import Bundle, Entry, read_entry
from comfy_depot.transfers import Transfers
from tests.fakes.fetching import transfers
from tests.fakes.origin import Origin, safetensors

GOOD = safetensors(3000)
NAME = "a.safetensors"
ZEROS = bytes(3 << 20)


# -- archives

def zipped(*members: tuple[str, bytes], method: int = zipfile.ZIP_STORED, mode: int = 0) -> bytearray:
    """A zip; `mode` is the type and rights of the last member, as Unix writes them."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name that stands twice
        for number, (name, body) in enumerate(members):
            info = zipfile.ZipInfo("x" * len(name))
            info.filename = name  # the constructor would clean it
            info.compress_type = method
            if number == len(members) - 1:
                info.external_attr = mode << 16
            archive.writestr(info, body)
    return bytearray(buffer.getvalue())


def directory_at(archive: bytes, index: int = 0) -> int:
    """Where the n-th record of a zip's directory begins."""
    position = -1
    for _ in range(index + 1):
        position = archive.index(b"PK\x01\x02", position + 1)
    return position


def with_directory(archive: bytearray, offset: int, form: str, value: int, index: int = 0) -> bytearray:
    """Another number in a record of the directory."""
    struct.pack_into(form, archive, directory_at(archive, index) + offset, value)
    return archive


def overlapping(count: int) -> bytearray:
    """Many names in the directory for one lump of bytes."""
    one = zipped((NAME, ZEROS), method=zipfile.ZIP_DEFLATED)
    start, end = directory_at(one), one.index(b"PK\x05\x06")
    directory = bytes(one[start:end]) * count
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count, count, len(directory), start, 0)
    return one[:start] + directory + tail


def tarred(*members: tuple[str, bytes, dict[str, Any]], end: bytes = bytes(1024)) -> bytes:
    """A tar whose headers are written as they are wished."""
    parts = []
    for name, body, fields in members:
        info = tarfile.TarInfo(name)
        info.size, kind = fields.get("size", len(body)), fields.get("kind")
        fields = {field: value for field, value in fields.items() if field not in ("size", "kind")}
        for field, value in fields.items():
            setattr(info, field, value)
        header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
        if kind is not None:
            header[-356:-355] = kind  # of the last block
            block = header[-512:]
            block[148:156] = b"%06o\0 " % (sum(block[:148]) + 8 * 32 + sum(block[156:]))
            header[-512:] = block
        parts.append(bytes(header) + body + bytes(-len(body) % 512))
    return b"".join(parts) + end


def sparse(real_size: int) -> bytes:
    """An old GNU sparse file without data: a few bytes that unpack to any length."""
    block = bytearray(tarfile.TarInfo(NAME).tobuf(tarfile.GNU_FORMAT))
    block[156:157] = b"S"
    block[386:410] = b"%011o\0%011o\0" % (0, 0)
    block[483:495] = b"\x80" + real_size.to_bytes(11, "big")
    block[148:156] = b"%06o\0 " % (sum(block[:148]) + 8 * 32 + sum(block[156:]))
    return bytes(block) + bytes(1024)


def attributes(**pairs: str) -> bytes:
    """The body of a pax header."""
    records = b""
    for key, value in pairs.items():
        rest = f" {key}={value}\n".encode()
        length = len(rest) + 1
        while len(str(length)) + len(rest) != length:
            length += 1
        records += str(length).encode() + rest
    return records


# -- what a careless program does

def naive_zip(archive: bytes, folder: Path) -> None:
    """Unpacks by the directory alone: names are paths, sizes are believed, links are made."""
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        for info in opened.infolist():
            name, extra = struct.unpack_from("<HH", archive, info.header_offset + 26)
            start = info.header_offset + 30 + name + extra
            body = bytes(archive[start : start + info.compress_size])
            if info.compress_type == zipfile.ZIP_DEFLATED:
                body = zlib.decompress(body, -15)
            target = Path(os.path.join(folder, info.orig_filename.replace("\\", "/").split("\0")[0]))
            target.parent.mkdir(parents=True, exist_ok=True)
            if stat.S_ISLNK(info.external_attr >> 16):
                target.symlink_to(body.decode())
            else:
                with open(target, "ab" if info.header_offset == 0 else "wb") as file:
                    file.write(body)


def naive_tar(archive: bytes, folder: Path) -> None:
    """Unpacks as tarfile does when it is told to trust."""
    trusting = {"filter": "fully_trusted"} if hasattr(tarfile, "fully_trusted_filter") else {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        opened.extractall(folder, **trusting)  # noqa: S202 - the point of it


@dataclass(frozen=True)
class Case:
    """`harm` says whether a folder was harmed by a careless unpacking; {outside} in texts is beside it."""

    make: Callable[[Path], bytes]
    words: str
    harm: Callable[[Path, Path], bool] | None = None


def escaped(inside: Path, outside: Path) -> bool:
    return (outside / "escaped").exists()


def swollen(inside: Path, outside: Path) -> bool:
    return (inside / NAME).stat().st_size >= len(ZEROS)


def is_link(inside: Path, outside: Path) -> bool:
    return (inside / NAME).is_symlink() or (inside / NAME).stat().st_nlink > 1


def is_odd(inside: Path, outside: Path) -> bool:
    return not (inside / NAME).is_file()


def is_another(inside: Path, outside: Path) -> bool:
    return (inside / NAME).read_bytes() != GOOD


CASES: dict[str, Case] = {
    "zip climbs out": Case(
        lambda _: zipped((NAME, GOOD), ("../outside/escaped", b"x")), "climbs out", escaped),
    "zip climbs out as on Windows": Case(
        lambda _: zipped((NAME, GOOD), ("..\\outside\\escaped", b"x")), "climbs out", escaped),
    "zip is absolute": Case(lambda o: zipped((NAME, GOOD), (f"{o}/escaped", b"x")), "is absolute", escaped),
    "zip hides behind a NUL": Case(
        lambda _: zipped((NAME, GOOD), ("../outside/escaped\0.safetensors", b"x")), "climbs out", escaped),
    "zip has a drive": Case(lambda _: zipped((NAME, GOOD), ("C:escaped", b"x")), "is absolute"),
    "zip: a link": Case(
        lambda o: zipped((NAME, str(o / "secret").encode()), mode=stat.S_IFLNK | 0o777), "symbolic link",
        is_link),
    "zip: a pipe": Case(lambda _: zipped((NAME, b""), mode=stat.S_IFIFO | 0o666), "is no file"),
    "zip: a name twice": Case(
        lambda _: zipped((NAME, GOOD), (NAME, safetensors(3000, 1))), "stands in it 2 times", is_another),
    "zip: a bomb": Case(
        lambda _: zipped((NAME, ZEROS), method=zipfile.ZIP_DEFLATED), "is a bomb", swollen),
    "zip: a bomb that says it is small": Case(
        lambda _: with_directory(zipped((NAME, ZEROS), method=zipfile.ZIP_DEFLATED), 24, "<L", 3000),
        "cannot be read", swollen),
    "zip: members that overlap": Case(lambda _: overlapping(4), "overlaps", lambda i, o: (
        (i / NAME).stat().st_size >= 4 * len(ZEROS))),
    "zip: larger than is there": Case(
        lambda _: with_directory(zipped((NAME, GOOD)), 24, "<L", 1 << 31), "is a bomb"),
    "zip: a little larger than is there": Case(
        lambda _: with_directory(zipped((NAME, GOOD)), 24, "<L", 3001), "contradict"),
    "zip: reaches behind its end": Case(
        lambda _: with_directory(zipped((NAME, GOOD)), 20, "<L", 1 << 31), "overlaps"),
    "zip: another name in its header": Case(
        lambda _: bytearray(bytes(zipped((NAME, GOOD))).replace(NAME.encode(), b"b.safetensors", 1)),
        "cannot be read"),
    "zip: encrypted": Case(lambda _: with_directory(zipped((NAME, GOOD)), 8, "<H", 1), "is encrypted"),
    "zip: an unknown method": Case(
        lambda _: with_directory(zipped((NAME, GOOD)), 10, "<H", 98), "method 98"),
    "zip: a wrong checksum": Case(
        lambda _: with_directory(zipped((NAME, GOOD)), 16, "<L", 1), "Bad CRC", lambda i, o: (
            (i / NAME).read_bytes() == GOOD)),
    "zip: without members": Case(lambda _: zipped(), "has no member"),
    "zip: cut off": Case(lambda _: zipped((NAME, GOOD))[:-30], "damaged, cut off"),
    "zip: another archive inside": Case(
        lambda _: zipped(("inner.zip", bytes(zipped((NAME, GOOD))))), "has no member 'a.safetensors'"),
    "tar climbs out": Case(
        lambda _: tarred((NAME, GOOD, {}), ("../outside/escaped", b"x", {})), "climbs out", escaped),
    "tar is absolute": Case(
        lambda o: tarred((NAME, GOOD, {}), (f"{o}/escaped", b"x", {})), "is absolute", escaped),
    "tar: a symbolic link": Case(
        lambda o: tarred((NAME, b"", {"type": b"2", "linkname": f"{o}/secret"})), "symbolic link", is_link),
    "tar: a hard link": Case(
        lambda o: tarred((NAME, b"", {"type": b"1", "linkname": f"../{o.name}/secret"})), "a hard link",
        is_link),
    "tar: a pipe": Case(lambda _: tarred((NAME, b"", {"type": b"6"})), "it is a pipe", is_odd),
    "tar: a folder": Case(lambda _: tarred((NAME, b"", {"type": b"5"})), "has no member", is_odd),
    "tar: a name twice": Case(
        lambda _: tarred((NAME, GOOD, {}), (f"./{NAME}", safetensors(3000, 1), {})), "2 times", is_another),
    "tar: sparse": Case(lambda _: sparse(1 << 36), "is a sparse file", swollen),
    "tar: sparse by attributes": Case(
        lambda _: tarred(("x", attributes(**{"GNU.sparse.major": "1"}), {"kind": b"x"}), (NAME, GOOD, {})),
        "is a sparse file"),
    "tar: a link with a size": Case(
        lambda _: tarred((NAME, GOOD, {}), ("b", b"x", {"kind": b"2"})), "its end is uncertain"),
    "tar: longer than is there": Case(
        lambda _: tarred((NAME, GOOD, {"size": 1 << 40})), "is cut off"),
    "tar: a size below zero": Case(lambda _: tarred((NAME, GOOD, {"size": -1})), "below zero"),
    "tar: attributes for all": Case(
        lambda _: tarred(("x", attributes(path="../outside/escaped"), {"kind": b"g"}), (NAME, GOOD, {})),
        "gives all members one name"),
    "tar: attributes that climb": Case(
        lambda _: tarred(("x", attributes(path="../outside/escaped"), {"kind": b"x"}), (NAME, GOOD, {})),
        "climbs out", escaped),
    "tar: attributes without an end": Case(
        lambda _: tarred(("x", b"9999 path=a\n", {"kind": b"x"}), (NAME, GOOD, {})), "cannot be read"),
    "tar: a size of attributes that is none": Case(
        lambda _: tarred(("x", attributes(size="-5"), {"kind": b"x"}), (NAME, GOOD, {})), "that is none"),
    "tar: attributes of 80 kB": Case(
        lambda _: tarred(("x", attributes(comment="a" * 80_000), {"kind": b"x"}), (NAME, GOOD, {})),
        "announces 80,"),
    "tar: cut off in a member": Case(lambda _: tarred((NAME, GOOD, {}))[:2000], "is cut off"),
    "tar: cut off between members": Case(lambda _: tarred((NAME, GOOD, {}), end=b""), "is cut off"),
    "tar: not a header": Case(
        lambda _: tarred((NAME, GOOD, {}), end=b"x" * 1024), "is no header of a tar archive"),
    "tar.gz: a bomb": Case(
        lambda _: zlib.compress(tarred((NAME, ZEROS, {})), 9, wbits=31), "is a bomb", swollen),
    "tar.gz: a bomb beside the model": Case(
        lambda _: zlib.compress(tarred((NAME, GOOD, {}), ("b", ZEROS, {})), 9, wbits=31), "is a bomb",
        lambda i, o: (i / "b").stat().st_size == len(ZEROS)),
    "tar.gz: a bomb behind its end": Case(
        lambda _: zlib.compress(tarred((NAME, GOOD, {})) + ZEROS, 9, wbits=31), "is a bomb"),
    "tar.xz: a bomb": Case(
        lambda _: lzma.compress(tarred((NAME, ZEROS, {})), preset=0), "is a bomb", swollen),
    "tar.gz: cut off": Case(lambda _: zlib.compress(tarred((NAME, GOOD, {})), wbits=31)[:-6], "is cut off"),
    "tar.gz: damaged": Case(
        lambda _: zlib.compress(tarred((NAME, GOOD, {})), wbits=31)[:-8] + bytes(8), "cannot be read"),
    "tar.xz: damaged": Case(
        lambda _: lzma.compress(tarred((NAME, GOOD, {})))[:-40] + bytes(40), "cannot be read"),
    "gz of no tar": Case(lambda _: zlib.compress(GOOD, wbits=31), "is no tar archive"),
    "a 7z archive": Case(lambda _: b"7z\xbc\xaf\x27\x1c" + bytes(600), "it is a 7z archive"),
    "no archive": Case(lambda _: GOOD, "no known archive"),
    "nothing": Case(lambda _: b"", "no known archive"),
}


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Transfers]:
    with transfers(tmp_path_factory.mktemp("depot")) as made:
        yield made


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with something to protect."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(b"secret")
    return tmp_path


def everything(folder: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
            for path in folder.rglob("*")}


def refusal(ours: Transfers, url: str, place: Path, **fields: Any) -> str:
    wanted = Entry("loras", NAME, (url,), bundle=Bundle(NAME), **fields)
    with pytest.raises(WrongContent) as caught:
        ours.fetch(wanted, place / "models" / NAME).wait()
    return str(caught.value)


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_archive_gets_nowhere(ours: Transfers, place: Path, name: str) -> None:
    case = CASES[name]
    source = place / "archive"
    source.write_bytes(case.make(place / "outside"))
    before = everything(place)
    message = refusal(ours, str(source), place)
    assert case.words in message and "loras/a.safetensors" in message and str(source) in message
    assert message.endswith("."), "what to do stands at the end"
    after = everything(place)
    left = {path for path in after if path not in before and not path.endswith(".bad")}
    assert left <= {"models", "models/.depot"} and before.items() <= after.items()
    assert everything(ours.options.depot_dir / "bundles") == {".depot": None}


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.harm])
def test_the_same_archive_harms_a_careless_program(place: Path, name: str) -> None:
    case, inside = CASES[name], place / "inside"
    inside.mkdir()
    archive = case.make(place / "outside")
    (naive_zip if archive[:2] == b"PK" else naive_tar)(archive, inside)
    assert case.harm is not None and case.harm(inside, place / "outside")


LINKED: dict[str, Callable[[str], bytes]] = {
    "zip": lambda outside: bytes(zipped((f"sub/{NAME}", GOOD), ("sub", outside.encode()), mode=0o120777)),
    "tar": lambda outside: tarred(
        ("sub", b"", {"type": b"2", "linkname": outside}), (f"sub/{NAME}", GOOD, {})),
}


class Memory:
    """`archives.Bytes` of bytes."""

    def __init__(self, body: bytes) -> None:
        self.body, self.size = body, len(body)

    def read_at(self, offset: int, count: int) -> bytes:
        return self.body[offset : offset + count]


def damaged(archive: bytes, chance: random.Random) -> bytes:
    """An archive with a few bytes changed, taken out or put in."""
    body = bytearray(archive)
    for _ in range(chance.choice([1, 1, 2, 8])):
        position = chance.randrange(max(1, len(body)))
        kind, count = chance.random(), chance.choice([1, 2, 512])
        if kind < 0.6:
            body[position : position + 1] = bytes([chance.randrange(256)])
        else:
            body[position : position + (count if kind < 0.8 else 0)] = b"" if kind < 0.8 else bytes(count)
    return bytes(body)


@pytest.mark.parametrize("archive", [
    bytes(zipped((NAME, GOOD), ("b", GOOD), method=zipfile.ZIP_DEFLATED)),
    zlib.compress(tarred((NAME, GOOD, {}), ("b", GOOD, {})), wbits=31),
])
def test_damage_at_random_is_refused_or_does_no_harm(archive: bytes) -> None:
    chance, refused = random.Random(7), 0
    for _ in range(150):
        try:
            opened = archives.open_archive(Memory(damaged(archive, chance)))
            found = {member.name: b"".join(opened.chunks(member)) for member in opened.members()}
            assert found.get(NAME, GOOD) == GOOD
        except archives.ArchiveRefused as error:
            refused += 1
            assert str(error).endswith(".")
    assert refused > 75


def test_a_model_behind_a_link_is_unpacked_to_its_own_place_only(ours: Transfers, place: Path) -> None:
    source, outside = place / "archive", place / "outside"
    source.write_bytes(LINKED["tar"](str(outside)))
    wanted = Entry("loras", NAME, (str(source),), bundle=Bundle(f"sub/{NAME}"))
    assert ours.fetch(wanted, place / "models" / NAME).wait().read_bytes() == GOOD
    assert not (outside / NAME).exists()
    naive_tar(source.read_bytes(), place)
    assert (outside / NAME).exists(), "the careless program follows the link"


@pytest.mark.parametrize(("name", "ranges"), [
    ("zip: a bomb", True), ("tar: a hard link", True),
    ("zip: a bomb that says it is small", False), ("tar: cut off in a member", False),
])
def test_over_http_it_gets_nowhere_either(ours: Transfers, place: Path, name: str, ranges: bool) -> None:
    with Origin() as origin:
        url = origin.put("/archive", bytes(CASES[name].make(place / "outside")), ranges=ranges)
        message = refusal(ours, url, place, headers={})
        assert CASES[name].words in message and origin.netloc in message
        if ranges and "gz" not in name:
            assert all(hit.range for hit in origin.hits()), "the directory tells, and no member is asked for"
    assert [path for path in everything(place) if "part" in path] == []
    assert everything(ours.options.depot_dir / "bundles") == {".depot": None}


@pytest.mark.parametrize(("where", "limit", "archive", "words"), [
    (zip_archive, "LARGEST_DIRECTORY", zipped(*[(f"{n}.bin", b"") for n in range(40)]), "a directory of "),
    (archives, "MOST_MEMBERS", zipped(*[(f"{n}.bin", b"") for n in range(40)]), "more than 30 members"),
    (archives, "MOST_MEMBERS", tarred(*[(f"{n}.bin", b"", {}) for n in range(40)]), "more than 30 members"),
    (tar_archive, "LARGEST_DIRECTORY", tarred(*[("x", b"a" * 90, {"kind": b"L"})] * 40), "announces"),
    (tar_archive, "MOST_DECODER_BYTES", lzma.compress(tarred(("b", GOOD, {}))), "memory than is given"),
])
def test_what_describes_members_is_limited(
    ours: Transfers, place: Path, monkeypatch: pytest.MonkeyPatch, where: Any, limit: str, archive: bytes,
    words: str
) -> None:
    source = place / "archive"
    source.write_bytes(archive)
    assert words not in refusal(ours, str(source), place)
    monkeypatch.setattr(where, limit, 30 if limit == "MOST_MEMBERS" else 1500)
    assert words in refusal(ours, str(source), place)


def test_a_member_of_an_inner_archive_is_not_looked_for(ours: Transfers, place: Path) -> None:
    source = place / "archive"
    source.write_bytes(zipped(("inner.zip", bytes(zipped((NAME, GOOD))))))
    wanted = Entry("loras", NAME, (str(source),), bundle=Bundle(f"inner.zip/{NAME}"))
    with pytest.raises(WrongContent, match="archives inside archives are not opened. Unpack it"):
        ours.fetch(wanted, place / "models" / NAME).wait()


def test_a_pickle_under_the_name_of_a_model_is_set_aside(ours: Transfers, place: Path) -> None:
    source = place / "archive"
    source.write_bytes(zipped((NAME, b"\x80\x04\x95pickled" * 99)))
    assert "is no safetensors file" in refusal(ours, str(source), place)
    assert [path.suffix for path in (place / "models").rglob("*") if path.is_file()] == [".bad"]


@pytest.mark.parametrize("member", [
    "../a.safetensors", "/a.safetensors", "sub/../a.safetensors", ".a.safetensors", "con.safetensors",
    "a\u202e.safetensors", "C:/a.safetensors", "a.ckpt", "a.py",
])
def test_a_manifest_cannot_name_such_a_member(member: str) -> None:
    with pytest.raises(ValueError, match="refused|is no '.safetensors' file"):
        read_entry("loras", NAME, {"url": "https://host.example/a.zip", "bundle": {"member": member}})
