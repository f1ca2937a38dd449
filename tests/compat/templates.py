"""Which official workflow templates run here: `python tests/compat/templates.py`.

Reads the installed template packages (`comfyui-workflow-templates`), turns each saved workflow into a prompt,
and tells per template which node classes are missing and what validation refuses. Files that are not on this
machine (models, input pictures) are listed apart: they are no fault of the program. Templates that the index
marks as not open source need nodes of paid services and are left out, unless asked for.

With `--server URL` the classes are those of a running server; then prompts are not validated, for that would
queue them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import re
import sys
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from comfy_execution import ui_workflow

PACKAGE = "comfyui-workflow-templates"
TARGETS = {"image": 0.95, "all": 0.60}
"""Which share of the templates of a kind must have every node class."""
MODEL_ENDINGS = (".safetensors", ".sft", ".ckpt", ".pt", ".pth", ".bin", ".gguf", ".onnx", ".pkl", ".task")
INPUT_ENDINGS = (
    ".png", ".jpg", ".jpeg", ".webp", ".gif", ".mp4", ".webm", ".mov", ".mkv", ".mp3", ".wav", ".flac",
    ".ogg", ".m4a", ".opus", ".glb", ".gltf", ".obj", ".fbx", ".stl", ".ply", ".splat", ".spz", ".ksplat",
    ".latent",
)  # fmt: skip


@dataclass
class Template:
    """A template, and what came of it."""

    name: str
    kind: str
    is_paid: bool
    workflow: dict[str, Any] = field(repr=False)
    missing_classes: list[str] = field(default_factory=list)
    oddities: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    missing_files: list[str] = field(default_factory=list)
    """Models and inputs that the workflow names and this machine does not have."""

    @property
    def has_every_class(self) -> bool:
        return not self.missing_classes

    @property
    def is_valid(self) -> bool:
        return not self.missing_classes and not self.errors


def package_files() -> dict[str, Path]:
    """Name without ending -> file, of the installed template packages; empty when there are none."""
    found: dict[str, Path] = {}
    for package in metadata.distributions():
        name = (package.metadata["Name"] or "").lower().replace("_", "-")
        if name == PACKAGE or name.startswith(PACKAGE + "-"):
            for file in package.files or ():
                if file.suffix == ".json" and "templates" in file.parts:
                    found[file.name.removesuffix(".json")] = Path(str(package.locate_file(file)))
    return found


def read_templates(*, kind: str | None = None, with_paid: bool = False) -> list[Template]:
    """The templates of the index; of one kind (image, video, audio, 3d, llm) if asked for."""
    files = package_files()
    if "index" not in files:
        return []
    found = []
    for category in json.loads(files["index"].read_text(encoding="utf-8")):
        for entry in category["templates"]:
            is_paid = entry.get("openSource") is False
            if (kind in (None, category["type"])) and (with_paid or not is_paid) and entry["name"] in files:
                workflow = json.loads(files[entry["name"]].read_text(encoding="utf-8"))
                found.append(Template(entry["name"], category["type"], is_paid, workflow))
    return found


# --- what is declared -----------------------------------------------------------------------------------


def declarations_here() -> ui_workflow.Declarations:
    """The inputs of the classes of this program."""
    import nodes

    asyncio.run(nodes.init_builtin_extra_nodes())

    def declared(name: str) -> Mapping[str, Any] | None:
        node = nodes.NODE_CLASS_MAPPINGS.get(name)
        return None if node is None else node.INPUT_TYPES()

    return remembered(declared)


def declarations_of(server: str) -> ui_workflow.Declarations:
    """The inputs of the classes of a running server."""
    with urllib.request.urlopen(server.rstrip("/") + "/object_info", timeout=60) as answer:
        told = json.load(answer)
    return lambda name: told[name]["input"] if name in told else None


def remembered(declared: ui_workflow.Declarations) -> ui_workflow.Declarations:
    """The same; each class is asked once."""
    known: dict[str, Mapping[str, Any] | None] = {}

    def ask(name: str) -> Mapping[str, Any] | None:
        if name not in known:
            known[name] = declared(name)
        return known[name]

    return ask


# --- judging --------------------------------------------------------------------------------------------


def convert(template: Template, declared: ui_workflow.Declarations) -> dict[str, dict[str, Any]]:
    """The prompt of a template, and its missing classes noted."""
    converted = ui_workflow.convert(template.workflow, declared)
    template.missing_classes = sorted(converted.unknown)
    template.oddities = converted.oddities
    return converted.prompt


async def validate(template: Template, prompt: dict[str, dict[str, Any]]) -> None:
    """Note what validation refuses."""
    import execution

    _, error, _, by_node = await execution.validate_prompt(template.name, prompt, None)
    told_elsewhere = ("prompt_outputs_failed_validation", "missing_node_type")
    if error is not None and error["type"] not in told_elsewhere:
        template.errors.append(f"{error['type']}: {error['details'] or error['message']}")
    for node_id, found in by_node.items():
        for one in found["errors"]:
            file = missing_file(one)
            if file is not None:
                template.missing_files.append(file)
            else:
                where = f"{found['class_type']} {node_id}"
                template.errors.append(f"{where}: {one['type']}: {one['details']}")
    template.missing_files = sorted(set(template.missing_files))


def missing_file(error: Mapping[str, Any]) -> str | None:
    """The file that an error is about: a model or an input that is not on this machine."""
    endings = (*MODEL_ENDINGS, *INPUT_ENDINGS)
    if error["type"] == "value_not_in_list":
        value = error["extra_info"].get("received_value")
        return value if isinstance(value, str) and value.lower().endswith(endings) else None
    if error["type"] == "custom_validation_failed":
        found = re.search(r"Invalid \w+ file: (\S+)", str(error["details"]))
        name = found[1].rstrip(".") if found else ""
        return name if name.lower().endswith(INPUT_ENDINGS) else None
    return None


@dataclass(frozen=True)
class Share:
    """How many templates of a kind there are, and how many of them are good."""

    templates: int
    with_every_class: int
    valid: int | None

    @property
    def share_with_every_class(self) -> float:
        return self.with_every_class / self.templates if self.templates else 1.0


def shares(templates: Iterable[Template], *, were_validated: bool) -> dict[str, Share]:
    """Per kind, and for all."""
    templates = list(templates)
    kinds = [*dict.fromkeys(one.kind for one in templates), "all"]
    result = {}
    for kind in kinds:
        own = [one for one in templates if kind in (one.kind, "all")]
        valid = sum(one.is_valid for one in own) if were_validated else None
        result[kind] = Share(len(own), sum(one.has_every_class for one in own), valid)
    return result


def missed_targets(found: Mapping[str, Share]) -> list[str]:
    """The targets that are not reached, a sentence each."""
    return [
        f"{found[kind].share_with_every_class:.1%} of the templates of kind '{kind}' have every node class, "
        f"the target is {target:.0%}."
        for kind, target in TARGETS.items()
        if kind in found and found[kind].share_with_every_class < target
    ]


# --- the report -----------------------------------------------------------------------------------------


def told(templates: list[Template], found: Mapping[str, Share]) -> str:
    """The report as text."""
    lines = ["kind    templates  every class        no validation error"]
    for kind, share in found.items():
        valid = (
            "-" if share.valid is None else f"{share.valid:5d} {share.valid / max(share.templates, 1):8.1%}"
        )
        classes = f"{share.with_every_class:5d} {share.share_with_every_class:8.1%}"
        lines.append(f"{kind:8}{share.templates:9d}  {classes}     {valid}")
    missing = Counter(name for one in templates for name in one.missing_classes)
    lines += ["", "Missing classes (templates):"]
    lines += [f"  {count:4d} {name}" for name, count in missing.most_common()] or ["  none"]
    lines += ["", "Validation errors:"]
    lines += [f"  {one.name}: {error}" for one in templates for error in one.errors] or ["  none"]
    lines += ["", "Files that are not on this machine (no fault):"]
    lines.append(f"  {len({file for one in templates for file in one.missing_files})} files")
    return "\n".join(lines)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Which official workflow templates run here.")
    parser.add_argument("--json", metavar="FILE", help="Write what is known of each template to this file.")
    parser.add_argument("--kind", choices=["image", "video", "audio", "3d", "llm"], help="Only this kind.")
    parser.add_argument("--with-paid", action="store_true", help="Also those that need paid services.")
    parser.add_argument("--server", metavar="URL", help="Ask this server which classes there are.")
    return parser.parse_args(arguments)


def report(
    options: argparse.Namespace, say: Callable[[str], None] = print
) -> tuple[list[Template], dict[str, Share]]:
    """Read, judge and tell."""
    templates = read_templates(kind=options.kind, with_paid=options.with_paid)
    declared = declarations_of(options.server) if options.server else declarations_here()
    logging.disable(logging.ERROR)  # each refused prompt would be logged
    for template in templates:
        prompt = convert(template, declared)
        if not options.server:
            asyncio.run(validate(template, prompt))
    logging.disable(logging.NOTSET)
    found = shares(templates, were_validated=not options.server)
    say(told(templates, found))
    if options.json:
        rows = [{key: value for key, value in asdict(one).items() if key != "workflow"} for one in templates]
        Path(options.json).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return templates, found


def main(arguments: list[str] | None = None) -> int:
    """0 if the targets are reached, else 1; 2 without the packages."""
    options = parse(arguments)
    templates, found = report(options)
    if not templates:
        print(f"No template was found. Run: pip install {PACKAGE}")
        return 2
    missed = missed_targets(found)
    print("\n".join(["", *missed]) if missed else "\nAll targets are reached.")
    return 1 if missed else 0


if __name__ == "__main__":
    # The program reads its own command line when it is first imported.
    given, sys.argv = sys.argv[1:], sys.argv[:1]
    raise SystemExit(main(given))
