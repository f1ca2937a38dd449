"""`python -m comfy_depot`: what it prints and how it ends."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from comfy_depot import cli
from comfy_depot.access import COLUMNS
from comfy_depot.commands import printing
from comfy_depot.digests import Digests
from comfy_depot.eviction import Stamp
from tests.comfy_depot.world import World
from tests.fakes.origin import Origin, safetensors, sha256
from tests.fakes.waiting import wait_until

ROOT = Path(cli.__file__).parents[1]
LOCAL = ("--depot-allow-hosts", "127.0.0.1", "--depot-reserve", "0")


class Commands:
    """Runs commands in this process against a world."""

    def __init__(self, world: World, capsys: pytest.CaptureFixture[str]) -> None:
        self.base = str(world.base)
        self.capsys = capsys

    def __call__(self, *words: str) -> tuple[int, str, str]:
        status = cli.main([*words, "--base-directory", self.base])
        printed = self.capsys.readouterr()
        return status, printed.out, printed.err


@pytest.fixture
def run(depot_world: World, capsys: pytest.CaptureFixture[str]) -> Commands:
    return Commands(depot_world, capsys)


def test_list_prints_lines_for_a_pipe(depot_world: World, run: Commands) -> None:
    depot_world.write_model("loras", "own.safetensors", b"x" * 2048)
    depot_world.write_manifest(
        {
            "checkpoints": {
                "c.safetensors": {
                    "url": "https://host.example/c",
                    "size": 5 << 30,
                    "group": "g",
                    "gated": True,
                }
            }
        }
    )
    status, out, err = run("list")
    assert status == 0 and err == ""
    assert out.split("\n") == [
        "checkpoints\tc.safetensors\tcloud\t5.0 GiB\thost.example\tg\tyes",
        "loras\town.safetensors\tdisk\t2.0 KiB\t\t\t",
        "",
    ]
    assert run("list", "--folder", "loras")[1].startswith("loras\town")
    assert run("list", "--tier", "disk")[1].count("\n") == 1
    assert [model["name"] for model in json.loads(run("--json", "list")[1])] == [
        "c.safetensors",
        "own.safetensors",
    ]


def test_list_draws_a_table_in_a_terminal(
    depot_world: World, run: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    depot_world.write_model("loras", "own.safetensors")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert "folder" in run("list")[1]


def test_list_tells_of_mistakes_on_the_side(depot_world: World, run: Commands) -> None:
    depot_world.write_manifest({"loras": {"bad": "https://host.example/b"}})
    status, out, err = run("list")
    assert (status, out) == (0, "")
    assert "Mistakes in the manifests: 1. To see them: python -m comfy_depot verify" in err


def test_fetch_prints_the_path_and_logs_the_access(depot_world: World, run: Commands) -> None:
    with Origin() as origin:
        depot_world.write_manifest({"loras": {"s/a.safetensors": origin.put("/a", safetensors(20_000))}})
        status, out, err = run("fetch", "loras/s/a.safetensors", *LOCAL)
        assert (status, out.strip()) == (0, str(depot_world.model("loras", "s/a.safetensors"))), err
        status, out, _ = run("fetch", "loras/s/a.safetensors", "--json", *LOCAL)
        assert json.loads(out) == [
            {
                "model": "loras/s/a.safetensors",
                "path": str(depot_world.model("loras", "s/a.safetensors")),
                "error": None,
            }
        ]
    rows = list(csv.reader(io.StringIO(run("log", "--csv")[1])))
    assert (
        tuple(rows[0]) == COLUMNS and rows[1][1:3] == ["loras", "s/a.safetensors"] and rows[1][7] == "fetched"
    )
    assert json.loads(run("log", "--json")[1])[0]["bytes"] == 20_000
    assert "loras/s/a.safetensors\tfetched\t19.5 KiB" in run("log", "--limit", "1")[1]


@pytest.mark.parametrize(
    "model, words",
    [
        (
            "a.safetensors",
            "'a.safetensors' names no folder. Write FOLDER/NAME, as checkpoints/a.safetensors.",
        ),
        ("loras/none.safetensors", "'none.safetensors' is in no manifest and not in models/loras."),
        ("zzz/a.safetensors", "There is no folder type 'zzz'."),
    ],
)
def test_fetch_of_what_is_not_there_ends_with_status_one(run: Commands, model: str, words: str) -> None:
    status, out, err = run("fetch", model)
    assert (status, out) == (1, "") and f"Error: {words}" in err


def test_fetch_replaces_a_file_of_yours_when_told_to(depot_world: World, run: Commands) -> None:
    own, named = safetensors(20_000, seed=1), safetensors(30_000, seed=2)
    file = depot_world.write_model("loras", "a.safetensors", own)
    with Origin() as origin:
        depot_world.write_manifest({"loras": {"a.safetensors": {
            "url": origin.put("/a", named), "size": len(named), "sha256": sha256(named)}}})
        assert run("fetch", "loras/a.safetensors", *LOCAL)[0] == 0 and file.read_bytes() == own
        assert "fetch --replace loras/a.safetensors" in run("verify")[1]
        assert run("fetch", "--replace", "loras/a.safetensors", *LOCAL)[0] == 0
        assert file.read_bytes() == named and run("verify")[0] == 0


def test_fetch_goes_on_after_one_that_failed(depot_world: World, run: Commands) -> None:
    depot_world.write_model("loras", "own.safetensors")
    status, out, err = run("fetch", "loras/none.safetensors", "loras/own.safetensors")
    assert status == 1 and out.strip().endswith("own.safetensors") and "none.safetensors" in err


def test_verify_lists_every_mistake_and_ends_with_status_one(depot_world: World, run: Commands) -> None:
    depot_world.write_manifest("{", name="a.json")
    depot_world.write_manifest(
        {
            "loras": {"bad": "https://host.example/b", "ok.safetensors": "https://h/ok"},
            "lorass": {"x.safetensors": "https://host.example/x"},
        },
        name="b.json",
    )
    status, out, _ = run("verify")
    assert status == 1
    assert re.search(r"^a.json:1: not JSON", out, re.M)
    assert re.search(r"^b.json:3: 'bad' in 'loras': the name has no extension", out, re.M)
    assert re.search(
        r"^b.json:7: 'x.safetensors' in 'lorass': folder type .* Did you mean 'loras'", out, re.M
    )
    assert out.endswith("Models in the manifests: 1. Mistakes: 3.\n")
    assert len(json.loads(run("verify", "--json")[1])["problems"]) == 3


def test_verify_compares_files_with_what_the_manifest_says(depot_world: World, run: Commands) -> None:
    depot_world.write_model("loras", "size.safetensors", b"123")
    depot_world.write_model("loras", "hash.safetensors", b"123")
    depot_world.write_model("loras", "good.safetensors", b"123")
    url = "https://host.example/a"
    depot_world.write_manifest(
        {
            "loras": {
                "size.safetensors": {"url": url, "size": 4},
                "hash.safetensors": {"url": url, "sha256": "0" * 64},
                "good.safetensors": {"url": url, "size": 3, "sha256": sha256(b"123")},
            }
        }
    )
    status, out, _ = run("verify")
    assert (
        status == 1
        and "size.safetensors: has 3 bytes, and the manifest says 4. Remove the file to have it" in out
    )
    assert "hash.safetensors" not in out
    out = run("verify", "--hash")[1]
    assert f"hash.safetensors: has sha256 {sha256(b'123')}, and the manifest says 000" in out
    stamp = Stamp.of(os.stat(depot_world.model("loras", "hash.safetensors")))
    assert Digests(depot_world.base / "depot").of(stamp) == sha256(b"123")  # what it read is known now
    assert "good.safetensors" not in out


def test_verify_is_content_with_good_manifests(depot_world: World, run: Commands) -> None:
    depot_world.write_manifest({"loras": {"a.safetensors": "https://host.example/a"}})
    assert run("verify")[:2] == (0, "Models in the manifests: 1. Mistakes: 0.\n")


def test_verify_writes_the_schema(depot_world: World, run: Commands) -> None:
    assert run("verify", "--write-schema")[0] == 0
    shipped = (ROOT / "model_manifests" / "schema.json").read_text(encoding="utf-8")
    assert (depot_world.manifests / "schema.json").read_text(encoding="utf-8") == shipped


def an_old_and_a_new_lora(world: World) -> None:
    """Two models of a manifest, unused for ten days and for none, and one of the user's own."""
    url = "https://host.example/a"
    names = ("old.safetensors", "new.safetensors")
    world.write_manifest({"loras": {name: {"url": url, "size": 2048} for name in names}})
    for name in (*names, "own.safetensors"):
        file = world.write_model("loras", name, b"x" * 2048)
        if name != "new.safetensors":
            os.utime(file, (time.time() - 10 * 86_400,) * 2)


