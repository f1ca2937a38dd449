"""Weights that are cast do not stay in memory in both forms."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import comfy.utils
from comfy import mapped_memory
from comfy.errors import NotEnoughMemory
from comfy.mapped_memory import cast_weights


def resident_bytes_of(path) -> int:
    """How much of the mapped file is in this process's memory."""
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    return sum(
        next(int(line.split()[1]) for line in lines if line.startswith("Rss:")) * 1024
        for header in lines
        if header.endswith(str(path))
    )


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "weights.safetensors"
    torch.manual_seed(0)
    weights = {f"weight {i}": torch.randn(512, 1024).half() for i in range(8)}
    comfy.utils.save_torch_file({**weights, "ids": torch.arange(9)}, path)
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says which memory is mapped from files")
def test_what_was_cast_leaves_memory_and_can_still_be_read(file):
    weights = comfy.utils.load_torch_file(file)
    originals = dict(weights)
    values = {key: tensor.clone() for key, tensor in originals.items()}
    assert resident_bytes_of(file) > 7 << 20
    cast_weights(weights, list(weights), torch.float32)
    assert resident_bytes_of(file) < 1 << 20
    for key, tensor in originals.items():
        assert torch.equal(tensor, values[key])
        assert torch.equal(weights[key], values[key].to(weights[key].dtype))
    assert weights["ids"].dtype is torch.int64


def test_weights_of_the_wanted_dtype_stay_mapped(file):
    weights = comfy.utils.load_torch_file(file)
    before = dict(weights)
    cast_weights(weights, list(weights), torch.float16)
    cast_weights(weights, list(weights), None)
    assert all(weights[key] is before[key] for key in before)


def test_weights_in_ordinary_memory_keep_their_values_and_other_keys_their_dtype():
    original = torch.randn(1 << 20)
    kept = original.clone()
    weights = {"a": original, "b": original}
    cast_weights(weights, ["a"], torch.bfloat16)
    assert torch.equal(original, kept) and weights["b"] is original
    assert weights["a"].dtype is torch.bfloat16


def arm_with(monkeypatch, free_idle):
    """The store of models in memory, as far as it is asked here."""
    read = SimpleNamespace(load=lambda function, *args, **kwargs: function(*args, **kwargs))
    store = SimpleNamespace(residents=SimpleNamespace(free_idle=free_idle), streams=read)
    monkeypatch.setattr(mapped_memory.depot, "_depot", store)


def test_weights_that_do_not_fit_are_refused_before_the_system_ends_the_process(file, monkeypatch):
    idle = [1]
    arm_with(monkeypatch, idle.clear)
    monkeypatch.setattr(mapped_memory, "free_bytes", lambda: 16 << 20)
    weights = comfy.utils.load_torch_file(file)
    cast_weights(weights, list(weights), torch.float32)  # 16 MiB
    assert idle == [1], "they fit, so nothing was let go"
    monkeypatch.setattr(mapped_memory, "free_bytes", lambda: (16 << 20) - 1)
    weights = comfy.utils.load_torch_file(file)
    with pytest.raises(NotEnoughMemory, match=r"needs 0.0 GB of .* in float32.*are free.*smaller"):
        cast_weights(weights, list(weights), torch.float32)
    assert idle == [] and weights["weight 0"].dtype == torch.float16, "not even the first was cast"
    cast_weights(weights, list(weights), torch.float16)  # they stay mapped: no memory is needed


def test_models_that_nobody_uses_make_room(file, monkeypatch):
    free = [0]
    arm_with(monkeypatch, lambda: free.append(1 << 30))
    monkeypatch.setattr(mapped_memory, "free_bytes", lambda: free[-1])
    weights = comfy.utils.load_torch_file(file)
    cast_weights(weights, list(weights), torch.float32)
    assert weights["weight 0"].dtype == torch.float32
