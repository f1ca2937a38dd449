"""The event loop of one prompt."""

import asyncio

import pytest

from comfy_execution.prompt_loop import PromptLoop


@pytest.fixture
def prompt_loop():
    made = PromptLoop()
    yield made
    made.close()


async def value(given):
    await asyncio.sleep(0)
    return given


def test_the_result_comes_back(prompt_loop):
    assert prompt_loop.run(value(7)) == 7


def test_an_error_comes_out_and_the_loop_is_closed(prompt_loop):
    loops = []

    async def fail():
        loops.append(asyncio.get_running_loop())
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        prompt_loop.run(fail())
    assert loops[0].is_closed()


async def current_loop():
    return asyncio.get_running_loop()


def test_a_loop_with_nothing_left_is_used_again(prompt_loop):
    assert prompt_loop.run(current_loop()) is prompt_loop.run(current_loop())


def leave_a_timer(loop):
    loop.call_later(3600, print)


def leave_a_callback(loop):
    loop.call_soon(lambda: loop.call_soon(lambda: loop.call_soon(print)))


def leave_a_thread(loop):
    loop.run_in_executor(None, int)


def leave_a_task_factory(loop):
    loop.set_task_factory(None)


@pytest.mark.parametrize("leave", [leave_a_timer, leave_a_callback, leave_a_thread, leave_a_task_factory])
def test_a_loop_with_something_left_is_closed_and_the_next_prompt_gets_another(prompt_loop, leave):
    async def leaves_it():
        leave(asyncio.get_running_loop())
        return asyncio.get_running_loop()

    left = prompt_loop.run(leaves_it())
    assert left.is_closed()
    assert prompt_loop.run(current_loop()) is not left


def test_a_loop_is_closed_with_its_owner():
    owner = PromptLoop()
    loop = owner.run(current_loop())
    assert not loop.is_closed()
    del owner
    assert loop.is_closed()


@pytest.mark.parametrize("ends_with", [None, ValueError("no")])
def test_tasks_that_are_left_are_cancelled_and_waited_for(prompt_loop, ends_with):
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


def test_a_task_that_fails_when_it_is_cancelled_is_said_in_the_log(prompt_loop, caplog):
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


def test_generators_and_threads_of_the_loop_end_with_it(prompt_loop):
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


def test_an_exit_out_of_another_task_comes_out_too_and_leaves_no_task(prompt_loop):
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
