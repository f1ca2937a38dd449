"""Write docs/openapi.json: all routes, from the tables beside their handlers. `--check` writes nothing and
ends with 1 when the file is out of date or a route is not described.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
PAGE = ROOT / "docs" / "openapi.json"


async def make_server(base: str):
    """A server with all routes of its own, on an empty folder, that never listens."""
    import comfy_depot.routes
    import folder_paths
    from comfy.cli_args import args
    from server import PromptServer

    args.base_directory = base
    folder_paths.apply_arguments(args)
    server = PromptServer(asyncio.get_running_loop())
    comfy_depot.routes.add_routes(server.routes, None)  # its handlers are not called
    return server


def generate() -> tuple[str, list[str]]:
    """The file's content, and what is not described or described in vain."""
    from app import openapi

    with tempfile.TemporaryDirectory() as base:
        server = asyncio.run(make_server(base))
        routes, operations = openapi.routes_of(server), openapi.tables()
        found = openapi.document(routes, operations)
        server.prompt_queue.close()
    return json.dumps(found, indent=1) + "\n", openapi.problems(routes, operations)


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only compare, and say what differs")
    is_check = parser.parse_args().check
    text, wrong = generate()
    if is_check and not wrong and (not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text):
        wrong.append("docs/openapi.json is out of date. Run: python scripts/generate_openapi.py")
    elif not is_check:
        PAGE.write_text(text, encoding="utf-8")
    sys.stdout.write("".join(sentence + "\n" for sentence in wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
