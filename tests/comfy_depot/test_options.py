"""The depot's options are the same for the server and the command line."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import pytest

from comfy_depot.limits import Quota
from comfy_depot.options import Budget, Options, add_arguments, from_args, parse_budget, parse_size

DOCS = Path(__file__).resolve().parents[2] / "docs"


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(words)


def test_every_field_has_an_option_and_stands_in_the_documentation() -> None:
    text = (DOCS / "depot.md").read_text(encoding="utf-8")
    for field in dataclasses.fields(Options):
        assert hasattr(parse(), field.name)
        assert f"`--{field.name.replace('_', '-')}" in text


def test_defaults_lie_under_the_base_directory(tmp_path: Path) -> None:
    (tmp_path / "model_manifests").mkdir()
    options = from_args(parse(), base_directory=tmp_path)
    assert options.model_manifests == tmp_path.resolve() / "model_manifests"
    assert options.depot_dir == tmp_path.resolve() / "depot"
    assert (options.depot_connections, options.depot_rate, options.depot_reserve) == (8, Quota(), 1 << 30)
    assert not options.allow_pickle and not options.depot_off


def test_a_base_without_manifests_uses_the_shipped_ones(tmp_path: Path) -> None:
    assert from_args(parse(), base_directory=tmp_path).model_manifests == DOCS.parent / "model_manifests"


def test_given_values_are_taken(tmp_path: Path) -> None:
    options = from_args(
        parse(
            "--model-manifests",
            str(tmp_path / "m"),
            "--depot-dir",
            str(tmp_path / "d"),
            "--depot-connections",
            "16",
            "--depot-rate",
            "5M,civitai.com=1M,*=2M",
            "--depot-requests",
            "600, A.example=60",
            "--depot-reserve",
            "2GiB",
            "--depot-allow-hosts",
            "A.example, b.example,",
            "--depot-tokens",
            "Lists.example=LISTS,b.example:80=B_2",
            "--allow-pickle",
            "--depot-off",
        )
    )
    assert options == Options(
        model_manifests=tmp_path / "m",
        depot_dir=tmp_path / "d",
        depot_connections=16,
        depot_rate=Quota(5 << 20, (("civitai.com", 1 << 20), ("*", 2 << 20))),
        depot_requests=Quota(600, (("a.example", 60),)),
        depot_reserve=2 << 30,
        depot_allow_hosts=("a.example", "b.example"),
        depot_tokens=(("lists.example", "LISTS"), ("b.example:80", "B_2")),
        allow_pickle=True,
        depot_off=True,
    )


@pytest.mark.parametrize(
    "text, size",
    [("0", 0), ("4096", 4096), ("1k", 1024), ("1.5M", 3 << 19), ("200G", 200 << 30), ("1 TiB", 1 << 40)],
)
def test_sizes_are_written_with_a_unit(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text, budget",
    [("0", Budget(size=0)), ("20G", Budget(size=20 << 30)), ("40%", Budget(share=0.4)),
     ("0 %", Budget(share=0)), ("100%", Budget(share=1)), ("12.5%", Budget(share=0.125))],
)  # fmt: skip
def test_a_budget_is_a_size_or_a_share(text: str, budget: Budget) -> None:
    assert parse_budget(text) == budget
    assert from_args(parse("--resident-budget", text)).resident_budget == budget


@pytest.mark.parametrize(
    "words, message",
    [
        (("--resident-budget", "much"), "'much' is neither a size nor a share. Write a number and a unit, "),
        (("--resident-budget", "101%"), "'101%' is more than there is. Write 0% to 100%."),
        (("--depot-rate", "fast"), "'fast' is not a size. Write a number and a unit, such as 200G."),
        (("--depot-rate", "=5M"), "'=5M' names no host. Write 50M,civitai.com=5M,*=20M"),
        (("--depot-requests", "a.example=many"), "'many' is not a number of requests per minute. Write 600"),
        (("--depot-connections", "17"), "'17' is not a number of connections. Write 1 to 16."),
        (("--depot-connections", "0"), "Write 1 to 16."),
        (("--depot-tokens", "a.example"), "'a.example' is not followed by =NAME. Write HOST=NAME"),
        (("--pin", "sdxl*"), "'sdxl*' names no folder. Write FOLDER/GLOB, such as checkpoints/sdxl*."),
        (("--pin", "loras/"), "'loras/' names no model. Write FOLDER/GLOB"),
        (("--pin-group", "video"), "'video' is no group. Write NAME=FOLDER/GLOB,FOLDER/GLOB, such as video="),
        (("--pin-group", "a b=vae/x"), "'a b=vae/x' is no group."),
        (("--pin-group", "video=wan*"), "'wan*' names no folder."),
        (("--pin-budget", "lots"), "'lots' is neither a size nor a share."),
        (("--depot-tokens", "a.example=hf_-secret"), "and never the token itself."),
    ],
)
def test_a_bad_value_says_what_to_write(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    with pytest.raises(SystemExit):
        parse(*words)
    assert message in capsys.readouterr().err


def test_pins_may_be_given_several_times_and_a_group_in_parts() -> None:
    options = from_args(parse(
        "--pin", "checkpoints/a*", "--pin", "vae/b", "--pin-budget", "50%",
        "--pin-group", "still=checkpoints/x", "--pin-group", "video=checkpoints/w*,vae/w",
        "--pin-group", "still=vae/x",
    ))
    assert options.pin == ("checkpoints/a*", "vae/b") and options.pin_budget == Budget(share=0.5)
    assert options.pin_group == (
        ("still", ("checkpoints/x", "vae/x")), ("video", ("checkpoints/w*", "vae/w")))
    assert from_args(parse()).pin_budget is None
