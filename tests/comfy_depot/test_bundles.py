"""Archives that hold many models: what is fetched of them, once for all, and what is left of them."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from comfy_depot.manifest import Bundle, Entry
from comfy_depot.transfers import Transfer, Transfers
from tests.fakes.fetching import transfers
from tests.fakes.origin import Fault, Origin, safetensors, sha256, weights

MIB = 1 << 20
A, B, C = safetensors(3 * MIB, 1), safetensors(5 * MIB, 2), safetensors(40_000, 3)
BODIES = {"loras/a.safetensors": A, "b.safetensors": B, "deep/er/c.safetensors": C,
          "junk.bin": weights(20 << 20)}


def zipped(bodies: dict[str, bytes], *, method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method, compresslevel=1) as archive:
        for name, body in bodies.items():
            archive.writestr(name, body)
    return buffer.getvalue()


def tarred(bodies: dict[str, bytes], mode: str = "w:", **options: Any) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, **options) as archive:
        for name, body in bodies.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            archive.addfile(info, io.BytesIO(body))
    return buffer.getvalue()


FAST_GZ = {"mode": "w:gz", "compresslevel": 1}
FORMS = {
    "zip, stored": lambda bodies: zipped(bodies),
    "zip, deflated": lambda bodies: zipped(bodies, method=zipfile.ZIP_DEFLATED),
    "tar": lambda bodies: tarred(bodies, format=tarfile.PAX_FORMAT),
    "tar of GNU": lambda bodies: tarred(bodies, format=tarfile.GNU_FORMAT),
    "tar.gz": lambda bodies: tarred(bodies, **FAST_GZ),
    "tar.xz": lambda bodies: tarred(bodies, mode="w:xz", preset=0),
}


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with Origin() as running:
        yield running


@pytest.fixture(autouse=True)
def _forget(request: pytest.FixtureRequest) -> None:
    if "origin" in request.fixturenames:
        request.getfixturevalue("origin").log.clear()


def member(url: str, name: str, *, as_name: str = "", archive: Bundle | None = None, **fields: Any) -> Entry:
    told = archive or Bundle(name)
    return Entry("loras", as_name or name.rpartition("/")[2], (url,), bundle=told, **fields)


def start(ours: Transfers, folder: Path, entry: Entry) -> Transfer:
    return ours.fetch(entry, folder / "models" / entry.name)


def fetch(folder: Path, entry: Entry, **options: Any) -> Path:
    with transfers(folder, **options) as ours:
        return start(ours, folder, entry).wait()


def left_over(folder: Path) -> list[str]:
    """What lies in hidden folders and in the folder of archives."""
    return sorted(path.name for path in folder.rglob("*")
                  if path.is_file() and {".depot", "bundles"} & set(path.relative_to(folder).parts))


@pytest.mark.parametrize("form", FORMS)
def test_a_member_arrives_verified_and_nothing_is_left_of_the_archive(
    tmp_path: Path, origin: Origin, form: str
) -> None:
    url = origin.put("/pack", FORMS[form]({"a.safetensors": C, "sub/b.safetensors": A}))
    file = fetch(tmp_path, member(url, "sub/b.safetensors", size=len(A), sha256=sha256(A)))
    assert file == tmp_path / "models" / "b.safetensors" and file.read_bytes() == A
    assert left_over(tmp_path) == []


@pytest.mark.parametrize("form", ["zip, stored", "tar", "tar of GNU"])
def test_a_single_member_is_fetched_without_the_rest(tmp_path: Path, origin: Origin, form: str) -> None:
    archive = FORMS[form](BODIES)
    url = origin.put("/pack", archive)
    assert fetch(tmp_path, member(url, "loras/a.safetensors", sha256=sha256(A))).read_bytes() == A
    assert len(A) <= origin.bytes_sent() <= len(A) + 2.5 * MIB < len(archive) / 4
    origin.log.clear()
    assert fetch(tmp_path, member(url, "deep/er/c.safetensors")).read_bytes() == C
    assert origin.bytes_sent() <= len(C) + MIB // 4, "a small member comes without aria2's pieces"


@pytest.mark.parametrize("form", FORMS)
def test_members_that_are_asked_at_once_are_one_download(tmp_path: Path, origin: Origin, form: str) -> None:
    bodies = {"a.safetensors": A, "b.safetensors": B, "c.safetensors": C}
    archive = FORMS[form](bodies)
    url = origin.put("/pack", archive, rate=20 * MIB)
    with transfers(tmp_path) as ours:
        running = [start(ours, tmp_path, member(url, name)) for name in bodies]
        assert [transfer.wait().read_bytes() for transfer in running] == list(bodies.values())
    assert origin.bytes_sent() <= 1.1 * len(archive) + MIB
    assert left_over(tmp_path) == []


def test_one_member_can_have_two_names(tmp_path: Path, origin: Origin) -> None:
    url = origin.put("/pack", tarred({"a.safetensors": A}, **FAST_GZ), rate=20 * MIB)
    with transfers(tmp_path) as ours:
        names = ("one.safetensors", "two.safetensors")
        running = [start(ours, tmp_path, member(url, "a.safetensors", as_name=name)) for name in names]
        assert [transfer.wait().read_bytes() for transfer in running] == [A, A]


@pytest.mark.parametrize("behaviour", [
    {"ranges": False}, {"ranges": False, "length_known": False}, {"etag": None, "last_modified": None},
    {"fault_for": lambda hit: Fault(ignores_range=hit.range not in (None, "bytes=0-0"))},
])
def test_an_origin_without_ranges_gives_the_whole_archive(
    tmp_path: Path, origin: Origin, behaviour: dict[str, Any]
) -> None:
    url = origin.put("/pack", zipped({"a.safetensors": A, "b.safetensors": B}), **behaviour)
    assert fetch(tmp_path, member(url, "a.safetensors", sha256=sha256(A))).read_bytes() == A
    assert left_over(tmp_path) == []
