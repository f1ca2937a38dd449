"""The main job through the real server, a real origin and a real aria2: a model that is only in a manifest.
"""

import json
import os
import threading

import aiohttp
import pytest

from tests.fakes.origin import Origin, safetensors, sha256
from tests.fakes.server_process import ROOT, ServerProcess, install_live_pack
from tests.fakes.waiting import wait_until

NAME = "only_in_manifest.safetensors"
SLOW = "slow.safetensors"
SLOW_BODY = safetensors(6 << 20)
DEMO_MODEL = ROOT / "tests/data/demo_shapes.safetensors"
DEMO_PROMPT = ROOT / "tests/data/demo_prompt.json"


def manifest(base, entries):
    (base / "model_manifests").mkdir(parents=True, exist_ok=True)
    (base / "model_manifests" / "models.json").write_text(json.dumps({"checkpoints": entries}))


def server_on(base):
    """A server that fetches nothing ahead: these tests look at nodes that wait."""
    return ServerProcess(base, "--depot-allow-hosts", "127.0.0.1,localhost", "--depot-reserve", "0",
                         "--depot-preload", "0")


@pytest.fixture(scope="module")
def origin():
    """Where the models of `server` lie; one connection takes a second for the demo model."""
    with Origin(rate_per_connection=DEMO_MODEL.stat().st_size) as origin:
        yield origin


@pytest.fixture(scope="module")
def slow_origin():
    with Origin(rate_total=2 << 20) as origin:
        yield origin


@pytest.fixture(scope="module")
def server(tmp_path_factory, origin, slow_origin):
    """One server for all tests that do not end it. Its manifest names a model that can be had, a slow one,
    and models that cannot be had, each in its own way. Beside it lie a broken manifest and a broken pack.
    """
    base = tmp_path_factory.mktemp("server")
    demo, body = DEMO_MODEL.read_bytes(), safetensors(200_000)
    manifest(base, {
        NAME: {"url": origin.put(f"/{NAME}", demo), "size": len(demo), "sha256": sha256(demo)},
        SLOW: slow_origin.put(f"/{SLOW}", SLOW_BODY),
        "gone.safetensors": {"url": origin.put("/gone", status=404)},
        "gated.safetensors": {"url": origin.put("/gated", status=403)},
        "wrong_hash.safetensors": {"url": origin.put("/hash", body), "sha256": "0" * 64},
        "wrong_size.safetensors": {"url": origin.put("/size", body), "size": len(body) + 1},
        "no_model.safetensors": {"url": origin.put("/html", b"<html>please log in</html>" * 50)},
        "no_checkpoint.safetensors": {"url": origin.put("/tensors", body)},
    })
    (base / "model_manifests/bad.json").write_text('{"checkpoints": {\n  "x.safetensors": }')
    install_live_pack(base)
    (base / "custom_nodes/broken").mkdir()
    (base / "custom_nodes/broken/__init__.py").write_text("raise ImportError('a part is missing')")
    with server_on(base) as server:
        yield server


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


async def test_a_model_that_is_only_in_a_manifest_gives_a_picture(server, origin):
    body = DEMO_MODEL.read_bytes()
    target = server.base_directory / "models/checkpoints" / NAME
    assert NAME in server.get_json("/models/checkpoints") and not target.exists()
    loaders = server.get_json("/object_info/CheckpointLoaderSimple")["CheckpointLoaderSimple"]
    assert NAME in loaders["input"]["required"]["ckpt_name"][0]
    assert origin.bytes_sent(f"/{NAME}") == 0
    events = []
    async with aiohttp.ClientSession() as session:
        async with session.ws_connect(server.url + "/ws?clientId=me") as socket:
            asked = server.post_json("/prompt", {"prompt": demo_prompt(), "client_id": "me"})
            async for message in socket:
                if message.type is aiohttp.WSMsgType.TEXT:
                    events.append(json.loads(message.data))
                    if events[-1]["type"] == "executing" and events[-1]["data"]["node"] is None:
                        break
    entry = server.wait_for_history(asked["prompt_id"])
    assert entry["status"]["status_str"] == "success", entry["status"]
    assert target.read_bytes() == body
    transfers = [event["data"] for event in events if event["type"] == "depot"]
    assert transfers and transfers[-1]["state"] == "done" and transfers[-1]["bytes_done"] == len(body)
    loader = next(key for key, node in demo_prompt().items() if "Loader" in node["class_type"])
    waiting = [event["data"] for event in events if event["type"] == "progress"]
    assert any(data["node"] == loader and data["max"] == len(body) for data in waiting)
    image = next(output["images"][0] for output in entry["outputs"].values() if "images" in output)
    status, picture = server.request("GET", f"/view?filename={image['filename']}&type={image['type']}")
    assert status == 200 and picture.startswith(b"\x89PNG")
    sent = origin.bytes_sent()
    again = server.run_prompt(demo_prompt(seed=5))
    assert again["status"]["status_str"] == "success" and origin.bytes_sent() == sent


