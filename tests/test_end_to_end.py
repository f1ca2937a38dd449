"""The main job through the real server, a real origin and a real aria2: a model that is only in a manifest.
"""

import json
import os
import threading
import time

import aiohttp
import pytest

from tests.fakes.origin import Origin, safetensors, sha256
from tests.fakes.server_process import ROOT, ServerProcess, install_live_pack

NAME = "only_in_manifest.safetensors"
DEMO_MODEL = ROOT / "tests/data/demo_shapes.safetensors"
DEMO_PROMPT = ROOT / "tests/data/demo_prompt.json"


def manifest(base, entry, *, folder="checkpoints", name=NAME):
    (base / "model_manifests").mkdir(parents=True, exist_ok=True)
    (base / "model_manifests" / "models.json").write_text(json.dumps({folder: {name: entry}}))


def server_on(base):
    return ServerProcess(base, "--depot-allow-hosts", "127.0.0.1,localhost", "--depot-reserve", "0")


def demo_prompt(model=NAME, **inputs):
    graph = json.loads(DEMO_PROMPT.read_text())
    for node in graph.values():
        if node["class_type"] == "CheckpointLoaderSimple":
            node["inputs"]["ckpt_name"] = model
        if node["class_type"] == "KSampler":
            node["inputs"].update(steps=2, **inputs)
    return graph


def loader_prompt(model=NAME):
    """The smallest prompt that asks for a checkpoint: its VAE decodes an empty latent."""
    return {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": model}},
        "2": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "3": {"class_type": "VAEDecode", "inputs": {"samples": ["2", 0], "vae": ["1", 2]}},
        "4": {"class_type": "PreviewImage", "inputs": {"images": ["3", 0]}},
    }


def error_of(entry):
    """The execution_error of a history entry."""
    return next(data for event, data in entry["status"]["messages"] if event == "execution_error")


