"""What is written is checked: the file tree, the options, the dependencies and the benchmarks that the pages
name.
"""

import itertools
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def test_generated_pages_are_current():
    result = subprocess.run(
        [sys.executable, "scripts/generate_docs.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_file_tree_of_the_readme_exists_and_is_complete():
    tree = re.search(r"## The house\n.*?```\n(.*?)```", read("README.md"), re.S).group(1)
    named = set()
    for line in tree.splitlines():
        names = itertools.takewhile(re.compile(r"[\w.-]+(/|\.\w+)$|Makefile|LICENSE").match, line.split())
        named.update(name.rstrip("/") for name in names)
    missing = sorted(name for name in named if not (ROOT / name).exists())
    assert not missing, f"in the README but not in the tree: {missing}"
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    top = {name.split("/")[0] for name in tracked} - {".gitignore", ".ci"}
    assert top <= named, f"in the tree but not in the README: {sorted(top - named)}"


def test_every_dependency_has_its_line_of_reason():
    reasons = read("docs/dependencies.md")
    for file in ("requirements.txt", "requirements-dev.txt", "requirements-s3.txt"):
        for line in read(file).splitlines():
            name = re.match(r"[A-Za-z0-9_.-]+", line)
            if name and not line.startswith("-r"):
                assert f"`{name.group(0)}`" in reasons, (
                    f"{name.group(0)} of {file} is not in docs/dependencies.md"
                )


def test_every_benchmark_is_named_in_the_documents():
    pages = read("README.md") + "".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "docs").rglob("*.md")
    )
    silent = [path.name for path in (ROOT / "benchmarks").glob("*.py") if path.name not in pages]
    assert not silent, silent


def test_every_link_inside_the_documents_leads_somewhere():
    broken = []
    for page in [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "model_manifests").glob("*.md"),
        *(ROOT / "patches").glob("*.md"),
    ]:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    assert not broken, broken


def test_every_depot_option_is_explained_in_the_depot_page():
    page = read("docs/depot.md") + read("docs/options.md")
    source = read("comfy_depot/options.py")
    missing = [name for name in re.findall(r'add\(\s*"(--[a-z-]+)"', source) if name not in page]
    assert not missing, missing


def test_every_rule_of_execution_names_tests_that_exist():
    rows = re.findall(r"^\| (\d+) \| .* \| (.*) \|$", read("docs/rules.md"), re.M)
    assert [int(number) for number, _ in rows] == [*range(1, 95), 96]
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    exist = set(re.findall(r"def (test_\w+)", sources))
    named = {number: re.findall(r"`(test_\w+)`", tests) for number, tests in rows}
    assert not [number for number, tests in named.items() if not tests]
    assert not [test for tests in named.values() for test in tests if test not in exist]


def test_every_family_of_models_is_named_in_the_depot_page():
    from comfy_depot.base_models import FAMILIES

    page = read("docs/depot.md")
    assert not [name for name in FAMILIES if f"`{name}`" not in page]
