"""The merge driver: git's own rebase, merge and cherry-pick pass our lines, and stop where users decide."""

import shutil
import sys
from pathlib import Path

import pytest

from tests.fakes.small_history import (
    FILES,
    IMPORT,
    PATCHES,
    PATHS,
    SERVER,
    WOVEN,
    History,
    patch_text,
    run,
    weave,
    write_series,
)
from weaving import driver, merging
from weaving.patch_files import parse_patch
from weaving.trees import Repository

NEW_PATHS = PATHS.replace("import os\n", "import os\nimport sys\n").replace(
    "def recursive_search(directory, excluded=None)", "async def recursive_search(directory, depth=0)"
)
NEW_SERVER = SERVER.replace('        """Mount them."""\n', "        self.routes = []\n")
SERIES = [parse_patch(patch_text(name, places), name) for name, places in PATCHES.items()]


def woven_text(path, text):
    """A file's text with the lines of the series, by the small files' own rule."""
    head = "import sys\n" if "import sys\n" in text else "import os\n"
    text = text.replace(head, head + IMPORT, 1)
    if path == "server.py":
        return text.replace(
            "def add_routes(self):\n", "def add_routes(self):\n        depot.add_routes(self.routes)\n"
        )
    for name, line in (("async def recursive", "@depot.adds_names"), ("def get_full", "@depot.fetches")):
        text = text.replace(name, f"{line}\n{name}")
    return text


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """Upstream has moved on, in all places that have a line of ours; `depot` is there on the old base."""
    folder = tmp_path_factory.mktemp("template")
    history = History(folder / "My 100% ComfyUI")
    home = write_series(folder / "A Depot")
    assert weave(home, "apply", "master", "--commit", folder=history.folder).returncode == 0
    history.git("branch", "old", "depot")
    history.commit({"folder_paths.py": NEW_PATHS, "server.py": NEW_SERVER}, "Upstream moves on")
    history.git("checkout", "-q", "depot")
    return history


@pytest.fixture
def home(tmp_path):
    return write_series(tmp_path / "A Depot")


@pytest.fixture
def history(tmp_path, template):
    return template.copy(tmp_path / "My 100% ComfyUI")


def install(home, history, *words):
    done = weave(home, "install-driver", *words, folder=history.folder)
    assert done.returncode == 0, done.stderr
    return done


def assert_woven(history):
    assert history.text("folder_paths.py") == woven_text("folder_paths.py", NEW_PATHS)
    assert history.text("server.py") == woven_text("server.py", NEW_SERVER)


def test_a_rebase_stops_on_our_lines_without_the_driver_and_goes_through_with_it(home, history):
    assert history.git("rebase", "master", check=False).returncode != 0
    history.git("rebase", "--abort")
    install(home, history)
    done = history.git("rebase", "master", check=False)
    assert done.returncode == 0, done.stderr
    assert_woven(history)
    assert history.subjects("master..depot") == ["Do lists", "Do fetch", "Do routes"]
    assert history.read("depot~2:folder_paths.py").count("@depot.") == 1  # each commit is still its own
    assert history.read("depot~1:server.py") == NEW_SERVER


def test_a_merge_and_a_cherry_pick_go_through(home, history):
    install(home, history)
    assert history.git("merge", "-q", "--no-edit", "master", check=False).returncode == 0
    assert_woven(history)
    history.git("checkout", "-q", "-B", "picked", "master")
    assert history.git("cherry-pick", "old", check=False).returncode == 0
    assert history.text("server.py") == woven_text("server.py", NEW_SERVER)
    assert history.text("folder_paths.py") == NEW_PATHS


def test_a_line_that_one_side_takes_out_stays_out(home, history):
    install(home, history)
    history.git("revert", "--no-edit", "HEAD~1")  # the patch "fetch"
    assert history.git("merge", "-q", "--no-edit", "master", check=False).returncode == 0
    assert "@depot.fetches" not in history.text("folder_paths.py")
    assert IMPORT in history.text("folder_paths.py")
    assert "@depot.adds_names" in history.text("folder_paths.py")


