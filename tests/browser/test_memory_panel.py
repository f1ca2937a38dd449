"""The panel's section "Models in memory": what is there and why, pins, groups, what comes, what has gone."""

import json
import re
import shutil

import pytest
import safetensors.torch

from tests.fakes.origin import Origin, sha256
from tests.fakes.server_process import ROOT, ServerProcess

pytestmark = pytest.mark.browser

DATA = ROOT / "tests" / "data"
PANEL_BUTTON = "[data-testid=comfyui-depot-tab-button]"
ENTER = "\ue007"
SHAPES = "checkpoints/demo_shapes.safetensors"
GREEN = "loras/demo_green.safetensors"
SILHOUETTE = "controlnet/demo_silhouette.safetensors"
NAMES = "[...document.querySelectorAll('.depot-model')].map(one => one.dataset.model)"
REFUSAL = re.compile(r"/api/depot/pin - Failed to load resource: the server responded with a status of 409")


def drawing_prompt(*loras):
    """A circle by the demo model with its ControlNet, and with LoRAs one after the other."""
    prompt = json.loads((DATA / "demo_prompt.json").read_text())
    sampler, text = prompt["3"]["inputs"], prompt["6"]["inputs"]
    for number, name in enumerate(loras, 100):
        inputs = {"model": sampler["model"], "clip": text["clip"], "lora_name": name,
                  "strength_model": 1.0 / len(loras), "strength_clip": 1.0 / len(loras)}  # fmt: skip
        prompt[str(number)] = {"class_type": "LoraLoader", "inputs": inputs}
        sampler["model"], text["clip"] = [str(number), 0], [str(number), 1]
    control = {"control_net_name": "demo_silhouette.safetensors"}
    picture = {"width": 64, "height": 64, "batch_size": 1, "color": 0}
    hint = {"conditioning": ["6", 0], "control_net": ["20", 0], "image": ["21", 0], "strength": 0.3}
    prompt["20"] = {"class_type": "ControlNetLoader", "inputs": control}
    prompt["21"] = {"class_type": "EmptyImage", "inputs": picture}
    prompt["22"] = {"class_type": "ControlNetApply", "inputs": hint}
    sampler.update(positive=["22", 0], steps=4)
    return prompt


@pytest.fixture
def library(tmp_path):
    """A base directory with the demo models."""
    for title in (SHAPES, GREEN, SILHOUETTE):
        folder, name = title.split("/")
        (tmp_path / "models" / folder).mkdir(parents=True)
        shutil.copy(DATA / name, tmp_path / "models" / folder)
    return tmp_path


class Panel:
    """The section in a page, and what its server says."""

    def __init__(self, server, page):
        self.server, self.page, self.script = server, page, page.driver.execute_script
        page.click(PANEL_BUTTON)
        page.wait("return document.querySelector('.depot-memory [data-device=cpu]')")

    def run(self, *loras):
        entry = self.server.run_prompt(drawing_prompt(*loras), seconds=120)
        assert entry["status"]["status_str"] == "success", f"{entry['status']}\n{self.server.log()}"

    def said(self):
        """What the server says of its memory."""
        return self.server.get_json("/depot/models?tier=memory")

    def pinned(self):
        return {name for one in self.said()["resident"] if one["pinned"] for name in one["names"]}

    def names(self):
        return self.script(f"return {NAMES}")

    def wait_for(self, *names):
        wanted = sorted(names)
        self.page.wait(f"""
            return JSON.stringify({NAMES}.sort()) === JSON.stringify({json.dumps(wanted)});
        """)

    def row(self, name, kind="model"):
        return f".depot-{kind}[data-{'group' if kind == 'group' else 'model'}='{name}']"

    def text(self, selector):
        return self.page.text(selector)

    def wait_for_text(self, selector, part):
        self.page.wait(f"return {element(selector)}?.innerText.includes({json.dumps(part)})")

    def errors(self):
        """Errors of the console, but for pins that the server has refused."""
        return [error for error in self.page.errors() if not REFUSAL.search(error)]


