"""A manifest of the models that the official workflow templates name: `model_manifests/templates.json`.

Only facts are taken: folder, file name, url, and a sha256 where the templates give one. Where templates name
several urls for one file, the one counts whose last part is the file's name, then the one that most templates
name: without a digest nobody knows whether two urls serve the same bytes, so they are not taken as mirrors.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from comfy_depot import workflow_models
from comfy_depot.replacing import replace_file

PACKAGE = "comfyui-workflow-templates"
FILE_NAME = "templates.json"


def template_files() -> list[Path]:
    """The workflows of the installed template packages; ValueError when there are none."""
    found = set()
    for package in metadata.distributions():
        name = (package.metadata["Name"] or "").lower().replace("_", "-")
        if name == PACKAGE or name.startswith(PACKAGE + "-"):
            found |= {Path(str(package.locate_file(file))) for file in package.files or ()
                      if file.suffix == ".json" and "templates" in file.parts}
    if not found:
        raise ValueError(f"The package {PACKAGE} is not installed. Run: pip install -r requirements.txt")
    return sorted(found)


def manifest_of(workflows: Iterable[Any]) -> tuple[dict[str, Any], list[str]]:
    """(content of a manifest, what was refused and why) of the models that workflows name."""
    named: dict[tuple[str, str], Counter[tuple[str, str | None]]] = {}
    refused = set()
    for workflow in workflows:
        for model in workflow_models.models_in(workflow):
            try:
                entry = workflow_models.entry_of(model)
            except ValueError as error:
                refused.add(f"{model.get('directory')}/{model.get('name')}: {error}.")
            else:
                key = (entry.folder, entry.name)
                named.setdefault(key, Counter())[entry.urls[0], entry.sha256] += 1
    content: dict[str, Any] = {"$schema": "schema.json"}
    for (folder, name), choices in sorted(named.items()):
        content.setdefault(folder, {})[name] = _value(name, choices)
    return content, sorted(refused)


def _value(name: str, choices: Counter[tuple[str, str | None]]) -> str | dict[str, str]:
    uses: Counter[str] = Counter()
    for (url, _), count in choices.items():
        uses[url] += count
    last = name.rpartition("/")[2]
    url = min(uses, key=lambda one: (not one.endswith("/" + last), -uses[one], one))
    digests = {digest for one, digest in choices if one == url and digest}
    return {"url": url, "sha256": digests.pop()} if len(digests) == 1 else url


def as_text(content: dict[str, Any]) -> str:
    """The manifest as it stands in the file."""
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def entries_of(content: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(folder, name) of each model of a manifest."""
    for folder, models in content.items():
        if not folder.startswith("$"):
            yield from ((folder, name) for name in models)


def read_templates() -> Iterator[Any]:
    """Each template's content; a file that is no JSON is passed over, as the page does."""
    for file in template_files():
        try:
            yield json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue


def write(file: Path, *, only_check: bool) -> tuple[int, list[str], bool]:
    """Write the manifest of the installed templates to `file`, or only compare.

    Returns the number of models, what was refused, and whether the file was current already.
    """
    content, refused = manifest_of(read_templates())
    text = as_text(content)
    is_current = file.exists() and file.read_text(encoding="utf-8") == text
    if not is_current and not only_check:
        replace_file(file, text, tag=str(os.getpid()))
    return sum(1 for _ in entries_of(content)), refused, is_current