def test_what_users_change_beside_our_lines_survives(home, history):
    install(home, history)
    own = history.text("folder_paths.py").replace("@depot.fetches\n", "@functools.cache\n@depot.fetches\n")
    own = own.replace("filename)\n", "filename.lower())\n").replace(
        "import os\n", "import functools\nimport os\n"
    )
    history.commit({"folder_paths.py": own, "notes.txt": "mine\n"}, "Mine")
    done = history.git("rebase", "master", check=False)
    assert done.returncode == 0, done.stderr
    wanted = woven_text("folder_paths.py", "import functools\n" + NEW_PATHS)
    wanted = wanted.replace("@depot.fetches\n", "@depot.fetches\n@functools.cache\n")
    assert history.text("folder_paths.py") == wanted.replace("filename)\n", "filename.lower())\n")
    assert history.text("notes.txt") == "mine\n"
    assert history.subjects("master..HEAD") == ["Do lists", "Do fetch", "Do routes", "Mine"]


def test_a_conflict_of_the_users_stops_and_one_command_puts_our_lines_in_again(home, history):
    install(home, history)
    history.commit(
        {"folder_paths.py": history.text("folder_paths.py").replace("excluded=None", "mine=1")}, "Mine"
    )
    done = history.git("rebase", "master", check=False)
    assert done.returncode == 1 and "git cannot merge what the two sides changed" in done.stderr
    text = history.text("folder_paths.py")
    assert "<<<<<<<" in text and "mine=1" in text and "depth=0" in text and "depot" not in text
    again = done.stderr.split("as git says:\n")[1].splitlines()[0].strip()
    solved = NEW_PATHS.replace("depth=0", "depth=0, mine=1")
    (history.folder / "folder_paths.py").write_text(solved)
    applied = run("sh", "-c", again, folder=history.folder)
    assert applied.returncode == 0, applied.stderr
    history.git("add", "-u")
    assert history.git("-c", "core.editor=true", "rebase", "--continue", check=False).returncode == 0
    assert history.text("folder_paths.py") == woven_text("folder_paths.py", solved)
    assert history.text("server.py") == woven_text("server.py", NEW_SERVER)
    assert history.subjects("master..HEAD") == ["Do lists", "Do fetch", "Do routes", "Mine"]


def test_a_place_that_upstream_has_lost_stops_with_the_reason(home, history):
    history.git("checkout", "-q", "master")
    history.commit({"server.py": NEW_SERVER.replace("add_routes", "mount_routes")})
    history.git("checkout", "-q", "depot")
    install(home, history)
    done = history.git("merge", "-q", "master", check=False)
    assert done.returncode == 1
    assert "`enter PromptServer.add_routes(self)` is not there" in done.stderr
    assert "Patch routes; `weave.py --without routes apply` goes on without it" in done.stderr
    assert history.text("server.py") == NEW_SERVER.replace("add_routes", "mount_routes")
    assert history.git("diff", "--name-only", "--diff-filter=U") == "server.py"


@pytest.mark.parametrize("style", ["merge", "diff3"])
def test_a_conflict_has_the_style_of_the_users_configuration(home, history, style):
    install(home, history)
    history.git("config", "merge.conflictStyle", style)
    history.commit(
        {"server.py": history.text("server.py").replace('        """Mount them."""\n', "        pass\n")}
    )
    assert history.git("merge", "-q", "master", check=False).returncode == 1
    assert ("|||||||" in history.text("server.py")) == (style == "diff3")
    assert "<<<<<<<" in history.text("server.py") and "depot" not in history.text("server.py")


def test_linked_work_trees_share_the_driver_and_a_commit_without_patches_does(home, history, tmp_path):
    history.git("worktree", "add", "-q", str(tmp_path / "second"), "old")
    done = weave(home, "install-driver", tmp_path / "second")
    assert done.returncode == 0, done.stderr
    shutil.rmtree(home)
    assert run("git", "merge", "-q", "--no-edit", "master", folder=tmp_path / "second").returncode == 0
    assert (tmp_path / "second/server.py").read_text() == woven_text("server.py", NEW_SERVER)
    assert history.git("merge", "-q", "--no-edit", "master", check=False).returncode == 0


