"""The depot's panel in the official web page: run again, why each node ran, downloads."""

import itertools
import json
import shutil
import time

import pytest

from tests.fakes.origin import Origin, safetensors, sha256
from tests.fakes.server_process import ROOT, ServerProcess

pytestmark = pytest.mark.browser

DATA = ROOT / "tests" / "data"
FORCE_BUTTON = "[data-testid=depot-force-button]"
PANEL_BUTTON = "[data-testid=comfyui-depot-tab-button]"
SHIFT, ALT, ENTER, ESCAPE = "\ue008", "\ue00a", "\ue007", "\ue00c"
NEWEST_RUN = ".depot-run:first-child"
ROW_TEXTS = f"""
return Object.fromEntries([...document.querySelectorAll('{NEWEST_RUN} .depot-row')]
    .map(row => [row.dataset.node, row.innerText.split('\\n')]));
"""


def picture_workflow(title="Empty", colour=0x3366CC):
    """A picture of one colour that is saved."""
    return {
        "last_node_id": 2, "last_link_id": 1,
        "nodes": [
            {"id": 1, "type": "EmptyImage", "title": title, "pos": [500, 150], "size": [300, 150], "order": 0,
             "mode": 0, "flags": {}, "inputs": [],
             "outputs": [{"name": "IMAGE", "type": "IMAGE", "links": [1]}], "properties": {},
             "widgets_values": [96, 64, 1, colour]},
            {"id": 2, "type": "SaveImage", "pos": [900, 150], "size": [300, 300], "order": 1, "mode": 0,
             "flags": {}, "inputs": [{"name": "images", "type": "IMAGE", "link": 1}], "outputs": [],
             "properties": {}, "widgets_values": ["again"]},
        ],
        "links": [[1, 1, 0, 2, 0, "IMAGE"]],
        "groups": [], "config": {}, "extra": {}, "version": 0.4,
    }  # fmt: skip


OTHER_PROMPT = {
    "8": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 1}},
    "9": {"class_type": "PreviewImage", "inputs": {"images": ["8", 0]}},
}


