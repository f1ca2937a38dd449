"""Every test has its own executor, and leaves the registry of node classes as it found it."""

import pytest

from tests.comfy_execution.rig import Rig, nodes


@pytest.fixture(autouse=True)
def registry():
    before = dict(nodes.NODE_CLASS_MAPPINGS)
    yield nodes.NODE_CLASS_MAPPINGS
    nodes.NODE_CLASS_MAPPINGS.clear()
    nodes.NODE_CLASS_MAPPINGS.update(before)


@pytest.fixture
def rig(registry):
    return Rig()
