"""The worker's part: run, store, tell, follow flags; and the progress of nodes."""

import sys
from types import SimpleNamespace

import psutil
import pytest

import comfy_depot.hooks
from app import progress_messages, worker
from comfy import interruption, progress_bar
from comfy.cli_args import args
from comfy_execution import progress
from comfy_execution.dynamic_prompt import DynamicPrompt
from protocol import BinaryEventTypes
from tests.fakes.waiting import wait_until


class Host:
    """What the worker needs of a server; it writes down what is sent, and what the history held then."""

    def __init__(self):
        self.client_id = self.last_node_id = self.last_prompt_id = None
        self.sockets_metadata = {}
        self.sent = []
        self.queue = None
        self.succeeded = []

    def prompt_succeeded(self, graph, outputs):
        self.succeeded.append((graph, outputs))

    def send_sync(self, event, data, sid=None):
        self.sent.append((event, data, sid, self.queue is not None and list(self.queue.history)))

    def queue_updated(self):
        pass


@pytest.fixture
def house(echo):
    """A worker with its host and queue."""
    import execution

    host = Host()
    host.queue = execution.PromptQueue(host)
    return worker.Worker(host.queue, host)


def put(house, prompt_id="p", text="hi", client_id="me"):
    graph = {"1": {"class_type": "Echo", "inputs": {"text": text}}}
    house.queue.put(
        (0, prompt_id, graph, {"client_id": client_id}, ["1"], {"auth_token_comfy_org": "secret"})
    )


def test_a_prompt_is_in_the_history_before_its_client_hears_the_end(house):
    put(house)
    house.run_next()
    entry = house.queue.history["p"]
    assert entry["status"]["status_str"] == "success" and entry["outputs"] == {"1": {"text": ["hi"]}}
    assert "secret" not in str(entry)
    event, data, sid, history = house.server.sent[-1]
    assert (event, data, sid, history) == ("executing", {"node": None, "prompt_id": "p"}, "me", ["p"])
    assert house.server.last_prompt_id == "p"


def test_without_a_client_no_end_is_sent(house):
    put(house, client_id=None)
    house.run_next()
    assert [
        message for message in house.server.sent if message[0] == "executing" and message[1]["node"] is None
    ] == []


def test_nodes_run_without_gradients(house, echo, monkeypatch):
    seen = []

    def run(self, text, id=None):
        import torch

        seen.append(torch.is_inference_mode_enabled())
        return (text,)

    monkeypatch.setattr(echo, "run", run)
    put(house)
    house.run_next()
    assert seen == [True]


@pytest.mark.parametrize("kind", [OSError, KeyboardInterrupt, GeneratorExit])
def test_an_executor_that_breaks_leaves_a_history_entry_and_the_next_prompt_runs(house, monkeypatch, kind):
    def execute(*arguments):
        house.server.client_id = "me"
        raise kind("disk")

    put(house, "broken")
    with monkeypatch.context() as patch:
        patch.setattr(house.executor, "execute", execute)
        house.run_next()
    assert [message[0] for message in house.server.sent] == ["execution_error", "executing"]
    entry = house.queue.history["broken"]
    assert entry["status"]["status_str"] == "error"
    (event, data), = entry["status"]["messages"]  # fmt: skip
    assert event == "execution_error" and data["exception_message"] == "disk"
    assert {"node_id", "node_type", "exception_type", "traceback"} <= set(data)
    assert house.queue.currently_running == {}
    put(house, "next")
    house.run_next()
    assert house.queue.history["next"]["status"]["completed"]


def test_a_cancel_just_before_the_first_node_is_not_lost(house):
    """The prompt runs already for those who cancel it, and the executor has not begun."""
    house.server.prompt_queue = house.queue
    interruption.interrupt_current_processing()  # an older wish, which nobody took back
    put(house, "cancelled")
    item, task = house.queue.get()
    assert not interruption.processing_interrupted()
    assert house.queue.interrupt_if_running("cancelled")
    house.run_prompt(item, task)
    events = [event for event, _ in house.queue.history["cancelled"]["status"]["messages"]]
    assert events[-1] == "execution_interrupted"


