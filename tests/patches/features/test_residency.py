"""What is pinned stays in memory, and what a workflow did to it is gone when the next one asks."""

import numpy as np
import pytest

from tests.fakes.waiting import wait_until
from tests.patches.features.runs import node, picture, run, weights

pytestmark = pytest.mark.slow
PINNED, OTHER = "pinned.safetensors", "other.safetensors"


def resident(server, name=PINNED):
    """What the depot tells of a model in memory; None when it is not there."""
    found = server.get_json("/depot/models")["resident"]
    return next((one for one in found if f"checkpoints/{name}" in one["names"]), None)


async def where(server):
    """(where the pinned weights are, how often the file was opened)"""
    made = await run(server, weights(PINNED), force=True)
    assert made.is_success, made.error
    return made.shown("2", "places"), made.shown("2", "opened").count(PINNED)


async def test_a_pinned_model_is_read_once_whatever_other_workflows_do(pinned):
    places, opened = await where(pinned)
    assert opened == 1
    for model in (OTHER, PINNED, OTHER):
        assert (await run(pinned, picture(model), force=True)).is_success
        assert await where(pinned) == (places, 1)
    found = resident(pinned)
    assert found["loads"] == 1
    assert found["pinned"]["by"] == [f"--pin checkpoints/{PINNED[:-12]}*"]
    assert resident(pinned, OTHER) is None or resident(pinned, OTHER)["pinned"] is None


async def test_free_leaves_the_pinned_one_where_it_is(pinned):
    before = await where(pinned)
    for flags in (["unload_models"], ["free_memory"], ["unload_models", "free_memory"]):
        assert pinned.request("POST", "/free", dict.fromkeys(flags, True))[0] == 200
        assert await where(pinned) == before, flags
    assert resident(pinned)["loads"] == 1


async def test_the_picture_is_the_same_before_and_after_a_lora(pinned):
    before = (await run(pinned, picture(PINNED), force=True)).pixels()
    for strength in (1.0, -3.0):
        graph = picture(PINNED, lora="style.safetensors", strength=strength)
        changed = (await run(pinned, graph, force=True)).pixels()
        assert (changed != before).any()
    assert (await run(pinned, picture(OTHER), force=True)).pixels().shape == before.shape
    again = (await run(pinned, picture(PINNED), force=True)).pixels()
    assert np.array_equal(before, again)
    pinned.request("POST", "/free", {"unload_models": True, "free_memory": True})
    assert np.array_equal((await run(pinned, picture(PINNED), force=True)).pixels(), before)


async def test_the_parts_of_a_model_are_kept_like_a_checkpoint(pinned):
    graph = picture("")
    graph["1"] = node("UNETLoader", unet_name="pinned_unet.safetensors", weight_dtype="default")
    graph["8"] = node("VAELoader", vae_name="pinned_vae.safetensors")
    graph["5"]["inputs"]["vae"] = ["8", 0]
    graph["9"] = node("FeatureWeights", model=["1", 0], trouble="")
    first = await run(pinned, graph, force=True)
    assert (await run(pinned, picture(OTHER, lora="style.safetensors"), force=True)).is_success
    pinned.request("POST", "/free", {"unload_models": True, "free_memory": True})
    again = await run(pinned, graph, force=True)
    assert np.array_equal(first.pixels(), again.pixels())
    assert first.shown("9", "places") == again.shown("9", "places")
    opened = again.shown("9", "opened")
    assert [opened.count(f"pinned_{part}.safetensors") for part in ("unet", "vae")] == [1, 1]


async def test_out_of_memory_leaves_the_pinned_one_where_it_is(pinned, core):
    before = await where(pinned)
    failed = await run(pinned, weights(OTHER, trouble="full"))
    assert not failed.is_success
    if core.is_ours:
        assert f"checkpoints/{PINNED} (" in failed.error
    assert await where(pinned) == before


async def test_z_what_is_unpinned_goes(pinned):
    """The last one: it takes the pin away."""
    await where(pinned)
    pin = {"tier": "memory", "folder": "checkpoints", "name": PINNED}
    status, body = pinned.request("POST", "/depot/pin", pin)
    assert status == 200, body
    for name in (PINNED, "pinned*"):
        pinned.request("POST", "/depot/unpin", {**pin, "name": name})
    pinned.request("POST", "/free", {"unload_models": True, "free_memory": True})
    await run(pinned, weights(OTHER), force=True)
    pinned.request("POST", "/free", {"unload_models": True, "free_memory": True})
    wait_until(lambda: resident(pinned) is None, seconds=10)
    _, opened = await where(pinned)
    assert opened == 2
