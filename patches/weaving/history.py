"""Which versions of upstream a repository holds: its releases, and commits between them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from weaving.errors import Refused
from weaving.patch_files import Version, version_of
from weaving.trees import Repository, Tree, core_version

MONTHS_LOOKED_AT = 18
VERSION_FILE = "comfyui_version.py"
_TAG = re.compile(r"v\d+(\.\d+)*")


@dataclass(frozen=True)
class Candidate:
    """A commit whose files are to be tried."""

    repository: Repository
    commit: str
    date: str
    """Of the commit, as 2026-08-13."""
    version: Version
    is_release: bool


class CommitFiles:
    """The files of a commit, each known by the name of its object before it is read again."""

    def __init__(self, candidate: Candidate) -> None:
        self.name = candidate.commit
        self._repository = candidate.repository
        self._found: dict[str, tuple[str, bytes] | None] = {}

    def read(self, path: str) -> bytes | None:
        found = self._blob(path)
        return None if found is None else found[1]

    def object_name(self, path: str) -> str:
        """The name of a file's content; "" where there is no file."""
        found = self._blob(path)
        return "" if found is None else found[0]

    def _blob(self, path: str) -> tuple[str, bytes] | None:
        if path not in self._found:
            self._found[path] = self._repository.blob(f"{self.name}:{path}")
        return self._found[path]


def candidates(
    repositories: Sequence[Repository], *, tags: str = "", since: str = "", every: int = 25
) -> list[Candidate]:
    """The releases of all repositories, and each Nth commit of their main line, oldest first.

    `tags` is a range such as v0.3.28..v0.4, where v0.4 stands for all of its versions; `since` a date such
    as 2025-03-01, 18 months before the newest commit when it is left out and no tags are named. A release
    that two repositories have is taken from the first.
    """
    first, last = _range(tags)
    since = _day(since) or ("" if tags else _months_before(repositories))
    releases: dict[Version, Candidate] = {}
    for repository in repositories:
        for found in _releases(repository):
            is_wanted = first <= found.version and (last is None or found.version[:len(last)] <= last)
            if is_wanted and found.date >= since:
                releases.setdefault(found.version, found)
    chosen = {found.commit: found for found in releases.values()}
    if every and not tags:
        line = {found.commit: found for repository in repositories for found in _main_line(repository, since)}
        for found in sorted(line.values(), key=lambda found: (found.date, found.commit))[::-every]:
            chosen.setdefault(found.commit, found)
    if not chosen:
        raise Refused("There is no version in this range. Name an older date with --since, or other --tags.")
    return sorted(chosen.values(), key=lambda found: (found.date, found.version, found.commit))


def _range(tags: str) -> tuple[Version, Version | None]:
    match = re.fullmatch(r"(v[\d.]*\d)?\.\.(v[\d.]*\d)?", tags or "..")
    if match is None:
        raise Refused(f"--tags is a range such as v0.3.28.. or v0.3.28..v0.4, not {tags!r}.")
    return version_of(match[1] or ""), version_of(match[2]) if match[2] else None


def _day(since: str) -> str:
    try:
        return date.fromisoformat(since).isoformat() if since else ""
    except ValueError:
        raise Refused(f"--since is a day such as 2025-03-01, not {since!r}.") from None


def _months_before(repositories: Sequence[Repository]) -> str:
    newest = max(repository.git("log", "-1", "--format=%cs", "HEAD") for repository in repositories)
    return (date.fromisoformat(newest) - timedelta(days=round(MONTHS_LOOKED_AT * 365.25 / 12))).isoformat()


def _releases(repository: Repository) -> list[Candidate]:
    """The tags; where there are none, each commit that gives `comfyui_version.py` another number."""
    form = "--format=%(refname:short)%09%(objectname)"
    rows = repository.git("for-each-ref", form, "refs/tags").splitlines()
    tags = {name: commit for name, commit in (row.split("\t") for row in rows) if _TAG.fullmatch(name)}
    if tags:
        dates = repository.git("log", "--no-walk=unsorted", "--format=%H %cs", *tags.values()).splitlines()
        return [Candidate(repository, commit, day, version_of(name), True)
                for name, (commit, day) in zip(tags, map(str.split, dates), strict=True)]
    rows = repository.git("log", "--first-parent", "--reverse", "--format=%H %cs", "HEAD", "--",
                          VERSION_FILE).splitlines()
    found: dict[Version, Candidate] = {}
    for commit, day in map(str.split, rows):
        version = version_at(repository, commit)
        found.setdefault(version, Candidate(repository, commit, day, version, True))
    found.pop((), None)
    return list(found.values())


def _main_line(repository: Repository, since: str) -> list[Candidate]:
    rows = repository.git("log", "--first-parent", "--format=%H %cs", "HEAD").splitlines()
    return [Candidate(repository, commit, day, (), False)
            for commit, day in map(str.split, rows) if day >= since]


def version_at(repository: Repository, commit: str) -> Version:
    """The version that a commit says it has."""
    tree: Tree = CommitFiles(Candidate(repository, commit, "", (), False))
    return core_version(tree)
