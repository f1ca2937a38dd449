"""Jobs from the queue and the history."""

import pytest

from comfy_execution.jobs import (
    JobStatus,
    cancel_job,
    classify_job_for_cancel,
    count_previewable_outputs,
    get_all_jobs,
    get_job,
    get_outputs_summary,
    is_previewable,
    normalize_history_item,
    normalize_outputs,
    normalize_queue_item,
    validate_job_id,
)

WORKFLOW = {"extra_pnginfo": {"workflow": {"id": "w1"}}}


def item(prompt_id, create_time=100, **extra):
    return (3, prompt_id, {"1": {}}, {"create_time": create_time, **extra}, ["1"])


def entry(prompt_id="a", status="success", messages=(), outputs=None, **extra):
    return {
        "prompt": item(prompt_id, **extra),
        "outputs": outputs or {},
        "status": {"status_str": status, "completed": status == "success", "messages": list(messages)},
        "meta": {},
    }


def at(event, timestamp, **data):
    return (event, {"prompt_id": "a", "timestamp": timestamp, **data})


def picture(name="a.png", kind="output", **more):
    return {"filename": name, "subfolder": "", "type": kind, **more}


def test_a_waiting_job():
    assert normalize_queue_item(item("a", **WORKFLOW), JobStatus.PENDING) == {
        "id": "a",
        "status": "pending",
        "priority": 3,
        "create_time": 100,
        "outputs_count": 0,
        "previewable_outputs_count": 0,
        "workflow_id": "w1",
    }


@pytest.mark.parametrize(
    "extra", [{}, {"extra_pnginfo": None}, {"extra_pnginfo": {"workflow": None}}, {"extra_pnginfo": {}}]
)
def test_keys_without_a_value_are_left_out(extra):
    assert "workflow_id" not in normalize_queue_item(item("a", **extra), JobStatus.PENDING)


def test_every_job_has_a_create_time_because_the_web_ui_insists_on_it():
    job = normalize_queue_item((1, "a", {}, {}, []), JobStatus.PENDING)
    assert job["create_time"] == 0


def test_a_finished_job():
    messages = [at("execution_start", 10), at("execution_cached", 11, nodes=[]), at("execution_success", 30)]
    outputs = {"9": {"images": [picture()]}}
    assert normalize_history_item("a", entry(messages=messages, outputs=outputs)) == {
        "id": "a",
        "status": "completed",
        "priority": 3,
        "create_time": 100,
        "execution_start_time": 10,
        "execution_end_time": 30,
        "outputs_count": 1,
        "previewable_outputs_count": 1,
        "preview_output": {**picture(), "nodeId": "9", "mediaType": "images"},
    }


ERROR = {
    "node_id": "1",
    "node_type": "A",
    "exception_message": "m",
    "exception_type": "T",
    "traceback": ["line"],
}


@pytest.mark.parametrize(
    ("status", "messages", "expected"),
    [
        ("success", [], "completed"),
        ("error", [at("execution_error", 5, **ERROR)], "failed"),
        ("error", [at("execution_interrupted", 5)], "cancelled"),
        (None, [], "completed"),
    ],
)
def test_the_status_of_a_finished_job(status, messages, expected):
    assert normalize_history_item("a", entry(status=status, messages=messages))["status"] == expected


def test_a_history_without_a_status_counts_as_completed():
    history = {**entry(), "status": None}
    assert normalize_history_item("a", history)["status"] == "completed"


def test_an_error_has_every_field_that_the_web_ui_insists_on():
    error = normalize_history_item("a", entry(status="error", messages=[at("execution_error", 5)]))[
        "execution_error"
    ]
    texts = ("node_id", "node_type", "exception_message", "exception_type")
    assert all(error[name] == "" for name in texts)
    assert error["traceback"] == []
    whole = normalize_history_item("a", entry(status="error", messages=[at("execution_error", 5, **ERROR)]))
    assert {name: whole["execution_error"][name] for name in ERROR} == ERROR


def test_the_detail_has_outputs_status_and_workflow():
    history = entry(outputs={"9": {"images": [None, picture()], "animated": [False]}}, **WORKFLOW)
    job = normalize_history_item("a", history, include_outputs=True)
    assert job["outputs"] == {"9": {"images": [picture()], "animated": [False]}}
    assert job["execution_status"] == history["status"]
    assert job["workflow"] == {"prompt": {"1": {}}, "extra_data": {"create_time": 100, **WORKFLOW}}


VIDEO = {"filename": "v.bin", "type": "output", "format": "video/mp4"}
TEXT_FILE = picture("notes.txt")


@pytest.mark.parametrize(
    ("outputs", "count", "preview"),
    [
        ({}, 0, None),
        ({"1": {"images": [picture("t.png", "temp")]}, "2": {"images": [picture()]}}, 2, "a.png"),
        ({"1": {"images": [picture("t.png", "temp")]}, "2": {"text": ["words"]}}, 1, "t.png"),
        ({"1": {"files": [TEXT_FILE]}, "2": {"images": [picture("t.png", "temp")]}}, 2, "t.png"),
        ({"1": {"text": ["words"]}, "2": {"files": [TEXT_FILE]}}, 1, "notes.txt"),
        ({"1": {"gifs": [VIDEO]}}, 1, "v.bin"),
        ({"1": {"latents": [picture("x.latent")]}}, 1, None),
        ({"1": {"result": ["mesh.GLB", None, "words", 5]}}, 1, "mesh.GLB"),
        ({"1": {"images": [picture()], "animated": [True]}}, 1, "a.png"),
        ({"1": "odd", "2": {"images": "odd"}}, 0, None),
    ],
)
def test_files_are_counted_and_the_best_is_shown(outputs, count, preview):
    found, shown = get_outputs_summary(outputs)
    assert found == count
    assert (shown or {}).get("filename") == preview
    if shown:
        assert isinstance(shown["nodeId"], str) and isinstance(shown["mediaType"], str)


