"""Every option of ComfyUI 0.8 and 0.33 is read as they read it: names, numbers of values, defaults, choices,
and which exclude each other.
"""

import json
import subprocess
import sys

import pytest

from comfy import cli_args
from comfy.cli_args import LatentPreviewMethod, PerformanceFeature
from tests.fakes.source_tree import ROOT

SWITCHES = """
    --auto-launch --disable-auto-launch --cuda-malloc --disable-cuda-malloc --force-fp32 --force-fp16
    --fp32-unet --fp64-unet --bf16-unet --fp16-unet --fp8_e4m3fn-unet --fp8_e5m2-unet --fp8_e8m0fnu-unet
    --fp16-vae --fp32-vae --bf16-vae --cpu-vae --fp8_e4m3fn-text-enc --fp8_e5m2-text-enc --fp16-text-enc
    --fp32-text-enc --bf16-text-enc --force-channels-last --disable-ipex-optimize --supports-fp8-compute
    --cache-classic --cache-none --use-split-cross-attention --use-quad-cross-attention
    --use-pytorch-cross-attention --use-sage-attention --use-flash-attention --use-ck-attention
    --disable-xformers --force-upcast-attention --dont-upcast-attention --enable-manager
    --disable-manager-ui --enable-manager-legacy-ui --gpu-only --highvram --normalvram --lowvram --novram
    --cpu --disable-async-offload --force-non-blocking --disable-smart-memory --deterministic
    --disable-pinned-memory --mmap-torch-files --disable-mmap --dont-print-server --quick-test-for-ci
    --windows-standalone-build --disable-metadata --disable-all-custom-nodes --disable-api-nodes
    --multi-user --log-stdout --enable-compress-response-body --fp16-intermediates --enable-triton-backend
    --disable-triton-backend --high-ram --disable-nvml-pressure --disable-dynamic-vram
    --enable-dynamic-vram --fast-disk --disable-cuda-graphs --debug-hang --enable-assets
    --enable-asset-hashing --list-feature-flags
""".split()

# Option, default, then (what follows it on the command line, what it means).
WITH_VALUES = [
    ("--listen", "127.0.0.1", ("", "0.0.0.0,::"), ("::1", "::1")),
    ("--port", 8188, ("9", 9)),
    ("--tls-keyfile", None, ("k", "k")),
    ("--tls-certfile", None, ("c", "c")),
    ("--enable-cors-header", None, ("", "*"), ("http://a", "http://a")),
    ("--max-upload-size", 100, ("0.5", 0.5)),
    ("--base-directory", None, (str(ROOT), str(ROOT))),
    ("--models-directory", None, (str(ROOT), str(ROOT))),
    ("--user-directory", None, (str(ROOT), str(ROOT))),
    ("--front-end-root", None, (str(ROOT), str(ROOT))),
    ("--output-directory", None, ("o", "o")),
    ("--input-directory", None, ("i", "i")),
    ("--temp-directory", None, ("t", "t")),
    ("--extra-model-paths-config", None, ("a b --extra-model-paths-config c", [["a", "b"], ["c"]])),
    ("--database-url", None, ("sqlite:///x", "sqlite:///x")),
    ("--front-end-version", "comfyanonymous/ComfyUI@latest", ("A/b@1.0", "A/b@1.0")),
    ("--comfy-api-base", "https://api.comfy.org", ("https://x", "https://x")),
    ("--feature-flag", [], ("a --feature-flag b=c", ["a", "b=c"])),
    ("--whitelist-custom-nodes", [], ("a b", ["a", "b"])),
    ("--cuda-device", None, ("0", "0"), ("0,1", "0,1"), ("all", "all")),
    ("--default-device", None, ("1", 1)),
    ("--directml", None, ("", -1), ("2", 2)),
    ("--oneapi-device-selector", None, ("gpu", "gpu")),
    ("--reserve-vram", None, ("1.5", 1.5)),
    ("--vram-headroom", 0, ("2", 2.0)),
    ("--async-offload", None, ("", 2), ("3", 3)),
    ("--default-hashing-function", "sha256", ("md5", "md5"), ("sha1", "sha1"), ("sha512", "sha512")),
    ("--fast", None, ("", []), ("autotune fp16_accumulation",
                                [PerformanceFeature.AutoTune, PerformanceFeature.Fp16Accumulation])),
    ("--preview-size", 512, ("64", 64)),
    ("--preview-method", LatentPreviewMethod.Auto, ("none", LatentPreviewMethod.NoPreviews),
     ("latent2rgb", LatentPreviewMethod.Latent2RGB), ("taesd", LatentPreviewMethod.TAESD)),
    ("--cache-lru", 0, ("5", 5)),
    ("--cache-ram", None, ("", []), ("4", [4.0]), ("2 4", [2.0, 4.0])),
    ("--verbose", "INFO", ("", "DEBUG"), ("CRITICAL", "CRITICAL"), ("WARNING", "WARNING"),
     ("DEBUG file.log", "INFO"), ("ERROR --verbose WARNING", "WARNING")),
]  # fmt: skip

