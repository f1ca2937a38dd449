"""Servers of the feature tests: the same on each core."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.fakes.origin import Origin, safetensors, sha256
from tests.patches.features import hosts, small_model

NOT_SET = "COMFY_UPSTREAM names no checkout of upstream ComfyUI (see tests/patches/features/hosts.py)."
UPSTREAM = pytest.mark.upstream
CORES = [pytest.param(None, id="ours")]
CORES += [
    pytest.param((checkout, is_woven), id=f"{'woven' if is_woven else 'unwoven'}-{checkout.name}",
                 marks=UPSTREAM)
    for checkout in hosts.checkouts() for is_woven in (True, False)
] or [pytest.param(NOT_SET, id="upstream", marks=UPSTREAM)]  # fmt: skip


@pytest.fixture(scope="session", params=CORES)
def core(request, tmp_path_factory):
    """The core that is tested."""
    if request.param is None:
        return hosts.ours()
    if request.param is NOT_SET:
        pytest.skip(NOT_SET)
    checkout, is_woven = request.param
    return hosts.upstream(checkout, tmp_path_factory.mktemp("core"), is_woven=is_woven)


@dataclass
class Shelf:
    """What lies at the origin, and where it goes."""

    origin: Origin
    entries: dict[str, dict[str, dict]] = field(default_factory=dict)

    def put(self, folder: str, name: str, body: bytes, **facts) -> None:
        """A file of the origin and its entry in the manifest."""
        entry = {"url": self.origin.put(f"/{name}", body), "size": len(body), "sha256": sha256(body), **facts}
        self.entries.setdefault(folder, {})[name] = entry

    def write_manifest(self, base: Path) -> None:
        """Into a base directory."""
        (base / "model_manifests").mkdir(parents=True, exist_ok=True)
        (base / "model_manifests/features.json").write_text(json.dumps(self.entries))


@pytest.fixture(scope="session")
def shelf():
    """A real origin with real models."""
    with Origin() as origin:
        made = Shelf(origin)
        body = small_model.checkpoint(1)
        made.put("checkpoints", "first.safetensors", body)
        made.put("checkpoints", "ahead.safetensors", small_model.checkpoint(2))
        made.put("checkpoints", "untouched.safetensors", safetensors(1 << 20))
        made.put("checkpoints", "wrong.safetensors", safetensors(1 << 20, seed=3), sha256=sha256(b"other"))
        made.put("loras", "style.safetensors", small_model.lora())
        made.put("embeddings", "words.safetensors", small_model.embedding())
        yield made


OPTIONS = ("--depot-allow-hosts", "127.0.0.1,localhost", "--depot-reserve", "0", "--depot-hash", "off")


@pytest.fixture(scope="session")
def server(core, shelf, tmp_path_factory):
    """A server whose models are in a manifest only."""
    base = tmp_path_factory.mktemp("manifest")
    shelf.write_manifest(base)
    with core.server(base, *OPTIONS) as started:
        yield started


@pytest.fixture(scope="session")
def pinned(core, tmp_path_factory):
    """A server that keeps nothing in memory but what is pinned. Its models are on the disk."""
    base = tmp_path_factory.mktemp("pinned")
    pins = (f"--pin={folder}/pinned*" for folder in ("checkpoints", "diffusion_models", "vae"))
    made = core.server(base, *OPTIONS, *pins, "--resident-budget", "0")
    for name, body in {
        "checkpoints/pinned": small_model.checkpoint(1), "checkpoints/other": small_model.checkpoint(2),
        "diffusion_models/pinned_unet": small_model.diffusion_model(3),
        "vae/pinned_vae": small_model.autoencoder(3), "loras/style": small_model.lora(),
    }.items():  # fmt: skip
        (base / f"models/{name}.safetensors").parent.mkdir(parents=True, exist_ok=True)
        (base / f"models/{name}.safetensors").write_bytes(body)
    with made as started:
        yield started
