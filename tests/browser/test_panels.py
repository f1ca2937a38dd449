"""The panels of the official web page, one after the other in one visit: what they show, and no error.

The lines of the console that are let pass are in `tests/fakes/web_page.py`: files that a new user does not
have yet and pictures of models that have none, which the page asks for and the server answers with 404, and
three sites outside. Nothing else may fail.
"""

import json
import shutil
import uuid

import pytest
from PIL import Image

from tests.fakes.server_process import ROOT, ServerProcess, install_live_pack
from tests.fakes.waiting import wait_until

pytestmark = pytest.mark.browser

MODEL = ROOT / "tests" / "data" / "demo_shapes.safetensors"
ENTER, ESCAPE = "\ue007", "\ue00c"
BY_TEXT = """
return [...document.querySelectorAll(arguments[0])].find(one => one.innerText.trim() === arguments[1])
"""
NODES = "return app.graph.nodes.map(node => node.type)"
TABS = "return document.querySelector('[data-testid=topbar-workflow-tabs]').innerText"
ROWS = "[...document.querySelectorAll('[role=treeitem]')].map(one => one.innerText.trim())"
SIDEBAR = "document.querySelector('.sidebar-content-container')"
QUEUE = "document.querySelector('[data-testid=queue-progress-overlay]').innerText"


def workflow(*nodes, links=()):
    """A workflow file of (type, values) from left to right."""
    return {
        "last_node_id": len(nodes), "last_link_id": len(links), "links": list(links), "groups": [],
        "config": {}, "extra": {}, "version": 0.4,
        "nodes": [
            {"id": number, "type": kind, "pos": [400 * number, 150], "size": [300, 300], "order": number,
             "mode": 0, "flags": {}, "properties": {}, "widgets_values": values,
             "inputs": [{"name": "images", "type": "IMAGE", "link": 1}] if kind == "SaveImage" else [],
             "outputs": [{"name": "IMAGE", "type": "IMAGE", "links": [1] if links else []}]}
            for number, (kind, values) in enumerate(nodes, 1)
        ],
    }  # fmt: skip


SAVED = workflow(
    ("EmptyImage", [96, 64, 1, 0x3366CC]), ("SaveImage", ["panel"]), links=[[1, 1, 0, 2, 0, "IMAGE"]]
)


class Visit:
    """The page, with what all of these tests do in it."""

    def __init__(self, server, page):
        self.server, self.page, self.folder = server, page, server.base_directory
        self.script = page.driver.execute_script

    def load(self, content, name="panel"):
        file = self.folder / f"{name}.json"
        file.write_text(json.dumps(content))
        self.page.load_workflow(file, len(content["nodes"]))

    def press(self, selector, text):
        """Click what has exactly this text."""
        wait_until(lambda: self.script(BY_TEXT, selector, text))
        self.script(BY_TEXT, selector, text).click()

    def point_at(self, selector, *, menu=False):
        """Move the mouse there, or open the menu of the right button."""
        from selenium.webdriver.common.action_chains import ActionChains

        chain = ActionChains(self.page.driver)
        found = self.page.driver.find_element("css selector", selector)
        (chain.context_click(found) if menu else chain.move_to_element(found)).perform()

    def queue_slow(self, count):
        """Queue prompts that take a minute each; their ids."""
        ids = [str(uuid.uuid4()) for _ in range(count)]
        for number, one in enumerate(ids):
            inputs = {"steps": 600 + number, "seconds": 0.1}
            prompt = {"1": {"class_type": "LiveSlow", "inputs": inputs}}
            self.server.post_json("/prompt", {"prompt": prompt, "prompt_id": one})
        return ids

    def status_of(self, job):
        return self.server.get_json(f"/api/jobs/{job}").get("status")

    def wait_for_status(self, job, *wanted):
        wait_until(lambda: self.status_of(job) in wanted)


@pytest.fixture(scope="module")
def panel_server(tmp_path_factory):
    """A server with a checkpoint, a picture to load, and the pack that can be slow."""
    folder = tmp_path_factory.mktemp("panels")
    install_live_pack(folder)
    (folder / "models/checkpoints").mkdir(parents=True)
    shutil.copy(MODEL, folder / "models/checkpoints")
    (folder / "input").mkdir()
    Image.new("RGB", (96, 64), (30, 90, 200)).save(folder / "input/photo.png")
    with ServerProcess(folder) as server:
        yield server


@pytest.fixture
def visit(panel_server, open_page):
    """The visit goes on; at the end of each test there is no error in the console."""
    made = Visit(panel_server, open_page(panel_server, is_shared=True))
    yield made
    assert made.page.errors() == []


def test_the_media_panel_shows_a_picture_and_the_job_panel_opens_its_workflow(visit):
    page = visit.page
    visit.load(SAVED)
    page.run()
    page.click("[data-testid=assets-tab-button]")
    assert "filename=panel_00001_.png" in page.wait(f"return {SIDEBAR}?.querySelector('img')?.src")
    page.wait(f"return {SIDEBAR}.querySelector('img').naturalWidth")
    visit.press("button", "Imported")
    page.wait(f"return {SIDEBAR}.innerText.includes('photo')")
    page.click("[data-testid=assets-tab-button]")

    (job,) = visit.server.get_json("/api/jobs")["jobs"]
    visit.script("app.graph.clear()")
    page.click("[data-testid=queue-overlay-toggle]")
    page.wait(f"return {QUEUE}.includes('panel_00001_.png')")
    visit.point_at(f"[data-job-id='{job['id']}']", menu=True)
    page.click("[role=menuitem][aria-label='Open as workflow in new tab']")
    page.wait("return app.graph.nodes.length === 2")
    assert visit.script(NODES) == ["EmptyImage", "SaveImage"]
    assert job["id"][:8] in visit.script(TABS)