REFUSED = [
    "--default-hashing-function crc", "--preview-method x", "--fast x", "--verbose x", "--verbose DEBUG a b",
    "--port x", "--base-directory /no/such/place", "--models-directory /no/such/place",
    "--user-directory /no/such/place", "--front-end-root /no/such/place", "--extra-model-paths-config",
    "--whitelist-custom-nodes", "--cuda-malloc --disable-cuda-malloc", "--force-fp32 --force-fp16",
    "--fp16-unet --bf16-unet", "--fp16-vae --fp32-vae", "--fp16-text-enc --bf16-text-enc",
    "--cache-lru 3 --cache-none", "--cache-classic --cache-ram", "--highvram --cpu", "--lowvram --novram",
    "--use-sage-attention --use-flash-attention", "--force-upcast-attention --dont-upcast-attention",
    "--disable-manager-ui --enable-manager-legacy-ui",
]  # fmt: skip


def parsed(text):
    return cli_args.build_parser().parse_args(text.split())


def destination(option):
    return option[2:].replace("-", "_")


@pytest.mark.parametrize("option", SWITCHES)
def test_a_switch_is_off_until_it_is_given(option):
    assert getattr(parsed(""), destination(option)) is False
    assert getattr(parsed(option), destination(option)) is True


@pytest.mark.parametrize(("option", "default", "given"),
                         [(option, default, given) for option, default, *all_given in WITH_VALUES
                          for given in all_given])  # fmt: skip
def test_a_value_is_read_as_upstream_reads_it(option, default, given):
    text, value = given
    assert getattr(parsed(""), destination(option)) == default
    assert getattr(parsed(f"{option} {text}"), destination(option)) == value


@pytest.mark.parametrize("text", REFUSED)
def test_what_upstream_refuses_is_refused_in_one_sentence(text, capsys):
    with pytest.raises(SystemExit):
        parsed(text)
    assert capsys.readouterr().err.count("\n") == 1


def test_a_log_file_has_a_level_of_its_own():
    assert parsed("--verbose DEBUG a.log --verbose error b.log").log_files == [
        ("DEBUG", "a.log"), ("ERROR", "b.log")]  # fmt: skip
    assert parsed("").log_files == []


def start(*options):
    """What `python main.py` says, and its exit code."""
    done = subprocess.run([sys.executable, "main.py", *options], cwd=ROOT, capture_output=True, text=True,
                          timeout=60)  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_the_known_feature_flags_are_printed_as_json():
    code, written, _ = start("--list-feature-flags")
    assert code == 0
    flags = json.loads(written)
    assert flags["show_signin_button"]["type"] == "bool" and flags["show_signin_button"]["default"] is False
    assert all(set(flag) == {"type", "default", "description"} for flag in flags.values())


def test_a_log_file_that_cannot_be_written_is_said(tmp_path):
    code, _, said = start("--verbose", "DEBUG", str(tmp_path / "missing" / "a.log"))
    assert code == 1
    assert "cannot be written" in said and "--verbose" in said
