"""Upstream's own tests, on a checkout as it is and on the same with our lines in it: a table of both.

    python tests/patches/upstream_own_tests.py CHECKOUT [--python PYTHON] [--path PYTHONPATH] [--port 8470]

`PYTHON` has what upstream, its tests and comfy_depot need. The checkout is copied, never changed. It is about
`tests-unit/` and the tests of the execution, which start a server. Exit 1: one ended otherwise with our
lines.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from tests.patches.features import hosts  # noqa: E402 - the folder must be known first

PARTS = (("unit", ("tests-unit",)), ("execution", ("tests/execution", "tests/inference/test_execution.py")))
ENDS = {"failure": "failed", "error": "error", "skipped": "skipped"}
OUTCOMES = ("passed", "failed", "error", "skipped")
MINUTES = 30
Outcomes = dict[str, str]
"""{test: how it ended}"""


def outcomes_of(report: Path) -> Outcomes:
    """What a report in JUnit's format tells. A test that failed and was not torn down counts as failed."""
    found: Outcomes = {}
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        kinds = {child.tag for child in case}
        outcome = next((ENDS[tag] for tag in ENDS if tag in kinds), "passed")
        if found.get(name) not in ("failed", "error"):
            found[name] = outcome
    return found


def run_tests(core: Path, places: list[str], options: argparse.Namespace) -> Outcomes:
    """Run these tests of a copy of upstream."""
    python = Path(options.python).absolute()
    environment = {
        **os.environ, "PATH": os.pathsep.join((str(python.parent), os.environ["PATH"])),
        "PYTHONPATH": os.pathsep.join(filter(None, (str(HERE), options.path))), "OMP_NUM_THREADS": "1",
        "UPSTREAM_TEST_PORT": str(options.port),
    }  # fmt: skip
    report = core.parent / f"{core.name}-{places[0].replace('/', '-')}.xml"
    command = [str(python), "-m", "pytest", *places, "-q", "-p", "no:cacheprovider", "-p", "patient_sleep",
               f"--junitxml={report}"]
    if places[0] != "tests-unit":
        command += ["--port", str(options.port)]
        if "--skip-timing-checks" in (core / "tests/conftest.py").read_text():
            command.append("--skip-timing-checks")
    with open(report.with_suffix(".log"), "w") as log:
        subprocess.run(command, cwd=core, env=environment, stdout=log, stderr=subprocess.STDOUT,
                       timeout=MINUTES * 60, check=False)
    if not report.exists():
        raise SystemExit(f"pytest did not get to its tests: {report.with_suffix('.log').read_text()[-3000:]}")
    return outcomes_of(report)


def table(results: dict[tuple[str, str], Outcomes]) -> str:
    """A line for each part and core."""
    lines = [f"{'tests':<12}{'core':<12}" + "".join(f"{outcome:>9}" for outcome in OUTCOMES)]
    for (part, core), outcomes in results.items():
        counts = Counter(outcomes.values())
        lines.append(f"{part:<12}{core:<12}" + "".join(f"{counts[outcome]:>9}" for outcome in OUTCOMES))
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--python", default=os.environ.get("COMFY_UPSTREAM_PYTHON") or sys.executable)
    parser.add_argument("--path", default=os.environ.get("COMFY_UPSTREAM_PYTHONPATH", ""))
    parser.add_argument("--port", type=int, default=8470)
    parser.add_argument("--only", choices=[part for part, _ in PARTS], help="one of the two parts")
    parser.add_argument("--keep", type=Path, help="a folder for the copies, logs and reports")
    options = parser.parse_args()
    results: dict[tuple[str, str], Outcomes] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        cores = {name: hosts.copy_of(options.checkout.resolve(), folder / name) for name in ("bare", "woven")}
        hosts.weave("apply", str(cores["woven"]))
        for part, known in PARTS:
            if options.only not in (None, part):
                continue
            for name, core in cores.items():
                places = [place for place in known if (core / place).exists()]
                results[part, name] = run_tests(core, places, options)
    differing = []
    for part in {part: None for part, _ in results}:
        bare, woven = results[part, "bare"], results[part, "woven"]
        differing += [f"{test}: {bare.get(test, 'not there')}, woven {woven.get(test, 'not there')}"
                      for test in sorted(bare.keys() | woven.keys()) if bare.get(test) != woven.get(test)]
    print(table(results))
    print("\n".join(differing) or "Each test ended the same way.")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
