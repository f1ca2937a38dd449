"""A corpus of hostile manifests: what succeeds against a naive hook gets nowhere here.

Each case names what it attacks. The naive hook does what the first idea of such a hook does: it joins folder
and name, opens the url with whatever opener fits, sends the headers with the environment put in, and follows
redirects.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import shlex
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from comfy_depot import hashing
from comfy_depot.errors import DepotError, WrongContent
from tests.comfy_depot.test_budget import watching
from tests.comfy_depot.world import World
from tests.fakes.origin import Origin, safetensors

GOOD = safetensors(300)
SECRET = "hf_very_secret"

NAMES: dict[str, tuple[str, str]] = {
    "climbs out": ("loras", "../../escaped.safetensors"),
    "climbs out of a subfolder": ("loras", "sub/../../../escaped.safetensors"),
    "climbs into another type": ("loras", "../checkpoints/sd15.safetensors"),
    "is absolute": ("loras", "{outside}/escaped.safetensors"),
    "hides": ("loras", ".depot/escaped.safetensors"),
    "hides in a subfolder": ("loras", "sub/.ssh/escaped.safetensors"),
    "is a node pack": ("custom_nodes", "evil/__init__.py"),
    "climbs into a node pack": ("loras", "../../custom_nodes/evil/__init__.py"),
    "is code": ("loras", "evil.py"),
    "is a pickle": ("loras", "evil.ckpt"),
    "is a pickle in capitals": ("loras", "evil.PKL"),
    "is a workflow of the page": ("loras", "evil.html"),
    "is a device of Windows": ("loras", "con.safetensors"),
    "is a device of Windows with a small digit": ("loras", "COM\u00b9.safetensors"),
    "is the console of Windows": ("loras", "conin$.safetensors"),
    "is a stream of Windows": ("loras", "a.safetensors:evil.safetensors"),
    "is a path of Windows": ("loras", "..\\..\\escaped.safetensors"),
    "has a look-alike of a slash": ("loras", "a\u2028b.safetensors"),
    "turns its end around": ("loras", "a\u202esrotsnetefas.safetensors"),
    "has an invisible character": ("loras", "a\u200b.safetensors"),
    "breaks a line of the log": ("loras", "a\n.safetensors"),
    "has a blank at its end": ("loras", "a.safetensors "),
    "is for the shell": ("loras", "$(touch escaped)|a.safetensors"),
    "a type with a path": ("../outside", "escaped.safetensors"),
    "a type that is absolute": ("{outside}", "escaped.safetensors"),
}

URLS: dict[str, str] = {
    "this machine": "{origin}/secret",
    "this machine by name": "http://localhost:{port}/secret",
    "this machine in one number": "http://2130706433:{port}/secret",
    "this machine in hexadecimal": "http://0x7f000001:{port}/secret",
    "this machine in octal": "http://0177.0.0.1:{port}/secret",
    "this machine, short": "http://127.1:{port}/secret",
    "this machine as zero": "http://0:{port}/secret",
    "this machine in IPv6": "http://[::ffff:127.0.0.1]:{port}/secret",
    "with a user name": "http://public.example@127.0.0.1:{port}/secret",
    "a file of this machine": "file://{outside}/secret.txt",
    "a path of this machine": "{outside}/secret.txt",
    "a path with dots": "{outside}/sub/../secret.txt",
}


def naive(models: Path, folder: str, name: str, url: str, headers: dict[str, str]) -> Path:
    """What a hook does that thinks of nothing."""
    target = Path(os.path.join(models, folder, name))
    target.parent.mkdir(parents=True, exist_ok=True)
    filled = {key: os.path.expandvars(value) for key, value in headers.items()}
    opened = urllib.request.Request(url if "://" in url else f"file://{url}", headers=filled)
    with urllib.request.urlopen(opened, timeout=5) as answer:
        target.write_bytes(answer.read())
    return target


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with Origin() as running:
        running.put("/good", GOOD)
        running.put("/secret", GOOD)
        yield running


def everything(folder: Path) -> dict[str, bytes]:
    """Each file below a folder, but for what belongs to the depot itself."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*")
            if path.is_file() and path.relative_to(folder).parts[0] not in ("depot", "model_manifests")}


