"""The page's own list of missing models: its Download lets the server fetch them, and says what happens."""

import json
import shutil

import pytest

from tests.fakes.origin import Origin, safetensors, sha256
from tests.fakes.server_process import ROOT, ServerProcess

pytestmark = pytest.mark.browser

DATA = ROOT / "tests" / "data"
HUB = "https://huggingface.co"
ALLOWED = ("--depot-allow-hosts", "127.0.0.1")
CHECKPOINT = (DATA / "demo_shapes.safetensors").read_bytes()
DETAILS = "[data-testid=error-overlay-see-errors]"
DOWNLOAD = "[data-testid=missing-model-download]"
DOWNLOAD_ALL = "[data-testid=missing-model-download-all]"
MARKED = "return app.graph.nodes.filter(node => node.has_errors).map(node => node.type)"
BUTTONS = f"return document.querySelectorAll('{DOWNLOAD}').length"


def drawing(**models):
    """The demo workflow; `models` are those of its loader: {name: (url, body or None)}."""
    workflow = json.loads((DATA / "demo_workflow.json").read_text())
    (loader,) = (node for node in workflow["nodes"] if node["type"] == "CheckpointLoaderSimple")
    loader["properties"]["models"] = [model("checkpoints", name, *found) for name, found in models.items()]
    return workflow


def model(directory, name, url, body=None):
    """A model as workflows carry it."""
    digest = {"hash": sha256(body), "hash_type": "SHA256"} if body else {}
    return {"name": name, "url": url, "directory": directory, **digest}


def lora_chain(models):
    """A workflow of a checkpoint and one loader for each of these LoRAs, whose result is not used."""
    workflow = drawing()
    for number, lora in enumerate(models, 100):
        workflow["nodes"].append({
            "id": number, "type": "LoraLoaderModelOnly", "pos": [0, 200 * (number - 100)], "size": [300, 80],
            "order": 20, "mode": 0, "flags": {}, "outputs": [{"name": "MODEL", "type": "MODEL", "links": []}],
            "inputs": [{"name": "model", "type": "MODEL", "link": None}],
            "properties": {"models": [lora]}, "widgets_values": [lora["name"], 1],
        })  # fmt: skip
    return workflow


class Library:
    """A server whose hub is an origin of the test, and its page."""

    def __init__(self, origin, server, page):
        self.origin, self.server, self.page = origin, server, page
        self.models = server.base_directory / "models"

    def publish(self, path, body=b"", **behaviour):
        """Put a file on the hub; the address that workflows give for it."""
        self.origin.put(path, body, **behaviour)
        return HUB + path

    def open(self, workflow):
        """Open a workflow and its list of what is missing."""
        file = self.server.base_directory / "workflow.json"
        file.write_text(json.dumps(workflow))
        self.page.load_workflow(file, len(workflow["nodes"]))
        self.page.click(DETAILS)
        self.page.wait(f"return document.querySelector('{DOWNLOAD_ALL}')?.checkVisibility()")

    def wait_for_note(self, *parts):
        """Wait until a note of the page says all of this."""
        self.page.wait(f"return {json.dumps(parts)}.every(part => document.body.innerText.includes(part))")

    def is_complete(self):
        """Wait until nothing is missing any longer, in the list and on the nodes."""
        self.page.wait(f"{BUTTONS} === 0")
        self.page.wait("return !document.querySelector('[data-testid=error-overlay]')")
        self.page.wait(f"{MARKED}.length === 0")


@pytest.fixture(scope="module")
def library_server(tmp_path_factory):
    """A server with an empty library, for which the origin is huggingface.co."""
    folder = tmp_path_factory.mktemp("missing")
    (folder / "model_manifests").mkdir()
    with (
        Origin() as origin,
        ServerProcess(folder, *ALLOWED, environment={"HF_ENDPOINT": origin.url}) as server,
    ):
        yield origin, server


@pytest.fixture
def library(library_server, open_page):
    """The same with its page, and without a model."""
    origin, server = library_server
    shutil.rmtree(server.base_directory / "models", ignore_errors=True)
    made = Library(origin, server, open_page(server, is_shared=True))
    made.models.mkdir()
    return made


