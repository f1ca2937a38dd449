"""Does a plain `git rebase` go past our lines, over a year of upstream's history?

    python tests/patches/rebase_upstream.py REPO [--bases 10] [--head REF]

For each of some commits spread over the year before the head: `weave.py apply BASE --commit` and
`install-driver` in a fresh clone, then git's own `git rebase HEAD depot`. It must not stop, the result must
be the tree that a fresh `apply` on the head gives, and no commit may be lost or added. The same without the
driver is for comparison.

The clones hold the Python files only, since a mirror need not have all others: each commit that is used
becomes one with the same content of these, and their history is that one line.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WEAVE = ROOT / "patches" / "weave.py"
KEPT = (".py", "pyproject.toml")
IDENTITY = {
    f"GIT_{who}_{what}": text
    for who in ("AUTHOR", "COMMITTER")
    for what, text in (("NAME", "A User"), ("EMAIL", "user@example.org"))
}
WITHOUT_CONFIGURATION = {**IDENTITY, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}


@dataclass(frozen=True)
class Rebase:
    """How one went."""

    base: str
    date: str
    clean_with_driver: bool
    same_tree: bool
    commits_before: int
    commits_after: int
    clean_without_driver: bool
    seconds: float

    @property
    def is_good(self):
        return self.clean_with_driver and self.same_tree and self.commits_before == self.commits_after


def git(folder, *words, data=None, check=True):
    """What a git command writes (check=True), or how it ended."""
    done = subprocess.run(
        ["git", "-C", str(folder), *words],
        input=data,
        capture_output=True,
        text=True,
        env={**os.environ, **WITHOUT_CONFIGURATION},
    )
    if check and done.returncode:
        raise RuntimeError(f"git {' '.join(words)}: {done.stderr}")
    return done.stdout.strip() if check else done


def weave(*words):
    done = subprocess.run(
        [sys.executable, str(WEAVE), *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, **WITHOUT_CONFIGURATION},
    )
    if done.returncode:
        raise RuntimeError(f"weave.py {' '.join(map(str, words))}: {done.stderr}")
    return done.stdout


def bases_before(repository, head, count, days=365):
    """(commit, date) of commits spread evenly over the days before a head, oldest first."""
    end = int(git(repository, "show", "-s", "--format=%ct", head))
    found = git(
        repository,
        "rev-list",
        "--first-parent",
        f"--since={end - days * 86400}",
        "--format=%cs",
        "--no-commit-header",
        head,
    ).splitlines()
    names = git(repository, "rev-list", "--first-parent", f"--since={end - days * 86400}", head).splitlines()
    chosen = [len(names) - 1 - number * len(names) // count for number in range(count)]
    return [(names[index], found[index]) for index in chosen]


def lean_line(source, commits, folder):
    """A repository with these commits as its history, one behind the other, of their Python files only;
    returns their names in it.
    """
    subprocess.run(["git", "init", "-q", "--bare", "-b", "line", str(folder)], check=True)
    (folder / "objects" / "info" / "alternates").write_text(f"{(Path(source) / 'objects').resolve()}\n")
    made = []
    for commit in commits:
        rows = [row for row in git(source, "ls-tree", "-r", commit).splitlines() if row.endswith(KEPT)]
        names = "".join(f"{row.split()[2]}\n" for row in rows)
        state = git(source, "cat-file", "--batch-check", data=names).splitlines()
        kept = "".join(
            f"{row}\n" for row, line in zip(rows, state, strict=True) if not line.endswith("missing")
        )
        index = {"GIT_INDEX_FILE": str(folder / "lean-index")}
        (folder / "lean-index").unlink(missing_ok=True)
        for words, text in ((("update-index", "--index-info"), kept),):
            subprocess.run(
                ["git", "-C", str(folder), *words],
                input=text,
                text=True,
                check=True,
                env={**os.environ, **index},
            )
        tree = subprocess.run(
            ["git", "-C", str(folder), "write-tree"],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, **index},
        ).stdout.strip()
        parents = ["-p", made[-1]] if made else []
        made.append(git(folder, "commit-tree", tree, *parents, "-m", f"As in {commit}"))
    git(folder, "update-ref", "refs/heads/line", made[-1])
    return made


def fresh_clone(line, base, folder, with_driver):
    """A clone in which the branch depot is checked out: the series on top of a base."""
    subprocess.run(["git", "clone", "-q", "--shared", "--no-checkout", str(line), str(folder)], check=True)
    weave("apply", base, "--commit", "--repo", folder)
    if with_driver:
        weave("install-driver", folder)
    git(folder, "checkout", "-q", "depot")


def rebase(folder, head):
    """Whether git's own rebase came to its end without a stop."""
    done = git(folder, "rebase", head, check=False)
    return done.returncode == 0, done.stdout + done.stderr


def measure(line, base, head, date, folder):
    started = time.monotonic()
    plain, driven = folder / "plain", folder / "driven"
    fresh_clone(line, base, plain, with_driver=False)
    fresh_clone(line, base, driven, with_driver=True)
    before = int(git(driven, "rev-list", "--count", f"{base}..depot"))
    clean, text = rebase(driven, head)
    if not clean:
        sys.stderr.write(f"{base} ({date}) stopped:\n{text}\n")
    after = int(git(driven, "rev-list", "--count", f"{head}..HEAD"))
    weave("apply", head, "--commit", "--branch", "fresh", "--repo", driven)
    same = git(driven, "rev-parse", "HEAD^{tree}") == git(driven, "rev-parse", "fresh^{tree}")
    return Rebase(base, date, clean, same, before, after, rebase(plain, head)[0], time.monotonic() - started)


def run(repository, head="HEAD", count=10):
    """A Rebase for each base."""
    head = git(repository, "rev-parse", head)
    bases = bases_before(repository, head, count)
    with tempfile.TemporaryDirectory(prefix="rebase-") as folder:
        line = Path(folder) / "line.git"
        *names, end = lean_line(repository, [commit for commit, _ in bases] + [head], line)
        for number, (name, (commit, date)) in enumerate(zip(names, bases, strict=True)):
            (Path(folder) / str(number)).mkdir()
            found = measure(line, name, end, date, Path(folder) / str(number))
            yield Rebase(**{**asdict(found), "base": commit})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("repository", type=Path)
    parser.add_argument("--head", default="HEAD")
    parser.add_argument("--bases", type=int, default=10)
    arguments = parser.parse_args()
    results = []
    for found in run(arguments.repository, arguments.head, arguments.bases):
        results.append(found)
        print(json.dumps(asdict(found)), flush=True)
    good, plain = (
        sum(found.is_good for found in results),
        sum(found.clean_without_driver for found in results),
    )
    print(
        f"Of {len(results)} {good} are good with the driver, and {plain} come to an end without it."
    )
    return 0 if good == len(results) else 1


if __name__ == "__main__":
    sys.exit(main())
