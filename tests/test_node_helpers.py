"""Helpers that node packs import."""

import hashlib
import subprocess
import sys

import pytest
import torch
from PIL import ImageFile

import node_helpers
from comfy.cli_args import args


def test_the_module_does_not_load_torch():
    code = "import sys, node_helpers; assert not {'torch', 'PIL'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_values_are_set_on_a_copy():
    before = [["tokens", {"a": 1}]]
    assert node_helpers.conditioning_set_values(before, {"a": 2, "b": 3}) == [["tokens", {"a": 2, "b": 3}]]
    assert before == [["tokens", {"a": 1}]]


def test_values_are_appended_to_what_is_there():
    before = [["tokens", {"a": [1]}]]
    after = node_helpers.conditioning_set_values(before, {"a": [2], "b": [3]}, append=True)
    assert after == [["tokens", {"a": [1, 2], "b": [3]}]]


def test_a_second_try_is_tolerant_and_puts_the_setting_back():
    tries = []

    def flaky(arg):
        tries.append(ImageFile.LOAD_TRUNCATED_IMAGES)
        if len(tries) == 1:
            raise OSError("truncated")
        return arg * 2

    assert node_helpers.pillow(flaky, 21) == 42
    assert tries == [False, True]
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


@pytest.mark.parametrize("name", ["md5", "sha1", "sha256", "sha512"])
def test_the_hash_is_that_of_the_options(monkeypatch, name):
    monkeypatch.setattr(args, "default_hashing_function", name)
    assert node_helpers.hasher()(b"x").hexdigest() == hashlib.new(name, b"x").hexdigest()


def test_words_become_dtypes():
    words = ["fp32", "fp16", "bf16", "auto"]
    expected = [torch.float32, torch.float16, torch.bfloat16, None]
    assert [node_helpers.string_to_torch_dtype(word) for word in words] == expected


@pytest.mark.parametrize(("destination", "source"), [(3, 4), (4, 3), (3, 3)])
def test_images_get_the_channels_of_the_destination(destination, source):
    base, over = node_helpers.image_alpha_fix(torch.zeros(1, 2, 2, destination), torch.zeros(1, 2, 2, source))
    assert base.shape[-1] == over.shape[-1] == destination
    if destination > source:
        assert (over[..., -1] == 1).all()
