"""The event loop of one prompt."""

import asyncio

import pytest

from comfy_execution import prompt_loop


async def value(given):
    await asyncio.sleep(0)
    return given


def test_the_result_comes_back():
    assert prompt_loop.run(value(7)) == 7


def test_an_error_comes_out_and_the_loop_is_closed():
    loops = []

    async def fail():
        loops.append(asyncio.get_running_loop())
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        prompt_loop.run(fail())
    assert loops[0].is_closed()


def test_each_run_has_a_loop_of_its_own():
    async def loop():
        return asyncio.get_running_loop()

    assert prompt_loop.run(loop()) is not prompt_loop.run(loop())


@pytest.mark.parametrize("ends_with", [None, ValueError("no")])
def test_tasks_that_are_left_are_cancelled_and_waited_for(ends_with):
    seen = []

    async def left():
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0)
            seen.append("tidied up")

    async def leaves_it():
        tasks.append(asyncio.ensure_future(left()))
        await asyncio.sleep(0)
        if ends_with is not None:
            raise ends_with

    tasks = []
    try:
        prompt_loop.run(leaves_it())
    except ValueError:
        pass
    assert seen == ["tidied up"]
    assert tasks[0].cancelled()


def test_a_task_that_fails_when_it_is_cancelled_is_said_in_the_log(caplog):
    async def left():
        try:
            await asyncio.sleep(3600)
        finally:
            raise OSError("cannot tidy up")

    async def leaves_it():
        tasks.append(asyncio.ensure_future(left()))
        await asyncio.sleep(0)

    tasks = []
    prompt_loop.run(leaves_it())
    assert "cannot tidy up" in caplog.text


def test_generators_and_threads_of_the_loop_end_with_it():
    seen = []

    async def numbers():
        try:
            yield 1
            yield 2
        finally:
            seen.append("closed")

    async def takes_one():
        kept.append(numbers())
        first = await kept[0].__anext__()
        return await asyncio.get_running_loop().run_in_executor(None, int, first)

    kept = []
    assert prompt_loop.run(takes_one()) == 1
    assert seen == ["closed"]


def test_an_exit_out_of_another_task_comes_out_too_and_leaves_no_task():
    async def left():
        await asyncio.sleep(3600)

    async def stopped():
        tasks.append(asyncio.ensure_future(left()))
        tasks.append(asyncio.ensure_future(stop()))
        await asyncio.sleep(3600)

    async def stop():
        raise SystemExit

    tasks = []
    with pytest.raises(SystemExit):
        prompt_loop.run(stopped())
    assert tasks[0].cancelled()
    assert isinstance(tasks[1].exception(), SystemExit)
