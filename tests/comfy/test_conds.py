"""How values of a conditioning are joined."""

import pytest
import torch

from comfy import conds


def test_rows_are_repeated_to_the_batch():
    value = conds.CONDRegular(torch.arange(2.0).reshape(2, 1)).process_cond(batch_size=3, area=None)
    assert value.cond.flatten().tolist() == [0.0, 1.0, 0.0]


def test_a_latent_shaped_value_is_cut_to_the_area():
    value = conds.CONDNoiseShape(torch.arange(16.0).reshape(1, 1, 4, 4))
    cut = value.process_cond(batch_size=1, area=[2, 1, 1, 3])
    assert cut.cond.flatten().tolist() == [7.0, 11.0]


@pytest.mark.parametrize(
    ("first", "second", "joined"),
    [(77, 77, 77), (77, 154, 154), (77, 231, 231), (154, 231, 462), (77, 77 * 5, None)],
)
def test_texts_are_repeated_to_a_common_length_within_reason(first, second, joined):
    one, two = (conds.CONDCrossAttn(torch.rand(1, count, 8)) for count in (first, second))
    assert one.can_concat(two) == (joined is not None)
    if joined:
        assert one.concat([two]).shape == (2, joined, 8)


def test_texts_of_other_encoders_are_not_joined():
    one, two = (conds.CONDCrossAttn(torch.rand(1, 7, width)) for width in (8, 16))
    assert not one.can_concat(two)


def test_a_constant_is_handed_on():
    value = conds.CONDConstant(5)
    assert value.can_concat(conds.CONDConstant(5))
    assert not value.can_concat(conds.CONDConstant(6))
    assert value.process_cond(batch_size=4).concat([value]) == 5


def test_lists_are_joined_entry_by_entry():
    value = conds.CONDList([torch.zeros(1, 2, 3), torch.ones(1, 4)])
    joined = value.process_cond(batch_size=2).concat([value])
    assert [tuple(t.shape) for t in joined] == [(3, 2, 3), (3, 4)]
    assert value.size() == [1, 4, 2]
    assert not value.can_concat(conds.CONDList([torch.zeros(1, 2, 3)]))


def test_values_on_other_devices_wait_and_say_so(caplog):
    one, two = conds.CONDRegular(torch.zeros(1, 2)), conds.CONDRegular(torch.zeros(1, 2, device="meta"))
    assert not one.can_concat(two)
    assert "evaluated one after the other" in caplog.text