@pytest.fixture
def open_panel(library, open_page):
    """A function that starts a server with options and opens the panel; the server is stopped at the end."""
    servers = []

    def opened(*options):
        servers.append(ServerProcess(library, *options).start())
        return Panel(servers[-1], open_page(servers[-1]))

    yield opened
    for server in servers:
        server.stop()


def element(selector):
    """JavaScript for the first element that a CSS selector finds."""
    return f"document.querySelector({json.dumps(selector)})"


def without_time(text):
    return re.sub(r"\d+ s", "SECONDS", text)


def test_what_a_run_has_loaded_is_listed_with_its_place_its_reason_and_its_history(open_panel):
    panel = open_panel()
    assert "No model is in memory" in panel.text(".depot-residents")
    panel.run("demo_green.safetensors")
    panel.wait_for(SHAPES, GREEN, SILHOUETTE)  # told by events, not by a click
    said = panel.said()["resident"]
    assert panel.names() == [one["names"][0] for one in said], "last used first"
    for one in said:
        row = panel.row(one["names"][0])
        assert panel.text(f"{row} .depot-row-title") == one["names"][0].split("/")[1]
        assert without_time(panel.text(f"{row} .depot-why")) == without_time(one["why"])
        assert panel.text(f"{row} .depot-quiet").endswith(" · in memory")
    assert panel.text(f"{panel.row(GREEN)} .depot-quiet").startswith("59.5 kB")

    for count in (2, 3):
        panel.run(*["demo_green.safetensors"] * count)  # is given again, not read again
    panel.page.click(f"{panel.row(GREEN)} .depot-row")
    panel.wait_for_text(f"{panel.row(GREEN)} .depot-model-more", "Given again")
    (green,) = [one for one in panel.said()["resident"] if one["names"] == [GREEN]]
    panel.wait_for_text(f"{panel.row(GREEN)} .depot-facts", f"{green['hits']} times")
    facts = panel.text(f"{panel.row(GREEN)} .depot-facts").split("\n")
    assert facts[facts.index("Files") + 1] == GREEN
    assert facts[facts.index("Loaded") + 1].startswith("once, in ") and green["loads"] == 1
    assert facts[facts.index("Given again") + 1] == f"{green['hits']} times" and green["hits"] > 1
    assert "It has not moved." in panel.text(f"{panel.row(GREEN)} .depot-model-more")

    device = ".depot-device[data-device=cpu]"
    assert " used" in panel.text(device) and "Used by this server: " in panel.text(device)
    parts = f"return [...document.querySelectorAll('{device} [data-part]')].map(one => one.dataset.part)"
    assert panel.script(parts) == ["models", "server", "others", "free"]
    assert panel.errors() == []


def test_a_model_is_pinned_and_unpinned_with_the_keyboard_and_the_list_says_by_whom(open_panel):
    panel = open_panel()
    panel.run("demo_green.safetensors")
    panel.wait_for(SHAPES, GREEN, SILHOUETTE)
    pin = element(f"{panel.row(GREEN)} .depot-pin")
    assert panel.script(f"return {pin}.ariaLabel") == "Pin demo_green.safetensors in memory"
    panel.script(f"{pin}.focus()")
    panel.page.press(ENTER)
    panel.page.wait(f"return {pin}.ariaPressed === 'true'")
    assert panel.pinned() == {GREEN}
    panel.wait_for_text(f"{panel.row(GREEN)} .depot-why", "pinned by POST /depot/pin by")
    assert "Pinned by POST /depot/pin by" in panel.script(f"return {pin}.title")
    assert panel.script("return document.activeElement.ariaLabel") == "Unpin demo_green.safetensors"
    panel.page.press(ENTER)
    panel.page.wait(f"return {pin}.ariaPressed === 'false'")
    assert panel.pinned() == set()
    assert panel.errors() == []


