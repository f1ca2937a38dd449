"""A manifest points a name to other bytes while the real server runs prompts; origin and aria2 are real."""

import json
from pathlib import Path

import pytest
import safetensors.torch

from tests.fakes.origin import Origin, sha256
from tests.fakes.server_process import ROOT, ServerProcess
from tests.fakes.waiting import wait_until

DEMO_MODEL = ROOT / "tests/data/demo_shapes.safetensors"
SECONDS = 240  # a busy machine takes long to load torch for the first time
NAME, OTHER = "swapped.safetensors", "other.safetensors"

HOLDING_PACK = '''
"""Holds a model until a file is there, and tells what a picture adds up to."""
import os
import time

class Hold:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"vae": ("VAE",), "file": ("STRING", {"default": ""})}}
    RETURN_TYPES = ("VAE",)
    FUNCTION = "run"
    CATEGORY = "test"
    def run(self, vae, file):
        from comfy.model_management import throw_exception_if_processing_interrupted

        open(file + ".begun", "w").close()
        while not os.path.exists(file):
            throw_exception_if_processing_interrupted()
            time.sleep(0.01)
        return (vae,)

class Total:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",)}}
    RETURN_TYPES = ()
    FUNCTION = "run"
    OUTPUT_NODE = True
    CATEGORY = "test"
    def run(self, image):
        return {"ui": {"total": [float(image.double().sum())]}}

NODE_CLASS_MAPPINGS = {"Hold": Hold, "Total": Total}
'''


def variant(seed):
    """The demo model with another decoder: its bytes."""
    weights = safetensors.torch.load_file(DEMO_MODEL)
    factor = 1 - seed / 8
    return safetensors.torch.save({
        key: tensor * factor if key.startswith("first_stage_model.decoder") else tensor
        for key, tensor in weights.items()
    })


@pytest.fixture(scope="module")
def bodies():
    """Five models, of which each makes another picture."""
    return [variant(seed) for seed in range(5)]


def prompt(name=NAME, hold=None):
    """Adds up the picture that a checkpoint's VAE makes of nothing; `hold` waits between load and use."""
    graph = {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": name}},
        "2": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "3": {"class_type": "VAEDecode", "inputs": {"samples": ["2", 0], "vae": ["1", 2]}},
        "4": {"class_type": "Total", "inputs": {"image": ["3", 0]}},
    }
    if hold is not None:
        graph["5"] = {"class_type": "Hold", "inputs": {"vae": ["1", 2], "file": str(hold)}}
        graph["3"]["inputs"]["vae"] = ["5", 0]
    return graph


class House:
    """A server, an origin, and a manifest that names one model of many bytes and one of always the same."""

    def __init__(self, base: Path, origin: Origin, bodies, *options):
        self.base, self.origin, self.bodies = base, origin, bodies
        self.file = base / "models/checkpoints" / NAME
        for folder in ("custom_nodes/holding", "model_manifests", "models/checkpoints"):
            (base / folder).mkdir(parents=True)
        (base / "custom_nodes/holding/__init__.py").write_text(HOLDING_PACK)
        self.server = ServerProcess(
            base, "--depot-allow-hosts", "127.0.0.1", "--depot-reserve", "0", *options)

    def point(self, number, **behaviour):
        """Write the manifest: the name means these bytes from now on."""
        models = {NAME: (f"/{number}", self.bodies[number], behaviour), OTHER: ("/other", self.bodies[4], {})}
        content = {"checkpoints": {
            name: {"url": self.origin.put(path, body, **more), "size": len(body), "sha256": sha256(body)}
            for name, (path, body, more) in models.items()
        }}
        beside = self.base / "model_manifests/new"
        beside.write_text(json.dumps(content))
        beside.rename(self.base / "model_manifests/models.json")
        if self.server.process is not None and self.server.process.poll() is None:
            self.server.post_json("/depot/manifests/refresh", {})

    def total(self, graph, **fields):
        return self.result(self.server.run_prompt(graph, seconds=SECONDS, **fields))

    def result(self, entry):
        assert entry["status"]["status_str"] == "success", entry["status"]
        return entry["outputs"]["4"]["total"][0]

    def post(self, graph, client):
        return self.server.post_json("/prompt", {"prompt": graph, "client_id": client})["prompt_id"]

    def models(self):
        return self.server.get_json("/depot/models")


@pytest.fixture(scope="module")
def origin():
    with Origin() as origin:
        yield origin


