"""Write the pages of docs/ that follow from the code. `--check` writes nothing and exits 1 when one is out of
date.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def option_rows(group) -> list[str]:
    """One table row for each option of an argparse group that has a help text."""
    rows = []
    for action in group._group_actions:
        if action.help in (None, argparse.SUPPRESS) or not action.option_strings:
            continue
        metavar = f" {action.metavar}" if isinstance(action.metavar, str) else ""
        shown = [f"`{option}{metavar}`" for option in action.option_strings]
        rows.append(f"| {', '.join(shown)} | {action.help.replace('%%', '%')} |")
    return rows


def options_page() -> str:
    """docs/options.md: every option of `python main.py`, by group."""
    import comfy_depot.options
    from comfy import cli_args

    parser = cli_args.build_parser()
    comfy_depot.options.add_arguments(parser)
    lines = ["# Options of `python main.py`", "", "Written by `scripts/generate_docs.py` from the parser."]
    for group in parser._action_groups:
        rows = option_rows(group)
        if rows and group.title:
            lines += [
                "",
                f"## {group.title[0].upper()}{group.title[1:]}",
                "",
                "| option | effect |",
                "|---|---|",
                *rows,
            ]
    lines += [
        "",
        "## Accepted without effect",
        "",
        "Launch scripts of other ComfyUI versions pass these; they change nothing, and the log says so once.",
        "",
        " ".join(f"`{name}`" for name in cli_args.WITHOUT_EFFECT),
        "",
    ]
    return "\n".join(lines)


PAGES = {"docs/options.md": options_page}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only compare")
    check = parser.parse_args().check
    outdated = []
    for name, build in PAGES.items():
        path, text = ROOT / name, build()
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            outdated.append(name)
            if not check:
                path.write_text(text, encoding="utf-8")
                print(f"{name} written")
    if check and outdated:
        print(f"out of date: {', '.join(outdated)}. Run: python scripts/generate_docs.py")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