def test_clean_shows_what_would_go_then_does_it(depot_world: World, run: Commands) -> None:
    an_old_and_a_new_lora(depot_world)
    status, out, _ = run("clean", "--keep-days", "7", "--max-size", "1G", "--dry-run")
    rows = [line.split("\t") for line in out.splitlines()]
    assert status == 0
    assert rows[0][:3] == ["would go", "loras/old.safetensors", "2.0 KiB"]
    assert rows[0][4] == "not used for 10.0 days"
    assert rows[1][:2] == ["would stay", "loras/new.safetensors"] and rows[1][4] == "within the limits"
    assert rows[2][4] == "no manifest names it, so nothing could bring it back"
    assert rows[3] == ["Would free 2.0 KiB of 1 models; 2 stay."]
    assert depot_world.model("loras", "old.safetensors").exists()
    status, out, _ = run("clean", "--keep-days", "7")
    assert status == 0 and out.startswith("went\tloras/old.safetensors\t") and "Freed 2.0 KiB" in out
    assert sorted(path.name for path in depot_world.model("loras", "").glob("*.safetensors")) == [
        "new.safetensors",
        "own.safetensors",
    ]
    assert "loras\told.safetensors\tcloud" in run("list")[1], "its name stays in the list"


def test_clean_that_cannot_reach_the_size_ends_with_status_one(depot_world: World, run: Commands) -> None:
    an_old_and_a_new_lora(depot_world)
    with depot_world.model("loras", "old.safetensors").open("rb"):
        status, out, err = run("clean", "--max-size", "1K", "--json")
    assert status == 1
    assert "The depot's own models still take 1.0 KiB more than the limit, because what takes it must" in err
    answer = json.loads(out)
    assert (answer["dry_run"], answer["bytes_freed"], answer["bytes_over"]) == (False, 2048, 1024)
    assert [model["name"] for model in answer["evicted"]] == ["new.safetensors"]


