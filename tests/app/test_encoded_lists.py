"""A long list becomes what `json.dumps` makes of it, whatever came before; only what is new is encoded."""

import json
import random

import pytest

from app import encoded_lists
from app.encoded_lists import EncodedLists, names_as_json


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(encoded_lists, "BLOCK", 8)


NAMES = [f"name {number:04} \"ü\\\n\u2028" for number in range(500)]


def test_any_list_is_encoded_as_json_dumps_does():
    chance, lists, names = random.Random(1), EncodedLists(), list(NAMES)
    assert lists.json_of([]) == b"[]"
    for _ in range(200):
        kind = chance.randrange(4)
        if kind == 0:
            names.insert(chance.randrange(len(names) + 1), f"new {chance.random()}")
        elif kind == 1:
            del names[chance.randrange(len(names)):][:chance.randrange(1, 20)]
        elif kind == 2:
            names = chance.choice([["None", *NAMES], NAMES[::-1], NAMES[::3], [*NAMES, *NAMES]])
        else:
            del names[chance.randrange(len(names))]
        assert lists.json_of(names) == json.dumps(names).encode()


def test_only_the_block_with_a_change_is_encoded_again():
    encoded = []

    def encode(names):
        encoded.extend(names)
        return names_as_json(names)

    lists = EncodedLists(encode)
    assert lists.json_of(NAMES) is lists.json_of(list(NAMES))
    assert encoded == NAMES, "a list is encoded once"
    encoded.clear()
    longer = [*NAMES[:100], "new", *NAMES[100:]]
    assert lists.json_of(["None", *longer]) == json.dumps(["None", *longer]).encode()
    assert {"None", "new"} <= set(encoded) and len(encoded) <= 2 * encoded_lists.BLOCK


def test_what_is_kept_is_bounded(monkeypatch):
    monkeypatch.setattr(encoded_lists, "MOST_BLOCKS", 20)
    monkeypatch.setattr(encoded_lists, "MOST_LISTS", 3)
    lists = EncodedLists()
    for number in range(50):
        names = [f"{number}/{name}" for name in NAMES[:50]]
        assert lists.json_of(names) == json.dumps(names).encode()
    assert len(lists._blocks) <= 20 + 50 // 8 + 1 and len(lists._lists) <= 3


def test_a_list_that_its_owner_changes_later_is_another_one():
    lists, names = EncodedLists(), list(NAMES)
    lists.json_of(names)
    names[5] = "other"
    assert lists.json_of(names) == json.dumps(names).encode()
