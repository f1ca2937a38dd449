"""/system_stats, /features, /internal and the log."""

import io
import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import app.logger
from app.routes import system
from comfy_api import feature_flags

ROOT = Path(__file__).resolve().parents[2]


async def test_system_stats_have_the_fields_clients_read(client):
    stats = await (await client.get("/api/system_stats")).json()
    assert set(stats["system"]) == {
        "os", "ram_total", "ram_free", "comfyui_version", "required_frontend_version", "pytorch_version",
        "installed_templates_version", "required_templates_version", "comfy_package_versions",
        "python_version", "embedded_python", "deploy_environment", "argv",
    }  # fmt: skip
    assert stats["system"]["ram_total"] > stats["system"]["ram_free"] > 0
    assert stats["system"]["argv"] == sys.argv
    assert (
        stats["system"]["required_frontend_version"]
        == stats["system"]["comfy_package_versions"][0]["installed"]
    )
    for device in stats["devices"]:
        assert set(device) == {
            "name", "type", "index", "vram_total", "vram_free", "torch_vram_total", "torch_vram_free"
        }  # fmt: skip


async def test_the_cache_of_results_can_be_looked_at(client):
    client.prompt_server.cache_stats = lambda: {"entries": 3}
    assert await (await client.get("/api/depot/cache")).json() == {"entries": 3}


def test_every_list_answers_without_torch(tmp_path):
    """A server that imports torch to draw a menu starts slowly and takes 400 MB more."""
    paths = (
        "/ /system_stats /object_info /features /models /models/checkpoints /experiment/models /embeddings"
        " /extensions /settings /users /queue /history /prompt /api/jobs /internal/logs"
    ).split()
    script = f"""
import asyncio, sys
from aiohttp.test_utils import TestClient, TestServer
from comfy.cli_args import parse
import folder_paths
folder_paths.apply_arguments(parse(["--base-directory", {str(tmp_path)!r}]))
folder_paths.create_working_folders()
async def main():
    import server
    prompt_server = server.PromptServer(asyncio.get_running_loop())
    prompt_server.add_routes()
    async with TestClient(TestServer(prompt_server.app)) as client:
        for path in {paths!r}:
            assert (await client.get(path)).status == 200, path
asyncio.run(main())
print(sorted({{"torch", "diffusers", "transformers", "scipy", "PIL"}} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_devices_are_read_from_torch_when_it_is_loaded(monkeypatch):
    cpu = SimpleNamespace(type="cpu", index=None)
    gpu = SimpleNamespace(type="cuda", index=0)
    management = SimpleNamespace(
        get_torch_device=lambda: gpu,
        get_all_torch_devices=lambda: [cpu, gpu],
        get_torch_device_name=lambda device: device.type,
        get_total_memory=lambda device, torch_total_too: (10, 8),
        get_free_memory=lambda device, torch_free_too: (5, 4),
    )
    monkeypatch.setitem(sys.modules, "comfy.model_management", management)
    first, second = system.describe_devices()
    assert first == {"name": "cuda", "type": "cuda", "index": 0, "vram_total": 10, "vram_free": 5,
                     "torch_vram_total": 8, "torch_vram_free": 4}  # fmt: skip
    assert second["type"] == "cpu"


def test_before_torch_is_loaded_only_the_cpu_is_known(monkeypatch):
    monkeypatch.delitem(sys.modules, "comfy.model_management", raising=False)
    (device,) = system.describe_devices()
    assert (device["type"], device["index"]) == ("cpu", None)


async def test_features_can_be_extended_by_packs_and_by_the_command_line(connect, caplog):
    flags = ["show_signin_button=true", "mine=7", "bare", "enable_telemetry=perhaps", "assets=true", "=x"]
    client = await connect(feature_flag=flags)
    feature_flags.SERVER_FEATURE_FLAGS["extension"]["manager"]["supports_csrf_post"] = True
    features = await (await client.get("/api/features")).json()
    assert features == {
        "supports_preview_metadata": True,
        "supports_model_type_tags": True,
        "max_upload_size": 100 * 1024 * 1024,
        "extension": {"manager": {"supports_v4": True, "supports_csrf_post": True}},
        "node_replacements": True,
        "assets": False,
        "show_signin_button": True,
        "mine": "7",
        "bare": "true",
    }
    assert "--feature-flag enable_telemetry=perhaps is left out: it must be true or false" in caplog.text
    assert "--feature-flag assets is left out: the server sets it itself" in caplog.text


def test_connections_are_asked_for_their_flags():
    metadata = {"a": {"feature_flags": {"x": True, "y": "text"}}}
    assert feature_flags.supports_feature(metadata, "a", "x")
    assert not feature_flags.supports_feature(metadata, "a", "y")
    assert not feature_flags.supports_feature(metadata, None, "x")
    assert feature_flags.get_connection_feature(metadata, "a", "y") == "text"
    assert feature_flags.get_connection_feature(metadata, "a", "z", 3) == 3


async def test_internal_routes_stand_only_below_internal(client, base):
    folders = await (await client.get("/internal/folder_paths")).json()
    assert str(base / "models/checkpoints") in folders["checkpoints"]
    assert (await client.get("/api/internal/folder_paths")).status == 404


async def test_recent_files_are_listed_newest_first(client, base):
    for age, name in enumerate(["new.png", "old.png", ".hidden"]):
        (base / "output" / name).write_bytes(b"")
        os.utime(base / "output" / name, (1000 - age, 1000 - age))
    assert await (await client.get("/internal/files/output")).json() == [
        "new.png [output]",
        "old.png [output]",
    ]
    assert await (await client.get("/internal/files/temp")).json() == []
    answer = await client.get("/internal/files/models")
    assert (answer.status, await answer.json()) == (400, {"error": "Invalid directory type"})


@pytest.fixture
def stream(monkeypatch):
    """A stream that is listened in on, as the terminal's are."""
    monkeypatch.setattr(app.logger, "_logs", type(app.logger._logs)(maxlen=3))
    listened = app.logger.LogInterceptor(io.StringIO())
    monkeypatch.setattr(app.logger, "_streams", [listened])
    return listened


