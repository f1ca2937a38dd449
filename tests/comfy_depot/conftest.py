"""Fixtures of the depot's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.comfy_depot.world import World, world


@pytest.fixture
def depot_world(tmp_path: Path) -> Iterator[World]:
    """A small installation of its own."""
    with world(tmp_path) as made:
        yield made
