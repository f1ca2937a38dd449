"""The forest is right at the next question, whatever happened to the files, with and without the kernel's
help. The truth is what a plain walk finds.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from comfy_depot import forest, inotify
from comfy_depot.forest import Forest, Tree

ROOT = Path(forest.__file__).parents[1]


@pytest.fixture(params=["watched", "looked at"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Once where the kernel tells of changes, once as on a network file system."""
    if request.param == "looked at":
        monkeypatch.setattr(inotify, "LOCAL_FILE_SYSTEMS", frozenset())
    elif not inotify.Watcher().is_on:
        pytest.skip("this system has no inotify")
    return str(request.param)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


def truth(root: Path, above: tuple[tuple[int, int], ...] = ()) -> dict[str, tuple[int, int] | None]:
    """Each file with its size and inode; None for a link to nothing. A link back up is not followed."""
    if not root.is_dir():
        return {}
    status = root.stat()
    above = (*above, (status.st_dev, status.st_ino))
    found: dict[str, tuple[int, int] | None] = {}
    for path in root.iterdir():
        status = path.stat() if path.exists() else path.lstat()
        if not path.is_dir():
            found[path.name] = (status.st_size, status.st_ino) if path.exists() else None
        elif path.name not in forest.EXCLUDED and (status.st_dev, status.st_ino) not in above:
            found |= {os.path.join(path.name, name): facts for name, facts in truth(path, above).items()}
    return found


def known(tree: Tree) -> dict[str, tuple[int, int] | None]:
    tree.learn_facts()
    found: dict[str, tuple[int, int] | None] = {}
    for name in tree.names():
        folder, base = tree.place(name) or pytest.fail(f"{name} is listed and has no place")
        facts = folder.files[base]
        found[name] = facts and (facts.size, facts.inode)
    return found


def test_a_question_is_answered_from_the_disk_as_it_is(root: Path, way: str) -> None:
    woods = Forest()
    (root / "sub").mkdir()
    (root / "a").write_bytes(b"1")
    (root / "sub" / "b").write_bytes(b"12")
    steps = {
        "nothing": lambda: None,
        "a file comes": lambda: (root / "sub" / "c").write_bytes(b"123"),
        "a file goes": (root / "a").unlink,
        "a file is written to": lambda: (root / "sub" / "b").write_bytes(b"more bytes"),
        "a file is cut": lambda: os.truncate(root / "sub" / "b", 1),
        "one of the same size takes its place": lambda: os.replace(root / "sub" / "b", root / "sub" / "c"),
        "a folder is renamed": lambda: (root / "sub").rename(root / "other"),
        "another one takes the old name": lambda: ((root / "sub").mkdir(), (root / "sub" / "x").touch()),
        "a folder comes": lambda: ((root.parent / "full" / "deep").mkdir(parents=True),
                                   (root.parent / "full" / "deep" / "y").touch(),
                                   (root.parent / "full").rename(root / "full")),
        "a folder goes": lambda: (root / "full").rename(root.parent / "full"),
        "the hidden folder comes": lambda: ((root / ".depot").mkdir(), (root / ".depot" / "p").touch()),
        "a file becomes a folder": lambda: ((root / "z").touch(), (root / "z").unlink(),
                                            (root / "z").mkdir()),
        "all go": lambda: shutil.rmtree(root),
        "all come again": lambda: ((root / "new").mkdir(parents=True), (root / "new" / "n").touch()),
        "another root takes the place": lambda: (root.rename(root.parent / "old"), root.mkdir(),
                                                 (root / "fresh").touch()),
    }  # fmt: skip
    for what, happens in steps.items():
        happens()
        assert known(woods.tree(str(root))) == truth(root), what
    woods.close()


def test_links_are_followed_wherever_they_lead_now(root: Path, way: str) -> None:
    woods, library = Forest(), root.parent / "library"
    (library / "one").mkdir(parents=True)
    (library / "two").mkdir()
    (library / "one" / "a").write_bytes(b"1")
    (library / "two" / "b").write_bytes(b"22")
    (library / "file").write_bytes(b"1")
    steps = {
        "a link to a folder comes": lambda: (root / "link").symlink_to(library / "one"),
        "a file comes behind it": lambda: (library / "one" / "new").touch(),
        "it leads elsewhere": lambda: ((root / "link").unlink(), (root / "link").symlink_to(library / "two")),
        "what it leads to is replaced": lambda: ((library / "two").rename(library / "gone"),
                                                 (library / "one").rename(library / "two")),
        "it leads nowhere": lambda: shutil.rmtree(library / "two"),
        "it leads somewhere again": lambda: ((library / "two").mkdir(), (library / "two" / "c").touch()),
        "a link to a file comes": lambda: (root / "file").symlink_to(library / "file"),
        "the file is written to": lambda: (library / "file").write_bytes(b"longer"),
        "the file is replaced": lambda: ((library / "next").write_bytes(b"longer"),
                                         os.replace(library / "next", library / "file")),
        "the file is gone": (library / "file").unlink,
        "the file is back": lambda: (library / "file").write_bytes(b"3"),
        "two links lead to one folder": lambda: (root / "twin").symlink_to(library / "two"),
        "and a file comes there": lambda: (library / "two" / "d").touch(),
        "one of them goes": (root / "twin").unlink,
        "and one more comes there": lambda: (library / "two" / "e").touch(),
    }  # fmt: skip
    for what, happens in steps.items():
        happens()
        assert known(woods.tree(str(root))) == truth(root), what
    woods.close()


