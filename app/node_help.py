"""The help page of a node, written from what the node says of itself.

The web page shows it when a user asks what a node does. Package comfyui-embedded-docs has longer ones for
ComfyUI's own nodes; it is used when it is installed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

SECTIONS = ("required", "optional")
MOST_CHOICES = 8


def in_cell(text: Any) -> str:
    """Text that stays inside a cell of a Markdown table."""
    return " ".join(str(text).replace("|", "\\|").split())


def values(kind: Any, options: dict[str, Any]) -> str:
    """What an input takes: its type, or the choices of a list."""
    choices = kind if isinstance(kind, (list, tuple)) else options.get("options")
    if not isinstance(choices, (list, tuple)):
        return f"`{in_cell(kind)}`"
    names = [f"`{in_cell(choice)}`" for choice in choices[:MOST_CHOICES]]
    more = len(choices) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")


def limits(options: dict[str, Any]) -> str:
    """Default and bounds of an input."""
    known = [f"{name} {in_cell(options[name])}" for name in ("default", "min", "max") if name in options]
    return ", ".join(part for part in known if not part.endswith(" "))


def input_rows(inputs: dict[str, Any]) -> Iterator[str]:
    """A table row for each input that a user sees."""
    for section in SECTIONS:
        for name, declared in (inputs.get(section) or {}).items():
            kind, *more = declared if isinstance(declared, (list, tuple)) and declared else (declared,)
            options = more[0] if more and isinstance(more[0], dict) else {}
            yield (
                f"| {in_cell(name)} | {values(kind, options)} | {'yes' if section == 'required' else 'no'} "
                f"| {limits(options)} | {in_cell(options.get('tooltip', ''))} |"
            )


def output_rows(info: dict[str, Any]) -> Iterator[str]:
    """A table row for each output."""
    tooltips = info.get("output_tooltips") or ()
    for place, kind in enumerate(info.get("output") or ()):
        names = info.get("output_name") or ()
        name = names[place] if place < len(names) else kind
        tooltip = tooltips[place] if place < len(tooltips) else ""
        yield f"| {in_cell(name)} | {values(kind, {})} | {in_cell(tooltip or '')} |"


def help_page(info: dict[str, Any]) -> str:
    """Markdown from a node's entry in /object_info."""
    lines = [f"# {info.get('display_name') or info['name']}", ""]
    if info.get("description"):
        lines += [str(info["description"]).strip(), ""]
    lines += [f"Category `{info.get('category', '')}`, class `{info['name']}`.", ""]
    for title, head, rows in (
        ("Inputs", "| input | values | required | limits | meaning |", list(input_rows(info["input"]))),
        ("Outputs", "| output | type | meaning |", list(output_rows(info))),
    ):
        if rows:
            lines += [f"## {title}", "", head, "|---" * (head.count("|") - 1) + "|", *rows, ""]
    return "\n".join(lines)
