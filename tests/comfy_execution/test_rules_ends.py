"""Nodes that raise what is no Exception: they end their prompt, and nothing else."""

import asyncio

import pytest

from tests.comfy_execution.rig import make, node


class Stop(BaseException):
    """A pack's own."""


@pytest.mark.parametrize("error", [KeyboardInterrupt("stop"), Stop("stop"), SystemExit(3)])
@pytest.mark.parametrize("kind", ["plain", "async", "late"])
def test_a_node_that_raises_what_is_no_exception_ends_only_its_prompt(rig, error, kind):
    def plain(self):
        raise error

    async def in_time(self):
        raise error

    async def late(self):
        await asyncio.sleep(0.01)
        raise error

    rig.add(
        Ends=make({"plain": plain, "async": in_time, "late": late}[kind], {}, returns=(), OUTPUT_NODE=True)
    )
    failure = rig.run({"1": node("Ends")}).failure
    assert failure["exception_type"] == "comfy_execution.errors.NodeEndedError"
    assert f"ended itself with {error!r}" in failure["exception_message"]
    assert rig.run({"1": node("Show", value=1)}).success
