"""A queue with a journal, over the deaths of its process: `die` lets a journal go as SIGKILL does, with
nothing written that was not written before.
"""

import os
import threading

import pytest

import folder_paths
from comfy_execution import jobs
from comfy_execution.queueing.durable import DurableQueue
from comfy_execution.queueing.journal import Journal
from comfy_execution.utils import CurrentNodeContext
from tests.comfy_execution.rig import Host, Rig, execution, make, node
from tests.fakes.waiting import wait_until

GRAPH = {"1": {"class_type": "Show", "inputs": {"value": 1}}}
SECRET = "very-secret-token"


class House:
    """One life of a queue on a folder."""

    def __init__(self, folder, **options):
        self.host = Host()
        self.host.number = options.pop("number", 0)
        self.queue = execution.PromptQueue(self.host)
        journal = Journal(folder / "queue.db")
        self.durable = DurableQueue(journal, history_size=self.queue.limit_of_history, **options)
        self.found = self.queue.attach(self.durable)

    def put(self, prompt_id, number=0, graph=None, sensitive=None, **fields):
        graph, extra_data = graph or GRAPH, {"create_time": 5, **fields}
        self.queue.put((number, prompt_id, graph, extra_data, list(graph), sensitive or {}))

    def run(self, outputs=None, success=True, messages=()):
        item, task = self.queue.get(timeout=5)
        status = self.queue.ExecutionStatus("success" if success else "error", success, list(messages))
        self.queue.task_done(task, {"outputs": outputs or {}, "meta": {}}, status, lambda prompt: prompt[:5])
        return item[1]

    def die(self):
        self.durable.journal.lock.close()


@pytest.fixture
def born(tmp_path):
    houses = []

    def give_birth(**options):
        if houses and houses[-1].durable.journal.lock.held:
            houses[-1].die()
        houses.append(House(tmp_path, **options))
        return houses[-1]

    yield give_birth
    for house in houses:
        house.durable.journal.close()


def ids(items):
    return [item[1] for item in items]


def test_queue_order_history_and_pause_survive(born):
    house = born()
    for prompt_id, number, priority in (("a", 0, 0), ("b", 1, 0), ("c", 2, 7), ("d", -3, 0)):
        house.put(prompt_id, number, priority=priority)
    assert house.run({"1": {"text": ["x"]}}) == "c"
    before = house.queue.get_history()
    house.queue.set_paused(True)
    house = born()
    assert ids(house.queue.queue) and ids(house.queue.queue.in_order()) == ["d", "a", "b"]
    assert house.queue.get_history() == before and before["c"]["outputs"] == {"1": {"text": ["x"]}}
    assert house.queue.paused and house.queue.get(timeout=0.01) is None
    house.queue.set_paused(False)
    assert [house.run() for _ in range(3)] == ["d", "a", "b"]
    assert list(born().queue.history) == ["c", "d", "a", "b"]


def test_the_next_number_is_known_after_a_restart(born):
    born(number=42).put("a", 41)
    assert born().found.counter == 42


def test_tenants_go_on_taking_turns_where_they_were(born):
    house = born()
    for name in ("A1", "A2", "A3", "B1", "B2", "C1"):
        house.put(name, tenant=name[0])
    expected = ids(house.queue.queue.in_order())
    ran = []
    for _ in range(len(expected)):
        ran.append(house.run())
        house = born()
    assert ran == expected == ["A1", "B1", "C1", "A2", "B2", "A3"]


def test_what_ran_runs_again_first_and_once_in_the_history(born):
    house = born()
    house.put("a", priority=-5)
    house.put("b", priority=9)
    assert house.queue.get()[0][1] == "b"
    house.put("c", priority=99)
    house = born()
    assert house.found.was_running[1] == "b"
    assert [house.run() for _ in range(3)] == ["b", "c", "a"]
    assert sorted(house.queue.history) == ["a", "b", "c"]


def test_an_infinite_number_is_kept_as_well_as_json_can(born):
    born().put("a", strange=float("inf"))
    assert [item[1] for item in born().queue.queue] == ["a"]


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def test_a_graph_that_is_nested_too_deeply_is_refused(born):
    house = born()
    graph = {"1": {"class_type": "Show", "inputs": {"value": nested(100_000)}}}
    with pytest.raises(ValueError, match="nested too deeply"):
        house.put("a", graph=graph)
    assert len(house.queue.queue) == 0