def test_evict_takes_models_by_name(depot_world: World, run: Commands) -> None:
    an_old_and_a_new_lora(depot_world)
    assert run("evict", "loras/new.safetensors", "--dry-run")[0] == 0
    assert depot_world.model("loras", "new.safetensors").exists()
    status, out, _ = run("evict", "loras/new.safetensors", "loras/own.safetensors")
    assert status == 1, "one of the two had to stay"
    assert "went\tloras/new.safetensors" in out and "asked for by name" in out
    assert "stays\tloras/own.safetensors" in out and "no manifest names it" in out
    assert not depot_world.model("loras", "new.safetensors").exists()


@pytest.mark.parametrize(
    "words, message",
    [
        (("clean",), "Nothing to clean up to. Add --max-size 200G, --keep-days 7, or both."),
        (("list", "--folder", "lora"), "There is no folder type 'lora'. Did you mean loras"),
        (("fetch", "loras/"), "'loras/' names no model. Write FOLDER/NAME"),
        (("replay", "--size", "1G"), "There is no use to replay: the trace or the access log is empty."),
        (("replay", "none.csv", "--size", "1G"), "There is no file 'none.csv'. Name a trace"),
        (("serve", ".", "--listen", "192.0.2.1"), "Port 8189 of 192.0.2.1 cannot be opened ("),
        (("evict", "a.safetensors"), "'a.safetensors' names no folder. Write FOLDER/NAME"),
        (("evict", "loras/cloud.safetensors"), "'loras/cloud.safetensors' is not on this disk, so there is"),
        (("evict", "loras/../../x"), "'../../x' is in no manifest and not in models/loras."),
    ],
)
def test_a_command_that_cannot_be_meant_is_refused(
    depot_world: World, run: Commands, words: tuple[str, ...], message: str
) -> None:
    depot_world.write_manifest({"loras": {"cloud.safetensors": "https://host.example/c"}})
    status, out, err = run(*words)
    assert (status, out) == (1, "") and f"Error: {message}" in err


