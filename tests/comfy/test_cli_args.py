"""Options that change nothing say so, and the others are read somewhere."""

import re
import subprocess

import pytest

from comfy import cli_args
from tests.fakes.source_tree import ROOT

# Read while parsing, or what happens anyway.
DEFAULTS = {"--help", "--disable-auto-launch", "--cache-classic", "--disable-xformers"}
DEFAULTS.add("--use-pytorch-cross-attention")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], []),
        (["--cpu", "--port", "9"], []),
        (["--normalvram", "--fast"], ["--normalvram", "--fast"]),
        (["--front-end-version", "Comfy-Org/ComfyUI_frontend@1.0"], ["--front-end-version"]),
        (["--cache-ram", "4", "--mmap-torch-files"], ["--mmap-torch-files"]),
    ],
)
def test_what_has_no_effect_is_known(given, said):
    assert cli_args.options_without_effect(cli_args.build_parser().parse_args(given)) == said


@pytest.mark.slow
def test_every_option_that_promises_an_effect_is_read_somewhere():
    files = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True)
    sources = "".join(
        (ROOT / name).read_text(encoding="utf-8")
        for name in files.stdout.split()
        if not name.startswith(("tests/", "benchmarks/")) and name != "comfy/cli_args.py"
    )
    silent = []
    for action in cli_args.build_parser()._actions:
        names = set(action.option_strings)
        if names & DEFAULTS or names & {*cli_args.WITHOUT_EFFECT, *cli_args.NOT_YET}:
            continue
        if not re.search(rf"\.{action.dest}\b|['\"]{action.dest}['\"]", sources):
            silent.append(action.option_strings)
    assert not silent, silent


def test_the_help_says_which_options_do_nothing():
    text = " ".join(cli_args.build_parser().format_help().split())
    assert text.count("(no effect in this version)") == len(cli_args.NOT_YET)


@pytest.mark.parametrize(
    ("text", "value"),
    [("0", 0), ("8G", 8 * 1024**3), ("1.5GiB", 3 * 1024**3 // 2), ("500M", 500 * 1024**2), ("25%", 0.25),
     ("100 %", 1.0), ("64kb", 65536), ("1000", 1000), ("2T", 2 * 1024**4)],
)  # fmt: skip
def test_a_cache_budget_is_a_size_or_a_share(text, value):
    given = cli_args.build_parser().parse_args(["--cache-budget", text]).cache_budget
    assert given == value and type(given) is type(value)


@pytest.mark.parametrize("text", ["", "much", "-1", "8X", "101%", "1 000", "%", "1e9"])
def test_a_budget_that_is_none_is_refused_with_examples(text, capsys):
    with pytest.raises(SystemExit):
        cli_args.build_parser().parse_args([f"--cache-budget={text}"])
    assert "Write a size such as 8G or 500M, a share such as 25%, or 0" in capsys.readouterr().err


def test_three_numbers_for_cache_ram_are_refused(capsys):
    before = dict(vars(cli_args.args))
    try:
        with pytest.raises(SystemExit):
            cli_args.parse(["--cache-ram", "1", "2", "3"])
    finally:
        vars(cli_args.args).update(before)
    assert "--cache-ram: takes at most two numbers of GB, not 3" in capsys.readouterr().err


def test_weights_that_never_leave_the_gpu_cannot_be_paged(capsys):
    before = dict(vars(cli_args.args))
    try:
        with pytest.raises(SystemExit):
            cli_args.parse(["--gpu-only", "--enable-dynamic-vram"])
        assert "--enable-dynamic-vram: not with --gpu-only, under which" in capsys.readouterr().err
        assert cli_args.parse(["--gpu-only"]).gpu_only and cli_args.parse(["--enable-dynamic-vram"])
    finally:
        vars(cli_args.args).clear()
        vars(cli_args.args).update(before)
