"""Looking at a running download."""

from pathlib import Path

import pytest

from comfy_depot.journal import Record, Validator
from comfy_depot.layout import Layout
from comfy_depot.watch import Watch

MIB = 1 << 20


@pytest.mark.parametrize(
    ("rate", "left", "seconds"),
    [
        (10 * MIB, 1000 * MIB, 0.2),
        (160 * MIB, 1000 * MIB, 0.1),
        (400 * MIB, 1000 * MIB, 0.04),
        (10_000 * MIB, 1000 * MIB, 0.03),
        (10 * MIB, 1 * MIB, 0.1),
        (0, 1000 * MIB, 0.03),
    ],
)
def test_the_more_comes_the_sooner_is_the_next_look(
    tmp_path: Path, rate: int, left: int, seconds: float
) -> None:
    record = Record(source="s", validator=Validator(2000 * MIB))
    watch = Watch(Layout(tmp_path).place(tmp_path / "a"), record, journalled=False)
    assert watch.seconds_to_next_look == pytest.approx(0.03), "nothing has come yet"
    done, total = str(2000 * MIB - left), str(2000 * MIB)
    watch.see({"completedLength": done, "totalLength": total, "downloadSpeed": str(rate)})
    assert watch.seconds_to_next_look == pytest.approx(seconds)
