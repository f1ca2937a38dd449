"""Archives that hold many models: what is fetched of them, once for all, and what is left of them."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from comfy_depot import cli, ranged, tar_archive
from comfy_depot.archives import Scattered
from comfy_depot.bundles import key_of
from comfy_depot.errors import DownloadFailed, TransferCancelled, WrongContent
from comfy_depot.eviction import Limits
from comfy_depot.layout import Layout, Place
from comfy_depot.manifest import Bundle, Entry
from comfy_depot.members import MemberDownload
from comfy_depot.ranged import RemoteBytes, SourceChanged
from comfy_depot.services import Progress
from comfy_depot.sources import Busy, resolve
from comfy_depot.transfers import Transfer, Transfers
from tests.comfy_depot.world import World
from tests.fakes.fetching import transfers, until
from tests.fakes.origin import Fault, Origin, safetensors, sha256, weights

MIB = 1 << 20
A, B, C = safetensors(3 * MIB // 2, 1), safetensors(600_000, 2), safetensors(40_000, 3)
SMALL = {"a.safetensors": C, "deep/er/b.safetensors": safetensors(150_000, 4)}
BODIES = {"a.safetensors": A, "deep/er/b.safetensors": B, "c.safetensors": C}


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


LONG = "sub/" + "long/" * 30 + "d.safetensors"  # more than fits into a plain header of a tar
FORMS = {
    "zip, stored": lambda bodies: zipped(bodies),
    "zip, deflated": lambda bodies: zipped(bodies, method=zipfile.ZIP_DEFLATED),
    "tar": lambda bodies: tarred(bodies, format=tarfile.PAX_FORMAT),
    "tar of GNU": lambda bodies: tarred(bodies, format=tarfile.GNU_FORMAT),
    "tar.gz": lambda bodies: tarred(bodies, "w:gz", compresslevel=1),
    "tar.xz": lambda bodies: tarred(bodies, "w:xz", preset=0),
    "tar.zst": lambda bodies: zstd().compress(tarred(bodies)),
}


def zstd() -> Any:
    return tar_archive.zstd() or pytest.skip("tar.zst needs the package backports.zstd")


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with Origin() as running:
        yield running


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[Transfers]:
    with transfers(tmp_path) as made:
        yield made


@pytest.fixture(autouse=True)
def _forget(origin: Origin) -> None:
    origin.log.clear()
    origin.total.rate = None


def member(*urls: str, name: str, as_name: str = "", archive: Bundle | None = None, **fields: Any) -> Entry:
    return Entry("loras", as_name or name.rpartition("/")[2], urls, bundle=archive or Bundle(name), **fields)


def start(ours: Transfers, entry: Entry) -> Transfer:
    return ours.fetch(entry, ours.options.depot_dir.parent / "models" / entry.name)


def start_all(ours: Transfers, url: str) -> list[Transfer]:
    return [start(ours, member(url, name=name)) for name in BODIES]


def watch(ours: Transfers, monkeypatch: pytest.MonkeyPatch, see: Callable[[Progress], None]) -> None:
    """Call `see` whenever a transfer of a member tells how far it is, from its first word on."""
    download = ours._bundles.download

    def watched(entry: Entry, place: Place, progress: Progress) -> MemberDownload:
        told = progress.changed

        def changed() -> None:
            told()
            see(progress)

        progress.changed = changed
        return download(entry, place, progress)

    monkeypatch.setattr(ours._bundles, "download", watched)


def left_over(folder: Path) -> list[str]:
    """What lies in hidden folders and in the folder of archives."""
    return sorted(path.name for path in folder.rglob("*")
                  if path.is_file() and {".depot", "bundles"} & set(path.relative_to(folder).parts))


@pytest.mark.parametrize("form", FORMS)
def test_a_member_arrives_verified_and_nothing_is_left(tmp_path: Path, ours: Transfers, form: str) -> None:
    (tmp_path / "pack").write_bytes(FORMS[form]({**SMALL, LONG: C}))
    for name, body in (("deep/er/b.safetensors", SMALL["deep/er/b.safetensors"]), (LONG, C)):
        wanted = member(str(tmp_path / "pack"), name=name, size=len(body), sha256=sha256(body))
        file = start(ours, wanted).wait()
        assert file == tmp_path / "models" / wanted.name and file.read_bytes() == body
    assert left_over(tmp_path) == []


@pytest.mark.parametrize("form", ["zip, stored", "tar"])
def test_a_single_member_is_fetched_without_the_rest(
    tmp_path: Path, origin: Origin, ours: Transfers, form: str
) -> None:
    archive = FORMS[form]({**BODIES, "junk.bin": weights(16 * MIB)})
    url = origin.put("/pack", archive)
    assert start(ours, member(url, name="a.safetensors", sha256=sha256(A))).wait().read_bytes() == A
    assert len(A) <= origin.bytes_sent() <= len(A) + 2.5 * MIB < len(archive) / 4
    for _ in "now", "when it was evicted":
        origin.log.clear()
        file = start(ours, member(url, name="c.safetensors")).wait()
        assert file.read_bytes() == C
        file.unlink()  # as eviction does
        assert origin.bytes_sent() <= len(C) + MIB // 4, "a small member comes without aria2's pieces"
    assert left_over(tmp_path) == []


@pytest.mark.parametrize("form", ["zip, deflated", "tar.gz"])
def test_members_that_are_asked_at_once_are_one_download(
    tmp_path: Path, origin: Origin, ours: Transfers, form: str
) -> None:
    archive = FORMS[form](BODIES)
    url = origin.put("/pack", archive, delay=0.02, rate=20 * MIB)
    running = start_all(ours, url)
    assert [transfer.wait().read_bytes() for transfer in running] == list(BODIES.values())
    assert origin.bytes_sent() <= len(archive) + MIB
    assert left_over(tmp_path) == []


def test_processes_that_ask_at_once_share_a_download(tmp_path: Path, origin: Origin, ours: Transfers) -> None:
    """Each `Transfers` knows nothing of the other, as in two processes: they share files and locks only."""
    archive = FORMS["tar.gz"](BODIES)
    url = origin.put("/pack", archive, delay=0.02, rate=20 * MIB)
    with transfers(tmp_path) as others:
        running = [start(ours, member(url, name="a.safetensors")),
                   start(others, member(url, name="c.safetensors"))]
        assert [transfer.wait().read_bytes() for transfer in running] == [A, C]
    assert origin.bytes_sent() <= len(archive) + MIB
    assert left_over(tmp_path) == []


def test_headers_behind_a_proved_member_are_not_read(origin: Origin, ours: Transfers) -> None:
    others = {f"{n}.bin": bytes(40_000) for n in range(20)}
    url = origin.put("/pack", FORMS["tar"]({"c.safetensors": C, **others}))
    assert start(ours, member(url, name="c.safetensors", sha256=sha256(C))).wait().read_bytes() == C
    assert len(origin.hits()) <= 6
    origin.log.clear()
    assert start(ours, member(url, name="c.safetensors", as_name="again.safetensors")).wait()
    assert len(origin.hits()) > 6, "without a digest the name might stand there twice"


def test_one_member_can_have_two_names(tmp_path: Path, ours: Transfers) -> None:
    (tmp_path / "pack").write_bytes(FORMS["tar.gz"](SMALL))
    running = [start(ours, member(str(tmp_path / "pack"), name="a.safetensors", as_name=name))
               for name in ("one.safetensors", "two.safetensors")]
    assert [transfer.wait().read_bytes() for transfer in running] == [C, C]


@pytest.mark.parametrize("behaviour", [
    {"ranges": False, "length_known": False}, {"etag": None, "last_modified": None},
    {"fault_for": lambda hit: Fault(ignores_range=hit.range not in (None, "bytes=0-0"))},
])
def test_an_origin_without_ranges_gives_the_whole_archive(
    tmp_path: Path, origin: Origin, ours: Transfers, behaviour: dict[str, Any]
) -> None:
    url = origin.put("/pack", FORMS["tar"](SMALL), **behaviour)
    assert start(ours, member(url, name="a.safetensors", sha256=sha256(C))).wait().read_bytes() == C
    assert left_over(tmp_path) == []


def test_what_has_come_of_an_archive_is_not_fetched_again(
    tmp_path: Path, origin: Origin, ours: Transfers
) -> None:
    """Whoever works for all is stopped; another who waits goes on, and so does the next fetch."""
    archive = FORMS["tar.gz"]({"a.safetensors": A, "b.safetensors": safetensors(3 * MIB)})
    url = origin.put("/pack", archive)
    origin.total.rate = 5 * MIB
    first, second = (start(ours, member(url, name=name)) for name in ("a.safetensors", "b.safetensors"))
    until(lambda: min(first.bytes_done, second.bytes_done) > MIB // 4)  # all who wait see how far it is
    first.stop()
    with pytest.raises(TransferCancelled):
        first.wait()
    until(lambda: second.bytes_done > MIB)
    second.stop()
    with pytest.raises(TransferCancelled):
        second.wait()
    assert any(name.endswith(".part") for name in left_over(tmp_path))
    origin.total.rate = None
    assert start(ours, member(url, name="b.safetensors")).wait().stat().st_size == 3 * MIB
    assert origin.bytes_sent() <= len(archive) + 2.5 * MIB
    assert left_over(tmp_path) == []


def test_an_archive_that_changes_on_the_way_is_begun_anew(
    tmp_path: Path, origin: Origin, ours: Transfers
) -> None:
    old, new = FORMS["tar"](BODIES), FORMS["tar"]({**BODIES, "a.safetensors": safetensors(3 * MIB // 2, 9)})
    url = origin.put("/pack", old, swap_after=MIB, swap_to=new)
    file = start(ours, member(url, name="a.safetensors")).wait()
    assert file.read_bytes() in (A, safetensors(3 * MIB // 2, 9)), "old or new, and never both"
    assert left_over(tmp_path) == []


def test_wrong_bytes_are_refused_whoever_promised_them(
    tmp_path: Path, origin: Origin, ours: Transfers
) -> None:
    archive = FORMS["zip, stored"](SMALL)
    url, name = origin.put("/pack", archive), "a.safetensors"
    cases = [
        (member(url, name=name, sha256=sha256(A)), r"/pack \(member 'a.safetensors'\) sent has the sha256"),
        (member(url, name=name, size=7), "has 40000 bytes and the manifest promises 7. Correct the manifest"),
        (member(url, name=name, archive=Bundle(name, sha256=sha256(A))), "and the manifest promises"),
        (member(url, name=name, archive=Bundle(name, size=7)), "offers .* and the manifest promises 7"),
        (member(url, name="A.safetensors"), "has no member 'A.safetensors'. Correct the manifest; it has: "),
    ]
    for entry, words in cases:
        with pytest.raises(WrongContent, match=words):
            start(ours, entry).wait()
    good = member(url, name=name, archive=Bundle(name, size=len(archive), sha256=sha256(archive)))
    assert start(ours, good).wait().read_bytes() == C
    assert all(left.endswith(".bad") for left in left_over(tmp_path))


def test_one_refusal_costs_the_others_nothing(tmp_path: Path, origin: Origin, ours: Transfers) -> None:
    url = origin.put("/pack", FORMS["tar.gz"](SMALL), delay=0.02)
    bad, good = (start(ours, member(url, name=f"{name}.safetensors")) for name in ("none", "a"))
    assert good.wait().read_bytes() == C
    with pytest.raises(WrongContent, match="'loras/none.safetensors'.*has no member 'none.safetensors'"):
        bad.wait()


def test_a_failure_of_the_archive_is_everybodys_and_is_met_once(origin: Origin, ours: Transfers) -> None:
    running = start_all(ours, origin.put("/pack", b"", status=404, delay=0.1))
    for transfer in running:
        with pytest.raises(DownloadFailed, match=f"'{transfer.entry.key}'.*answered 404"):
            transfer.wait()
    assert len(origin.hits()) <= 2, "one may come too late for the first look"


def test_the_next_mirror_is_asked_for_a_member(origin: Origin, ours: Transfers) -> None:
    first = origin.put("/old", FORMS["zip, stored"]({"a.safetensors": A}))
    second = origin.put("/new", FORMS["zip, stored"](BODIES))
    assert start(ours, member(first, second, name="c.safetensors")).wait().read_bytes() == C


def test_an_archive_that_must_be_whole_stays_while_it_is_needed(tmp_path: Path, origin: Origin) -> None:
    url, needed = origin.put("/pack", FORMS["tar.gz"](SMALL)), [True]
    with transfers(tmp_path, is_bundle_needed=lambda entry: needed[0]) as ours:
        assert start(ours, member(url, name="a.safetensors")).wait().read_bytes() == C
        assert any(name.endswith(".part") for name in left_over(tmp_path))
        origin.log.clear()
        needed[0] = False
        assert start(ours, member(url, name="deep/er/b.safetensors")).wait()
        assert origin.bytes_sent() < 5000
        assert left_over(tmp_path) == []


def test_entries_share_an_archive_only_with_the_same_rights() -> None:
    one = member("https://host.example/a.zip", name="a.safetensors")
    same = member("https://host.example/a.zip", name="b.safetensors", sha256="a" * 64)
    others = [
        member("https://host.example/b.zip", name="a.safetensors"),
        member("https://host.example/a.zip", name="a.safetensors", headers={"Authorization": "$A"}),
        member("https://host.example/a.zip", name="a.safetensors", is_anonymous=True),
        member("https://host.example/a.zip", name="a.safetensors", archive=Bundle("a.safetensors", 5)),
    ]
    assert key_of(one) == key_of(same)
    assert len({key_of(entry) for entry in (one, *others)}) == 5


@pytest.mark.slow
def test_the_depot_fetches_verifies_and_evicts_members(
    depot_world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    pack = depot_world.base / "pack.tar.gz"
    pack.write_bytes(FORMS["tar.gz"](SMALL))
    depot_world.write_manifest({"loras": {
        name.rpartition("/")[2]: {"url": str(pack), "bundle": {"member": name}, "size": len(body)}
        for name, body in SMALL.items()
    }})
    with depot_world.depot() as depot:
        depot_world.run_node()
        path = depot.path_in_node("loras", "a.safetensors", None)
        assert path is not None and Path(path).read_bytes() == C
        assert depot_world.events[-1][1]["state"] == "done"
        of_archive = Layout(depot.options.depot_dir).archive("key")
        of_archive.partial.parent.mkdir(parents=True, exist_ok=True)
        of_archive.partial.write_bytes(bytes(5000))
        plan = depot.plan_eviction(Limits(max_size=0))
        assert sorted(verdict.model.folder for verdict in plan.going) == ["bundles", "loras"]
        plan.execute()
        assert left_over(depot_world.base) == [] and not Path(path).exists()
    command = ["--base-directory", str(depot_world.base), "--json"]
    assert cli.main([*command, "fetch", "loras/b.safetensors"]) == 0
    assert depot_world.model("loras", "b.safetensors").read_bytes() == SMALL["deep/er/b.safetensors"]
    assert cli.main([*command, "verify", "--hash"]) == 0
    assert '"problems": []' in capsys.readouterr().out


def test_an_archive_is_needed_while_a_named_member_is_not_there(depot_world: World) -> None:
    entries = {name: {"url": "https://host.example/pack.tgz", "bundle": {"member": name}} for name in BODIES}
    depot_world.write_manifest({"loras": {name.replace("/", "-"): value for name, value in entries.items()}})
    with depot_world.depot() as depot:
        one = depot.entry("loras", "a.safetensors")
        for name in BODIES:
            assert depot._is_bundle_needed(one)
            depot_world.write_model("loras", name.replace("/", "-"))
        assert not depot._is_bundle_needed(one)


def test_phases_are_told(tmp_path: Path, origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[dict[str, Any]] = []
    seen: list[tuple[str, int | None]] = []
    with transfers(tmp_path, events=events) as ours:
        watch(ours, monkeypatch, lambda progress: seen.append((progress.state, progress.bytes_total)))
        url = origin.put("/pack", FORMS["zip, stored"](BODIES))
        start(ours, member(url, name="a.safetensors")).wait()
    states = list(dict.fromkeys(state for state, _ in seen))
    assert [state for state in states if state in ("downloading", "unpacking", "verifying")] == [
        "downloading", "unpacking", "verifying"]
    assert ("unpacking", len(A)) in seen and events[-1]["bytes_done"] == len(A)


def test_ranges_are_read_ahead_and_given_up_when_there_are_too_many(
    origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = weights(MIB)
    entry = member(origin.put("/pack", body), name="a.safetensors")
    remote = resolve(entry, entry.urls[0], allow_hosts=("127.0.0.1",))
    origin.log.clear()
    turns: list[None] = []
    ranges = RemoteBytes(entry, remote, allow_hosts=("127.0.0.1",), before_each=lambda: turns.append(None))
    for position in range(0, 400_000, 512):
        assert ranges.read_at(position, 512) == body[position : position + 512]
    assert len(origin.hits()) == len(turns) < 12
    assert ranges.read_at(MIB - 10, 100) == body[-10:]
    monkeypatch.setattr(ranged, "MOST_REQUESTS", len(turns) + 2)
    monkeypatch.setattr(ranged, "BYTES_PER_REQUEST", MIB // (len(turns) + 4))
    for position in range(4):
        ranges.fetch(position, position + 1)  # a large file is worth more requests
    with pytest.raises(Scattered):
        ranges.fetch(4, 5)


@pytest.mark.parametrize(("fault", "kind", "words"), [
    (Fault(status=503, retry_after="7"), Busy, "answered 503 to a request for a part"),
    (Fault(truncate_at=100), Busy, "of 4096 bytes|cannot be reached"),
    (Fault(ignores_range=True), Scattered, "^$"),
])
def test_a_range_that_is_not_given_is_no_part(
    origin: Origin, fault: Fault, kind: type[Exception], words: str
) -> None:
    entry = member(origin.put("/pack", weights(9000)), name="a.safetensors")
    remote = resolve(entry, entry.urls[0], allow_hosts=("127.0.0.1",))
    origin.assets["/pack"].fault_for = lambda hit: fault
    with pytest.raises(kind, match=words) as caught:
        RemoteBytes(entry, remote, allow_hosts=("127.0.0.1",), before_each=lambda: None).read_at(0, 10)
    if fault.status:
        assert caught.value.retry_after == 7


def test_a_range_of_another_file_is_no_part(origin: Origin) -> None:
    entry = member(origin.put("/pack", weights(9000)), name="a.safetensors")
    remote = resolve(entry, entry.urls[0], allow_hosts=("127.0.0.1",))
    origin.assets["/pack"].body = weights(9000, seed=1)
    with pytest.raises(SourceChanged):
        RemoteBytes(entry, remote, allow_hosts=("127.0.0.1",), before_each=lambda: None).read_at(0, 10)


def test_an_archive_of_the_library_that_cannot_be_read_is_named(tmp_path: Path, ours: Transfers) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for path, words in (("none", "none cannot be read .No such file.*Mount the library, or correct the path"),
                        ("folder", "is no plain file. Correct the path"), ("pipe", "is no plain file")):
        with pytest.raises(DownloadFailed, match=words):
            start(ours, member(str(tmp_path / path), name="a.safetensors")).wait()