@pytest.mark.slow
def test_a_pin_over_the_budget_is_refused_in_the_words_of_the_server(open_panel):
    panel = open_panel("--pin", "controlnet/demo*", "--pin-budget", "5M")
    panel.run("demo_green.safetensors")
    panel.wait_for(SHAPES, GREEN, SILHOUETTE)
    panel.wait_for_text(".depot-pin-budget", "of a budget of 5.2 MB")
    panel.page.click(f"{panel.row(SHAPES)} .depot-pin")
    body = {"tier": "memory", "folder": "checkpoints", "name": "demo_shapes.safetensors"}
    refused = panel.server.post_json("/depot/pin", body)["error"]
    assert refused["type"] == "over_budget" and "by --pin controlnet/demo*" in refused["message"]
    panel.wait_for_text(f"{panel.row(SHAPES)} .depot-problem", refused["message"])
    assert panel.pinned() == {SILHOUETTE}

    # What holds several models is not let go by the button of one of them: it leads to the pins.
    panel.page.click(f"{panel.row(SILHOUETTE)} .depot-pin")
    unpin = f"{panel.row(SILHOUETTE)} .depot-model-more .depot-button"
    panel.page.wait(f"return document.activeElement === {element(unpin)}")
    assert panel.text(unpin) == "Unpin controlnet/demo*" and panel.pinned() == {SILHOUETTE}
    panel.page.click(unpin)
    panel.wait_for_text(f"{panel.row(SILHOUETTE)} .depot-note", "pinned again at the next start")
    assert panel.pinned() == set()
    assert panel.errors() == []


def test_groups_say_what_they_take_and_are_switched(open_panel):
    panel = open_panel(
        "--pin-group", "outline=controlnet/demo*", "--pin-group", "green=loras/demo*",
        "--pin-group", "all=controlnet/demo*,checkpoints/demo*,loras/demo*", "--pin-budget", "5M",
    )  # fmt: skip
    panel.page.load_workflow(DATA / "demo_workflow.json", 7)
    panel.run("demo_green.safetensors")
    outline, green, whole = (panel.row(name, "group") for name in ("outline", "green", "all"))
    panel.wait_for_text(outline, "1 model, 3.0 MB: demo_silhouette.safetensors")
    assert "active" in panel.text(outline) and "active" not in panel.text(green)
    panel.wait_for_text(whole, "the group 'all' cannot be pinned: all pinned models would take")
    panel.page.wait("return document.querySelector('.depot-is-pinned')")
    assert panel.pinned() == {SILHOUETTE}

    panel.page.click(f"{green} [aria-label='Switch to group green']")
    panel.wait_for_text(green, "active")
    assert "active" not in panel.text(outline) and panel.pinned() == {GREEN}
    panel.script("app.extensionManager.command.execute('Comfy.Canvas.FitView')")
    panel.page.click(f"{panel.row(GREEN)} .depot-row")
    panel.script(f"{element('.depot-memory')}.scrollIntoView()")
    panel.page.save_screenshot("models-in-memory.png")
    panel.page.click(f"{whole} [aria-label='Switch to group all']")
    panel.wait_for_text(f"{whole} .depot-problem", "Nothing has changed.")
    assert panel.pinned() == {GREEN}
    panel.page.click(f"{green} [aria-label='Let group green go']")
    panel.page.wait(f"return !{element(green)}.innerText.includes('active')")
    assert panel.pinned() == set()
    assert panel.errors() == []