def test_jobs_are_cancelled_one_by_one_cleared_and_interrupted(visit):
    page = visit.page
    running, second, third, fourth = visit.queue_slow(4)
    if page.text("[data-testid=job-assets-list]") is None:
        page.click("[data-testid=queue-overlay-toggle]")
    page.wait(f"return {QUEUE}.startsWith('1 running, 3 queued')")
    for job in (second, running):  # one that waits, and the one that runs
        visit.point_at(f"[data-job-id='{job}']")
        page.click(f"[data-job-id='{job}'] [aria-label=Cancel]")
        page.wait(f"return !{QUEUE}.startsWith('1 running, {3 if job == second else 2} queued')")
    visit.wait_for_status(running, "cancelled")
    visit.wait_for_status(third, "in_progress")
    assert visit.status_of(second) in (None, "cancelled") and visit.status_of(fourth) == "pending"
    page.click("[aria-label='Clear queued']")
    page.wait(f"return {QUEUE}.startsWith('1 running') && !{QUEUE}.includes('queued')")
    assert visit.server.get_json("/prompt")["exec_info"]["queue_remaining"] == 1
    visit.script("app.extensionManager.command.execute('Comfy.Interrupt')")
    visit.wait_for_status(third, "cancelled")
    page.wait(f"return {QUEUE}.startsWith('Job Queue')")
    visit.press("[data-testid=queue-progress-overlay] button", "Failed")  # what was cancelled is listed there
    page.wait(f"return document.querySelector(\"[data-job-id='{third}']\") !== null")
    page.click("[data-testid=queue-overlay-toggle]")


def test_a_failed_job_is_told_with_its_node(visit):
    page = visit.page
    visit.load(workflow(("LiveFailure", [])), "failure")
    page.run()
    page.click("[data-testid=error-overlay-see-errors]")
    assert page.wait("return document.body.innerText.includes('as it should')", seconds=20)


def test_a_setting_is_kept_by_the_server(visit):
    page = visit.page
    page.click("[aria-label^='Settings']")
    page.click("[id='Comfy.DevMode']")
    page.wait("return app.extensionManager.setting.get('Comfy.DevMode')")
    assert visit.server.get_json("/settings")["Comfy.DevMode"] is True
    visit.press("[role=dialog] *", "About")
    page.wait("return document.querySelector('[role=dialog]').innerText.includes('System Info')")
    page.press(ESCAPE)
    page.wait("return document.querySelector('[role=dialog]') === null")


def test_templates_are_listed_and_one_is_opened(visit):
    page = visit.page
    page.click("[aria-label=Templates]")
    page.wait("return document.querySelectorAll('[data-testid^=template-workflow-image]').length > 10")
    page.wait("return [...document.querySelectorAll('[role=dialog] img')].some(one => one.naturalWidth)")
    page.click("[data-testid=template-workflow-image_z_image_turbo]")
    page.wait("return document.querySelector('[role=dialog]') === null && app.graph.nodes.length > 0")
    assert "image_z_image_turbo" in visit.script(TABS)


def test_the_model_library_lists_what_is_there(visit):
    page = visit.page
    page.click("[data-testid=model-library-tab-button]")
    page.click("[data-testid='tree-node-root/checkpoints']")
    row = "[data-testid^='tree-node-root/checkpoints/demo_shapes']"
    assert page.wait(f'return document.querySelector("{row}")')  # with its title, once the header is read


def test_a_mask_is_painted_saved_and_loaded_by_the_node(visit):
    page = visit.page
    visit.load(workflow(("LoadImage", ["photo.png", "image"])), "mask")
    page.wait("return app.graph.getNodeById(1).imgs?.[0]?.naturalWidth")
    visit.script("""
        app.canvas.selectNode(app.graph.getNodeById(1));
        app.extensionManager.command.execute('Comfy.MaskEditor.OpenMaskEditor');
    """)
    visit.press("[role=dialog] button", "Invert")  # of no mask: everything
    visit.press("[role=dialog] button", "Save")
    page.wait("return document.querySelector('[role=dialog]') === null")
    name = page.wait("return app.graph.getNodeById(1).widgets[0].value.replace(/^photo.png$/, '')")
    with Image.open(visit.folder / "input" / name.removesuffix(" [input]")) as masked:
        assert masked.size == (96, 64) and masked.mode == "RGBA"
        assert masked.getchannel("A").getextrema() == (0, 0), "all of it is painted"
        assert masked.convert("RGB").getpixel((5, 5)) == (30, 90, 200), "and the picture is kept"


def test_a_workflow_is_saved_listed_and_the_log_goes_on(visit):
    page = visit.page
    visit.load(SAVED, "kept")
    visit.script("app.extensionManager.command.execute('Comfy.SaveWorkflowAs')")
    page.wait("return document.querySelector('[role=dialog] input')")
    page.press(ENTER)
    page.wait("return document.querySelector('[role=dialog]') === null")
    page.click("[data-testid=workflows-tab-button]")
    page.wait(f"return {ROWS}.includes('kept')")
    assert json.loads((visit.folder / "user/default/workflows/kept.json").read_text())["nodes"]

    visit.press("nav button", "Console")
    log = "document.querySelector('.xterm-rows')?.innerText"
    page.wait(f"return {log}?.includes('Prompt executed')")
    visit.script(f"window.logBefore = {log}; app.graph.getNodeById(1).widgets[0].value = 32")
    page.run()
    page.wait(f"return {log} !== window.logBefore", seconds=30)  # by the websocket
    for tab in ("node-library-tab-button", "apps-tab-button"):
        page.click(f"[data-testid={tab}]")
        page.wait(f"return {SIDEBAR}?.innerText")