def test_the_last_lines_are_remembered_and_a_bar_only_in_its_last_state(stream):
    heard = []
    app.logger.on_flush(heard.append)
    for text in ("a\n", "\r 1%", "\r 2%", "b\n", "c\n"):
        stream.write(text)
    stream.flush()
    stream.flush()
    assert [entry["m"] for entry in app.logger.get_logs()] == ["\r 2%", "b\n", "c\n"]
    assert [entry["m"] for entry in heard[0]] == ["\r 2%", "b\n", "c\n"] and len(heard) == 1
    assert stream.getvalue() == "a\n\r 1%\r 2%b\nc\n"


async def test_logs_are_read_and_followed(stream, client):
    stream.write("hello\n")
    raw = await (await client.get("/internal/logs/raw")).json()
    assert raw["entries"][-1]["m"] == "hello\n" and set(raw["size"]) == {"cols", "rows"}
    assert (await (await client.get("/internal/logs")).json()).endswith(" - hello\n")
    async with client.ws_connect("/ws?clientId=me") as socket:
        await socket.receive_json()
        answer = await client.patch("/internal/logs/subscribe", json={"clientId": "me", "enabled": True})
        assert answer.status == 200
        stream.write("more\n")
        stream.flush()
        message = await socket.receive_json(timeout=5)
        assert message["type"] == "logs"
        assert [entry["m"] for entry in message["data"]["entries"]] == ["hello\n", "more\n"]
        await client.patch("/internal/logs/subscribe", json={"clientId": "me", "enabled": False})
        stream.write("unheard\n")
        stream.flush()
        client.prompt_server.send_sync("last", {})
        assert (await socket.receive_json(timeout=5))["type"] == "last"


async def test_a_log_subscription_needs_a_client(client):
    answer = await client.patch("/internal/logs/subscribe", json={"enabled": True})
    assert answer.status == 400
    assert "clientId" in await answer.text()


async def test_clients_that_left_are_forgotten_by_the_log(stream, client):
    await client.patch("/internal/logs/subscribe", json={"clientId": "gone", "enabled": True})
    stream.write("text\n")
    stream.flush()
    assert client.prompt_server.log_subscribers.client_ids == set()


def test_warnings_of_the_start_are_said_again_once(caplog):
    app.logger.log_startup_warning("mind the gap")
    app.logger.print_startup_warnings()
    app.logger.print_startup_warnings()
    assert caplog.text.count("mind the gap") == 2


def test_a_log_file_takes_the_level_that_it_was_given(tmp_path):
    log = logging.Logger("test", level=logging.WARNING)
    app.logger._log_to_file(log, "DEBUG", str(tmp_path / "a.log"))
    log.debug("deep")
    assert (tmp_path / "a.log").read_text().endswith("DEBUG deep\n")
    log.handlers[0].close()