def test_download_brings_the_model_to_the_server_and_the_workflow_runs(library):
    page = library.page
    url = library.publish("/org/demo/resolve/main/demo_shapes.safetensors", CHECKPOINT)
    library.open(drawing(**{"demo_shapes.safetensors": (url, CHECKPOINT)}))
    assert page.driver.execute_script(MARKED) == ["CheckpointLoaderSimple"]
    page.click("[data-testid=comfyui-depot-tab-button]")
    library.origin.total.rate = 1 << 19  # slow enough to be looked at
    page.click(DOWNLOAD)
    page.wait("return document.querySelector('.depot-bar')?.value > 0")  # in our panel
    library.wait_for_note("0 of 1")  # in the page's own list of downloads, which opens upwards
    page.click("button[aria-label=Expand]")
    page.wait("""
        const texts = [...document.querySelectorAll('span')].map(one => one.textContent.trim());
        return texts.some(text => /^[1-9][0-9]?%$/.test(text));
    """)
    page.save_screenshot("missing-models.png")
    library.origin.total.rate = None
    library.is_complete()
    assert (library.models / "checkpoints/demo_shapes.safetensors").read_bytes() == CHECKPOINT
    page.driver.execute_script("app.extensionManager.sidebarTab.activeSidebarTabId = null")
    page.run()
    page.wait("return app.graph.nodes.some(node => node.imgs?.[0]?.naturalWidth)", seconds=120)
    assert page.errors() == []


@pytest.mark.slow
def test_download_all_takes_every_suffix_that_the_server_knows(library):
    loras = {f"style-{number}.{suffix}": safetensors(1 << 12, number)
             for number, suffix in enumerate(("safetensors", "sft"))}  # fmt: skip
    chain = [model("loras", name, library.publish(f"/org/loras/resolve/main/{name}", body), body)
             for name, body in loras.items()]  # fmt: skip
    library.open(lora_chain(chain))
    library.page.wait(f"{BUTTONS} === 2")
    library.page.click(DOWNLOAD_ALL)
    library.page.wait(f"{BUTTONS} === 0")
    for name, body in loras.items():
        assert (library.models / "loras" / name).read_bytes() == body
    assert library.page.errors() == []


REFUSALS = [
    ("model.ckpt", HUB, {"body": b"x" * 200}, ["model.ckpt is not fetched", "'.ckpt' files can run code"]),
    ("else.safetensors", "https://civitai.com", {}, ["wait until the owner of this server takes them up"]),
    ("gone.safetensors", HUB, {"status": 404}, ["Model could not be fetched", "answered 404 (not found)"]),
    ("gated.safetensors", HUB, {"token": "hf_x"}, ["answered 401 (access refused)", "offers --accept"]),
    ("wrong.safetensors", HUB, {"body": safetensors(1 << 12, 3)}, ["sha256"]),
]  # fmt: skip


def test_what_the_server_does_not_fetch_is_said_in_its_words(library):
    """Of a file that can hold code, a host that is not allowed, no file, a gated one, and other bytes."""
    chain = []
    for name, host, behaviour, _ in REFUSALS:
        path = f"/org/refused/resolve/main/{name}"
        library.origin.put(path, **{"body": safetensors(1 << 12, 1), **behaviour})
        chain.append(model("loras", name, host + path, safetensors(1 << 12, 1)))
    library.open(lora_chain(chain))
    library.page.wait(f"{BUTTONS} === {len(chain)}")
    library.page.click(DOWNLOAD_ALL)
    for _, _, _, words in REFUSALS:
        library.wait_for_note(*words)
    library.page.save_screenshot("refused-models.png")
    assert list((library.models / "loras").glob("[!.]*")) == []
    refused = [error for error in library.page.errors() if "/api/assets/download" not in error]
    assert refused == [], "the browser writes down that the server has refused, and nothing else"
    library.page.is_changed = True  # the notes stay


@pytest.mark.slow
def test_a_full_disk_is_told_as_it_is(library, tmp_path, open_page):
    url = library.publish("/org/demo/resolve/main/large.safetensors", safetensors(1 << 16))
    environment = {"HF_ENDPOINT": library.origin.url}
    (tmp_path / "model_manifests").mkdir()
    with ServerProcess(tmp_path, *ALLOWED, "--depot-reserve", "900T", environment=environment) as server:
        full = Library(library.origin, server, open_page(server))
        full.open(lora_chain([model("loras", "large.safetensors", url)]))
        full.page.click(DOWNLOAD)
        full.wait_for_note("could not be fetched", "are kept in reserve")


@pytest.mark.slow
def test_the_page_takes_no_server_for_a_desktop_program(library):
    """What the page does for a desktop program, but for downloads, it does not do here."""
    assert library.page.driver.execute_script(
        "return Object.keys(window.__comfyDesktop2).sort().concat(window.__comfyDesktop2.isRemote())"
    ) == ["downloadModel", "isRemote", False]