def try_all(depot_world: World, folder: str, name: str, value: Any, **options: Any) -> list[str]:
    """Put an entry into a manifest and ask for it in every way; the messages of the refusals."""
    depot_world.write_manifest(json.dumps({folder: {name: value}}))
    refusals = []
    with depot_world.depot(**options) as depot:
        refusals += [str(problem) for problem in depot.catalogue.snapshot().problems]
        assert refusals or options, "an entry of this corpus is refused when it is read, or its host is"
        for wanted in ((folder, name), ("loras", os.path.basename(name))):
            try:
                depot.fetch(*wanted)
            except (DepotError, KeyError) as error:
                refusals.append(str(error))
    return refusals


@pytest.mark.parametrize("case", NAMES)
def test_a_name_gets_nowhere(depot_world: World, origin: Origin, case: str) -> None:
    outside = depot_world.base / "outside"
    outside.mkdir()
    depot_world.write_model("checkpoints", "sd15.safetensors", b"yours")
    folder, name = (part.format(outside=outside) for part in NAMES[case])
    before = everything(depot_world.base)
    assert try_all(depot_world, folder, name, origin.url + "/good")
    assert everything(depot_world.base) == before, "nothing appeared and nothing changed"
    if "\n" not in name:
        assert naive(depot_world.base / "models", folder, name, origin.url + "/good", {}).read_bytes() == GOOD
        assert everything(depot_world.base) != before, "the naive hook is fooled"


@pytest.mark.parametrize("case", URLS)
def test_an_address_gets_nowhere(depot_world: World, origin: Origin, case: str) -> None:
    outside = depot_world.base / "outside"
    outside.mkdir()
    (outside / "secret.txt").write_bytes(GOOD)
    port = origin.url.rpartition(":")[2]
    url = URLS[case].format(origin=origin.url, port=port, outside=outside)
    origin.log.clear()
    assert try_all(depot_world, "loras", "a.safetensors", url, depot_allow_hosts=())
    assert not origin.log, "no request arrived"
    assert not depot_world.model("loras", "a.safetensors").exists()


@pytest.mark.parametrize("case", ["this machine", "this machine by name", "a file of this machine",
                                  "a path of this machine", "a path with dots"])
def test_the_same_addresses_fool_a_naive_hook(tmp_path: Path, origin: Origin, case: str) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "secret.txt").write_bytes(GOOD)
    port = origin.url.rpartition(":")[2]
    url = URLS[case].format(origin=origin.url, port=port, outside=tmp_path)
    assert naive(tmp_path, "loras", "a.safetensors", url, {}).read_bytes() == GOOD