def test_installing_twice_is_installing_once_and_uninstalling_leaves_the_users_lines(home, history):
    attributes = history.folder / ".git/info/attributes"
    attributes.parent.mkdir(exist_ok=True)
    attributes.write_text("*.png binary\n")
    install(home, history)
    once, configuration = attributes.read_text(), history.git("config", "--list", "--local")
    assert once == (
        "*.png binary\n# comfyui-depot: begin\n/folder_paths.py merge=comfyui-depot\n"
        "/server.py merge=comfyui-depot\n# comfyui-depot: end\n"
    )
    install(home, history)
    assert (attributes.read_text(), history.git("config", "--list", "--local")) == (once, configuration)
    for _ in range(2):
        install(home, history, "--uninstall")
        assert attributes.read_text() == "*.png binary\n"
        assert "comfyui-depot" not in history.git("config", "--list", "--local")
        assert not (history.folder / ".git/comfyui-depot").exists()


def test_a_newer_series_takes_the_place_of_the_installed_one(home, history):
    install(home, history)
    write_series(home.parent, {"routes": patch_text("routes", PATCHES["routes"])})
    install(home, history)
    assert sorted(file.name for file in (history.folder / ".git/comfyui-depot").glob("*.patch")) == [
        "routes.patch"
    ]
    assert "/folder_paths.py" not in (history.folder / ".git/info/attributes").read_text()


def test_the_driver_is_not_for_our_own_core(home, tmp_path):
    own = History(tmp_path / "Own", {**FILES, "pyproject.toml": 'name = "comfyui-depot"\n'})
    done = weave(home, "install-driver", folder=own.folder)
    assert done.returncode == 1 and "This is a clone of ComfyUI Depot itself" in done.stderr


def test_without_its_python_or_its_copy_git_merges_by_itself(home, history):
    install(home, history)
    shutil.rmtree(history.folder / ".git/comfyui-depot")
    history.commit({"server.py": history.text("server.py").replace('"status"', '"state"')}, "Mine")
    done = history.git("merge", "-q", "master", check=False)
    assert done.returncode == 1 and "<<<<<<<" in history.text("server.py")
    assert '"state"' in history.text("server.py")


def test_the_command_is_quoted_for_the_shell(tmp_path):
    odd = tmp_path / "it's 100% odd $HOME"
    odd.mkdir()
    (odd / "weave.py").write_text("import sys; print(sys.argv[1:])")
    command = driver.command_of(Path(sys.executable), odd / "weave.py").replace("%%", "%")
    done = run("sh", "-c", command)
    assert done.stdout.strip() == str(["merge-driver", *driver.PLACEHOLDERS]), done.stderr


def merged(tmp_path, base, ours, theirs, patches=SERIES, path="server.py"):
    files = []
    for name, text in (("O", base), ("A", ours), ("B", theirs)):
        files.append(tmp_path / name)
        files[-1].write_bytes(text.encode())
    done = merging.merge(merging.Sides(*files, path), patches)
    return done, files[1].read_bytes().decode()


def test_a_line_that_the_series_has_no_place_for_is_left_out_and_named(tmp_path):
    older = WOVEN["server.py"].replace(
        "        self.send_sync", "        depot.of_an_older_series()\n        self.send_sync"
    )
    done, text = merged(tmp_path, WOVEN["server.py"], NEW_SERVER, older)
    assert done.is_clean
    assert done.warnings == (
        "server.py: `depot.of_an_older_series()` is in no place of the series, and is left out.",
    )
    assert "older" not in text


def test_a_side_that_is_no_python_is_merged_by_git_as_it_is(tmp_path):
    broken = WOVEN["server.py"] + "\n\n<<<<<<< HEAD\n"
    done, text = merged(tmp_path, WOVEN["server.py"], broken, WOVEN["server.py"].replace("Mount", "Add"))
    assert done.is_clean and "git merged server.py as it is" in done.warnings[0]
    assert text == broken.replace("Mount", "Add")


def test_a_result_that_is_no_python_gets_no_line_of_ours(tmp_path):
    # Each side is right by itself; git takes both changes, and they do not fit.
    end = "\n\ndef f():\n    a = 1\n    b = 2\n    c = 3\n    return a\n"
    base, ours = SERVER + end, WOVEN["server.py"] + end.replace("    a = 1\n", "    global a\n    a = 1\n")
    theirs = base.replace("    return a\n", "    print(a)\n    global a\n    return a\n")
    done, text = merged(tmp_path, base, ours, theirs)
    assert not done.is_clean and "depot" not in text


