"""Models that are only in a manifest: listed everywhere, fetched when a node needs them, and not before."""

import asyncio
import shutil

import pytest

from tests.fakes.waiting import wait_until
from tests.patches.features.runs import node, picture, run, stamps

FOLDER = "models/checkpoints"
BYTES_PER_SECOND = 12e6
"""So slow that the node has to wait, although the download begins when the prompt is queued."""
BLANK = {
    "1": node("EmptyImage", width=8, height=8, batch_size=1, color=0),
    "2": node("PreviewImage", images=["1", 0]),
}


def choices(server):
    """What the checkpoint loader offers."""
    about = server.get_json("/object_info/CheckpointLoaderSimple")["CheckpointLoaderSimple"]
    offered = about["input"]["required"]["ckpt_name"]
    return offered[0] if isinstance(offered[0], list) else offered[1]["options"]


def test_a_model_of_a_manifest_stands_in_every_list(server):
    name = "untouched.safetensors"
    assert name in choices(server)
    assert name in server.get_json("/models/checkpoints")
    assert name in {file["name"] for file in server.get_json("/experiment/models/checkpoints")}
    (found,) = [one for one in server.get_json("/depot/models")["models"] if one["name"] == name]
    assert (found["folder"], found["tier"]) == ("checkpoints", "cloud")
    assert not (server.base_directory / FOLDER / name).exists()


def test_nobody_but_a_node_that_runs_has_it_fetched(server, shelf):
    name = "untouched.safetensors"
    for path in (
        "/object_info", "/models", "/models/checkpoints", "/experiment/models",
        "/experiment/models/checkpoints", f"/experiment/models/preview/checkpoints/0/{name}",
        f"/view_metadata/checkpoints?filename={name}", f"/view?filename={name}&type=input", "/depot/models",
    ):  # fmt: skip
        server.request("GET", path)
    status, body = server.request("POST", "/prompt", {"prompt": {"1": picture(name)["1"]}})
    assert status == 400, body
    assert shelf.origin.hits(f"/{name}") == []
    assert not (server.base_directory / FOLDER / name).exists()


@pytest.mark.slow
async def test_a_prompt_fetches_it_and_draws(server, shelf):
    name = "first.safetensors"
    assert (await run(server, BLANK)).is_success, "the library of tensors is loaded"
    shelf.origin.assets[f"/{name}"].rate = BYTES_PER_SECOND
    made = await run(server, picture(name))
    pixels = made.pixels()
    assert pixels.shape == (64, 64, 3) and pixels.std() > 1
    body = shelf.origin.assets[f"/{name}"].body
    assert (server.base_directory / FOLDER / name).read_bytes() == body
    waited = [data for data in made.told("progress") if data["node"] == "1"]
    assert waited and waited[-1]["max"] == len(body) and 0 < waited[-1]["value"] <= len(body)
    transfers = [data for data in made.told("depot") if data.get("name") == name]
    assert transfers and transfers[-1]["state"] == "done" and transfers[-1]["bytes_done"] == len(body)
    sent = shelf.origin.bytes_sent(f"/{name}")
    again = await run(server, picture(name, seed=2))
    assert again.is_success and shelf.origin.bytes_sent(f"/{name}") == sent
    uses = [one for one in server.get_json("/depot/log")["accesses"] if one["prompt"] == made.prompt_id]
    assert [(one["folder"], one["name"], one["node"]) for one in uses] == [("checkpoints", name, "1")]
    assert uses[0]["bytes"] == len(body) and uses[0]["outcome"] in ("fetched", "hit")


async def test_a_file_with_another_sha256_is_an_error_that_names_it(server):
    name = "wrong.safetensors"
    failed = await run(server, picture(name))
    assert failed.entry["status"]["status_str"] == "error"
    assert name in failed.error and "sha256" in failed.error
    assert not (server.base_directory / FOLDER / name).exists()
    assert failed.prompt_id in server.get_json("/history")
    assert (await run(server, stamps(9))).is_success, "the next prompt runs"


async def test_an_embedding_is_fetched_for_a_text_that_names_it(server):
    assert (await run(server, {"1": node("FeatureEmbedding", text="nothing")})).shown("1", "sizes") == []
    made = await run(server, {"1": node("FeatureEmbedding", text="words")})
    assert made.is_success and made.shown("1", "sizes") == [2, 768]
    assert (server.base_directory / "models/embeddings/words.safetensors").exists()
    uses = [one for one in server.get_json("/depot/log")["accesses"] if one["prompt"] == made.prompt_id]
    assert [(one["folder"], one["name"], one["outcome"]) for one in uses] == [
        ("embeddings", "words.safetensors", "fetched")]


async def test_a_name_that_nobody_knows_is_refused(server):
    status, body = server.request("POST", "/prompt", {"prompt": picture("nobody.safetensors")})
    assert status == 400 and b"nobody.safetensors" in body


@pytest.mark.slow
async def test_the_model_of_a_prompt_that_waits_is_fetched_while_another_one_runs(server):
    name = "ahead.safetensors"
    release = server.base_directory / "output/release_ahead"
    wait = {"1": node("FeatureWait", file=release.name)}
    first = asyncio.create_task(run(server, wait))
    await asyncio.to_thread(wait_until, lambda: server.get_json("/queue")["queue_running"])
    second = asyncio.create_task(run(server, picture(name)))

    def outcomes():
        rows = server.get_json("/depot/log")["accesses"]
        return [one["outcome"] for one in rows if one["name"] == name]

    try:
        await asyncio.to_thread(wait_until, lambda: outcomes() == ["preloaded"])
        assert (server.base_directory / FOLDER / name).exists()
        assert len(server.get_json("/queue")["queue_running"]) == 1 and not first.done()
    finally:
        release.touch()
    assert (await first).is_success and (await second).is_success
    assert outcomes() == ["hit", "preloaded"]


@pytest.mark.slow
async def test_a_lora_of_a_manifest_is_fetched_and_changes_the_picture(server):
    plain = (await run(server, picture("first.safetensors"), force=True)).pixels()
    changed = (await run(server, picture("first.safetensors", lora="style.safetensors"))).pixels()
    assert (server.base_directory / "models/loras/style.safetensors").exists()
    assert (plain != changed).any()


@pytest.mark.slow
async def test_a_file_that_was_put_into_a_folder_is_in_the_list_at_once(server):
    own = server.base_directory / FOLDER / "own.safetensors"
    assert own.name not in choices(server)
    shutil.copy(server.base_directory / FOLDER / "first.safetensors", own)
    try:
        assert own.name in choices(server)
    finally:
        own.unlink()
    assert own.name not in choices(server)