def test_a_link_back_up_is_not_followed(root: Path, way: str) -> None:
    (root / "sub").mkdir()
    (root / "sub" / "a").touch()
    (root / "sub" / "loop").symlink_to(root)
    assert list(Forest().tree(str(root)).names()) == [os.path.join("sub", "a")]


@pytest.mark.parametrize("seed", range(4))
def test_after_random_changes_the_files_are_those_of_the_disk(root: Path, way: str, seed: int) -> None:
    chance, woods = random.Random(seed), Forest()
    outside = root.parent / "outside"
    outside.mkdir()

    def some(folders: bool) -> Path:
        kinds = [Path(path) / name for path, below, files in os.walk(root)
                 for name in (below if folders else files)]
        return chance.choice(kinds or [root / "nothing"])

    def change() -> None:
        folder = chance.choice([root, some(True)])
        name = folder / chance.choice("abcdef")
        kind = chance.randrange(8)
        if kind == 0:
            name.mkdir(exist_ok=True)
        elif kind <= 2:
            name.write_bytes(b"x" * chance.randrange(3))
        elif kind == 3:
            some(False).unlink()
        elif kind == 4:
            some(True).rename(chance.choice([root, some(True)]) / chance.choice("abcdef"))
        elif kind == 5:
            shutil.rmtree(some(True))
        elif kind == 6 and sum(path.is_symlink() for path in root.rglob("*")) < 3:  # more multiply the files
            name.symlink_to(chance.choice([outside, some(True), some(False)]))
        else:
            (outside / chance.choice("abc")).touch()

    lists = set()
    for _ in range(80):
        for _ in range(chance.randrange(1, 4)):
            try:
                change()
            except (OSError, shutil.Error):  # the disk refused it
                continue
        tree = woods.tree(str(root))
        expected = truth(root)
        assert known(tree) == expected
        lists.add(frozenset(expected))
    assert len(lists) > 10
    woods.close()


def test_changes_say_which_names_came_and_went(
    root: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forest, "MOST_CHANGES_KEPT", 20)
    woods = Forest()
    (root / "a").touch()
    before = woods.tree(str(root)).version
    (root / "b").touch()
    (root / "a").unlink()
    tree = woods.tree(str(root))
    assert sorted(tree.changes_since(before) or ()) == ["a", "b"]
    assert tree.changes_since(tree.version) == []
    for number in range(forest.MOST_CHANGES_KEPT + 1):
        (root / f"n{number}").touch()
    tree = woods.tree(str(root))
    assert tree.changes_since(before) is None, "more than is kept"
    assert tree.version > before + forest.MOST_CHANGES_KEPT


def test_more_events_than_the_kernel_keeps_lose_nothing(root: Path) -> None:
    woods = Forest()
    woods.tree(str(root))
    queued = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    one, other = root / "one", root / "other"
    for _ in range(queued // 4 + 1):  # four events for each turn
        one.touch()
        one.rename(other)
        other.unlink()
    one.write_bytes(b"last")
    assert known(woods.tree(str(root))) == truth(root)


def test_without_a_free_watch_folders_are_looked_at(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    woods = Forest()

    def full(queue: int, path: bytes, mask: int) -> int:
        import ctypes

        ctypes.set_errno(28)
        return -1

    monkeypatch.setattr(woods._watcher._libc, "inotify_add_watch", full)
    woods.tree(str(root))
    (root / "a").touch()
    (root / "sub").mkdir()
    assert list(woods.tree(str(root)).names()) == ["a"]
    assert caplog.text.count("sysctl fs.inotify.max_user_watches=1048576") == 1


def test_the_file_system_of_a_path_is_that_of_the_nearest_mount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(
        "22 1 0:20 / / rw - overlay none rw\n"
        "23 22 0:21 / /models rw - nfs4 host:/ rw\n"
        "24 23 0:22 / /models/fast\\040disk rw shared:1 - ext4 /dev/x rw\n"
    )
    monkeypatch.setattr(inotify, "MOUNTS", str(mounts))
    found = map(inotify.file_system, ("/", "/models", "/models/a", "/models/fast disk/a", "/modelsx"))
    assert list(found) == ["overlay", "nfs4", "nfs4", "ext4", "overlay"]
    monkeypatch.setattr(inotify, "MOUNTS", str(tmp_path / "none"))
    assert inotify.file_system("/") is None


def test_a_folder_without_rights_is_left_out_until_it_has_them_again(root: Path) -> None:
    """As another user than root, whom no rights stop."""
    (root / "shut").mkdir()
    (root / "shut" / "a").touch()
    (root / "b").touch()
    code = f"""
import os, sys
sys.path.insert(0, {str(ROOT)!r})
from comfy_depot.forest import Forest
for path in ({str(root)!r}, {str(root / "shut")!r}):
    os.chown(path, 65534, 65534) if os.getuid() == 0 else None
if os.getuid() == 0:
    os.setuid(65534)
woods = Forest()
ask = lambda: sorted(woods.tree({str(root)!r}).names())
found = [ask()]
for rights in (0o000, 0o755):
    os.chmod({str(root / "shut")!r}, rights)
    found.append(ask())
print(found)
"""
    for folder in (root, *root.parents):
        if folder.stat().st_uid == os.getuid() and len(folder.parts) > 2:
            folder.chmod(0o755)
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.stdout.strip(), found.stderr
    assert found.stdout.strip() == "[['b', 'shut/a'], ['b'], ['b', 'shut/a']]"
    assert "shut cannot be read and is left out" in found.stderr