@pytest.mark.parametrize(
    "base, ours, theirs, stays",
    [
        (False, False, True, True),
        (False, True, False, True),
        (False, True, True, True),
        (True, True, True, True),
        (True, False, True, False),
        (True, True, False, False),
        (True, False, False, False),
    ],
)
def test_a_line_is_a_member_of_a_set(tmp_path, base, ours, theirs, stays):
    texts = [WOVEN["server.py"] if has else SERVER for has in (base, ours, theirs)]
    texts[2] = texts[2].replace("os.name", "os.sep")
    done, text = merged(tmp_path, *texts)
    assert done.is_clean and not done.warnings
    assert text == (WOVEN["server.py"] if stays else SERVER).replace("os.name", "os.sep")


def test_a_line_follows_its_function_to_another_name(tmp_path):
    patch = parse_patch(
        patch_text(
            "routes",
            "@@ enter PromptServer.mount(self) | enter PromptServer.add_routes(self)\n"
            "+depot.add_routes(self.routes)\n",
        ),
        "routes",
    )
    done, text = merged(tmp_path, SERVER, SERVER.replace("add_routes", "mount"), WOVEN["server.py"], [patch])
    assert done.is_clean
    assert text == WOVEN["server.py"].replace("def add_routes", "def mount")


def test_our_lines_are_known_by_what_they_belong_to():
    from weaving import sources

    source = sources.read(
        "a.py",
        (
            IMPORT
            + """
@depot.one
class C:
    @depot.two("x")
    async def m(self):
        if self:
            depot.three()
        try:
            pass
        except OSError:
            depot.four()
        @depot.five
        def inner():
            depot.six()
"""
        ).encode(),
    )
    assert list(merging.lines_of(source)) == [
        ("", IMPORT.strip()),
        ("C", "@depot.one"),
        ("C.m", '@depot.two("x")'),
        ("C.m", "depot.three()"),
        ("C.m", "depot.four()"),
        ("C.m.inner", "@depot.five"),
        ("C.m.inner", "depot.six()"),
    ]


def test_a_folder_without_a_repository_is_refused(home, tmp_path):
    (tmp_path / "empty").mkdir()
    done = weave(home, "install-driver", tmp_path / "empty")
    assert done.returncode == 1 and "not a git repository" in done.stderr


def test_the_installed_copy_does_not_install_itself(home, history):
    install(home, history)
    done = weave(history.folder / ".git/comfyui-depot", "install-driver", folder=history.folder)
    assert done.returncode == 1 and "This is the installed copy itself" in done.stderr


def test_a_folder_that_cannot_be_written_is_refused(home, history):
    shutil.rmtree(history.folder / ".git/info", ignore_errors=True)
    (history.folder / ".git/info").write_text("a file where git has a folder")
    done = weave(home, "install-driver", folder=history.folder)
    assert done.returncode == 1 and "cannot be put into" in done.stderr
    assert "comfyui-depot" not in history.git("config", "--list", "--local")


def test_git_is_asked_for_the_folder_that_all_work_trees_share(home, history):
    assert (
        driver.install(Repository(history.folder), home, SERIES)
        == (history.folder / ".git/comfyui-depot").resolve()
    )


def test_line_ends_and_a_mark_at_the_start_are_kept(tmp_path):
    base, ours, theirs = (
        ("\ufeff" + text).replace("\n", "\r\n") for text in (SERVER, NEW_SERVER, WOVEN["server.py"])
    )
    done, text = merged(tmp_path, base, ours, theirs)
    assert done.is_clean
    assert text == ("\ufeff" + woven_text("server.py", NEW_SERVER)).replace("\n", "\r\n")


@pytest.mark.parametrize(
    "names, shown",
    [
        (("1234 (Base)", "HEAD", "5678 (Mine)"), ("HEAD", "5678 (Mine)")),
        (("%S", "%X", "%Y"), ("ours", "theirs")),  # an older git leaves what it does not know
    ],
)
def test_the_marks_of_a_conflict_have_the_length_and_the_names_that_git_gives(home, tmp_path, names, shown):
    files = [tmp_path / name for name in "OAB"]
    for file, word in zip(files, ("status", "state", "news")):
        file.write_text(WOVEN["server.py"].replace('"status"', f'"{word}"'))
    done = weave(home, "merge-driver", *files, "9", "server.py", *names)
    assert done.returncode == 1
    text = files[1].read_text()
    assert f"\n{'<' * 9} {shown[0]}\n" in text and f"\n{'>' * 9} {shown[1]}\n" in text
    assert "put our lines in again" in done.stderr and "apply --lines-only" in done.stderr