def test_removed_prompts_stay_removed(born):
    house = born()
    for prompt_id in "abc":
        house.put(prompt_id)
    assert house.queue.delete_queue_item(lambda item: item[1] == "b")
    house = born()
    assert ids(house.queue.queue) == ["a", "c"]
    house.queue.wipe_queue()
    assert len(born().queue.queue) == 0


def test_history_is_bounded_deleted_and_wiped(born):
    house = born()
    house.queue.history_size = 3
    for number in range(5):
        house.put(str(number))
        house.run()
    assert list(house.queue.history) == ["2", "3", "4"] and len(house.queue.history) == 3
    house.queue.delete_history_item("3")
    house.queue.delete_history_item("3")
    house = born()
    assert list(house.queue.get_history()) == ["2", "4"]
    assert list(house.queue.get_history(max_items=1)) == ["4"]
    assert list(house.queue.get_history(max_items=5, offset=1)) == ["4"]
    assert "x" not in house.queue.history and house.queue.get_history(prompt_id="\ud800") == {}
    house.queue.wipe_history()
    assert dict(born().queue.history) == {}


def test_packs_can_write_entries_of_their_own(born):
    house = born()
    house.queue.history["mine"] = {"prompt": (1, "mine", {}, {}, []), "outputs": {"1": {}}, "status": None}
    assert house.queue.history["mine"]["prompt"] == (1, "mine", {}, {}, [])
    del house.queue.history["mine"]
    with pytest.raises(KeyError):
        del house.queue.history["mine"]


def test_an_id_that_runs_twice_has_one_entry_the_newer(born):
    house = born()
    for text in ("old", "new"):
        house.put("same")
        house.put("other" + text)
        house.run({"1": {"text": [text]}})
        house.run()
    assert list(house.queue.history) == ["otherold", "same", "othernew"]
    assert house.queue.history["same"]["outputs"] == {"1": {"text": ["new"]}}


@pytest.mark.parametrize("limit", [None, 1, 2, 3, 50])
@pytest.mark.parametrize(
    "wish",
    [{}, {"sort_order": "asc"}, {"sort_by": "execution_duration"}, {"workflow_id": "w1"},
     {"statuses": frozenset({"failed", "pending"})}],
)  # fmt: skip
def test_every_page_of_jobs_is_the_one_of_a_queue_in_memory(born, wish, limit):
    memory = House.__new__(House)
    memory.host = Host()
    memory.queue = execution.PromptQueue(memory.host)
    durable = born()
    for house in (memory, durable):
        for number in range(12):
            workflow = {"extra_pnginfo": {"workflow": {"id": f"w{number % 2}"}}}
            house.put(f"p{number}", create_time=number * 7 % 5, **workflow)
        for number in range(8):
            start, end = ("execution_start", {"timestamp": 100}), {"timestamp": 100 + number % 3}
            house.run({}, success=number % 4 != 0, messages=[start, ("execution_success", end)])
    everything, total = memory.queue.jobs_page(jobs.Wish(**wish))
    for offset in range(total + 2):
        asked = jobs.Wish(**wish, limit=limit, offset=offset)
        assert durable.queue.jobs_page(asked) == memory.queue.jobs_page(asked)
    assert total == len(everything) > 2


def test_a_prompt_that_kills_the_server_twice_is_set_aside(born, caplog):
    born().put("bad")
    for _ in range(2):
        house = born()
        assert house.queue.get(timeout=1)[0][1] == "bad"
        house.queue.note_node("1")
    house = born()
    assert house.queue.get(timeout=0.01) is None
    entry = house.queue.history["bad"]
    ((event, data),) = entry["status"]["messages"]
    assert entry["reasons"] == {}
    assert event == "execution_error" and data["node_id"] == "1" and data["node_type"] == "Show"
    assert "died twice in a row while it ran this prompt" in data["exception_message"]
    assert "last node was 1 (Show)" in data["exception_message"] and "bad" in caplog.text
    assert jobs.normalize_history_item("bad", entry)["status"] == "failed"
    house.put("bad")
    assert house.run() == "bad"


