"""The shipped manifests: the official templates' models, and the vocabularies of text encoders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import folder_paths
from comfy_depot import cli, templates, workflow_models
from comfy_depot.catalog import Catalogue
from tests.comfy_depot.world import World
from tests.fakes.origin import Origin

SHIPPED = Path(__file__).resolve().parents[2] / "model_manifests"
URL = "https://huggingface.co/org/repo/resolve/main/"


def node(*models: Any) -> dict[str, Any]:
    return {"type": "Loader", "properties": {"models": list(models)}}


def model(name: str, url: str = URL, **more: Any) -> dict[str, Any]:
    return {"name": name, "url": url if url != URL else URL + name, "directory": "loras", **more}


def test_the_shipped_manifests_have_no_mistake_and_every_folder_is_known(depot_world: World) -> None:
    catalogue = Catalogue(SHIPPED)
    assert catalogue.snapshot().problems == ()
    assert sum(1 for _ in catalogue) >= 354


def test_the_shipped_manifest_is_that_of_the_installed_templates() -> None:
    pytest.importorskip("comfyui_workflow_templates", reason="the template package is not installed")
    content, refused = templates.manifest_of(templates.read_templates())
    assert refused == []
    shipped = (SHIPPED / "templates.json").read_text(encoding="utf-8")
    assert templates.as_text(content) == shipped, "run: python -m comfy_depot import-templates"
    assert sum(1 for _ in templates.entries_of(content)) == 354


def test_models_are_found_in_nodes_subgraphs_and_beside_them() -> None:
    workflow = {"nodes": [node(model("a.safetensors")), {"properties": None}, 7],
                "definitions": {"subgraphs": [{"nodes": [node(model("b.safetensors"))]}, None]},
                "models": [model("c.safetensors"), "x"]}
    assert [one["name"] for one in workflow_models.models_in(workflow)] == [
        "c.safetensors", "a.safetensors", "b.safetensors"]


@pytest.mark.parametrize("workflow", [None, [], 5, {}, {"nodes": {}},
                                      {"nodes": [{"properties": {"models": 1}}]},
                                      {"definitions": [], "models": None}, {"definitions": {"subgraphs": 3}}])
def test_a_workflow_of_any_form_is_looked_through(workflow: Any) -> None:
    assert list(workflow_models.models_in(workflow)) == []


def test_one_url_is_chosen_where_templates_disagree() -> None:
    right, other = URL + "sub/a.safetensors", URL + "sub/b.safetensors"
    content, refused = templates.manifest_of([
        {"nodes": [node(model("a.safetensors", other), model("a.safetensors", other))]},
        {"nodes": [node(model("a.safetensors", right + "?download=true"))]},
        {"nodes": [node(model("n.safetensors", other), model("n.safetensors", right),
                        model("n.safetensors", right))]},
    ])
    assert content["loras"] == {"a.safetensors": right, "n.safetensors": right}
    assert refused == []


def test_a_digest_is_taken_where_the_templates_agree_on_it() -> None:
    sha = "ab" * 32
    content, _ = templates.manifest_of([{"nodes": [
        node(model("a.safetensors", hash=sha.upper(), hash_type="SHA256"), model("a.safetensors")),
        node(model("b.safetensors", hash=sha, hash_type="SHA256"),
             model("b.safetensors", hash="cd" * 32, hash_type="sha-256")),
        node(model("c.safetensors", hash="12", hash_type="SHA256")),
        node(model("d.safetensors", hash=sha, hash_type="MD5")),
    ]}])
    assert content["loras"] == {
        "a.safetensors": {"url": URL + "a.safetensors", "sha256": sha},
        **{f"{name}.safetensors": URL + f"{name}.safetensors" for name in "bcd"}}


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (model("../a.safetensors"), "is refused"),
        (model("a"), "has no extension"),
        (model("a.safetensors", "/etc/a.safetensors"), "may not name files or buckets of this machine"),
        (model("a.safetensors", "s3://mine/a.safetensors"), "may not name files or buckets"),
        (model("a.safetensors", "ftp://h/a"), "is not the url of a file"),
        ({"name": "a.safetensors", "url": URL}, "needs the texts 'name', 'url' and 'directory'"),
        ({"name": ["a"], "url": URL, "directory": "loras"}, "needs the texts"),
    ],
)
def test_a_models_mistake_is_told_and_the_others_count(entry: dict[str, Any], words: str) -> None:
    content, (reason,) = templates.manifest_of([{"nodes": [node(entry, model("good.safetensors"))]}])
    assert words in reason and list(content["loras"]) == ["good.safetensors"]


def test_the_command_writes_and_checks(
    tmp_path: Path, depot_world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    workflow = tmp_path / "one.json"
    workflow.write_text(json.dumps({"nodes": [node(model("a.safetensors"), model("b"))]}), encoding="utf-8")
    monkeypatch.setattr(templates, "template_files", lambda: [workflow, tmp_path / "gone.json"])
    file = depot_world.manifests / "templates.json"
    command = ["--base-directory", str(depot_world.base), "import-templates"]
    assert cli.main([*command, "--check"]) == 1 and not file.exists()
    told = capsys.readouterr()
    assert "1 models, not current." in told.out and "To write it: python -m comfy_depot import" in told.err
    assert "Left out: loras/b: " in told.err
    assert cli.main(command) == 0 and cli.main([*command, "--check"]) == 0
    assert json.loads(file.read_text())["loras"] == {"a.safetensors": URL + "a.safetensors"}
    assert cli.main([*command, "--json", "--output", str(tmp_path / "o.json")]) == 0
    assert json.loads(capsys.readouterr().out.split("current.\n")[-1])["state"] == "written"


def test_without_the_package_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templates.metadata, "distributions", list)
    with pytest.raises(ValueError, match="is not installed. Run: pip install -r requirements.txt"):
        templates.template_files()


def test_a_vocabulary_is_fetched_by_the_node_that_needs_it(
    depot_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(SHIPPED / "tokenizers.json", depot_world.manifests)
    with Origin() as origin, depot_world.depot() as depot:
        monkeypatch.setenv("HF_ENDPOINT", origin.url)
        origin.put("/google-t5/t5-base/resolve/main/tokenizer.json", b'{"model": {}}')
        assert {entry.folder for entry in depot.catalogue} == {"tokenizers"}
        assert "t5/tokenizer.json" in folder_paths.get_filename_list("tokenizers")
        depot_world.run_node()
        path = folder_paths.get_full_path_or_raise("tokenizers", "t5/tokenizer.json")
        assert Path(path).read_bytes() == b'{"model": {}}'
        assert path == str(depot_world.model("tokenizers", "t5/tokenizer.json"))
