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
        (["--cache-ram", "4", "--vram-headroom", "1"], ["--vram-headroom", "--cache-ram"]),
    ],
)
def test_what_has_no_effect_is_known(given, said):
    assert cli_args.options_without_effect(cli_args.build_parser().parse_args(given)) == said


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