def test_a_model_that_only_the_workflow_names_is_accepted_and_fetched(server, origin):
    wanted = {"folder": "checkpoints", "name": "of_workflow.safetensors"}
    models = [{"name": wanted["name"], "directory": wanted["folder"], "url": f"{origin.url}/{NAME}"}]
    workflow = {"nodes": [{"type": "CheckpointLoaderSimple", "properties": {"models": models}}]}
    body = {"prompt": demo_prompt(wanted["name"]), "extra_data": {"extra_pnginfo": {"workflow": workflow}}}
    assert server.request("POST", "/prompt", body)[0] == 400, "its host is not one of --workflow-hosts"
    assert [offer["state"] for offer in server.get_json("/depot/offers")["offers"]] == ["pending"]
    server.post_json("/depot/offers/accept", wanted)
    entry = server.wait_for_history(server.post_json("/prompt", body)["prompt_id"])
    assert entry["status"]["status_str"] == "success", entry["status"]
    (server.base_directory / "models/checkpoints" / wanted["name"]).unlink()


@pytest.mark.slow
def test_two_prompts_for_one_missing_model_share_one_transfer_and_cancelling_leaves_the_partial(
    server, slow_origin
):
    target = server.base_directory / "models/checkpoints" / SLOW
    prompt_id = server.post_json("/prompt", {"prompt": loader_prompt(SLOW)})["prompt_id"]

    def bytes_done():
        transfers = server.get_json("/depot/transfers")["transfers"]
        return sum(transfer["bytes_done"] for transfer in transfers if transfer["name"] == SLOW)

    wait_until(lambda: bytes_done() > 1 << 20)
    server.request("POST", "/interrupt", {})
    entry = server.wait_for_history(prompt_id)
    assert any(event == "execution_interrupted" for event, _ in entry["status"]["messages"])
    assert not target.exists()
    sent_before = slow_origin.bytes_sent()
    answers = []

    def fetch():
        body = {"folder": "checkpoints", "name": SLOW}
        answers.append(server.post_json("/depot/fetch", body))

    threads = [threading.Thread(target=fetch) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({answer["transfer"]["id"] for answer in answers}) == 1
    wait_until(target.exists)
    # Three asked, and one transfer went on from the partial.
    assert sent_before + (6 << 20) >= slow_origin.bytes_sent() - (1 << 20)
    assert target.read_bytes() == SLOW_BODY


@pytest.mark.slow
def test_after_sigkill_of_the_server_the_download_goes_on_where_it_was(tmp_path):
    body = safetensors(24 << 20)
    with Origin(rate_total=12 << 20) as origin:
        manifest(tmp_path, {NAME: {"url": origin.put(f"/{NAME}", body), "sha256": sha256(body)}})
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


@pytest.mark.parametrize("name, sentence", [
    ("gone.safetensors", "404"),
    ("gated.safetensors", "403"),
    ("wrong_hash.safetensors", "sha256"),
    ("wrong_size.safetensors", "bytes"),
    ("no_model.safetensors", "safetensors"),
    ("no_checkpoint.safetensors", "no_checkpoint.safetensors"),
])
def test_a_model_that_cannot_be_had_is_an_error_on_the_node_that_asks_and_the_server_goes_on(
    server, name, sentence
):
    error = error_of(server.run_prompt(loader_prompt(name)))
    assert (error["node_id"], error["node_type"]) == ("1", "CheckpointLoaderSimple")
    assert sentence in error["exception_message"] and name in error["exception_message"]
    visible = os.listdir(server.base_directory / "models/checkpoints")
    # Only what arrived whole, with the promised content, and with a proper header is there.
    hidden = {name for name in visible if name.startswith(".")}
    assert set(visible) - hidden <= {NAME, SLOW, "no_checkpoint.safetensors"}
    good = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 0}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }
    assert server.run_prompt(good)["status"]["status_str"] == "success"


def test_a_used_port_is_refused_at_the_start_with_the_way_out(server, tmp_path):
    code, log = ServerProcess(tmp_path, port=server.port).run_to_end()
    assert code == 1
    assert f"Port {server.port} on 127.0.0.1 is in use" in log and f"--port {server.port + 1}" in log
    assert "Traceback" not in log


def test_a_broken_manifest_and_a_broken_pack_stop_nothing(server):
    assert server.get_json("/prompt") == {"exec_info": {"queue_remaining": 0, "paused": False}}
    log = server.log()
    assert "bad.json" in log and "line 2" in log
    assert "custom_nodes/broken could not be loaded and is skipped: ImportError: a part is missing" in log
