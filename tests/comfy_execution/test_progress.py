"""Progress of nodes, and the messages about it."""

import threading
import time

import pytest

from comfy_execution import progress
from comfy_execution.dynamic_prompt import DynamicPrompt
from comfy_execution.progress import MessageBudget, NodeState, ProgressHandler, WebUIProgressHandler
from tests.comfy_execution.rig import Host


@pytest.fixture
def host():
    return Host()


@pytest.fixture
def registry(host):
    dynprompt = DynamicPrompt({"1": {}, "2": {}})
    dynprompt.add_ephemeral_node("1.0.0.1", {}, "1", "2")
    progress.reset_progress_state("p", dynprompt)
    progress.add_progress_handler(WebUIProgressHandler(host))
    yield progress.get_progress_state()
    progress.get_progress_state().flush_handlers()
    progress.reset_progress_state("", DynamicPrompt({}))


def states(host):
    return [{k: (v["state"], v["value"]) for k, v in data["nodes"].items()} for _, data, _ in host.sent]


def test_a_message_has_the_shape_that_clients_know(registry, host):
    registry.start_progress("1.0.0.1")
    assert host.sent == [
        (
            "progress_state",
            {
                "prompt_id": "p",
                "nodes": {
                    "1.0.0.1": {
                        "value": 0.0,
                        "max": 1.0,
                        "state": "running",
                        "node_id": "1.0.0.1",
                        "prompt_id": "p",
                        "display_node_id": "2",
                        "parent_node_id": "1",
                        "real_node_id": "1",
                    }
                },
            },
            None,
        )
    ]


def test_a_message_has_what_changed_and_what_runs(registry, host):
    registry.start_progress("1")
    registry.start_progress("2")
    registry.update_progress("2", 3, 10)
    registry.finish_progress("1")
    registry.finish_progress("2")
    assert states(host) == [
        {"1": ("running", 0.0)},
        {"1": ("running", 0.0), "2": ("running", 0.0)},
        {"1": ("running", 0.0), "2": ("running", 3)},
        {"2": ("running", 3), "1": ("finished", 1.0)},
        {"2": ("finished", 10)},
    ]


def test_messages_are_limited_in_rate_and_the_last_states_arrive(registry, host, monkeypatch):
    monkeypatch.setattr(progress, "MESSAGES_PER_SECOND", 1.0)
    for i in range(500):
        registry.start_progress(str(i))
        registry.finish_progress(str(i))
    assert len(host.sent) <= progress.MESSAGES_AT_ONCE + 3
    registry.flush_handlers()
    last = {}
    for _, data, _ in host.sent:
        last.update({node_id: entry["state"] for node_id, entry in data["nodes"].items()})
    assert last == {str(i): "finished" for i in range(500)}
    count = len(host.sent)
    registry.flush_handlers()
    assert len(host.sent) == count


def test_a_node_that_keeps_running_is_told_of_without_another_event(registry, host):
    for i in range(progress.MESSAGES_AT_ONCE):
        registry.update_progress("1", i, 1000)
    registry.start_progress("2")
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and "2" not in host.sent[-1][1]["nodes"]:
        time.sleep(0.01)
    assert host.sent[-1][1]["nodes"]["2"]["state"] == "running"


def test_nothing_is_sent_after_a_reset(registry, host):
    for i in range(progress.MESSAGES_AT_ONCE + 5):
        registry.update_progress("1", i, 1000)
    count = len(host.sent)
    progress.reset_progress_state("other", DynamicPrompt({}))
    time.sleep(2 / progress.MESSAGES_PER_SECOND)
    assert len(host.sent) == count


def test_many_running_nodes_are_not_repeated_in_each_message(registry, host):
    for i in range(progress.RUNNING_NODES_PER_MESSAGE + 10):
        registry.start_progress(str(i))
    assert len(host.sent[-1][1]["nodes"]) == 1


def test_progress_may_come_from_several_threads(registry, host):
    threads = [
        threading.Thread(target=lambda n=n: [registry.update_progress(str(n), i, 100) for i in range(100)])
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    registry.flush_handlers()
    assert {entry["value"] for entry in registry.nodes.values()} == {99}


@pytest.mark.parametrize(("flags", "sent"), [({"supports_preview_metadata": True}, True), ({}, False)])
def test_preview_pictures_go_to_clients_that_understand_them(registry, host, flags, sent):
    host.client_id = "c"
    host.sockets_metadata = {"c": {"feature_flags": flags}}
    registry.update_progress("1.0.0.1", 1, 2, ("JPEG", "picture", 512))
    pictures = [(data, sid) for event, data, sid in host.sent if event == 4]
    expected = (
        ("JPEG", "picture", 512),
        {
            "node_id": "1.0.0.1",
            "prompt_id": "p",
            "display_node_id": "2",
            "parent_node_id": "1",
            "real_node_id": "1",
        },
    )
    assert pictures == ([(expected, "c")] if sent else [])


class Recorder(ProgressHandler):
    """A handler as packs write them."""

    def __init__(self):
        super().__init__("recorder")
        self.seen = []

    def start_handler(self, node_id, state, prompt_id):
        self.seen.append(("start", node_id, prompt_id))

    def update_handler(self, node_id, value, max_value, state, prompt_id, image=None):
        self.seen.append(("update", node_id, value, max_value))

    def finish_handler(self, node_id, state, prompt_id):
        self.seen.append(("finish", node_id, state["state"]))

    def reset(self):
        self.seen.append("reset")


def test_other_handlers_can_watch_and_be_switched_off(registry):
    handler = Recorder()
    progress.add_progress_handler(handler)
    registry.start_progress("1")
    registry.disable_handler("recorder")
    registry.update_progress("1", 1, 5)
    registry.enable_handler("recorder")
    registry.update_progress("1", 2, 5)
    registry.finish_progress("1")
    registry.fail_progress("2")
    registry.unregister_handler("recorder")
    registry.unregister_handler("recorder")
    assert handler.seen == [
        ("start", "1", "p"),
        ("update", "1", 2, 5),
        ("finish", "1", NodeState.Finished),
        ("finish", "2", NodeState.Error),
        "reset",
    ]


def test_a_budget_is_spent_and_comes_back(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    budget = MessageBudget(2, 8.0)
    assert [budget.take() for _ in range(3)] == [True, True, False]
    now[0] += 0.125
    assert [budget.take() for _ in range(2)] == [True, False]


def test_before_the_first_prompt_there_is_an_empty_registry(monkeypatch):
    monkeypatch.setattr(progress, "_registry", None)
    assert progress.get_progress_state().nodes == {}
