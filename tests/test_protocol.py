"""What is sent: JSON that every client can read, whatever nodes and packs put into it."""

import fractions
import json
from pathlib import Path

import numpy
import pytest

import protocol


class Mute:
    """An object without a text."""

    def __str__(self):
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"a": [1, 2.5, None, True, "x"]}, {"a": [1, 2.5, None, True, "x"]}),
        ([float("nan"), float("inf"), -float("inf"), 0.5], [None, None, None, 0.5]),
        ((numpy.float32(0.5), numpy.int64(3), numpy.float64("nan")), [0.5, 3, None]),
        ({"at": Path("a/b"), 3: b"x", (1, 2): {"y"}}, {"at": "a/b", "3": "b'x'", "(1, 2)": "{'y'}"}),
        ([fractions.Fraction(1, 2)], [0.5]),
        ([Mute()], ["<Mute: no text>"]),
    ],
)
def test_what_json_cannot_say_is_said_in_plain_values(value, said):
    assert json.loads(protocol.to_json(value), parse_constant=pytest.fail) == said


def test_a_value_that_holds_itself_ends_somewhere():
    value = {"a": []}
    value["a"].append(value)
    assert json.loads(protocol.to_json(value)) == {"a": ["..."]}


def test_a_long_text_is_cut():
    assert len(protocol.to_json({"bytes": bytes(100_000)})) < 2000
