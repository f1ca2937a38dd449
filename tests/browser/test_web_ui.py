"""The official web page in a real browser: it starts, loads a workflow, runs it and shows the picture."""

import json
import os
import time
from pathlib import Path

import pytest

from tests.fakes.origin import Origin, sha256
from tests.fakes.server_process import ROOT, ServerProcess, install_live_pack

pytestmark = pytest.mark.browser

DATA = ROOT / "tests" / "data"
DEMO_MODEL = DATA / "demo_shapes.safetensors"
DEMO_WORKFLOW = DATA / "demo_workflow.json"

# The page asks whether the user has these; "404" is how the server says "no", and the browser writes it down.
NORMALLY_ABSENT = (
    "/user.css ",
    "/api/userdata/user.css ",
    "/api/userdata/comfy.templates.json ",
    "/api/userdata/workflows%2F.index.json ",
    "/api/userdata?dir=workflows&",
    "/api/userdata?dir=subgraphs&",
)
PICTURES = """
return app.graph.nodes.filter(node => node.constructor.nodeData?.output_node)
    .flatMap(node => node.imgs ?? []).filter(img => img.complete && img.naturalWidth)
    .map(img => {
        const canvas = document.createElement('canvas');
        [canvas.width, canvas.height] = [img.naturalWidth, img.naturalHeight];
        const context = canvas.getContext('2d');
        context.drawImage(img, 0, 0);
        const middle = context.getImageData(canvas.width / 2, canvas.height / 2, 1, 1).data;
        return {width: canvas.width, height: canvas.height, middle: [...middle].slice(0, 3)};
    });
"""
PLAIN_WORKFLOW = {
    "last_node_id": 2,
    "last_link_id": 1,
    "nodes": [
        {"id": 1, "type": "EmptyImage", "pos": [100, 100], "size": [300, 150], "order": 0, "mode": 0,
         "flags": {}, "inputs": [], "outputs": [{"name": "IMAGE", "type": "IMAGE", "links": [1]}],
         "properties": {}, "widgets_values": [96, 64, 1, 0x3366CC]},
        {"id": 2, "type": "PreviewImage", "pos": [500, 100], "size": [300, 300], "order": 1, "mode": 0,
         "flags": {}, "inputs": [{"name": "images", "type": "IMAGE", "link": 1}], "outputs": [],
         "properties": {}},
    ],
    "links": [[1, 1, 0, 2, 0, "IMAGE"]],
    "groups": [], "config": {}, "extra": {}, "version": 0.4,
}  # fmt: skip
IS_READY = "return window.app?.vueAppReady && document.querySelector('[data-testid=queue-button]')"


def executable(*names):
    """Path of the first program that is installed."""
    import shutil

    return next((path for name in names if (path := shutil.which(name))), None)


