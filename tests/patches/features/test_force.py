"""`force` and `cache` of a request: what runs again, and that the new results are the ones that are kept."""

import json

import pytest

from tests.patches.features.runs import node, run, stamps

ALL = ["1", "2", "3", "4", "5"]
LAST = iter(range(1000, 2000))


def texts(made):
    """What the two nodes at the ends have shown."""
    return [made.shown(node_id, "text") for node_id in ("3", "5")]


def files(server):
    return len(list((server.base_directory / "output").glob("saved_*")))


@pytest.fixture
async def graph(server):
    """A graph that has run once, so that all of its results are stored."""
    made = stamps(next(LAST))
    assert (await run(server, made)).ran == ALL
    return made


async def test_without_force_nothing_runs_again(server, graph):
    before = files(server)
    again = await run(server, graph)
    assert again.is_success and again.ran == [] and files(server) == before
    assert set(ALL) - set(again.cached) <= {"1", "2", "4"}, "all that is needed"
    assert (await run(server, graph, force=False, cache="read")).ran == []
    assert (await run(server, graph, force=None)).ran == []


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"force": True}, ALL),
        ({"force": "outputs"}, ["3", "5"]),
        ({"force": ["2"]}, ["2", "3"]),
        ({"force": ["FeatureNumber"]}, ["1", "2", "3"]),
        ({"force": ["FeatureStamp"]}, ["2", "3", "4", "5"]),
        ({"force": ["4", "FeatureNumber"]}, ALL),
        ({"cache": "write"}, ALL),
        ({"extra_data": {"force": ["5"]}}, ["5"]),
    ],
)
async def test_what_is_forced_runs_and_its_result_is_the_one_that_is_kept(server, graph, fields, expected):
    before, count = texts(await run(server, graph)), files(server)
    forced = await run(server, graph, **fields)
    assert forced.is_success and forced.ran == expected
    assert files(server) == count + len({"3", "5"} & set(expected))
    changed = [old != new for old, new in zip(before, texts(forced), strict=True)]
    assert changed == ["2" in expected, "4" in expected]
    after = await run(server, graph)
    assert after.ran == [] and texts(after) == texts(forced)


async def test_a_request_that_stores_nothing_leaves_nothing_behind(server, core, graph):
    before = texts(await run(server, graph))
    off = await run(server, graph, cache="off")
    assert off.ran == ALL
    assert all(old != new for old, new in zip(before, texts(off), strict=True))
    after = await run(server, graph)
    if core.is_ours:
        assert after.ran == [] and texts(after) == before
    else:  # what was stored before may be gone with it
        assert all(old != new for old, new in zip(texts(off), texts(after), strict=True))


async def test_what_a_node_expands_into_is_forced_with_it(server, core):
    graph = {"1": node("FeatureExpand", value=next(LAST)), "2": node("FeatureSave", text=["1", 0])}

    async def once(**fields):
        """(the text that is shown, how many files were written)"""
        before = files(server)
        made = await run(server, graph, **fields)
        assert made.is_success, made.error
        return made.shown("2", "text"), files(server) - before

    first, count = await once()
    assert count == 2 and await once() == (first, 0)
    outputs, count = await once(force="outputs")
    assert count == 2 and (outputs == first or not core.is_ours)
    forced, count = await once(force=["1"])
    assert count == 2 and forced not in (first, outputs)
    assert await once() == (forced, 0)
    assert await once(force=["2"]) == (forced, 1)


async def test_other_inputs_are_not_forced(server, graph):
    """The epoch of a node is of its inputs, too."""
    await run(server, graph, force=["2"])
    other = {**graph, "1": {**graph["1"], "inputs": {"value": next(LAST)}}}
    assert (await run(server, other)).ran == ["1", "2", "3"]
    assert (await run(server, other)).ran == []


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"force": "everything"}, "invalid_force"),
        ({"force": 1}, "invalid_force"),
        ({"force": [3]}, "invalid_force"),
        ({"force": ["99"]}, "invalid_force"),
        ({"cache": "maybe"}, "invalid_cache"),
        ({"extra_data": {"cache": "maybe"}}, "invalid_cache"),
    ],
)
async def test_a_value_that_means_nothing_is_refused_and_nothing_is_queued(server, graph, fields, kind):
    before = server.get_json("/history")
    status, body = server.request("POST", "/prompt", {"prompt": graph, **fields})
    assert status == 400, body
    answer = json.loads(body)
    assert answer["error"]["type"] == kind and answer["node_errors"] == {}
    assert {"message", "details", "extra_info"} <= set(answer["error"])
    if fields == {"force": ["99"]}:
        assert answer["error"]["extra_info"]["unknown"] == ["99"]
        assert answer["error"]["extra_info"]["ids"] == ALL
    queue = server.get_json("/queue")
    assert (queue["queue_running"], queue["queue_pending"]) == ([], [])
    assert server.get_json("/history").keys() == before.keys()


@pytest.mark.slow
async def test_a_server_with_force_runs_everything_each_time(core, tmp_path):
    with core.server(tmp_path, "--force") as server:
        for _ in range(2):
            assert (await run(server, stamps())).ran == ALL