def test_the_thread_outlives_errors(house, monkeypatch, caplog):
    ends = iter([OSError("first"), interruption.InterruptProcessingException(), SystemExit()])
    monkeypatch.setattr(worker.Worker, "run_next", lambda self: (_ for _ in ()).throw(next(ends)))
    with pytest.raises(SystemExit):
        worker.prompt_worker(house.queue, house.server)
    assert "The next one is taken." in caplog.text


@pytest.mark.slow
def test_flags_free_results_and_models(house, monkeypatch):
    calls = []
    management = SimpleNamespace(
        unload_all_models=lambda: calls.append("unload"), soft_empty_cache=lambda: calls.append("empty")
    )
    monkeypatch.setitem(sys.modules, "comfy.model_management", management)
    monkeypatch.setattr(house.executor, "reset", lambda: calls.append("reset"))
    for flag, expected in {
        "unload_models": ["unload", "empty"],
        "free_memory": ["reset", "unload", "empty"],
    }.items():
        calls.clear()
        house.queue.set_flag(flag, True)
        house.follow_flags()
        house.clean_up()
        assert calls == expected
    calls.clear()
    house.follow_flags()
    house.clean_up()
    assert calls == []


def test_free_memory_lets_go_of_the_models_that_nobody_uses_and_unload_models_does_not(house, monkeypatch):
    calls = []
    placing = SimpleNamespace(free=lambda function, *args: function(*args))
    store = SimpleNamespace(residents=SimpleNamespace(
        free_idle=lambda: calls.append("idle"), placing=placing, make_room=lambda *args: None))
    monkeypatch.setattr(comfy_depot.hooks, "_depot", store)
    house.queue.set_flag("unload_models", True)
    house.follow_flags()
    assert calls == []
    house.queue.set_flag("free_memory", True)
    house.follow_flags()
    assert calls == ["idle"]


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({}, "BUDGET"),
        ({"cache_budget": 0}, "BUDGET"),
        ({"cache_classic": True}, "CLASSIC"),
        ({"cache_none": True}, "NONE"),
        ({"cache_lru": 3}, "LRU"),
        ({"cache_ram": [2.0]}, "RAM_PRESSURE"),
    ],
)
def test_the_command_line_chooses_the_cache(options, kind):
    settings = worker.cache_settings(SimpleNamespace(**{**vars(args), **options}))
    assert settings["cache_type"].name == kind
    assert settings["cache_args"]["lru"] == options.get("cache_lru", 0)
    assert settings["cache_args"]["ram"] == options.get("cache_ram")


@pytest.mark.parametrize(
    ("given", "smallest", "largest"), [(None, 1, 0.25), (0.01, 1, 0.02), (1000, 1000, 0)]
)
def test_the_budget_is_bytes_or_a_share_of_the_ram_that_is_free_at_the_start(given, smallest, largest):
    settings = worker.cache_settings(SimpleNamespace(**{**vars(args), "cache_budget": given}))
    budget = settings["cache_args"]["budget"]
    assert isinstance(budget, int)
    assert smallest <= budget <= max(1000, largest * psutil.virtual_memory().total)


def test_the_host_can_ask_how_the_cache_stands_also_after_it_was_freed(house):
    put(house)
    house.run_next()
    assert house.server.cache_stats()["entries"] == 1
    house.queue.set_flag("free_memory", True)
    house.follow_flags()
    stats = house.server.cache_stats()
    assert (stats["entries"], stats["bytes"], stats["drops"], stats["mode"]) == (0, 0, 1, "budget")


def test_models_of_other_workflows_are_let_go_in_the_thread_of_the_prompts_only(house, echo):
    import threading

    asked = []
    house.executor.caches.drop_models = lambda: asked.append(1) is None
    assert house.server.let_models_go() is False, "no prompt has run"
    put(house)
    house.run_next()
    assert house.server.let_models_go() is True and asked == [1]
    other = threading.Thread(target=lambda: asked.append(house.server.let_models_go()))
    other.start()
    other.join()
    assert asked == [1, False]


