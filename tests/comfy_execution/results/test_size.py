"""How large results are, whatever they hold."""

import subprocess
import sys
import threading
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image

from comfy_execution.results.size import ENTRY_BYTES, is_small, measure

MEGABYTE = 1_000_000


class Holder:
    """An object of some node pack."""

    def __init__(self, **attributes):
        vars(self).update(attributes)


class Slotted:
    __slots__ = ("inside", "empty")

    def __init__(self, inside):
        self.inside = inside


def floats(count=MEGABYTE // 4):
    return torch.zeros(count)


@pytest.mark.parametrize(
    "make",
    [
        lambda: floats(),
        lambda: [[floats()]],
        lambda: {"samples": floats()},
        lambda: floats()[:10],
        lambda: (floats().view(10, -1), 5),
        lambda: torch.nn.Linear(1000, 250, bias=False),
        lambda: torch.nn.Sequential(torch.nn.Sequential(torch.nn.Linear(1000, 250, bias=False))),
        lambda: Holder(model=Holder(model=torch.nn.Linear(1000, 250, bias=False))),
        lambda: Slotted(floats()),
        lambda: Holder(patches={"key": [(1.0, ("lora", (floats(), None)), 1.0)]}),
        lambda: numpy.zeros(MEGABYTE // 8),
        lambda: numpy.zeros(MEGABYTE // 8)[5:9],
        lambda: "a" * MEGABYTE,
        lambda: b"a" * MEGABYTE,
        lambda: Image.new("RGBA", (500, 500)),
        lambda: ["a text of 36 letters in a long list."] * 9_259,
    ],
)
def test_a_megabyte_is_a_megabyte(make):
    assert measure(make()).total == pytest.approx(MEGABYTE, rel=0.02, abs=5000)


def test_what_is_shared_is_told_by_its_address_and_counted_once():
    tensor = floats()
    one, other = measure([tensor[:5]]), measure({"a": tensor, "b": tensor.view(2, -1), "c": tensor.numpy()})
    assert one.blocks == other.blocks and list(one.blocks.values()) == [MEGABYTE]
    model = torch.nn.Linear(10, 10)
    assert measure(Holder(model=model)).blocks == measure([[Holder(model=model, more=5)]]).blocks


def test_tensors_on_other_devices_are_no_ram():
    there = torch.empty(MEGABYTE, device="meta")
    size = measure([there, [there], floats()])
    assert sum(size.blocks.values()) == MEGABYTE
    assert size.device == 4 * MEGABYTE and size.is_elsewhere
    here = measure(floats())
    assert not here.is_elsewhere and here.device == 0


def test_weights_on_other_devices_are_the_business_of_models():
    size = measure(Holder(model=torch.nn.Linear(100, 100, device="meta")))
    assert size.is_elsewhere and (size.device, size.blocks) == (0, {})


def test_nothing_of_a_result_is_ever_called():
    class Trap:
        __class__ = property(lambda self: pytest.fail("asked for its class"))

        def __getattr__(self, name):
            pytest.fail(f"asked for {name}")

        def __iter__(self):
            pytest.fail("iterated")

        def __len__(self):
            pytest.fail("asked for its length")

        def __eq__(self, other):
            pytest.fail("compared")

        __hash__ = __sizeof__ = __bool__ = __iter__

    class TrapDict(dict):
        keys = values = items = __iter__ = __len__ = lambda self: pytest.fail("called")

    class TrapList(list):
        __iter__ = __len__ = lambda self: pytest.fail("called")

    class TrapModule(torch.nn.Module):
        parameters = children = lambda self: pytest.fail("called")

    outside = TrapDict()
    dict.__setitem__(outside, "a", floats())
    size = measure([[Trap(), outside, TrapList([floats()]), TrapModule(), threading.Lock(), Trap, len]])
    assert len(size.blocks) == 2


def test_circles_depth_and_number_are_bounded(monkeypatch):
    circle = []
    circle.append([circle])
    assert measure(circle).total < ENTRY_BYTES + 1000
    deep = floats()
    for _ in range(10_000):
        deep = [deep]
    assert measure(deep).blocks == {}
    monkeypatch.setattr("comfy_execution.results.size.OBJECT_LIMIT", 100)
    many = [Holder(number=Holder()) for _ in range(1000)]
    assert measure(many).own < 100 * 200 + 8 * 1000 + ENTRY_BYTES


def test_a_tensor_of_a_kind_without_storage_gets_an_estimate():
    class Odd(torch.Tensor):
        def untyped_storage(self):
            raise NotImplementedError

    size = measure(floats().as_subclass(Odd))
    assert size.total == ENTRY_BYTES + 2 * 64 or size.total == ENTRY_BYTES + 64


def test_what_fails_when_it_is_looked_at_gets_an_estimate_and_the_rest_is_counted():
    class Bad(numpy.ndarray):
        __array_interface__ = property(lambda self: 1 / 0)

    class Gone(Image.Image):
        size = property(lambda self: 1 / 0)

    size = measure([numpy.zeros(9).view(Bad), Gone(), floats()])
    assert sum(size.blocks.values()) == MEGABYTE and size.own < ENTRY_BYTES + 1000


@pytest.mark.parametrize(
    ("outputs", "small"),
    [([], True), ([[1], ["text"], [None]], True), ([["x" * 101]], False), ([[object()]], False),
     ([[0] * 9], False), ([(1,)], False), ([[[1]]], False)],
)  # fmt: skip
def test_a_few_plain_values_are_small(outputs, small):
    assert is_small(outputs) is small


def test_measuring_imports_nothing_heavy():
    code = (
        "import sys; from comfy_execution.results.size import measure; measure([1, 'a', {'b': [object()]}]); "
        "print(sorted({'torch', 'numpy', 'PIL'} & sys.modules.keys()))"
    )
    root = Path(__file__).resolve().parents[3]
    assert subprocess.check_output([sys.executable, "-c", code], cwd=root, text=True).strip() == "[]"
