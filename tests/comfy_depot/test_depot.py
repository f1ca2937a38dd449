"""From the list to the file: a running node asks for a model that is only in a manifest.

A real origin, a real aria2c, real folders; only the node is played.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

import folder_paths
from comfy_depot import access, catalog
from comfy_depot.depot import Depot
from comfy_depot.errors import (
    DownloadFailed,
    ModelUnavailable,
    SourceRefused,
    TransferCancelled,
    WrongContent,
)
from tests.comfy_depot.world import World
from tests.fakes.origin import Origin, safetensors, sha256
from tests.fakes.waiting import wait_until

SIZE = 300_000


class Interrupted(BaseException):
    """What a host raises when the user cancels: no Exception, as in the executor."""


def accesses(depot: Depot) -> list[access.Access]:
    depot.access.flush()
    return list(access.read(depot.options.depot_dir))


def test_a_model_in_a_manifest_is_listed_chosen_fetched_and_logged(depot_world: World) -> None:
    body = safetensors(SIZE)
    with Origin(rate_total=600_000) as origin, depot_world.depot() as depot:
        url = origin.put("/a.safetensors", body)
        depot_world.write_manifest(
            {"checkpoints": {"sub/a.safetensors": {"url": url, "sha256": sha256(body)}}}
        )
        depot.catalogue.refresh()
        (name,) = folder_paths.get_filename_list("checkpoints")
        assert folder_paths.get_full_path("checkpoints", name) is None, "a validation does not fetch"
        assert origin.hits() == []
        depot_world.run_node("4", "p1", tenant="blue")
        path = folder_paths.get_full_path_or_raise("checkpoints", name)
        assert path == str(depot_world.model("checkpoints", name))
        assert Path(path).read_bytes() == body
        assert depot_world.reports and depot_world.reports[-1][0] <= SIZE
        assert any(total == SIZE and 0 < done < SIZE for done, total in depot_world.reports), (
            "progress on the way"
        )
        assert {event for event, _ in depot_world.events} == {"depot"}
        (row,) = accesses(depot)
        assert (row.folder, row.name, row.prompt, row.node, row.tenant, row.bytes, row.outcome) == (
            "checkpoints",
            "sub/a.safetensors",
            "p1",
            "4",
            "blue",
            SIZE,
            "fetched",
        )
        assert folder_paths.get_filename_list("checkpoints") == [name], "it stands once in the list"


def test_get_full_path_fetches_in_a_node_too(depot_world: World) -> None:
    with Origin() as origin, depot_world.depot():
        depot_world.write_manifest({"loras": {"a.safetensors": origin.put("/a", safetensors(SIZE))}})
        depot_world.run_node()
        time.sleep(1.05)  # the manifest folder is looked at once a second
        assert folder_paths.get_full_path("loras", "a.safetensors") == str(
            depot_world.model("loras", "a.safetensors")
        )
        assert folder_paths.get_full_path("loras", "other.safetensors") is None


def test_a_local_model_is_logged_and_no_network_is_asked(depot_world: World) -> None:
    path = depot_world.write_model("loras", "a.safetensors", b"mine")
    with Origin() as origin:
        depot_world.write_manifest({"loras": {"a.safetensors": origin.put("/a", safetensors(SIZE))}})
        with depot_world.depot() as depot:
            depot_world.run_node("7", "p2")
            assert folder_paths.get_full_path_or_raise("loras", "a.safetensors") == str(path)
            assert path.read_bytes() == b"mine", "a file on disk wins over a manifest"
            (row,) = accesses(depot)
            assert (row.node, row.bytes, row.outcome) == ("7", 4, "hit")
            assert depot._transfers is None and origin.hits() == []


def test_a_model_of_no_manifest_is_logged_as_well(depot_world: World) -> None:
    depot_world.write_model("loras", "own.safetensors")
    with depot_world.depot() as depot:
        depot_world.run_node()
        folder_paths.get_full_path("loras", "own.safetensors")
        assert [row.name for row in accesses(depot)] == ["own.safetensors"]


def test_outside_a_node_nothing_is_fetched_and_only_a_required_path_is_logged(depot_world: World) -> None:
    depot_world.write_model("loras", "own.safetensors")
    with Origin() as origin:
        depot_world.write_manifest({"loras": {"cloud.safetensors": origin.put("/a", safetensors(SIZE))}})
        with depot_world.depot() as depot:
            assert folder_paths.get_full_path("loras", "own.safetensors") is not None
            assert folder_paths.get_full_path("loras", "cloud.safetensors") is None
            with pytest.raises(
                ModelUnavailable,
                match="only a running node has it fetched by asking. To fetch it "
                "now: python -m comfy_depot fetch loras/cloud.safetensors",
            ):
                folder_paths.get_full_path_or_raise("loras", "cloud.safetensors")
            assert accesses(depot) == []
            folder_paths.get_full_path_or_raise("loras", "own.safetensors")
            (row,) = accesses(depot)
            assert (row.prompt, row.node, row.outcome) == (None, None, "hit")
            assert origin.hits() == []


def test_an_interruption_ends_the_wait_within_a_second_and_keeps_what_has_arrived(depot_world: World) -> None:
    with Origin(rate_total=100_000) as origin:
        depot_world.write_manifest({"loras": {"a.safetensors": origin.put("/a", safetensors(2_000_000))}})
        with depot_world.depot() as depot:
            depot_world.run_node()
            interrupted_at = []

            def interrupt() -> None:
                wait_until(lambda: depot_world.reports)
                interrupted_at.append(time.monotonic())
                depot_world.interruption = Interrupted()

            thread = threading.Thread(target=interrupt)
            thread.start()
            with pytest.raises(Interrupted):
                folder_paths.get_full_path_or_raise("loras", "a.safetensors")
            assert time.monotonic() - interrupted_at[0] < 1
            thread.join()
            wait_until(lambda: not depot.active_transfers())
            assert not depot_world.model("loras", "a.safetensors").exists()
            assert list(depot_world.model("loras", ".depot").glob("*.part")), (
                "the partial stays for the next time"
            )
            assert folder_paths.get_filename_list("loras") == ["a.safetensors"], (
                "it is still only the cloud model"
            )


@pytest.mark.parametrize(
    "behaviour, entry, error",
    [
        ({}, {"sha256": "0" * 64}, WrongContent),
        ({}, {"size": SIZE + 1}, WrongContent),
        ({"status": 404}, {}, DownloadFailed),
        ({"status": 403}, {}, SourceRefused),
    ],
    ids=["wrong sha256", "wrong size", "not found", "forbidden"],
)
def test_a_failed_download_reaches_the_node_and_leaves_no_file(
    depot_world: World, behaviour: dict[str, int], entry: dict[str, object], error: type[Exception]
) -> None:
    with Origin() as origin:
        url = origin.put("/a", safetensors(SIZE), **behaviour)
        depot_world.write_manifest({"loras": {"a.safetensors": {"url": url, **entry}}})
        with depot_world.depot() as depot:
            depot_world.run_node()
            with pytest.raises(error, match="a.safetensors") as caught:
                folder_paths.get_full_path_or_raise("loras", "a.safetensors")
            assert isinstance(caught.value, FileNotFoundError), "node packs expect this one"
            assert not depot_world.model("loras", "a.safetensors").exists()
            assert accesses(depot) == []


def test_two_nodes_share_one_download(depot_world: World) -> None:
    with Origin(rate_total=400_000) as origin:
        depot_world.write_manifest({"loras": {"a.safetensors": origin.put("/a", safetensors(SIZE))}})
        with depot_world.depot() as depot:
            depot_world.run_node()
            paths: list[str] = []

            def ask() -> None:
                paths.append(folder_paths.get_full_path_or_raise("loras", "a.safetensors"))

            threads = [threading.Thread(target=ask) for _ in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert paths == [str(depot_world.model("loras", "a.safetensors"))] * 3
            assert origin.bytes_sent("/a") < 2 * SIZE
            assert len(accesses(depot)) == 3


def test_what_is_fetched_goes_to_the_default_folder(depot_world: World) -> None:
    library = depot_world.base / "library"
    with Origin() as origin:
        depot_world.write_manifest(
            {
                "loras": {"a.safetensors": origin.put("/a", safetensors(SIZE))},
                "unet": {"b.safetensors": origin.put("/b", safetensors(SIZE))},
            }
        )
        with depot_world.depot():
            folder_paths.add_model_folder_path("loras", str(library), is_default=True)
            depot_world.run_node()
            assert folder_paths.get_full_path_or_raise("loras", "a.safetensors") == str(
                library / "a.safetensors"
            )
            assert folder_paths.get_full_path_or_raise("unet", "b.safetensors") == str(
                depot_world.model("diffusion_models", "b.safetensors")
            )


def test_a_link_does_not_lead_a_download_out_of_its_folder(depot_world: World) -> None:
    outside = depot_world.base / "outside"
    outside.mkdir()
    depot_world.model("loras", "link").symlink_to(outside)
    with Origin() as origin:
        depot_world.write_manifest({"loras": {"link/a.safetensors": origin.put("/a", safetensors(SIZE))}})
        with depot_world.depot():
            depot_world.run_node()
            with pytest.raises(Exception, match="leads out of"):
                folder_paths.get_full_path_or_raise("loras", "link/a.safetensors")
            assert list(outside.iterdir()) == []


@pytest.mark.parametrize(
    "folder, name, words",
    [
        (
            "loras",
            "lokal.safetensors",
            r"'lokal.safetensors' is in no manifest and not in models/loras. "
            r"Near: local.safetensors. Add it to a manifest, or see what there is: "
            r"python -m comfy_depot list",
        ),
        ("loras", "zzz", "'zzz' is in no manifest and not in models/loras. Add it to a manifest"),
        ("lora", "a.safetensors", "There is no folder type 'lora'. Did you mean loras\\? Known: audio_enc"),
        (
            "loras",
            "refused.pt",
            r"what a manifest says of it is refused. models.json:3: 'refused.pt' in 'loras'",
        ),
    ],
)
def test_a_missing_model_says_where_it_could_come_from(
    depot_world: World, folder: str, name: str, words: str
) -> None:
    depot_world.write_model("loras", "local.safetensors")
    depot_world.write_manifest({"loras": {"refused.pt": "https://host.example/a"}})
    with depot_world.depot():
        for is_running in (False, True):
            if is_running:
                depot_world.run_node()
            with pytest.raises(ModelUnavailable, match=words):
                folder_paths.get_full_path_or_raise(folder, name)


def test_fetch_by_name_needs_no_node(depot_world: World) -> None:
    with Origin() as origin:
        depot_world.write_manifest({"loras": {"a.safetensors": origin.put("/a", safetensors(SIZE))}})
        with depot_world.depot() as depot:
            path = depot.fetch("loras", "a.safetensors")
            assert (
                path
                == str(depot_world.model("loras", "a.safetensors"))
                == depot.fetch("loras", "a.safetensors")
            )
            (row,) = accesses(depot)
            assert (row.node, row.outcome) == (None, "fetched")
            with pytest.raises(ModelUnavailable, match="is in no manifest"):
                depot.fetch("loras", "none.safetensors")


def test_a_cancelled_background_download_is_logged_and_nothing_breaks(
    depot_world: World, caplog: pytest.LogCaptureFixture
) -> None:
    with Origin(rate_total=100_000) as origin:
        depot_world.write_manifest({"loras": {"a.safetensors": origin.put("/a", safetensors(2_000_000))}})
        with depot_world.depot() as depot:
            transfer = depot.start_fetch("loras", "a.safetensors")
            wait_until(lambda: transfer.bytes_done > 0)
            depot.transfers.cancel(transfer.id)
            wait_until(lambda: "loras/a.safetensors was not fetched" in caplog.text)
            assert isinstance(transfer.error, TransferCancelled)


def test_a_type_that_lost_its_folders_cannot_be_fetched(depot_world: World) -> None:
    depot_world.write_manifest({"loras": {"a.safetensors": "https://host.example/a"}})
    with depot_world.depot() as depot:
        entry = depot.entry("loras", "a.safetensors")
        folder_paths.folder_names_and_paths["loras"][0].clear()
        with pytest.raises(ModelUnavailable, match="has no folder to put 'a.safetensors' into. Add one to"):
            depot._transfer(entry)


def test_an_unfinished_file_is_not_found_by_its_own_name(depot_world: World) -> None:
    depot_world.write_model("loras", "sub/.depot/a.safetensors.5f1c0e2a.part")
    with depot_world.depot():
        assert folder_paths.get_full_path("loras", "sub/.depot/a.safetensors.5f1c0e2a.part") is None


def test_a_manifest_that_cannot_be_read_is_named_where_it_may_hide_a_model(depot_world: World) -> None:
    depot_world.write_manifest("not json")
    with depot_world.depot() as depot:
        message = depot.explain_missing("loras", "a.safetensors")
    assert "A manifest that cannot be read may name it: models.json:1: not JSON" in message


def test_the_start_does_not_wait_for_manifests_and_who_needs_a_name_does(
    depot_world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    depot_world.write_manifest({"loras": {"a.safetensors": "https://example.com/a.safetensors"}})
    may_read, original = threading.Event(), catalog.read_manifest
    monkeypatch.setattr(catalog, "read_manifest", lambda *args, **options: (
        may_read.wait(10) and original(*args, **options)))
    caplog.set_level("INFO")
    with depot_world.depot() as depot:
        found: list[list[str]] = []
        asking = threading.Thread(target=lambda: found.append(folder_paths.get_filename_list("loras")))
        asking.start()
        assert "knows 1 models" not in caplog.text and not found
        may_read.set()
        asking.join(10)
        assert found == [["a.safetensors"]]
        wait_until(lambda: "The depot knows 1 models" in caplog.text)
        assert depot.local_path("loras", "a.safetensors") is None