@pytest.mark.parametrize("text", ["words", ("words",)])
def test_plain_text_is_shown_when_there_is_nothing_else(text):
    assert get_outputs_summary({"1": {"text": [text]}}) == (
        0,
        {"content": "words", "nodeId": "1", "mediaType": "text"},
    )


def test_long_text_is_cut():
    _, shown = get_outputs_summary({"1": {"text": ["x" * 1025]}})
    assert len(shown["content"]) == 1024 and shown["truncated"] is True


@pytest.mark.parametrize(
    ("media_type", "file", "expected"),
    [
        ("images", {}, True),
        ("other", {"format": "audio/wav"}, True),
        ("other", {"filename": "a.usdz"}, True),
        ("other", {"filename": "a.MD"}, True),
        ("other", {"filename": "a.latent", "format": None}, False),
    ],
)
def test_what_the_web_ui_can_show(media_type, file, expected):
    assert is_previewable(media_type, file) is expected


def test_only_files_that_can_be_shown_are_counted_as_such():
    outputs = {"1": {"latents": [picture("x.latent")], "images": [picture()], "text": ["words"]}}
    assert count_previewable_outputs(outputs) == 1


def test_names_of_3d_files_become_files():
    assert normalize_outputs({"1": {"result": ["m.glb", "words"]}, "2": "odd"}) == {
        "1": {
            "result": [
                {"filename": "m.glb", "type": "output", "subfolder": "", "mediaType": "3d"},
                "words",
            ]
        },
        "2": "odd",
    }


def world():
    running = [item("run", 400)]
    queued = [item("wait", 500, **WORKFLOW)]
    history = {
        "ok": entry("ok", messages=[at("execution_start", 10), at("execution_success", 90)], create_time=100),
        "bad": entry("bad", "error", [at("execution_start", 10), at("execution_error", 20)], create_time=200),
        "cut": entry("cut", "error", [at("execution_interrupted", 30)], create_time=300),
    }
    return running, queued, history


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        ({}, ["wait", "run", "cut", "bad", "ok"]),
        ({"sort_order": "asc"}, ["ok", "bad", "cut", "run", "wait"]),
        ({"status_filter": ["failed", "cancelled"]}, ["cut", "bad"]),
        ({"status_filter": ["in_progress"]}, ["run"]),
        ({"status_filter": []}, []),
        ({"workflow_id": "w1"}, ["wait"]),
        ({"limit": 2, "offset": 1}, ["run", "cut"]),
        ({"limit": 1}, ["wait"]),
        ({"offset": 4}, ["ok"]),
        ({"offset": 9}, []),
        ({"sort_by": "execution_duration", "limit": 2}, ["ok", "bad"]),
    ],
)
def test_pages_of_jobs(options, ids):
    jobs, total = get_all_jobs(*world(), **options)
    assert [job["id"] for job in jobs] == ids
    if not options.keys() & {"status_filter", "workflow_id"}:
        assert total == 5


@pytest.mark.parametrize(
    ("prompt_id", "status"), [("run", "in_progress"), ("wait", "pending"), ("ok", "completed")]
)
def test_one_job(prompt_id, status):
    assert get_job(prompt_id, *world())["status"] == status


def test_no_job():
    assert get_job("nobody", *world()) is None


@pytest.mark.parametrize(
    ("prompt_id", "place"), [("run", "running"), ("wait", "pending"), ("ok", "terminal"), ("x", "unknown")]
)
def test_where_a_job_is(prompt_id, place):
    assert classify_job_for_cancel(prompt_id, *world()) == place


@pytest.mark.parametrize(
    ("prompt_id", "interrupts", "dequeues", "expected"),
    [
        ("run", True, False, "running"),
        ("run", False, False, "unknown"),  # it ended in between
        ("wait", False, True, "pending"),
        ("wait", True, False, "running"),  # it began in between
        ("wait", False, False, "unknown"),
        ("ok", True, True, "terminal"),
        ("x", True, True, "unknown"),
    ],
)
def test_cancelling_says_where_the_job_really_was(prompt_id, interrupts, dequeues, expected):
    assert cancel_job(prompt_id, *world(), lambda _: interrupts, lambda _: dequeues) == expected


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (5, "must be a text, not int"),
        ("abc", "'abc' is no UUID"),
        ("", "'' is no UUID"),
        ("6F1C1D2E-0000-4000-8000-000000000000", "in lower case with hyphens"),
    ],
)
def test_ids_that_are_refused(value, message):
    with pytest.raises(ValueError, match=message):
        validate_job_id(value)


def test_an_id_that_is_accepted():
    assert validate_job_id("6f1c1d2e-0000-4000-8000-000000000000") == "6f1c1d2e-0000-4000-8000-000000000000"


def test_the_preview_has_only_texts_that_the_web_ui_accepts():
    item = {"filename": None, "subfolder": 3, "type": "elsewhere", "mediaType": 5, "format": None, "kept": 1}
    _, preview = get_outputs_summary({"1": {"images": [item]}})
    assert preview == {"nodeId": "1", "mediaType": "images", "kept": 1}
