"""The `progress` messages of bars that move fast."""

import threading

import pytest

from app import progress_messages
from comfy import progress_bar
from comfy_execution import progress
from comfy_execution.dynamic_prompt import DynamicPrompt
from tests.comfy_execution.rig import Host


class Waiting(Host):
    """Tells when a message has come."""

    def __init__(self):
        super().__init__()
        self.last_prompt_id = "p"
        self.came = threading.Event()

    def send_sync(self, event, data, sid=None):
        super().send_sync(event, data, sid)
        self.came.set()


@pytest.fixture
def host():
    host = Waiting()
    progress.reset_progress_state("p", DynamicPrompt({"1": {}, "2": {}}))
    progress_messages.install(host)
    yield host
    progress_bar.set_progress_bar_global_hook(None)
    progress.reset_progress_state("", DynamicPrompt({}))


@pytest.fixture
def slow(monkeypatch):
    """No message is allowed after the first hundred, and the timer does not ring."""
    monkeypatch.setattr(progress_messages, "MESSAGES_PER_SECOND", 1e-3)


def values(host, node_id):
    return [data["value"] for event, data, _ in host.sent if event == "progress" and data["node"] == node_id]


def move(node_id, steps):
    bar = progress_bar.ProgressBar(steps, node_id=node_id)
    for value in range(1, steps + 1):
        bar.update_absolute(value)


def test_the_messages_of_a_short_bar_are_all_sent(host, slow):
    move("1", 50)
    assert values(host, "1") == list(range(1, 51))


def test_messages_of_a_bar_that_moves_thousands_of_times_are_bounded_and_the_last_value_comes(host, slow):
    move("1", 5000)
    assert values(host, "1") == list(range(1, 101))
    progress.get_progress_state().finish_progress("1")
    assert values(host, "1") == [*range(1, 101), 5000]


def test_each_node_that_runs_has_its_own_share(host, slow):
    move("1", 5000)
    move("2", 20)
    assert values(host, "2") == list(range(1, 21))


def test_what_is_held_back_comes_soon_although_the_node_goes_on(host):
    move("1", 5000)
    while values(host, "1")[-1] != 5000:
        host.came.clear()
        assert host.came.wait(10)


def test_what_was_held_back_is_not_sent_to_the_next_prompt(host, slow):
    move("1", 5000)
    progress.reset_progress_state("q", DynamicPrompt({"1": {}}))
    move("1", 3)
    assert values(host, "1") == [*range(1, 101), 1, 2, 3]