def test_deaths_without_a_run_between_them_count_once(born):
    born().put("a")
    born().queue.get()
    for _ in range(4):
        assert ids(born().queue.queue) == ["a"]


def test_the_guard_can_be_turned_off(born):
    born().put("a")
    for _ in range(5):
        assert born(max_deaths=0).queue.get(timeout=1)[0][1] == "a"


def test_an_orderly_stop_is_no_death_and_no_interruption(born):
    house = born()
    house.put("a")
    for _ in range(4):
        item, task = house.queue.get()
        house.queue.stop()
        stopped = house.queue.ExecutionStatus("error", False, [("execution_interrupted", {})])
        house.queue.task_done(task, {"outputs": {}}, stopped, lambda prompt: prompt[:5])
        assert house.queue.get(timeout=0.01) is None
        assert dict(house.queue.history) == {}
        house = born()
    assert house.run() == "a"


def test_an_orderly_stop_ends_a_row_of_deaths(born):
    born().put("a")
    for is_stopped in (False, True, False):
        house = born()
        assert house.queue.get(timeout=1)[0][1] == "a"
        if is_stopped:
            house.queue.stop()
    assert ids(born().queue.queue) == ["a"]


def test_a_prompt_that_ends_while_the_server_stops_is_history(born):
    house = born()
    house.put("a")
    _, task = house.queue.get()
    house.queue.stop()
    house.queue.task_done(task, {"outputs": {}}, house.queue.ExecutionStatus("success", True, []))
    house = born()
    assert list(house.queue.history) == ["a"] and len(house.queue.queue) == 0


def test_tokens_never_reach_the_disk(born, tmp_path):
    house = born()
    graph = {"1": {"class_type": "Show", "inputs": {"value": f"nested {SECRET}"}}}
    house.put("a", graph=graph, sensitive={"api_key_comfy_org": SECRET})
    item, task = house.queue.get()
    assert item[5] == {"api_key_comfy_org": SECRET}
    house.durable.attempt.outputs["1"] = {"meta": {}, "output": {"text": [SECRET]}}
    assert all(SECRET.encode() not in path.read_bytes() for path in tmp_path.iterdir())
    house = born()
    item, task = house.queue.get()
    assert item[5] == {} and item.missing_tokens == ("api_key_comfy_org",)
    house.put("b", sensitive={"api_key_comfy_org": SECRET})
    house.queue.task_done(task, {}, house.queue.ExecutionStatus("success", True, []))
    house.run({"1": {"text": [SECRET]}})
    assert house.queue.history["b"]["outputs"] == {"1": {"text": ["[removed]"]}}
    assert all(SECRET.encode() not in path.read_bytes() for path in tmp_path.iterdir())


def test_pausing_and_cancelling_work_on_a_full_disk_and_are_written_later(born, caplog):
    house = born()
    for prompt_id in "abc":
        house.put(prompt_id)
    journal = house.durable.journal

    def full(operation):
        raise journal.full_error()

    journal.run = full
    house.queue.set_paused(True)
    assert house.queue.delete_queue_item(lambda item: item[1] == "b")
    assert house.queue.paused and ids(house.queue.queue) == ["a", "c"]
    assert "written down as soon as there is room" in caplog.text
    del journal.run
    wait_until(lambda: not journal._owed)
    house = born()
    assert house.queue.paused and ids(house.queue.queue) == ["a", "c"]


def test_a_result_waits_for_room_on_the_disk(born, caplog, monkeypatch):
    monkeypatch.setattr("comfy_execution.queueing.prompt_queue.SECONDS_BETWEEN_TRIES", 0.01)
    house = born()
    house.put("a")
    _, task = house.queue.get()
    journal = house.durable.journal
    pages = journal.run(lambda db: db.execute("PRAGMA page_count").fetchone()[0])
    journal.run(lambda db: db.execute(f"PRAGMA max_page_count={pages}"))
    status = house.queue.ExecutionStatus("success", True, [])
    result = {"outputs": {"1": {"text": ["x" * 90_000]}}}
    end = threading.Thread(target=house.queue.task_done, args=(task, result, status))
    end.start()
    while "The queue waits until there is room" not in caplog.text:
        assert house.queue.get_tasks_remaining() == 1
    journal.run(lambda db: db.execute("PRAGMA max_page_count=100000"))
    end.join(5)
    assert list(house.queue.history) == ["a"]