@pytest.mark.slow
def test_what_was_let_go_is_listed_with_the_reason_and_no_name_is_read_as_html(open_panel, library):
    hostile = "<img src=x onerror='window.wasRun=1'>.safetensors"
    shutil.copy(DATA / "demo_green.safetensors", library / "models/loras" / hostile)
    panel = open_panel()
    panel.page.load_workflow(DATA / "demo_workflow.json", 7)
    panel.run(hostile)
    title = f"loras/{hostile}"
    panel.wait_for(SHAPES, title, SILHOUETTE)
    panel.script("for (const row of document.querySelectorAll('.depot-model .depot-row')) row.click()")
    assert hostile in panel.text(".depot-residents .depot-list")
    assert panel.script("return document.querySelector('.depot-drops').checkVisibility()") is False
    panel.server.request("POST", "/free", {"free_memory": True, "unload_models": True})
    panel.wait_for()
    panel.page.click(".depot-drops summary")
    said = panel.said()["dropped"]
    drops = panel.text(".depot-drops")
    assert hostile in drops and len(said) == 3
    assert all(one["why"] in drops for one in said)
    assert panel.text(".depot-drops summary") == "Let go of lately (3)"

    panel.script("""
        const items = app.collectNodeMenuItems(app.graph.getNodeById(4)).filter(Boolean);
        items.find(item => item.content === 'Depot: where is its model?').callback();
    """)
    panel.page.wait("return document.body.innerText.includes('demo_shapes.safetensors was let go of at ')")
    assert panel.script("return window.wasRun") is None
    assert panel.errors() == []


WATCH = """
window.asked = [];
window.told = 0;
const fetchApi = app.api.fetchApi;
app.api.fetchApi = function (route, ...rest) {
    if (route.startsWith('/depot/models')) window.asked.push(performance.now());
    return fetchApi.call(this, route, ...rest);
};
app.api.addEventListener('status', () => { window.told += 1; });
"""


@pytest.mark.slow
def test_many_models_wait_behind_a_button_and_a_closed_panel_asks_nothing(open_panel, library):
    weights = safetensors.torch.load_file(DATA / "demo_green.safetensors")
    names = [f"style-{number:02}.safetensors" for number in range(12)]
    for name in names:
        safetensors.torch.save_file(weights, library / "models/loras" / name, metadata={"name": name})
    panel = open_panel()
    panel.script(WATCH)
    panel.run(*names)
    button = ".depot-residents .depot-rows > .depot-button"
    panel.wait_for_text(button, "Show 4 more")
    assert len(panel.names()) == 10
    panel.page.click(button)
    assert len(panel.names()) == 14 and not panel.script(f"return {element(button)}.checkVisibility()")
    asked = panel.script("return window.asked")
    assert asked and all(later - earlier >= 1000 for earlier, later in zip(asked, asked[1:], strict=False))

    panel.page.click(PANEL_BUTTON)  # closes it
    panel.page.wait("return !document.querySelector('.depot-panel')")
    count, told = panel.script("return [window.asked.length, window.told]")
    panel.run("style-03.safetensors")
    panel.page.wait(f"return window.told >= {told + 2}")
    assert panel.script("return window.asked.length") == count
    assert panel.errors() == []