def test_a_token_is_not_sent_to_a_host_of_the_manifests_choice(
    depot_world: World, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("DEPOT_TOKEN", SECRET)
    headers = {"X-A": "$HF_TOKEN", "X-B": "${AWS_SECRET_ACCESS_KEY}", "X-C": "$DEPOT_TOKEN"}
    naive(depot_world.base / "models", "loras", "n.safetensors", origin.url + "/good", headers)
    assert SECRET in repr(origin.log), "the naive hook gives it away"
    origin.log.clear()
    for one in headers.items():
        value = {"url": "https://evil.example/good", "headers": dict([one])}
        refusals = try_all(depot_world, "loras", "a.safetensors", value, depot_allow_hosts=("127.0.0.1",))
        assert any("that secret belongs to" in refusal for refusal in refusals)
        assert SECRET not in repr(refusals)


def test_a_redirect_to_this_machine_is_not_followed(depot_world: World, origin: Origin) -> None:
    origin.put("/away", redirect_to=origin.at("localhost", origin.url + "/secret"))
    assert naive(depot_world.base, "n", "n.bin", origin.url + "/away", {}).read_bytes() == GOOD
    origin.log.clear()
    refusals = try_all(depot_world, "loras", "a.safetensors", origin.url + "/away",
                       depot_allow_hosts=("127.0.0.1",))
    assert any("which is not public" in refusal for refusal in refusals)
    assert {hit.path for hit in origin.log} == {"/away"}


def test_a_link_in_the_models_folder_leads_no_file_out(depot_world: World, origin: Origin) -> None:
    outside = depot_world.base / "outside"
    outside.mkdir()
    (depot_world.base / "models" / "loras" / "sub").symlink_to(outside)
    refusals = try_all(depot_world, "loras", "sub/a.safetensors", origin.url + "/good",
                       depot_allow_hosts=("127.0.0.1",))
    assert any("through a link" in refusal for refusal in refusals)
    assert list(outside.iterdir()) == []
    assert naive(depot_world.base / "models", "loras", "sub/a.safetensors", origin.url + "/good", {}).exists()
    assert list(outside.iterdir()), "the naive hook is led out"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"loras": {"a.safetensors": ' + '{"bundle": ' * 50_000 + "1" + "}" * 50_001 + "}", "nested too"),
        ('{"loras": {' + ", ".join(f'"{i}": "https://h/a"' for i in range(9000)) + "}}", "has no extension"),
        ('{"loras": {"' + "a" * 1_000_000 + '.safetensors": "https://h/a"}}', "Keep it at or below"),
        ('{"loras": {"a.safetensors": "ftp://' + "a" * 1_000_000 + '"}}', "is not the url of a file"),
        ('{"' + "a" * 1_000_000 + '": {"a.safetensors": "https://h/a"}}', "is not known"),
    ],
    ids=["a tower of objects", "nothing but mistakes", "endless name", "endless url", "endless type"],
)
def test_a_bomb_of_a_manifest_costs_a_moment(depot_world: World, text: str, words: str) -> None:
    depot_world.write_manifest(text)
    with depot_world.depot() as depot:
        problem = str(depot.catalogue.snapshot().problems[0])
        assert words in problem and len(problem) < 2500, "nor does the log grow by it"
        assert list(depot.catalogue) == []


def test_a_header_that_leads_a_request_elsewhere_or_cuts_it_is_refused(
    depot_world: World, origin: Origin
) -> None:
    naive(depot_world.base, "n", "n.bin", origin.url + "/good", {"Host": "inside.example"})
    assert origin.log[-1].host == "inside.example", "the naive hook asks another site of that server"
    origin.log.clear()
    for header in ("Host", "content-length", "Transfer-Encoding", "Range", "Proxy-Authorization"):
        value = {"url": origin.url + "/good", "headers": {header: "$HOME"}}
        refusals = try_all(depot_world, "loras", "a.safetensors", value, depot_allow_hosts=("127.0.0.1",))
        assert any("is the depot's own to set" in refusal for refusal in refusals) and not origin.log


class Liar(http.server.BaseHTTPRequestHandler):
    """Says that the file has 1 MiB when it is asked for the first byte, and then sends 48 MiB of it."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        asked = self.headers.get("Range", "bytes=0-")
        is_look = asked == "bytes=0-0"
        self.send_response(206)
        self.send_header("ETag", '"same"')
        self.send_header("Content-Range", asked.replace("=", " ") + f"/{1 << 20}")
        self.send_header(*(("Content-Length", "1") if is_look else ("Transfer-Encoding", "chunked")))
        self.end_headers()
        with contextlib.suppress(OSError):
            for _ in range(0 if is_look else 48):
                self.wfile.write(b"100000\r\n" + bytes(1 << 20) + b"\r\n")
                time.sleep(0.02)
            self.wfile.write(b"x" if is_look else b"0\r\n\r\n")


def test_a_source_that_names_a_small_size_and_sends_without_end_fills_no_disk(depot_world: World) -> None:
    models = depot_world.base / "models"
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Liar) as server, watching(models) as samples:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/a"
        depot_world.write_manifest({"loras": {"a.safetensors": url}})
        with depot_world.depot() as depot:
            with pytest.raises(WrongContent, match="said 1048576 bytes and sends more"):
                depot.fetch("loras", "a.safetensors")
        assert max(samples) < 32 << 20 and not list(models.rglob("*.part"))
        assert naive(depot_world.base, "n", "n.bin", url, {}).stat().st_size == 48 << 20
        server.shutdown()


def test_advice_to_copy_into_a_shell_runs_nothing_of_a_manifests(depot_world: World) -> None:
    name = "a $(touch escaped) 'b'.safetensors"
    depot_world.write_manifest({"loras": {name: "https://host.example/a"}})
    with depot_world.depot() as depot:
        command = depot.explain_missing("loras", name).partition("fetch it now: ")[2]
    assert shlex.split(command) == ["python", "-m", "comfy_depot", "fetch", f"loras/{name}"]


def test_a_header_that_would_fill_the_memory_is_refused_unread(tmp_path: Path) -> None:
    file, length = tmp_path / "bomb.safetensors", 64 << 20
    file.write_bytes(length.to_bytes(8, "little"))
    os.truncate(file, 8 + length)
    with file.open("rb") as naive_reader:
        naive_reader.seek(8)
        assert len(naive_reader.read(length)) == length
    with pytest.raises(WrongContent, match="announces a header of 67108864"):
        hashing.check_safetensors(file, "bomb.safetensors")