# -- a prompt that is run again ----------------------------------------------------------------------------


@pytest.fixture
def saving(tmp_path, monkeypatch):
    """A rig with a node Save that saves a file, and after which the process may die."""
    output = tmp_path / "output"
    output.mkdir()
    monkeypatch.setattr(folder_paths, "output_directory", str(output))
    monkeypatch.setattr(folder_paths, "chooses_number", None)
    rig = Rig()

    def save(self, value, count=1):
        rig.note(("Save", value))
        folder, name, counter, *_ = folder_paths.get_save_image_path("pic", str(output))
        for number in range(counter, counter + count):
            (output / f"{name}_{number:05}_.txt").write_text(str(value))
        if rig.dies_in == value:
            raise SystemExit
        return {"ui": {"files": [counter]}, "result": (value,)}

    def preview(self, value):
        rig.note(("Preview", value))
        return {"ui": {"images": [{"filename": f"{value}.png", "subfolder": "", "type": "temp"}]}}

    rig.dies_in, rig.output = None, output
    rig.add(Save=make(save, {"value": ("INT", {})}, optional={"count": ("INT", {})}, OUTPUT_NODE=True))
    rig.add(Preview=make(preview, {"value": ("INT", {})}, returns=(), OUTPUT_NODE=True))
    yield rig
    for name in ("Save", "Preview"):
        execution.nodes.NODE_CLASS_MAPPINGS.pop(name)


def run_next(rig, house, client="client"):
    """Run the next prompt as the worker does; but nobody hears of the end if the process dies in it."""
    item, task = house.queue.get(timeout=1)
    folder_paths.chooses_number = house.durable.number_for
    rig.executor.reset()
    rig.executor.attempt = house.durable.attempt
    rig.calls.clear()
    rig.host.sent = []
    rig.executor.execute(item[2], item[1], {"client_id": client}, item[4])
    if rig.dies_in is not None:
        return None
    result = rig.executor.history_result
    house.queue.task_done(task, result, house.queue.ExecutionStatus("success", True, []))
    return house.queue.history[item[1]]


def dies(rig, house, value):
    rig.dies_in = value
    run_next(rig, house)
    rig.dies_in = None
    assert ("Save", value) in rig.calls


def files(rig):
    return {path.name[4:9]: path.read_text() for path in sorted(rig.output.iterdir())}


def test_outputs_that_were_reported_are_not_made_again(born, saving):
    graph = {"1": node("Save", value=1), "2": node("Save", value=2), "3": node("Save", value=3)}
    house = born()
    house.put("a", graph=graph)
    dies(saving, house, 2)
    entry = run_next(saving, born())
    assert saving.calls == [("Save", 2), ("Save", 3)]
    assert {key: shown["files"] for key, shown in entry["outputs"].items()} == {"1": [1], "2": [2], "3": [3]}
    assert files(saving) == {"00001": "1", "00002": "2", "00003": "3"}
    told = [data["node"] for event, data, _ in saving.host.sent if event == "executed"]
    assert sorted(told) == ["1", "2", "3"]
    assert entry["reasons"]["1"] == {"reason": "cached"} and set(entry["meta"]) == {"1", "2", "3"}


def test_previews_are_made_again_since_the_temp_folder_is_emptied(born, saving):
    graph = {"1": node("Preview", value=1), "2": node("Save", value=2), "3": node("Save", value=3)}
    house = born()
    house.put("a", graph=graph)
    dies(saving, house, 3)
    entry = run_next(saving, born())
    assert saving.calls == [("Preview", 1), ("Save", 3)]
    assert set(entry["outputs"]) == {"1", "2", "3"} and entry["reasons"]["2"] == {"reason": "cached"}


