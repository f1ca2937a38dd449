"""The official web page in a real browser: it starts, loads a workflow, runs it and shows the picture."""

import json

import pytest

from tests.fakes.origin import Origin, sha256
from tests.fakes.server_process import ROOT, ServerProcess

pytestmark = pytest.mark.browser

DATA = ROOT / "tests" / "data"
DEMO_MODEL = DATA / "demo_shapes.safetensors"
DEMO_WORKFLOW = DATA / "demo_workflow.json"

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


def test_a_first_visit_loads_a_workflow_and_shows_its_picture_without_an_error(
    live_server, tmp_path, open_page
):
    workflow = tmp_path / "plain.json"
    workflow.write_text(json.dumps(PLAIN_WORKFLOW))
    live_server.request("POST", "/settings/Comfy.TutorialCompleted", False)
    page = open_page(live_server, is_first_visit=True)
    page.wait("return window.livePackIsLoaded")  # the script of a node pack ran
    page.load_workflow(workflow, 2)
    page.run()
    (picture,) = page.wait(PICTURES)
    assert picture == {"width": 96, "height": 64, "middle": [0x33, 0x66, 0xCC]}
    assert page.errors() == []


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
            page.save_screenshot("first-picture.png", seconds=2)
            page.driver.execute_script("app.graph.clear()")
            (saved,) = (tmp_path / "output").glob("*.png")
            page.load_workflow(saved, node_count)  # the picture carries its workflow
            assert page.errors() == []
        assert (tmp_path / "models" / "checkpoints" / DEMO_MODEL.name).read_bytes() == body