class Page:
    """The web page of a server, in headless Chromium that can reach nothing but this machine."""

    def __init__(self, server):
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service

        options = webdriver.ChromeOptions()
        options.binary_location = executable("chromium", "chromium-browser", "google-chrome")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        for argument in (
            "--headless=new",
            "--no-sandbox",
            "--disable-dev-shm-usage",
            "--disable-gpu",
            "--window-size=1600,1000",
            "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
        ):
            options.add_argument(argument)
        self.driver = webdriver.Chrome(options=options, service=Service(executable("chromedriver")))
        self.server = server

    def open(self):
        """Load the page and wait until it can be used."""
        self.driver.get(self.server.url)
        self.wait(IS_READY)
        return self

    def close_templates(self):
        """Leave the list of templates, with which the first visit of a new user begins."""
        self.wait("return document.querySelector('[role=dialog]')?.innerText.includes('Templates')")
        while self.driver.execute_script("return document.querySelector('[role=dialog]') !== null"):
            self.driver.find_element("tag name", "body").send_keys("\ue00c")
            time.sleep(0.3)
        return self

    def wait(self, script, *, seconds=90):
        """Run a script until it gives something that is neither empty nor false, and return that."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if found := self.driver.execute_script(script):
                return found
            time.sleep(0.2)
        raise AssertionError(f"Nothing came of: {script}\n{self.errors()}\n{self.server.log()}")

    def load_workflow(self, file: Path, node_count: int):
        """Open a workflow file as the page's own 'Open' does."""
        from selenium.webdriver.common.by import By

        self.driver.find_element(By.ID, "comfy-file-input").send_keys(str(file))
        self.wait(f"return app.graph.nodes.length === {node_count}")

    def run(self):
        """Press the page's Run button."""
        from selenium.webdriver.common.by import By

        self.driver.find_element(By.CSS_SELECTOR, "[data-testid=queue-button]").click()

    def errors(self):
        """What stands in the console as an error, without the files that are normally absent."""
        severe = [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]
        return [
            text for text in severe if not (" 404 " in text and any(part in text for part in NORMALLY_ABSENT))
        ]

    def save_screenshot(self, name):
        """Keep a picture of the page in the folder that SCREENSHOTS names, if it names one."""
        if folder := os.environ.get("SCREENSHOTS"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.driver.save_screenshot(str(Path(folder) / name))


@pytest.fixture
def open_page():
    """A function that opens the page as a new user does; the browser is closed at the end."""
    pages = []

    def opened(server):
        pages.append(Page(server))
        return pages[-1].open().close_templates()

    yield opened
    for page in pages:
        page.driver.quit()


def test_the_page_starts_loads_a_workflow_and_shows_its_picture_without_an_error(tmp_path, open_page):
    install_live_pack(tmp_path)
    workflow = tmp_path / "plain.json"
    workflow.write_text(json.dumps(PLAIN_WORKFLOW))
    with ServerProcess(tmp_path) as server:
        page = open_page(server)
        page.wait("return window.livePackIsLoaded")  # the script of a node pack ran
        page.load_workflow(workflow, 2)
        page.run()
        (picture,) = page.wait(PICTURES)
        assert picture == {"width": 96, "height": 64, "middle": [0x33, 0x66, 0xCC]}
        assert page.errors() == []


SAVED_PICTURE = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 7}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "a"}},
}
PRESS_IN_SIDEBAR = """
[...document.querySelectorAll('nav button')].find(button => button.innerText.trim() === arguments[0]).click()
"""
PANELS = """
assets-tab-button node-library-tab-button model-library-tab-button workflows-tab-button apps-tab-button
queue-overlay-toggle
""".split()


def test_the_first_visit_and_every_panel_are_free_of_errors(tmp_path, open_page):
    from selenium.webdriver.common.by import By

    with ServerProcess(tmp_path) as server:
        assert server.run_prompt(SAVED_PICTURE)["status"]["completed"]
        page = open_page(server)
        assert page.errors() == [], "the first visit"
        for panel in PANELS:
            page.driver.find_element(By.CSS_SELECTOR, f"[data-testid={panel}]").click()
            time.sleep(1)
            assert page.errors() == [], panel
        for name in ("Console", "Settings"):
            page.driver.execute_script(PRESS_IN_SIDEBAR, name)
            time.sleep(1)
            assert page.errors() == [], name


def test_a_model_that_is_only_in_a_manifest_gives_a_picture_in_the_page(tmp_path, open_page):
    with Origin() as origin:
        body = DEMO_MODEL.read_bytes()
        entry = {"url": origin.put("/demo.safetensors", body), "size": len(body), "sha256": sha256(body)}
        (tmp_path / "model_manifests").mkdir()
        manifest = {"checkpoints": {DEMO_MODEL.name: entry}}
        (tmp_path / "model_manifests" / "demo.json").write_text(json.dumps(manifest))
        with ServerProcess(tmp_path, "--depot-allow-hosts", "127.0.0.1") as server:
            page = open_page(server)
            node_count = len(json.loads(DEMO_WORKFLOW.read_text())["nodes"])
            page.load_workflow(DEMO_WORKFLOW, node_count)
            page.run()
            page.wait("return document.body.innerText.includes('Fetching a model')")
            (picture,) = page.wait(PICTURES, seconds=120)
            red, green, blue = picture["middle"]
            assert red > green + 40 and red > blue + 40, "the prompt asks for a red circle"
            page.driver.execute_script("app.extensionManager.command.execute('Comfy.Canvas.FitView')")
            time.sleep(2)  # the canvas moves there
            page.save_screenshot("first-picture.png")
            page.driver.execute_script("app.graph.clear()")
            (saved,) = (tmp_path / "output").glob("*.png")
            page.load_workflow(saved, node_count)  # the picture carries its workflow
            assert page.errors() == []
        assert (tmp_path / "models" / "checkpoints" / DEMO_MODEL.name).read_bytes() == body