@pytest.fixture(scope="module")
def house(tmp_path_factory, origin, bodies):
    made = House(tmp_path_factory.mktemp("house"), origin, bodies)
    made.point(0)
    with made.server:
        yield made


@pytest.mark.slow
def test_a_running_prompt_ends_on_the_old_bytes_and_the_next_one_has_the_new_ones(house, tmp_path):
    house.point(0)
    house.total(prompt(OTHER))
    old = house.total(prompt())
    first = house.post(prompt(hold=tmp_path / "go"), "one")
    wait_until((tmp_path / "go.begun").exists, seconds=60)
    house.point(1)
    second = house.post(prompt(), "two")
    # It is fetched ahead, while the first one runs.
    wait_until(lambda: house.file.read_bytes() == house.bodies[1], seconds=60)
    assert first not in house.server.get_json(f"/history/{first}")
    (tmp_path / "go").touch()
    assert house.result(house.server.wait_for_history(first, seconds=SECONDS)) == old
    entry = house.server.wait_for_history(second, seconds=SECONDS)
    new = house.result(entry)
    assert new != old, "the workflow is the same, and nothing was forced"
    assert entry["reasons"]["1"]["models"] == [f"checkpoints/{NAME}"]

    models = house.models()
    (drop,) = models["dropped"]
    assert (drop["why"], drop["in_use"]) == ("its file was replaced", False)
    assert sorted(model["names"] for model in models["resident"]) == [
        [f"checkpoints/{OTHER}"], [f"checkpoints/{NAME}"]], "of the old one nothing is in memory"
    assert models["problems"] == []
    again = house.server.run_prompt(prompt(OTHER), seconds=SECONDS)
    assert {reason["reason"] for reason in again["reasons"].values()} == {"cached"}
    again = house.server.run_prompt(prompt(), seconds=SECONDS)
    assert {reason["reason"] for reason in again["reasons"].values()} == {"cached"}


def test_a_loader_that_runs_after_the_swap_has_the_new_bytes_also_in_a_prompt_that_waited(house, tmp_path):
    """The prompt was accepted when the manifest still named the old bytes, and stands behind another one."""
    house.point(1)
    before = house.total(prompt())
    house.post(prompt(OTHER, hold=tmp_path / "go"), "one")
    wait_until((tmp_path / "go.begun").exists, seconds=60)
    waiting = house.post(prompt(), "two")
    house.point(2)
    (tmp_path / "go").touch()
    after = house.result(house.server.wait_for_history(waiting, seconds=SECONDS))
    assert after != before and house.file.read_bytes() == house.bodies[2]


@pytest.mark.slow
def test_new_bytes_that_cannot_be_had_leave_the_old_ones_in_use_and_a_problem_in_the_list(house):
    house.point(2)
    before = house.total(prompt())
    house.point(3, status=404)
    assert house.total(prompt()) == before
    (problem,) = house.models()["problems"]
    assert problem["file"] == f"checkpoints/{NAME}" and "404" in problem["message"]
    assert "is OUTDATED, and its old bytes go on being used" in house.server.log()
    assert house.total(prompt(), force=True) == before
    house.origin.assets["/3"].status = None
    house.server.post_json("/depot/fetch", {"folder": "checkpoints", "name": NAME})
    wait_until(lambda: house.file.read_bytes() == house.bodies[3], seconds=60)
    assert house.total(prompt()) != before
    assert house.models()["problems"] == []


@pytest.mark.slow
def test_killed_servers_leave_the_old_bytes_until_the_new_ones_are_whole(tmp_path, bodies):
    with Origin() as origin:
        house = House(tmp_path / "base", origin, bodies, "--depot-connections", "1")
        house.point(0)
        wanted = {"folder": "checkpoints", "name": NAME}
        with house.server:
            house.server.post_json("/depot/fetch", wanted)
            wait_until(house.file.exists, seconds=60)
        house.point(1)
        origin.total.rate = len(bodies[1]) // 20
        for _ in range(2):
            sent = origin.bytes_sent("/1")
            house.server.start()
            house.server.post_json("/depot/fetch", wanted)
            wait_until(lambda before=sent: origin.bytes_sent("/1") > before + 200_000, seconds=60)
            house.server.kill()
            assert house.file.read_bytes() == bodies[0]
        origin.total.rate = None
        with house.server:
            house.server.post_json("/depot/fetch", wanted)
            wait_until(lambda: house.file.read_bytes() == bodies[1], seconds=60)
        assert origin.bytes_sent("/1") < 2 * len(bodies[1]), "each start goes on from what was there"
