"""The executor runs in a plain script: without HTTP, and without torch as long as no node needs it."""

import re
import subprocess
import sys

from tests.fakes.source_tree import ROOT

# An entry of None lets every import of that name fail, wherever and whenever it happens.
MISSING = ["torch", "aiohttp", "numpy", "PIL", "server", "app"]
WITHOUT = f"import sys\nsys.modules.update(dict.fromkeys({MISSING}))\n"


def example():
    page = (ROOT / "docs/execution.md").read_text(encoding="utf-8")
    return re.search(r"## Without a server.*?```python\n(.*?)```", page, re.DOTALL).group(1)


def run(code):
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_example_of_the_documentation_runs_without_torch_and_aiohttp():
    result = run(WITHOUT + example())
    assert result.returncode == 0, result.stderr
    *events, outputs = result.stdout.splitlines()
    assert outputs == "{'2': {'value': [42]}}"
    assert [line.split() for line in events if line.split()[0] in ("executing", "executed")] == [
        ["executing", "1"], ["executing", "2"], ["executed", "2"],
    ]  # fmt: skip
    assert (events[0].strip(), events[-1].strip()) == ("execution_start", "execution_success")


def test_every_module_of_the_executor_loads_without_them():
    names = sorted(f"comfy_execution.{path.stem}" for path in (ROOT / "comfy_execution").glob("*.py"))
    result = run(WITHOUT + f"import importlib\nfor name in {names}: importlib.import_module(name)")
    assert result.returncode == 0, result.stderr