def test_a_depot_that_is_off_says_so(run: Commands) -> None:
    status, _, err = run("list", "--depot-off")
    assert status == 1 and "Error: The depot is off. Leave out --depot-off." in err


def test_a_bad_yaml_file_ends_with_status_one(depot_world: World, run: Commands) -> None:
    (depot_world.base / "p.yaml").write_text("a: b")
    status, _, err = run("list", "--extra-model-paths-config", str(depot_world.base / "p.yaml"))
    assert status == 1 and "section 'a' holds no folders" in err


def test_folders_of_a_yaml_file_are_listed(depot_world: World, run: Commands) -> None:
    (depot_world.base / "p.yaml").write_text("a:\n  loras: lib\n")
    (depot_world.base / "lib").mkdir()
    (depot_world.base / "lib" / "x.safetensors").write_bytes(b"x")
    assert "x.safetensors" in run("list", "--extra-model-paths-config", str(depot_world.base / "p.yaml"))[1]


@pytest.mark.parametrize("words", [(), ("frobnicate",), ("list", "--tier", "moon"), ("fetch",),
                                   ("clean", "--keep-days", "-1")])
def test_a_wrong_command_line_ends_with_status_two(words: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(words)
    assert caught.value.code == 2


@pytest.mark.parametrize(
    "size, text", [(None, ""), (0, "0 B"), (1023, "1023 B"), (1 << 20, "1.0 MiB"), (3 << 50, "3072.0 TiB")]
)
def test_sizes_are_readable(size: int | None, text: str) -> None:
    assert printing.human_size(size) == text


def test_every_command_and_its_options_stand_in_the_documentation() -> None:
    text = (ROOT / "docs" / "depot.md").read_text(encoding="utf-8")
    (commands,) = [
        action.choices
        for action in cli._command_parser(cli._common_parser())._actions
        if isinstance(action.choices, dict)
    ]
    for name, parser in commands.items():
        (line,) = [line for line in text.split("\n") if line.startswith(f"| `{name} ")]
        for action in parser._actions:
            for option in action.option_strings:
                assert option in line or option in ("-h", "--help")


@pytest.mark.parametrize(
    "words, message",
    [
        (
            ("serve", "/no/such/folder"),
            "'/no/such/folder' is no folder. Name the folder that holds the models.",
        ),
        (
            ("serve", str(ROOT / "docs"), "--token-env", "NO_SUCH_NAME"),
            "NO_SUCH_NAME is empty. Put the token into it.",
        ),
    ],
)
def test_serve_refuses_what_it_cannot_serve(run: Commands, words: tuple[str, ...], message: str) -> None:
    status, _, err = run(*words)
    assert status == 1 and message in err


@pytest.mark.parametrize(
    "words, message",
    [
        (("log", "--limit", "9" * 19), "is no number of rows. Write 0 or more"),
        (("log", "--limit", "-1"), "is no number of rows"),
        (("serve", ".", "--port", "99999"), "'99999' is no port. Write 1 to 65535"),
    ],
)
def test_a_number_out_of_range_is_a_wrong_command_line(
    depot_world: World, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main([*words, "--base-directory", str(depot_world.base)])
    assert caught.value.code == 2 and message in capsys.readouterr().err


def test_a_path_that_is_wrong_is_named(run: Commands, tmp_path: Path) -> None:
    missing, broken = tmp_path / "missing.json", tmp_path / "broken.json"
    broken.write_text("[" * 100_000)
    message = f"{missing}: No such file or directory. Correct the path or its rights."
    assert run("offers", "--from", str(missing)) == (1, "", f"Error: {message}\n")
    status, _, err = run("offers", "--from", str(broken))
    assert status == 1 and f"{broken} is no workflow" in err and "that the web page saves" in err


def test_a_dry_run_of_pins_shows_what_would_be_pinned(depot_world: World, run: Commands) -> None:
    depot_world.write_manifest({"loras": {"a.safetensors": "https://h.example/a"}})
    assert run("pin", "loras/a.safetensors", "--dry-run") == (0, "loras/a.safetensors\tcloud\n", "")
    assert run("pin") == (0, "", "")
    run("pin", "loras/a.safetensors")
    assert run("unpin", "loras/a.safetensors", "--dry-run") == (0, "", "")
    assert run("pin")[1] == "loras/a.safetensors\tcloud\n"


def command(*words: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "comfy_depot", *words],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )


def test_a_reader_that_has_seen_enough_is_no_error(depot_world: World) -> None:
    names = {f"{number}.safetensors": "https://h.example/x" for number in range(5000)}
    depot_world.write_manifest({"checkpoints": names})
    listing = command("list", "--base-directory", str(depot_world.base))
    assert listing.stdout is not None and listing.stderr is not None
    assert listing.stdout.readline().startswith("checkpoints\t0.safetensors")
    listing.stdout.close()
    assert listing.stderr.read() == ""
    assert listing.wait(10) == 141
    listing.stderr.close()


def test_a_log_that_cannot_be_read_is_an_error_with_its_reason(depot_world: World, run: Commands) -> None:
    (depot_world.base / "depot" / "access.sqlite3").mkdir(parents=True)
    status, _, err = run("log")
    assert status == 1 and "cannot be used (unable to open database file). Look after access.sqlite3" in err


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="sends POSIX signals")
def test_a_served_folder_is_fetched_by_another_process_and_both_end_cleanly(depot_world: World) -> None:
    library = depot_world.base / "library"
    (library / "loras").mkdir(parents=True)
    (library / "loras" / "a.safetensors").write_bytes(safetensors(200_000))
    server = command("serve", str(library), "--port", "0", "--rate", "50K")
    assert server.stdout is not None
    try:
        url = re.search(r"http://\S+", server.stdout.readline())
        assert url is not None
        with urllib.request.urlopen(f"{url[0]}/manifest.json", timeout=5) as answer:
            depot_world.write_manifest(answer.read().decode())
        fetch = command("fetch", "loras/a.safetensors", "--base-directory", str(depot_world.base), *LOCAL)
        partials = depot_world.model("loras", ".depot")
        wait_until(lambda: list(partials.glob("*.part")) or fetch.poll() is not None, seconds=30)
        fetch.send_signal(signal.SIGINT)
        _, err = fetch.communicate(timeout=10)
        assert fetch.returncode == 130 and "the next fetch goes on from there." in err
        assert not depot_world.model("loras", "a.safetensors").exists()
    finally:
        server.send_signal(signal.SIGINT)
        _, err = server.communicate(timeout=10)
    assert (server.returncode, err) == (0, "")