@pytest.mark.slow
def test_a_pinned_model_is_fetched_and_loaded_before_a_workflow_asks_for_it(library, open_page):
    path = library / "models" / SHAPES
    body = path.read_bytes()
    path.unlink()
    damaged = library / "models/checkpoints/damaged.safetensors"
    damaged.write_bytes(b"no model at all")
    (library / "model_manifests").mkdir()
    with Origin(rate_per_connection=1 << 19) as origin:
        entry = {"url": origin.put("/demo.safetensors", body), "size": len(body), "sha256": sha256(body)}
        (library / "model_manifests/demo.json").write_text(json.dumps({"checkpoints": {path.name: entry}}))
        with ServerProcess(library, "--depot-allow-hosts", "127.0.0.1") as server:
            panel = Panel(server, open_page(server))
            field = ".depot-pin-form .depot-field"

            def pin(pattern):
                panel.page.click(field)
                panel.page.driver.switch_to.active_element.send_keys(pattern + ENTER)

            pin("checkpoints/nothing")
            panel.wait_for_text(".depot-pin-form .depot-problem", "nothing")
            assert panel.script(f"return {element(field)}.value") == "checkpoints/nothing"
            panel.script(f"{element(field)}.value = ''")
            pin("checkpoints/demo*")
            coming = panel.row(SHAPES, "coming")
            panel.page.wait(f"return /fetching [0-9]+ %/.test({element(coming)}?.innerText)")
            panel.wait_for(SHAPES)
            panel.page.wait(f"return !{element(coming)}")
            assert panel.pinned() == {SHAPES}

            pin("checkpoints/damaged.safetensors")
            refused = panel.row("checkpoints/damaged.safetensors", "coming")
            panel.wait_for_text(f"{refused} .depot-problem", "damaged.safetensors")
            (pin_of_it,) = [one for one in panel.said()["memory"]["pins"] if "damaged" in one["pattern"]]
            assert pin_of_it["models"][0]["state"] == "failed"
            assert pin_of_it["models"][0]["message"] == panel.text(f"{refused} .depot-problem")
            panel.script("""
                window.states = [];
                app.api.addEventListener('depot', ({detail}) => window.states.push(detail.state));
            """)
            panel.page.click(f"{refused} [aria-label='Load damaged.safetensors now']")
            panel.page.wait("return window.states.join() === 'waiting,loading,failed'")
            panel.wait_for_text(f"{refused} .depot-problem", "damaged.safetensors")
            panel.page.click(f"{refused} [aria-label='Unpin checkpoints/damaged.safetensors']")
            panel.wait_for_text(refused, "asked for")  # by "Load now", which is not a pin
            assert not panel.script(f"return {element(f'{refused} .depot-buttons')}.checkVisibility()")
            assert [pin["pattern"] for pin in panel.said()["memory"]["pins"]] == ["checkpoints/demo*"]
            assert [error for error in panel.errors() if "404" not in error] == []


PARTS = [
    ({"device": "cuda:0", "total": 24, "free": 10, "allocated": 13, "reserved": 14, "peak": 20},
     {"pinned": 5, "models": 6, "torch": 2, "others": 1, "free": 10}),
    ({"device": "cpu", "total": 64, "free": 40, "allocated": 2, "reserved": 90, "peak": 3},
     {"pinned": 1, "models": 3, "server": 0, "others": 20, "free": 40}),
    ({"device": "cuda:1", "total": 8, "free": None, "allocated": None, "reserved": None, "peak": None},
     {"pinned": 0, "models": 0, "torch": 0, "others": 8, "free": 0}),
]  # fmt: skip
PLACES = [
    ({"cpu": 5e9}, 1, "in memory"),
    ({"cuda:0": 5e9, "cpu": 0}, 1, "on the GPU"),
    ({"cuda:1": 5e9}, 2, "on cuda:1"),
    ({"cuda:0": 3e9, "cpu": 2e9}, 1, "3.0 GB of 5.0 GB on cuda:0, rest in memory"),
    ({"cuda:0": 3e9, "cuda:1": 2e9}, 2, "spread over cuda:0 (3.0 GB), cuda:1 (2.0 GB)"),
    ({}, 1, "no weights"),
]


@pytest.mark.slow
def test_places_and_shares_of_devices_with_gpus_are_told_as_they_are(live_server, open_page):
    page = open_page(live_server, is_shared=True)
    resident = [{"pinned": {"by": ["x"]}, "on": {"cuda:0": 5, "cpu": 1}},
                {"pinned": None, "on": {"cuda:0": 6, "cpu": 3}}]  # fmt: skip
    parts, places = page.driver.execute_async_script(
        """
        const [devices, resident, places, done] = arguments;
        Promise.all(['devices', 'rows'].map(name => import(`/extensions/depot/memory_${name}.js`)))
            .then(([{partsOf}, {whereIs}]) => done([
                devices.map(device => partsOf(device, resident)),
                places.map(([on, gpus]) => whereIs(on, gpus))]));
        """,
        [device for device, _ in PARTS], resident, [[on, gpus] for on, gpus, _ in PLACES],
    )  # fmt: skip
    assert parts == [wanted for _, wanted in PARTS]
    assert places == [words for _, _, words in PLACES]
