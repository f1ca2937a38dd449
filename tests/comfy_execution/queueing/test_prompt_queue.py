"""The queue of prompts and its history."""

import threading
import time

import pytest

from comfy_execution.queueing import prompt_queue
from tests.comfy_execution.rig import execution


class Host:
    def __init__(self):
        self.updates = 0

    def queue_updated(self):
        self.updates += 1


@pytest.fixture
def queue():
    return execution.PromptQueue(Host())


def item(number, prompt_id, **extra):
    return (number, prompt_id, {"1": {"inputs": {}}}, extra, ["1"], {})


def done(queue, task, **status):
    state = queue.ExecutionStatus("success", True, []) if not status else queue.ExecutionStatus(**status)
    queue.task_done(task, {"outputs": {"1": {}}, "meta": {}}, state, process_item=lambda prompt: prompt[:5])


def test_lower_numbers_run_first(queue):
    for number, prompt_id in ((2, "b"), (1, "c"), (-1, "front")):
        queue.put(item(number, prompt_id))
    assert [queue.get()[0][1] for _ in range(3)] == ["front", "c", "b"]


def test_equal_numbers_run_in_the_order_of_arrival_whatever_their_ids(queue):
    for prompt_id in ("z", "a", "z", "m"):
        queue.put(item(1, prompt_id))
    assert [queue.get()[0][1] for _ in range(4)] == ["z", "a", "z", "m"]


def test_items_stay_tuples(queue):
    queue.put(item(1, "a"))
    assert queue.queue[0][:2] == (1, "a")
    assert isinstance(queue.get_current_queue_volatile()[1][0], tuple)


def test_the_running_item_is_a_copy_that_nodes_cannot_change(queue):
    original = item(1, "a")
    queue.put(original)
    taken, _ = queue.get()
    taken[2]["1"]["inputs"]["changed"] = True
    running, waiting = queue.get_current_queue()
    assert running == [item(1, "a")] and waiting == []


@pytest.mark.parametrize("value", [object(), {"set": {1}, "deep": [[]]}])
def test_items_with_odd_values_are_copied_too(value):
    copied = prompt_queue.deep_copy_of((1, "a", {"x": value}, {}, [], {}))
    assert copied[:2] == (1, "a")
    assert copied[2] is not None


def test_a_finished_prompt_moves_to_the_history(queue):
    queue.put(item(1, "a"))
    _, task = queue.get()
    done(queue, task)
    assert queue.get_tasks_remaining() == 0
    assert queue.get_history() == {
        "a": {
            "prompt": item(1, "a")[:5],
            "outputs": {"1": {}},
            "meta": {},
            "status": {"status_str": "success", "completed": True, "messages": []},
        }
    }


def fill(queue, count):
    for number in range(count):
        queue.put(item(number, str(number)))
        done(queue, queue.get()[1])


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        ({}, "01234"),
        ({"max_items": 2}, "34"),
        ({"max_items": 2, "offset": 1}, "12"),
        ({"offset": 3}, "34"),
        ({"max_items": 9}, "01234"),
        ({"max_items": 2, "offset": 9}, ""),
        ({"prompt_id": "2"}, "2"),
        ({"prompt_id": "x"}, ""),
        ({"max_items": 0}, ""),
    ],
)
def test_pages_of_the_history(queue, options, ids):
    fill(queue, 5)
    assert "".join(queue.get_history(**options)) == ids


def test_a_map_function_says_what_is_given(queue):
    fill(queue, 1)
    assert queue.get_history(map_function=lambda entry: entry["prompt"][1]) == {"0": "0"}
    assert queue.get_history(prompt_id="0", map_function=lambda entry: "x") == {"0": "x"}


def test_the_oldest_entries_of_the_history_are_dropped(queue, monkeypatch):
    monkeypatch.setattr(prompt_queue, "MAXIMUM_HISTORY_SIZE", 3)
    fill(queue, 5)
    assert list(queue.get_history()) == ["2", "3", "4"]


def test_entries_of_the_history_can_be_deleted(queue):
    fill(queue, 3)
    queue.delete_history_item("1")
    queue.delete_history_item("1")
    assert list(queue.get_history()) == ["0", "2"]
    queue.wipe_history()
    assert queue.get_history() == {}


def test_clearing_touches_waiting_prompts_only(queue):
    for prompt_id in ("a", "b", "c"):
        queue.put(item(1, prompt_id))
    queue.get()
    assert queue.delete_queue_item(lambda entry: entry[1] == "b")
    assert not queue.delete_queue_item(lambda entry: entry[1] == "a")
    assert queue.get_tasks_remaining() == 2
    queue.wipe_queue()
    running, waiting = queue.get_current_queue()
    assert [entry[1] for entry in running] == ["a"] and waiting == []


def test_only_a_running_prompt_can_be_interrupted(queue):
    called = []
    queue.put(item(1, "a"))
    queue.put(item(2, "b"))
    queue.get()
    assert not queue.interrupt_if_running("b", lambda: called.append("b"))
    assert queue.interrupt_if_running("a", lambda: called.append("a"))
    assert called == ["a"]


def test_interrupting_sets_the_flag_of_this_process(queue):
    queue.put(item(1, "a"))
    queue.get()
    assert queue.interrupt_if_running("a")
    with pytest.raises(execution.comfy.interruption.InterruptProcessingException):
        execution.comfy.interruption.throw_exception_if_processing_interrupted()


def test_waiting_ends_with_a_prompt_or_with_the_time(queue):
    assert queue.get(timeout=0.01) is None
    threading.Timer(0.05, lambda: queue.put(item(1, "late"))).start()
    start = time.monotonic()
    assert queue.get(timeout=10)[0][1] == "late"
    assert time.monotonic() - start < 5


def test_flags_are_read_once_and_wake_the_worker(queue):
    threading.Timer(0.05, lambda: queue.set_flag("free_memory", True)).start()
    assert queue.get(timeout=10) is None
    assert queue.get_flags(reset=False) == {"free_memory": True}
    assert queue.get_flags() == {"free_memory": True}
    assert queue.get_flags() == {}


def test_a_flag_that_was_set_while_nobody_waited_is_not_slept_through(queue):
    queue.set_flag("free_memory", True)
    assert queue.get(timeout=1000) is None and queue.get_flags() == {"free_memory": True}


def test_the_host_hears_of_every_change(queue):
    queue.put(item(1, "a"))
    queue.get()
    done(queue, 0)
    assert queue.server.updates == 3


def test_many_threads_can_use_the_queue(queue):
    def put():
        for i in range(100):
            queue.put(item(i, str(i)))

    threads = [threading.Thread(target=put) for _ in range(4)]
    for thread in threads:
        thread.start()
    taken = [queue.get(timeout=5) for _ in range(400)]
    for thread in threads:
        thread.join()
    assert len({task for _, task in taken}) == 400
