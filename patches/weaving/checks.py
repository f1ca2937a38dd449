"""`check` and `verify`: what the series finds in a tree, and the proof that weaving loses nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from weaving import sources, woven
from weaving.errors import AnchorError, Refused
from weaving.fingerprints import Tested, hooked_bodies, missing_watches, untested
from weaving.patch_files import Patch
from weaving.planning import Files, Plan, Target, locate, patches_for, plan_weaving, weave_files
from weaving.trees import Tree, core_of

OK, UNTESTED, REFUSED = 0, 3, 1
"""Exit statuses of `check`."""


@dataclass(frozen=True)
class Finding:
    """What was found at one place, or of one watch."""

    patch: str
    where: str
    state: str
    detail: str = ""

    @property
    def status(self) -> int:
        """The exit status that it alone would give."""
        return {"ok": OK, "ok, body untested": UNTESTED, "watch missing": UNTESTED}.get(self.state, REFUSED)

    def __str__(self) -> str:
        detail = f"\n      {self.detail}" if self.detail else ""
        return f"{self.state:<18} {self.patch:<14} {self.where}{detail}"


def check(tree: Tree, patches: Sequence[Patch], tested: Tested) -> list[Finding]:
    """What is at each place of the series; nothing is written."""
    files, found = Files(tree), []
    targets: list[Target] = []
    for patch in patches_for(tree, patches):
        for hunk in patch.hunks:
            wanted = f"{' | '.join(hunk.files)}: {' | '.join(map(str, hunk.anchors))}"
            try:
                path, anchor = locate(files, hunk)
            except AnchorError as error:
                found.append(Finding(patch.name, wanted, error.state, str(error)))
                continue
            targets.append(Target(patch, path, anchor, hunk.lines))
            is_new = bool(untested(tested, hooked_bodies(files, targets[-1:])))
            found.append(Finding(patch.name, f"{path}: {anchor}", "ok, body untested" if is_new else "ok"))
    try:
        weave_files(files, targets)
    except Refused as error:
        found.append(Finding("(series)", "the files as a whole", "refused", str(error)))
    if core_of(tree) == "upstream":
        found += [Finding("(watch)", name, "watch missing", "What our lines mean rests on it. Run the "
                          "feature tests on this version before you trust it.")
                  for name in missing_watches(files, tested.watches)]
    return found


def status_of(findings: Sequence[Finding]) -> int:
    """The exit status: what was refused counts more than what is untested."""
    states = {finding.status for finding in findings}
    return REFUSED if REFUSED in states else UNTESTED if UNTESTED in states else OK


def verify(tree: Tree, patches: Sequence[Patch], others: Sequence[str] = ()) -> Plan:
    """Prove of a tree that the lines of ours in it are those of the series, in its places, and no others:
    freed of them and woven again each file is the same, byte for byte. `others` are files that may have
    lines of ours as well and are in no patch.

    Raises Refused, which names each file and line that differs.
    """
    plan = plan_weaving(tree, patches)
    wrong = []
    for path, before in plan.before.items():
        after = plan.after[path]
        if before.data != after.data:
            wrong.append(f"{path}: {_difference(before.lines, after.lines)}")
    for path in others:
        data = None if path in plan.before else tree.read(path)
        if data is not None:
            source = sources.read(path, data)
            wrong += [f"{path}:{index + 1}: `{source.lines[index].strip()}` is in no patch of the series."
                      for index in woven.our_lines(source)]
    if wrong:
        raise Refused("\n".join(wrong))
    return plan


def _difference(before: list[str], after: list[str]) -> str:
    for number, (here, wanted) in enumerate(zip(before, after, strict=False), start=1):
        if here != wanted:
            return f"line {number} is `{here.strip()}` and would be `{wanted.strip()}` by the series."
    return f"it has {len(before)} lines and would have {len(after)} by the series."