class Studio:
    """A page with a small workflow, and what its server did."""

    colours = itertools.count(0x3366CC)  # no test finds the results of another

    def __init__(self, server, page):
        self.server, self.page, self.folder = server, page, server.base_directory
        self.file = self.folder / "picture.json"
        self.colour = next(self.colours)
        self.saved_before = 0
        self.saved_before = self.saved()

    def clear(self):
        """Let nothing have run before."""
        self.server.request("POST", "/depot/queue/resume")
        self.server.request("POST", "/history", {"clear": True})

    def load(self, workflow=None):
        self.file.write_text(json.dumps(workflow or picture_workflow(colour=self.colour)))
        self.page.load_workflow(self.file, 2)
        self.page.driver.execute_script("app.canvas.ds.reset()")  # the middle of the canvas is empty

    def finished(self, count):
        """The history entry of the last run, as soon as so many are there."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            history = self.server.get_json("/history")
            if len(history) >= count:
                return list(history.values())[-1]
            time.sleep(0.05)
        raise AssertionError(f"{len(history)} runs instead of {count}\n{self.page.errors()}")

    def run(self, count):
        """Press Run, and wait for the history entry with this number."""
        self.page.run()
        return self.finished(count)

    def saved(self):
        """How many pictures were saved in this test."""
        return len(list((self.folder / "output").glob("*.png"))) - self.saved_before

    def choose(self, value):
        """Choose in the menu beside Run, with keys."""
        self.page.click(FORCE_BUTTON)
        self.page.click(f".depot-menu input[value={value}]")
        self.page.press(ESCAPE)
        self.page.wait("return !document.querySelector('.depot-menu').matches(':popover-open')")


@pytest.fixture
def studio(live_server, open_page):
    """The page with the small workflow, which has not run yet."""
    made = Studio(live_server, open_page(live_server, is_shared=True))
    made.clear()
    made.load()
    return made


@pytest.fixture
def new_studio(tmp_path, open_page):
    """The same with a server of its own, which has run nothing at all."""
    with ServerProcess(tmp_path) as server:
        yield Studio(server, open_page(server))


def sent(entry):
    """`force` and `cache` as the request had them."""
    return {key: entry["prompt"][3][key] for key in ("force", "cache") if key in entry["prompt"][3]}


def why(entry):
    return {node: reason["reason"] for node, reason in entry["reasons"].items()}


def test_with_outputs_chosen_each_run_saves_the_picture_until_the_user_takes_it_back(studio):
    page = studio.page
    assert sent(studio.run(1)) == {} and page.text(FORCE_BUTTON) == "Again: as usual"
    assert why(studio.run(2)) == {"1": "cached", "2": "cached"} and studio.saved() == 1
    studio.choose("outputs")
    assert page.text(FORCE_BUTTON) == "Again: outputs"
    for count in (3, 4):
        entry = studio.run(count)
        assert sent(entry) == {"force": "outputs"} and why(entry) == {"1": "cached", "2": "forced"}
    assert studio.saved() == 3

    page.open()  # loaded again, the page keeps the choice
    studio.load()
    assert page.text(FORCE_BUTTON) == "Again: outputs"
    assert sent(studio.run(5)) == {"force": "outputs"} and studio.saved() == 4

    page.click(PANEL_BUTTON)
    page.click(".depot-force .depot-button")
    assert page.text(FORCE_BUTTON) == "Again: as usual"
    assert sent(studio.run(6)) == {} and studio.saved() == 4
    assert page.errors() == []


def test_every_choice_sends_its_fields(studio):
    page = studio.page
    studio.run(1)
    studio.choose("everything")
    assert sent(studio.run(2)) == {"force": True}
    studio.choose("selected")
    page.driver.execute_script("app.canvas.deselectAll()")
    assert sent(studio.run(3)) == {}
    page.wait("return document.body.innerText.includes('No node that this prompt runs was selected')")
    page.driver.execute_script("app.canvas.selectNode(app.graph.getNodeById(2))")
    entry = studio.run(4)
    assert sent(entry) == {"force": ["2"]} and why(entry) == {"1": "cached", "2": "forced"}
    studio.choose("write")
    assert page.text(FORCE_BUTTON) == "Again: selected · Cache: write"
    assert sent(studio.run(5)) == {"force": ["2"], "cache": "write"}
    studio.choose("usual")
    studio.choose("off")
    assert sent(studio.run(6)) == {"cache": "off"}
    assert page.errors() == []


def test_selected_subgraphs_stand_for_the_nodes_inside(studio):
    page = studio.page
    page.driver.execute_script("""
        app.canvas.selectItems([app.graph.getNodeById(1)]);
        app.extensionManager.command.execute('Comfy.Graph.ConvertToSubgraph');
    """)
    page.wait("return app.graph.nodes.some(node => node.subgraph)")
    studio.run(1)
    studio.choose("selected")
    page.driver.execute_script("app.canvas.selectItems(app.graph.nodes.filter(node => node.subgraph))")
    entry = studio.run(2)
    (inner,) = (node for node in entry["prompt"][2] if ":" in node)
    assert sent(entry) == {"force": [inner]} and why(entry) == {inner: "forced", "2": "forced"}

    page.click(PANEL_BUTTON)
    page.click(f"{NEWEST_RUN} .depot-row[data-node='{inner}']")  # leads into the subgraph
    assert page.driver.execute_script("""
        const [node] = Object.values(app.canvas.selected_nodes);
        return [node.type, app.canvas.graph === app.rootGraph];
    """) == ["EmptyImage", False]
    assert page.errors() == []


def test_keys_run_again_once_and_leave_the_choice_as_it_is(studio):
    page = studio.page
    studio.run(1)
    page.click("#graph-canvas")
    page.press(ALT, ENTER)
    assert sent(studio.finished(2)) == {"force": "outputs"} and studio.saved() == 2
    page.press(ALT, SHIFT, ENTER)
    assert sent(studio.finished(3)) == {"force": True} and studio.saved() == 3
    assert sent(studio.run(4)) == {} and page.text(FORCE_BUTTON) == "Again: as usual"
    page.driver.execute_script("""
        const items = app.collectNodeMenuItems(app.graph.getNodeById(2)).filter(Boolean);
        items.find(item => item.content === 'Depot: run it again').callback();
    """)
    assert sent(studio.finished(5)) == {"force": ["2"]}
    page.driver.execute_script("""
        const items = app.collectNodeMenuItems(app.graph.getNodeById(2)).filter(Boolean);
        items.find(item => item.content === 'Depot: why did it run?').callback();
    """)
    page.wait("return document.body.innerText.includes('you asked for it')")
    assert page.errors() == []


def test_a_page_that_queues_in_another_way_is_told_and_the_prompt_still_runs(studio):
    page, studio.page.is_changed = studio.page, True
    studio.choose("outputs")
    page.driver.execute_script("""
        window.app.api.queuePrompt = async (number, {output, workflow}) => (await fetch('/api/prompt', {
            method: 'POST', body: JSON.stringify({prompt: output, extra_data: {extra_pnginfo: {workflow}}}),
        })).json();
    """)
    assert sent(studio.run(1)) == {}
    page.wait("return document.body.innerText.includes('does not let Depot change the prompt')")
    page.click(PANEL_BUTTON)
    assert "does not let Depot change the prompt" in page.text(".depot-panel .depot-problem")
    assert page.errors() == []


def test_a_body_that_cannot_be_read_is_queued_as_it_is(studio):
    page = studio.page
    studio.choose("outputs")
    page.driver.execute_script("""
        app.graphToPrompt().then(({output}) => app.api.fetchApi('/prompt', {
            method: 'POST', body: new Blob([JSON.stringify({prompt: output})], {type: 'application/json'}),
        }));
    """)
    assert sent(studio.finished(1)) == {}
    page.wait("return document.body.innerText.includes('does not let Depot change the prompt')")
    assert page.errors() == []


def test_the_panel_says_why_each_node_ran_and_leads_to_it(new_studio):
    studio, page = new_studio, new_studio.page
    title = "<img src=x onerror='window.wasRun = 1'>"
    studio.load(picture_workflow(title))
    page.click(PANEL_BUTTON)
    assert "Nothing has run yet" in page.text(".depot-reasons")
    studio.run(1)
    page.wait(f"return document.querySelectorAll('{NEWEST_RUN} .depot-row').length === 2")
    assert page.driver.execute_script(ROW_TEXTS)["1"] == [title, "#1", "first run", "has not run here before"]
    page.driver.execute_script("app.graph.getNodeById(1).widgets.find(w => w.name === 'color').value = 7")
    studio.run(2)
    page.wait("return document.querySelectorAll('.depot-run').length === 2")
    rows = page.driver.execute_script(ROW_TEXTS)
    assert rows["1"][2:] == ["changed", "input color changed"]
    assert rows["2"][2:] == ["changed", f"{title} before it changed"]
    page.click(f"{NEWEST_RUN} .depot-row[data-node='2']")
    assert page.driver.execute_script("return Object.keys(app.canvas.selected_nodes)") == ["2"]
    studio.server.post_json("/prompt", {"prompt": OTHER_PROMPT})
    page.wait("return document.querySelectorAll('.depot-run').length === 3")  # runs of others are listed too
    page.click(f"{NEWEST_RUN} .depot-row[data-node='9']")
    page.wait("return document.body.innerText.includes('is not in the workflow that is open now')")
    assert page.driver.execute_script("return window.wasRun") is None
    assert page.errors() == []


REASONS_IN_WORDS = [
    ({"reason": "forced"}, "you asked for it"),
    ({"reason": "never ran"}, "has not run here before"),
    ({"reason": "changed", "inputs": ["seed"], "upstream": []}, "input seed changed"),
    ({"reason": "changed", "inputs": ["a", "b"]}, "inputs a, b changed"),
    ({"reason": "changed", "inputs": ["a"], "upstream": ["3"]}, "input a changed; node 3 before it changed"),
    ({"reason": "changed", "inputs": [], "is_changed": True}, "IS_CHANGED gave another value"),
    ({"reason": "changed"}, "something before it changed"),
    ({"reason": "cached", "merged_with": "p1"}, "made in one batch with a prompt that ran before"),
    ({"reason": "dropped"}, "its stored result was dropped"),
    ({"reason": "dropped", "why": "budget"}, "its result was dropped to keep within the memory budget"),
    ({"reason": "dropped", "why": "free"}, "its result was dropped when memory was freed"),
    ({"reason": "dropped", "why": "workflow"}, "its result was dropped when another workflow ran"),
    ({"reason": "dropped", "why": "models"},
     "its result was dropped because its model had to leave a full disk"),
    ({"reason": "a word of later"}, "a word of later"),
]  # fmt: skip


def test_every_reason_has_its_words(studio):
    said = studio.page.driver.execute_async_script(
        """
        const [reasons, done] = arguments;
        import('/extensions/depot/reasons.js')
            .then(({inWords}) => done(reasons.map(reason => inWords(reason, id => `node ${id}`))));
        """,
        [reason for reason, _ in REASONS_IN_WORDS],
    )
    assert said == [words for _, words in REASONS_IN_WORDS]


def test_the_queue_is_paused_and_resumed_in_the_panel(studio):
    page = studio.page
    page.click(PANEL_BUTTON)
    page.wait("return document.querySelector('.depot-queue-count').innerText === 'Nothing waits.'")
    page.click(".depot-queue .depot-button")
    page.wait("return document.querySelector('.depot-queue .depot-button').innerText === 'Resume'")
    studio.server.post_json("/prompt", {"prompt": OTHER_PROMPT})
    page.wait("return document.querySelector('.depot-queue-count').innerText === 'Paused, 1 prompt waits'")
    page.save_screenshot("paused.png")
    assert studio.server.get_json("/history") == {}
    page.open()  # somebody who comes later sees it too
    page.click(PANEL_BUTTON)
    page.wait("return document.querySelector('.depot-queue-count')?.innerText === 'Paused, 1 prompt waits'")
    page.click(".depot-queue .depot-button")
    studio.finished(1)
    page.wait("return document.querySelector('.depot-queue-count').innerText === 'Nothing waits.'")
    assert page.errors() == []


@pytest.mark.slow
def test_a_changed_seed_is_named_and_a_download_is_shown_and_cancelled(tmp_path, open_page):
    (tmp_path / "models" / "checkpoints").mkdir(parents=True)
    shutil.copy(DATA / "demo_shapes.safetensors", tmp_path / "models" / "checkpoints")
    (tmp_path / "model_manifests").mkdir()
    with Origin(rate_per_connection=1 << 17) as origin:
        body = safetensors(64 << 20)
        entry = {"url": origin.put("/style.safetensors", body), "size": len(body), "sha256": sha256(body)}
        manifest = tmp_path / "model_manifests" / "styles.json"
        manifest.write_text(json.dumps({"loras": {"watercolour-style.safetensors": entry}}))
        with ServerProcess(tmp_path, "--depot-allow-hosts", "127.0.0.1") as server:
            page = open_page(server)
            studio = Studio(server, page)
            page.load_workflow(DATA / "demo_workflow.json", 7)
            page.click(PANEL_BUTTON)
            studio.run(1)
            page.wait("return document.querySelectorAll('.depot-run').length === 1")
            page.driver.execute_script(
                "app.graph.getNodeById(3).widgets.find(widget => widget.name === 'seed').value = 4"
            )
            studio.run(2)
            page.wait("return document.querySelectorAll('.depot-run').length === 2")
            rows = page.driver.execute_script(ROW_TEXTS)
            assert rows["3"] == ["KSampler", "#3", "changed", "input seed changed"]
            assert rows["4"] == ["Load Checkpoint", "#4", "cached"]

            transfer = {"folder": "loras", "name": "watercolour-style.safetensors"}
            server.post_json("/depot/fetch", transfer)
            page.wait("return document.querySelector('.depot-bar')?.value > 0")
            page.driver.execute_script("app.extensionManager.command.execute('Comfy.Canvas.FitView')")
            studio.choose("outputs")
            page.save_screenshot("depot-panel.png", seconds=9)
            page.click(FORCE_BUTTON)
            page.save_screenshot("run-again.png")
            page.press(ESCAPE)
            page.click(".depot-transfers .depot-icon-button")
            page.wait("return document.querySelector('.depot-transfers .depot-is-cancelled') !== null")
            assert server.get_json("/depot/transfers") == {"transfers": []}
            assert page.errors() == []