def test_a_prompt_that_succeeded_is_told_with_its_graph_and_a_failed_one_is_not(house):
    put(house)
    put(house, text=["no node", 0])
    house.run_next()
    house.run_next()
    assert house.server.succeeded == [({"1": {"class_type": "Echo", "inputs": {"text": "hi"}}}, ["1"])]
    assert len(house.queue.history) == 1, "both had one id"


@pytest.mark.slow
def test_what_another_thread_does_between_prompts_is_done_when_the_running_one_has_ended(
    house, echo, monkeypatch
):
    """The prompt itself starts the thread, and waits until its errand is known."""
    import threading

    happened, caught = [], []

    def ask():
        between = house.server.between_prompts
        between(lambda: happened.append((threading.get_ident(), list(house.queue.history))))
        try:
            between(lambda: happened.append(1 / 0))
        except ZeroDivisionError as error:
            caught.append(error)

    other = threading.Thread(target=ask)

    def run(self, text, id=None):
        other.start()
        wait_until(lambda: house.errands)
        assert happened == []
        return (text,)

    monkeypatch.setattr(echo, "run", run)
    put(house)
    house.run_next()
    assert happened == [(threading.get_ident(), ["p"])]
    if not caught:  # else it was taken together with the first
        house.run_next()
    other.join()
    assert len(caught) == 1 and len(happened) == 1


@pytest.fixture
def told(monkeypatch):
    """A host whose progress hook is installed, and what the node states were told."""
    host, states = Host(), []
    registry = progress.ProgressRegistry("last", DynamicPrompt({}))
    registry.update_progress = lambda *arguments: states.append(arguments)
    monkeypatch.setattr(progress_messages, "get_progress_state", lambda: registry)
    progress_messages.install(host)
    host.client_id, host.last_node_id, host.last_prompt_id = "me", "9", "last"
    yield host, states
    progress_bar.set_progress_bar_global_hook(None)
    interruption.interrupt_current_processing(False)


def test_a_bar_tells_its_node_and_prompt(told):
    from comfy_execution.utils import CurrentNodeContext

    host, states = told
    with CurrentNodeContext("p", "5"):
        progress_bar.ProgressBar(4).update(1)
    progress_bar.ProgressBar(4, node_id="6").update_absolute(2)
    assert [message[1] for message in host.sent] == [
        {"value": 1, "max": 4, "prompt_id": "p", "node": "5"},
        {"value": 2, "max": 4, "prompt_id": "last", "node": "6"},
    ]
    assert states == [("5", 1, 4, None), ("6", 2, 4, None)]


def test_previews_are_sent_plainly_only_to_clients_that_know_no_metadata(told):
    host, _ = told
    progress_bar.ProgressBar(4).update_absolute(1, preview="picture")
    assert (BinaryEventTypes.UNENCODED_PREVIEW_IMAGE, "picture", "me") in [
        message[:3] for message in host.sent
    ]
    host.sent.clear()
    host.sockets_metadata = {"me": {"feature_flags": {"supports_preview_metadata": True}}}
    progress_bar.ProgressBar(4).update_absolute(1, preview="picture")
    assert [message[0] for message in host.sent] == ["progress"]


def test_a_bar_is_where_a_long_node_learns_that_it_shall_stop(told):
    interruption.interrupt_current_processing()
    with pytest.raises(interruption.InterruptProcessingException):
        progress_bar.ProgressBar(4).update(1)


def test_node_states_come_from_the_registry():
    assert progress_messages.get_progress_state is progress.get_progress_state


def test_many_quick_prompts_share_a_line_of_the_log(house, caplog):
    for number in range(5):
        put(house, f"p{number}", text=str(number))
    with caplog.at_level("INFO"):
        for _ in range(5):
            house.run_next()
        said = [record.message for record in caplog.records if "executed in" in record.message]
        assert len(said) < 5 and said[0].startswith("Prompt executed in ")
        while house.ends.unsaid:
            house.run_next()  # the queue is empty: what was put off is said
    said = [record.message for record in caplog.records if "executed in" in record.message]
    assert sum(1 if line.startswith("Prompt ") else int(line.split()[0]) for line in said) == 5
