"""The commands of `weave.py`: reads the words, calls, and writes what was found."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from weaving import checks, git_commands, importing, packages, planning
from weaving.errors import Refused
from weaving.fingerprints import accept, hooked_bodies, read_tested, write_tested
from weaving.patch_files import Patch, choose, read_series
from weaving.planning import Files
from weaving.trees import Folder, core_of, core_version, open_tree, version_text

Command = Callable[[argparse.Namespace, Path, tuple[Patch, ...]], int]


def say(text: str) -> None:
    """A line for the user."""
    sys.stdout.write(f"{text}\n")


def main(home: Path, words: Sequence[str]) -> int:
    """Run the command that the words of the command line name; returns the exit status. `home` is the folder
    of the patches.
    """
    arguments = _parser().parse_args(words)
    try:
        arguments.series = read_series(home)
        patches = choose(arguments.series, arguments.without)
        command: Command = arguments.act
        return command(arguments, home, patches)
    except Refused as refusal:
        sys.stderr.write(f"Refused, and nothing was changed:\n{refusal}\n")
        return checks.REFUSED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="weave.py", description="Our lines in a ComfyUI.")
    parser.add_argument("--without", action="append", default=[], metavar="PATCH",
                        help="leave this patch out; may be given several times")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, act: Command, text: str | None) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text) if text else commands.add_parser(name)
        made.description = text
        made.set_defaults(act=act)
        return made

    for name, act, text in (
        ("check", _check, "Look at each place of the series. Exit 0: good, 3: untested, 1: refused."),
        ("verify", _verify, "Prove that the lines there are the series, and that nothing is lost."),
        ("accept", _accept, "Note the bodies of the hooked functions of this version as tested."),
    ):
        made = command(name, act, text)
        made.add_argument("target", nargs="?", default=".", help="a folder, or a commit of --repo")
        made.add_argument("--repo", type=Path, default=Path(), help="the git repository (default: here)")
        if name == "check":
            made.add_argument("--json", action="store_true", help="write the findings as JSON")
    made = command("apply", _apply, "Weave the series into a folder, all of it or nothing.")
    made.add_argument("folder", type=Path, nargs="?", default=Path())
    made.add_argument("--lines-only", action="store_true", help="do not put our packages beside")
    git_commands.add_apply_options(made)
    made = command("remove", _remove, "Take every line of ours out of a folder.")
    made.add_argument("folder", type=Path, nargs="?", default=Path())
    made = command("run", _run, "Run a main.py with the series woven in; no file changes.")
    made.add_argument("script", type=Path)
    made.add_argument("arguments", nargs=argparse.REMAINDER)
    git_commands.add_commands(command)
    return parser


def _check(arguments: argparse.Namespace, home: Path, patches: tuple[Patch, ...]) -> int:
    tree = open_tree(arguments.target, arguments.repo)
    findings = checks.check(tree, patches, read_tested(home / "tested.json"))
    status = checks.status_of(findings)
    if arguments.json:
        say(json.dumps([vars(finding) for finding in findings], indent=1))
        return status
    say(f"{tree.name}: {core_of(tree)}, {version_text(core_version(tree))}")
    for finding in findings:
        say(f"  {finding}")
    say({checks.OK: "Every place is there, and the functions are as they were when tested.",
         checks.UNTESTED: "Every place is there. What is untested has changed since the tests ran: see "
                          "docs/patches.md, \"When check turns yellow\".",
         checks.REFUSED: "Some places are not as the patches need them: apply would refuse."}[status])
    return status


def _verify(arguments: argparse.Namespace, home: Path, patches: tuple[Patch, ...]) -> int:
    tree = open_tree(arguments.target, arguments.repo)
    if isinstance(tree, Folder) and core_of(tree) == "depot":
        others = packages.python_files(tree.folder)
    else:
        others = [path for patch in arguments.series for hunk in patch.hunks for path in hunk.files]
    plan = checks.verify(tree, patches, others)
    say(f"{tree.name}: {len(plan.patches)} patches, {plan.line_count} lines in {len(plan.after)} files are "
        "the series; without them the files are the core's own, and both compile.")
    return checks.OK


def _accept(arguments: argparse.Namespace, home: Path, patches: tuple[Patch, ...]) -> int:
    tree = open_tree(arguments.target, arguments.repo)
    files = Files(tree)
    plan = planning.plan_weaving(tree, patches, files)
    bodies, version = hooked_bodies(files, plan.targets), version_text(core_version(tree))
    before = read_tested(home / "tested.json")
    after = accept(before, bodies, version)
    write_tested(home / "tested.json", after)
    new = sum(len(after.bodies[name]) - len(before.bodies.get(name, {})) for name in bodies)
    say(f"{len(bodies)} functions of {tree.name} ({version}) are tested; {new} bodies are new.")
    return checks.OK


def _apply(arguments: argparse.Namespace, home: Path, patches: tuple[Patch, ...]) -> int:
    if arguments.commit:
        return git_commands.commit(arguments, home, patches)
    tree = Folder(arguments.folder.resolve())
    plan = planning.plan_weaving(tree, patches)
    of_others = planning.plan_removal(tree, arguments.series)
    changes = {path: data for path, data in of_others.items() if path not in plan.after} | plan.changes
    if not arguments.lines_only and core_of(tree) == "upstream":
        packages.put_beside(home.parent, tree.folder, say)  # first: lines without them would stop the core
    tree.write(changes)
    say(f"{len(plan.patches)} patches, {plan.line_count} lines in {len(plan.after)} files of {tree.name}: "
        f"{len(changes)} files changed.")
    if missing := planning.left_out(tree, patches):
        say(f"Not for {version_text(core_version(tree))}: {', '.join(missing)}.")
    return checks.OK


def _remove(arguments: argparse.Namespace, home: Path, patches: tuple[Patch, ...]) -> int:
    tree = Folder(arguments.folder.resolve())
    changes = planning.plan_removal(tree, arguments.series)
    tree.write(changes)
    say(f"{len(changes)} files of {tree.name} are the core's own again. Our packages stay where they are.")
    return checks.OK


def _run(arguments: argparse.Namespace, home: Path, patches: tuple[Patch, ...]) -> int:
    importing.run(arguments.script, arguments.arguments, patches, home.parent)
    return checks.OK
