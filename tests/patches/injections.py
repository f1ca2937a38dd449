"""Changes such as upstream makes, each put into the text of a core in memory: the series must be refused.

    python tests/patches/injections.py REPO [REF]

For each place of the series: its name is another one, a parameter that it must have is another one, a second
definition stands beside it; and for each file: it is gone. A refusal must name the file and what is missed.
"""

import argparse
import re
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT / "patches") not in sys.path:
    sys.path.insert(0, str(ROOT / "patches"))

from weaving import anchors, sources  # noqa: E402 - the folder must be known first
from weaving.errors import Refused  # noqa: E402
from weaving.patch_files import read_series  # noqa: E402
from weaving.planning import Files, plan_weaving  # noqa: E402
from weaving.trees import Commit, Repository  # noqa: E402


@dataclass(frozen=True)
class Altered:
    """A tree in which one file is another, or is gone."""

    tree: object
    path: str
    data: bytes | None
    kind: str
    named: str
    """What a refusal must name, beside the file."""

    @property
    def name(self):
        return f"{self.kind} of {self.named} in {self.path}"

    def read(self, path):
        return self.data if path == self.path else self.tree.read(path)


def injections(tree, patches):
    """Every change, as an altered tree."""
    files = Files(tree)
    plan = plan_weaving(tree, patches, files)
    for path in plan.bare:
        yield Altered(tree, path, None, "move", "")
    places = {(target.path, target.anchor): None for target in plan.targets if target.anchor.name}
    for path, anchor in places:
        source = files.bare[path]
        function = None if anchor.kind in ("before", "after") else anchors.definition(source, anchor)
        edits = _edits_of_assignment(source, anchor) if function is None else _edits(source, anchor, function)
        for kind, text in edits:
            sources.read(path, text.encode()).tree  # noqa: B018 - what is tried must be valid Python itself
            yield Altered(tree, path, source.bom + text.encode(), kind, anchor.name)


def _edits(source, anchor, function):
    lines = source.lines
    first, end = function.lineno - 1, function.body[0].lineno - 1
    own = anchor.name.rpartition(".")[2]
    yield "rename", _replaced(lines, first, first + 1, rf"\bdef {own}\b", f"def {own}_of_another_name")
    for name in anchor.parameters:
        if name != "self":
            pattern = rf"(?<=[(,\s*]){name}(?=\s*[,:=)])"
            yield (
                f"lost parameter {name}",
                _replaced(lines, first, max(end, first + 1), pattern, f"other_{name}"),
            )
    top = min([function.lineno, *(mark.lineno for mark in function.decorator_list)]) - 1
    indent = lines[top][: len(lines[top]) - len(lines[top].lstrip())]
    copy = f"{indent}def {own}({', '.join(anchors.parameters(function))}): pass{source.newline}"
    yield "second definition", "".join([*lines[:top], copy, *lines[top:]])


def _edits_of_assignment(source, anchor):
    yield "rename", re.sub(rf"\b{anchor.name}\b", f"{anchor.name}_of_another_name", source.text)
    yield "second definition", f"{source.text}{source.newline}{anchor.name} = None{source.newline}"


def _replaced(lines, first, end, pattern, text):
    made, count = re.subn(pattern, text, "".join(lines[first:end]), count=1)
    assert count == 1, (pattern, lines[first:end])
    return "".join([*lines[:first], made, *lines[end:]])


def accepted(tree, patches):
    """What is not refused as it must be: "rename of get_full_path in folder_paths.py"; and counts."""
    wrong, counts = [], Counter()
    read = Files(tree)
    plan_weaving(tree, patches, read)
    for altered in injections(tree, patches):
        counts[altered.kind.split()[0]] += 1
        files = Files(altered)  # the other files need not be read again
        for known, of in ((read.before, files.before), (read.bare, files.bare)):
            of.update({path: source for path, source in known.items() if path != altered.path})
        try:
            plan_weaving(altered, patches, files)
        except Refused as refusal:
            if altered.path not in str(refusal) or altered.named not in str(refusal):
                wrong.append(f"{altered.name}: the refusal does not name it: {refusal}")
        else:
            wrong.append(f"{altered.name}: was woven")
    return wrong, counts


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("repository", type=Path)
    parser.add_argument("ref", nargs="?", default="HEAD")
    arguments = parser.parse_args()
    tree = Commit(Repository(arguments.repository), arguments.ref)
    wrong, counts = accepted(tree, read_series(ROOT / "patches"))
    print("\n".join(wrong) or "Each is refused, and the file and the name are told.", dict(counts))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
