"""Nothing of upstream's text is in the series: compared with a clone when one is at hand."""

import os
from pathlib import Path

import pytest

from weaving.patch_files import read_series

PATCHES = Path(__file__).resolve().parents[2] / "patches"
TRIVIAL = 12
"""A shorter line says nothing that could be anybody's."""


@pytest.mark.upstream
def test_no_line_of_the_series_is_in_upstreams_files():
    checkout = os.environ.get("COMFY_UPSTREAM")
    if not checkout:
        pytest.skip("COMFY_UPSTREAM names no checkout of upstream ComfyUI")
    theirs = {line.strip() for file in Path(checkout.split(os.pathsep)[0]).rglob("*.py")
              for line in file.read_text(encoding="utf-8", errors="replace").splitlines()}
    assert len(theirs) > 10_000
    ours = [line for patch in read_series(PATCHES) for hunk in patch.hunks for line in hunk.lines]
    texts = [line for patch in read_series(PATCHES) for line in patch.body.splitlines()]
    same = [line for line in (*ours, *texts) if len(line.strip()) > TRIVIAL and line.strip() in theirs]
    assert not same
