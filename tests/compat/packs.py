"""Import node packs with this program's own loader, each in a process of its own, and say what is missing.

    python tests/compat/packs.py [--json FILE] [--python PROGRAM] PATH...

PATH is a pack, or a folder of packs. Per pack: whether it is imported, its nodes, those that cannot
describe themselves, the names of the host that it uses and that are not here, and the packages of others that it lacks.
Ends with 1 when a pack fails for a reason of ours.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
# Not as `tests.compat.pack_names`: packages that packs need bring a top-level `tests` of their own.
sys.path[:0] = [str(ROOT), str(HERE)]

import pack_names  # noqa: E402

SECONDS = 300
MARK = "PACK-REPORT "


def packs_in(path: Path) -> list[Path]:
    """The pack at a path, or those in a folder of packs."""
    if path.is_file() or (path / "__init__.py").is_file():
        return [path]
    inside = sorted(one for one in path.iterdir() if one.suffix == ".py" or (one / "__init__.py").is_file())
    if not inside:
        raise SystemExit(f"{path} has no pack in it: no .py file and no folder with an __init__.py.")
    return inside


def try_pack(path: Path, python: str = sys.executable) -> dict[str, Any]:
    """What came of one pack, imported by a new process."""
    with tempfile.TemporaryDirectory(prefix="packs-") as base:
        command = [python, str(Path(__file__).resolve()), "--one", str(path.resolve()), "--base", base]
        started = time.perf_counter()
        try:
            done = subprocess.run(
                command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, errors="replace"
            )
        except subprocess.TimeoutExpired:
            return _failed(path, f"it was not imported within {SECONDS} seconds")
    lines = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    if not lines:
        return _failed(path, f"the process ended with {done.returncode}: {done.stderr[-2000:]}")
    return {**json.loads(lines[-1][len(MARK) :]), "seconds": round(time.perf_counter() - started, 1)}


def _failed(path: Path, error: str) -> dict[str, Any]:
    return {"name": path.stem, "error": error, "blame": "ours", "nodes": 0, "broken_nodes": {}, "missing": []}


# --- in the process of one pack ---------------------------------------------------------------------------


def report_on(path: Path, base: str) -> dict[str, Any]:
    """Import the pack beside a server that is not listening."""
    import main
    from comfy_execution import node_packs

    for folder in ("custom_nodes", "input", "output", "models", "user", "temp"):
        os.makedirs(os.path.join(base, folder), exist_ok=True)
    script = path / "prestartup_script.py"
    args = main.prepare(["--cpu", "--base-directory", base, "--disable-auto-launch", "--port", "0"])
    if script.is_file():
        node_packs._execute_file(f"{path.name}_prestartup", str(script))
    report, broken = asyncio.run(_load(args, path))
    missing, unguarded = missing_names(path)
    return {
        "name": path.stem,
        "error": report.error,
        "blame": blame(report.error, path),
        "nodes": len(report.node_names),
        "broken_nodes": broken,
        "missing": missing,
        "missing_at_import": unguarded,
    }


async def _load(args: argparse.Namespace, path: Path) -> tuple[Any, dict[str, str]]:
    import nodes
    import server as server_module
    from comfy_execution import node_packs

    server = server_module.PromptServer(asyncio.get_running_loop())
    await nodes.init_builtin_extra_nodes()
    report = await node_packs.load_pack(str(path), nodes._registry(nodes.NODE_CLASS_MAPPINGS))
    server.add_routes()
    return report, broken_nodes(report.node_names)


def broken_nodes(names: tuple[str, ...]) -> dict[str, str]:
    """{node: why it cannot be described} of nodes that the web page would not show."""
    from app.routes import object_info

    broken = {}
    for name in names:
        try:
            object_info.node_info(name)
        except Exception as error:  # code of the pack
            broken[name] = f"{type(error).__name__}: {error}"
    return broken


def missing_names(path: Path) -> tuple[list[str], list[str]]:
    """(host names that the pack uses without a guard and that are not here, those needed for its import)."""
    own = pack_names.own_modules(path)
    uses = sorted(use for use in pack_names.names_used(path) if not use.guarded)
    known: dict[str, str | None] = {}
    for use in uses:
        if use.name not in known and pack_names.is_host_name(use.name, own):
            known[use.name] = first_missing(use.name)
    missing = sorted({lack for lack in known.values() if lack})
    at_import = sorted({lack for use in uses if use.at_import and (lack := known.get(use.name))})
    return missing, at_import


def first_missing(name: str) -> str | None:
    """The first part of `module.name.attribute` that is not here; attributes of classes are not looked at."""
    import importlib
    from types import ModuleType

    parts = name.split(".")
    value: Any = importlib.import_module(parts[0])
    for number, part in enumerate(parts[1:], 2):
        if not isinstance(value, ModuleType):
            return None
        found = getattr(value, part, None)
        if found is None and not hasattr(value, part):
            try:
                found = importlib.import_module(".".join(parts[:number]))
            except ImportError:
                return ".".join(parts[:number])
        value = found
    return None


def blame(error: str | None, path: Path) -> str | None:
    """Who can mend it: `own dependency` for a package of others that is not installed, else `ours`."""
    if error is None:
        return None
    lacking = re.search(r"No module named '([^']+)'", error)
    if lacking:
        return "ours" if pack_names.is_host_name(lacking.group(1)) else "own dependency"
    foreign = re.search(r"cannot import name '[^']+' from '([^']+)'", error)
    if foreign and not pack_names.is_host_name(foreign.group(1)):
        return "own dependency"
    return "ours"


# --- the table --------------------------------------------------------------------------------------------


def describe(report: dict[str, Any]) -> str:
    """One pack in a few lines."""
    head = f"{report['name'][:44]:44} {report['nodes']:4} nodes  "
    head += "imported" if report["error"] is None else f"FAILED ({report['blame']}): {report['error'][-300:]}"
    lines = [head]
    broken = report["broken_nodes"].items()
    lines += [f"      cannot describe itself: {name}: {why[:160]}" for name, why in broken]
    at_import = set(report.get("missing_at_import", ()))
    when = {name: " at import" if name in at_import else "" for name in report["missing"]}
    lines += [f"      missing{when[name]}: {name}" for name in report["missing"]]
    return "\n".join(lines)


def summary(reports: list[dict[str, Any]]) -> str:
    """How many packs are imported, of those whose own dependencies are here."""
    able = [one for one in reports if one["blame"] != "own dependency"]
    imported = sum(one["error"] is None for one in able)
    share = imported / len(able) if able else 1.0
    nodes = sum(one["nodes"] for one in able)
    return (
        f"{imported} of {len(able)} packs are imported ({share:.0%}), {nodes} nodes; "
        f"{len(reports) - len(able)} more lack packages of others."
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("paths", nargs="*", type=Path)
    parser.add_argument("--json", type=Path, help="Write the reports to this file too.")
    parser.add_argument("--python", default=sys.executable, help="The Python that has the packs' packages.")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--base", help=argparse.SUPPRESS)
    chosen = parser.parse_args(argv)
    if chosen.one is not None:
        sys.stdout.write(MARK + json.dumps(report_on(chosen.one, chosen.base)) + "\n")
        sys.stdout.flush()
        os._exit(0)  # threads of packs do not hold the process
    paths = [pack for path in chosen.paths for pack in packs_in(path)]
    with ThreadPoolExecutor(chosen.jobs) as pool:
        reports = []
        for report in pool.map(lambda path: try_pack(path, chosen.python), paths):
            reports.append(report)
            sys.stdout.write(describe(report) + "\n")
            sys.stdout.flush()
    sys.stdout.write(summary(reports) + "\n")
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(reports, indent=1), encoding="utf-8")
    return int(any(one["error"] is not None and one["blame"] == "ours" for one in reports))


if __name__ == "__main__":
    raise SystemExit(main())