def wait_until(condition, *, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


async def test_a_model_that_is_only_in_a_manifest_gives_a_picture(tmp_path):
    body = DEMO_MODEL.read_bytes()
    with Origin(rate_per_connection=len(body)) as origin:
        url = origin.put(f"/{NAME}", body)
        manifest(tmp_path, {"url": url, "size": len(body), "sha256": sha256(body)})
        with server_on(tmp_path) as server:
            target = tmp_path / "models/checkpoints" / NAME
            assert NAME in server.get_json("/models/checkpoints") and not target.exists()
            loaders = server.get_json("/object_info/CheckpointLoaderSimple")["CheckpointLoaderSimple"]
            assert NAME in loaders["input"]["required"]["ckpt_name"][0]
            assert origin.bytes_sent() == 0
            events = []
            async with aiohttp.ClientSession() as session:
                async with session.ws_connect(server.url + "/ws?clientId=me") as socket:
                    server.post_json("/prompt", {"prompt": demo_prompt(), "client_id": "me"})
                    async for message in socket:
                        if message.type is aiohttp.WSMsgType.TEXT:
                            events.append(json.loads(message.data))
                            if events[-1]["type"] == "executing" and events[-1]["data"]["node"] is None:
                                break
            entry = next(iter(server.get_json("/history").values()))
            assert entry["status"]["status_str"] == "success", entry["status"]
            assert target.read_bytes() == body
            transfers = [event["data"] for event in events if event["type"] == "depot"]
            assert transfers and transfers[-1]["state"] == "done" and transfers[-1]["bytes_done"] == len(body)
            loader = next(key for key, node in demo_prompt().items() if "Loader" in node["class_type"])
            waiting = [event["data"] for event in events if event["type"] == "progress"]
            assert any(data["node"] == loader and data["max"] == len(body) for data in waiting)
            image = next(output["images"][0] for output in entry["outputs"].values() if "images" in output)
            status, picture = server.request(
                "GET", f"/view?filename={image['filename']}&type={image['type']}"
            )
            assert status == 200 and picture.startswith(b"\x89PNG")
            sent = origin.bytes_sent()
            again = server.run_prompt(demo_prompt(seed=5))
            assert again["status"]["status_str"] == "success" and origin.bytes_sent() == sent


def test_two_prompts_for_one_missing_model_share_one_transfer_and_cancelling_leaves_the_partial(tmp_path):
    body = safetensors(6 << 20)
    with Origin(rate_total=2 << 20) as origin:
        manifest(tmp_path, origin.put(f"/{NAME}", body))
        with server_on(tmp_path) as server:
            prompt_id = server.post_json("/prompt", {"prompt": loader_prompt()})["prompt_id"]
            wait_until(
                lambda: any(
                    t["bytes_done"] > 1 << 20 for t in server.get_json("/depot/transfers")["transfers"]
                )
            )
            cancelled = time.monotonic()
            server.request("POST", "/interrupt", {})
            entry = server.wait_for_history(prompt_id)
            assert time.monotonic() - cancelled < 1.5
            assert any(event == "execution_interrupted" for event, _ in entry["status"]["messages"])
            assert not (tmp_path / "models/checkpoints" / NAME).exists()
            sent_before = origin.bytes_sent()
            answers = []

            def fetch():
                body = {"folder": "checkpoints", "name": NAME}
                answers.append(server.post_json("/depot/fetch", body))

            threads = [threading.Thread(target=fetch) for _ in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len({answer["transfer"]["id"] for answer in answers}) == 1
            wait_until((tmp_path / "models/checkpoints" / NAME).exists)
            # Three asked, and one transfer went on from the partial.
            assert sent_before + (6 << 20) >= origin.bytes_sent() - (1 << 20)
            assert (tmp_path / "models/checkpoints" / NAME).read_bytes() == body


def test_after_sigkill_of_the_server_the_download_goes_on_where_it_was(tmp_path):
    body = safetensors(24 << 20)
    with Origin(rate_total=12 << 20) as origin:
        manifest(tmp_path, {"url": origin.put(f"/{NAME}", body), "sha256": sha256(body)})
        server = server_on(tmp_path).start()
        server.post_json("/depot/fetch", {"folder": "checkpoints", "name": NAME})
        wait_until(lambda: origin.bytes_sent() > 12 << 20)
        server.kill()
        assert not (tmp_path / "models/checkpoints" / NAME).exists()
        with server_on(tmp_path) as server:
            server.post_json("/depot/fetch", {"folder": "checkpoints", "name": NAME})
            wait_until((tmp_path / "models/checkpoints" / NAME).exists)
        assert (tmp_path / "models/checkpoints" / NAME).read_bytes() == body
        assert origin.bytes_sent() - len(body) <= 4 << 20


@pytest.fixture(scope="module")
def bad_models(tmp_path_factory):
    """A server whose manifest names models that cannot be had, each in its own way."""
    base = tmp_path_factory.mktemp("bad")
    body = safetensors(200_000)
    with Origin() as origin:
        entries = {
            "gone.safetensors": {"url": origin.put("/gone", status=404)},
            "gated.safetensors": {"url": origin.put("/gated", status=403)},
            "wrong_hash.safetensors": {"url": origin.put("/hash", body), "sha256": "0" * 64},
            "wrong_size.safetensors": {"url": origin.put("/size", body), "size": len(body) + 1},
            "no_model.safetensors": {"url": origin.put("/html", b"<html>please log in</html>" * 50)},
            "no_checkpoint.safetensors": {"url": origin.put("/tensors", body)},
        }
        (base / "model_manifests").mkdir()
        (base / "model_manifests/models.json").write_text(json.dumps({"checkpoints": entries}))
        with server_on(base) as server:
            yield server


@pytest.mark.parametrize("name, sentence", [
    ("gone.safetensors", "404"),
    ("gated.safetensors", "403"),
    ("wrong_hash.safetensors", "sha256"),
    ("wrong_size.safetensors", "bytes"),
    ("no_model.safetensors", "safetensors"),
    ("no_checkpoint.safetensors", "no_checkpoint.safetensors"),
])
def test_a_model_that_cannot_be_had_is_an_error_on_the_node_that_asks_and_the_server_goes_on(
    bad_models, name, sentence
):
    error = error_of(bad_models.run_prompt(loader_prompt(name)))
    assert (error["node_id"], error["node_type"]) == ("1", "CheckpointLoaderSimple")
    assert sentence in error["exception_message"] and name in error["exception_message"]
    visible = os.listdir(bad_models.base_directory / "models/checkpoints")
    # Only what arrived whole, with the promised content, and with a proper header is there.
    assert [file for file in visible if not file.startswith(".")] in ([], ["no_checkpoint.safetensors"])
    good = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 0}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }
    assert bad_models.run_prompt(good)["status"]["status_str"] == "success"


def test_a_used_port_is_refused_at_the_start_with_the_way_out(tmp_path):
    with ServerProcess(tmp_path / "one") as running:
        (tmp_path / "two").mkdir()
        code, log = ServerProcess(tmp_path / "two", port=running.port).run_to_end()
    assert code == 1
    assert f"Port {running.port} on 127.0.0.1 is in use" in log and f"--port {running.port + 1}" in log
    assert "Traceback" not in log


def test_a_broken_manifest_and_a_broken_pack_stop_nothing(tmp_path):
    install_live_pack(tmp_path)
    (tmp_path / "custom_nodes/broken").mkdir()
    (tmp_path / "custom_nodes/broken/__init__.py").write_text("raise ImportError('a part is missing')")
    (tmp_path / "model_manifests").mkdir()
    (tmp_path / "model_manifests/bad.json").write_text('{"checkpoints": {\n  "x.safetensors": }')
    with ServerProcess(tmp_path) as server:
        assert server.get_json("/prompt") == {"exec_info": {"queue_remaining": 0, "paused": False}}
        log = server.log()
    assert "bad.json" in log and "line 2" in log
    assert "custom_nodes/broken could not be loaded and is skipped: ImportError: a part is missing" in log
