"""The core as a whole: all hooks at work, none with `--depot-off`, and the page with the panel."""

import json
import re

import pytest

from tests.fakes.server_process import ROOT
from tests.patches.features import hosts, small_model
from tests.patches.features.conftest import OPTIONS
from tests.patches.features.runs import node, picture, run, stamps, weights

LINE = re.compile(r"^\+@?depot\.(\w+)", re.MULTILINE)
FOR = re.compile(r"^For: *(\w+)", re.MULTILINE)


def hooks_of(core):
    """The names of the hooks that the series puts into a core."""
    series = (ROOT / "patches/series").read_text().splitlines()
    texts = [(ROOT / "patches" / name).read_text() for name in series if name and not name.startswith("#")]
    wanted = {"both", "depot" if core.is_ours else "upstream"}
    return {
        hook for text in texts
        if (found := FOR.search(text)) is None or found[1] in wanted
        for hook in LINE.findall(text)
    }  # fmt: skip


@pytest.mark.slow
async def test_each_hook_of_the_series_does_something(core, shelf, tmp_path):
    shelf.write_manifest(tmp_path)
    (tmp_path / "models/loras").mkdir(parents=True)
    (tmp_path / "models/loras/alien.safetensors").write_bytes(small_model.alien_lora())
    with core.server(tmp_path, *OPTIONS, "--pin", "checkpoints/first*") as server:
        server.get_json("/experiment/models/checkpoints")
        assert (await run(server, picture("first.safetensors", lora="style.safetensors"))).is_success
        assert (await run(server, stamps(), force=True)).is_success
        assert (await run(server, {"1": node("FeatureEmbedding", text="words")})).is_success
        await run(server, picture("first.safetensors", lora="alien.safetensors"))
        assert (await run(server, weights("ahead.safetensors"))).is_success
        await run(server, weights("first.safetensors", trouble="full"))
        server.request("POST", "/free", {"unload_models": True, "free_memory": True})
        assert (await run(server, stamps(1))).is_success
        fired = {line.split()[0] for line in server.hooks_fired()}
    print(f"{core.name}: {sorted(server.hooks_fired())}")
    assert hooks_of(core) - fired == set()


@pytest.mark.slow
async def test_with_the_depot_off_the_server_is_as_without_us(core, shelf, tmp_path):
    shelf.write_manifest(tmp_path)
    with core.server(tmp_path, "--depot-off") as server:
        assert server.get_json("/models/checkpoints") == []
        assert server.request("GET", "/depot/models")[0] == 404
        assert (await run(server, stamps())).ran == ["1", "2", "3", "4", "5"]
        again = await run(server, stamps())
        assert again.is_success and again.ran == []
        assert server.request("POST", "/prompt", {"prompt": picture("first.safetensors")})[0] == 400
    assert not any(line.endswith(" on") for line in server.fired.read_text().splitlines())
    assert not (tmp_path / "depot").exists()


def test_the_page_gets_the_panel(server):
    listed = server.get_json("/extensions")
    scripts = [path for path in listed if path.rsplit("/", 1)[-1] == "depot.js"]
    assert len(scripts) == 1, listed
    folder = scripts[0].rsplit("/", 1)[0]
    for file in sorted((ROOT / "web/depot").iterdir()):
        status, body = server.request("GET", f"{folder}/{file.name}")
        assert status == 200 and body == file.read_bytes(), file.name


def test_what_the_panel_asks_for_is_answered(server):
    for path in ("/depot/models", "/depot/transfers", "/depot/stats", "/depot/groups", "/depot/offers",
                 "/depot/log?limit=10", "/queue", "/history"):
        status, body = server.request("GET", path)
        assert status == 200, (path, body)
        json.loads(body)


@pytest.mark.upstream
def test_an_unwoven_core_has_no_file_changed(core, server):
    if core.is_woven:
        pytest.skip("it is the files that were woven")
    assert server.get_json("/depot/stats")
    before = hosts.Core("as it was", core.checkout / "main.py").digests()
    assert {name.removeprefix(str(core.main.parent)): digest for name, digest in core.digests().items()} == {
        name.removeprefix(str(core.checkout)): digest for name, digest in before.items()
    }


@pytest.mark.upstream
def test_what_was_woven_is_taken_out_to_the_last_byte(core, tmp_path):
    if core.is_ours or not core.is_woven:
        pytest.skip("nothing is in its files")
    copy = hosts.copy_of(core.checkout, tmp_path / "copy")
    before = hosts.Core("copy", copy / "main.py").digests()
    hosts.weave("apply", "--lines-only", str(copy))
    hosts.weave("verify", str(copy))
    assert hosts.Core("copy", copy / "main.py").digests() != before
    hosts.weave("remove", str(copy))
    assert hosts.Core("copy", copy / "main.py").digests() == before
