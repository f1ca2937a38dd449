"""`COMPATIBILITY.md`: the rows of the matrix as a page."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence

from weaving.matrix import GOOD, OK, UNTESTED, Row
from weaving.patch_files import Patch
from weaving.trees import version_text

HEAD = """# Which versions of upstream the patches fit

Written by `python patches/weave.py matrix REPO --output patches/COMPATIBILITY.md`, which weaves each version
from git's objects. `ok`: each place of the patch is there exactly once, the woven files compile, taking our
lines out gives upstream's bytes back, and weaving again changes nothing. `ok*`: the same, and the body of
a hooked function is none that the feature tests have run with. `-`: the patch is not for this version. Any
other word is why the patch would not be woven.
"""


def summary_of(rows: Sequence[Row]) -> str:
    """The counts, in one line."""
    states = Counter(state for row in rows for state in row.states.values())
    tried = sum(count for state, count in states.items() if state != "-")
    good = states[OK] + states[UNTESTED]
    share = 100 * good / max(1, tried)
    return (f"{len(rows)} versions, {tried} pairs of a version and a patch for it: {good} ok ({share:.1f} "
            f"%), of which {states[UNTESTED]} with a body that is not tested; {tried - good} refused.")


def page_of(rows: Sequence[Row], patches: Sequence[Patch], every: int) -> str:
    """The page. Rows oldest first; on the page the newest is first."""
    names = [patch.name for patch in patches if patch.core != "depot"]
    releases = [row for row in reversed(rows) if row.is_release]
    between = [row for row in reversed(rows) if not row.is_release]
    parts = [HEAD, f"{summary_of(rows)}\n"]
    parts += [f"## Releases\n\n{summary_of(releases)}\n\n{_table(releases, names)}"] if releases else []
    if between:
        wrong = [row for row in between if not row.is_good]
        text = (f"## Between releases\n\nEach {every}th commit of the main line from {between[-1].date} to "
                f"{between[0].date}: {summary_of(between)}\n")
        parts.append(text + (f"\nThose where a patch is refused:\n\n{_table(wrong, names)}" if wrong else ""))
    reasons = [f"- {version_text(row.version)}, {row.commit[:10]}: {reason}"
               for row in reversed(rows) for reason in row.reasons]
    parts += ["## Why\n\n" + "\n".join(reasons) + "\n"] if reasons else []
    return "\n".join(parts)


def _table(rows: Sequence[Row], names: Sequence[str]) -> str:
    lines = [f"| version | date | commit | {' | '.join(names)} |", f"|---|---|---|{'---|' * len(names)}"]
    lines += [f"| {version_text(row.version)} | {row.date} | {row.commit[:10]} | "
              f"{' | '.join(row.states[name] for name in names)} |" for row in rows]
    return "\n".join(lines) + "\n"


def line_of(row: Row) -> str:
    """A row for the terminal: the patches that all do the same in one word."""
    states = Counter(row.states.values())
    bad = [f"{name}: {state}" for name, state in row.states.items() if state not in GOOD]
    counts = ", ".join(f"{count} {state}" for state, count in sorted(states.items()) if state in GOOD)
    return f"{row.date} {row.commit[:10]} {version_text(row.version):<10} {'; '.join([counts, *bad])}"


def difference(page: str, wanted: str) -> str:
    """The lines in which a page is not the wanted one; "" when it is."""
    sides = page.splitlines(), wanted.splitlines()
    return "\n".join(difflib.unified_diff(*sides, "the page", "the history", n=0, lineterm=""))