@pytest.mark.parametrize("folder", ["temp", "temp-2"])
def test_files_in_the_temp_folder_get_no_number_again(born, saving, folder):
    place = saving.output / folder
    place.mkdir()
    house = born(temp_directory=lambda: str(saving.output / "temp"))
    house.put("a")
    house.queue.get()
    with CurrentNodeContext("a", "1"):
        house.durable.number_for(str(place), "x", 5)
    house = born(temp_directory=lambda: str(saving.output / "temp"))
    house.queue.get()
    with CurrentNodeContext("a", "1"):
        assert house.durable.number_for(str(place), "x", 7) == (7 if folder == "temp" else 5)


def test_an_output_that_another_node_needs_is_made_again_under_its_number(born, saving):
    graph = {"1": node("Save", value=1), "2": node("Save", value=["1", 0], count=2)}
    house = born()
    graph["3"] = node("Show", value=["2", 0])
    graph["4"] = node("Save", value=9)
    house.put("a", graph=graph)
    dies(saving, house, 9)
    run_next(saving, born())
    assert files(saving) == {"00001": "1", "00002": "1", "00003": "1", "00004": "9"}


def test_numbers_hold_over_several_deaths_and_any_order(born, saving):
    house = born(max_deaths=0)
    house.put("a", graph={"1": node("Save", value=1, count=2), "2": node("Save", value=2, count=2)})
    dies(saving, house, 1)
    house = born(max_deaths=0)
    dies(saving, house, 1)
    house = born(max_deaths=0)
    dies(saving, house, 2)
    run_next(saving, born(max_deaths=0))
    assert files(saving) == {"00001": "1", "00002": "1", "00003": "2", "00004": "2"}


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_file_of_somebody_else_is_never_written_over(born, saving, when, caplog):
    """It has the number that the prompt had: saved after the death, or brought along from an older time."""
    house = born()
    house.put("a", graph={"1": node("Save", value=1)})
    dies(saving, house, 1)
    house = born()
    theirs = saving.output / "pic_00001_.txt"
    theirs.write_text("theirs")
    shift = -3600 if when == "before" else 3600
    os.utime(theirs, (theirs.stat().st_atime, theirs.stat().st_mtime + shift))
    run_next(saving, house)
    assert files(saving) == {"00001": "theirs", "00002": "1"}
    assert "saved by somebody else" in caplog.text


def test_another_prompt_does_not_get_the_numbers(born, saving):
    house = born()
    house.put("a", graph={"1": node("Save", value=1)})
    dies(saving, house, 1)
    house = born()
    house.queue.wipe_queue()
    house.put("b", graph={"1": node("Save", value=5)})
    run_next(saving, house)
    assert files(saving) == {"00001": "1", "00002": "5"}


@pytest.mark.parametrize("lives_before_it_runs", [1, 2])
def test_a_new_prompt_takes_nothing_from_one_that_was_forgotten(born, saving, lives_before_it_runs):
    house = born()
    house.put("a", graph={"1": node("Save", value=1)})
    run_next(saving, house)
    house.queue.wipe_history()
    born().put("b", graph={"1": node("Save", value=5)})
    for _ in range(lives_before_it_runs - 1):
        house = born()
    assert house.found.was_running is None
    entry = run_next(saving, born())
    assert saving.calls == [("Save", 5)] and entry["outputs"] == {"1": {"files": [2]}}
    assert files(saving) == {"00001": "1", "00002": "5"}


def test_a_torn_last_line_is_no_harm(born, saving):
    house = born()
    house.put("a", graph={"1": node("Save", value=1), "2": node("Save", value=2)})
    dies(saving, house, 2)
    attempt = house.durable.journal.path.with_name("queue.db.attempt")
    attempt.write_bytes(attempt.read_bytes() + b'[1, {"done": "2"}]')
    run_next(saving, born())
    assert saving.calls == [("Save", 2)]


def test_a_text_too_short_for_a_token_leaves_the_record_readable():
    from comfy_execution.queueing.history import SHORTEST_TOKEN, without

    text = '{"status": "' + "t" * SHORTEST_TOKEN + '"}'
    assert without(text, ["s", "statu"[:SHORTEST_TOKEN - 1]]) == text
    assert without(text, ["t" * SHORTEST_TOKEN]) == '{"status": "[removed]"}'
