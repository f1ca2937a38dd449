"""`apply REF --commit`: a commit for each patch on a branch, all of them or none, and nothing checked out."""

import pytest

from tests.fakes.small_history import (
    FILES,
    PATCHES,
    PATHS,
    WOVEN,
    History,
    patch_text,
    run,
    weave,
    write_series,
)

SUBJECTS = ["Do lists", "Do fetch", "Do routes"]


@pytest.fixture
def home(tmp_path):
    return write_series(tmp_path / "Depot")


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return History(tmp_path_factory.mktemp("template") / "ComfyUI")


@pytest.fixture
def history(tmp_path, template):
    return template.copy(tmp_path / "ComfyUI")


def apply(home, history, *words, environment=None):
    return weave(home, "apply", *words, "--commit", folder=history.folder, environment=environment)


def test_each_patch_becomes_a_commit_and_the_work_tree_is_left_alone(home, history):
    done = apply(home, history, "master")
    assert done.returncode == 0, done.stderr
    assert history.subjects("master..depot") == SUBJECTS
    assert "3 commits; the branch depot ends with the last" in done.stdout
    for path, text in {**FILES, **WOVEN}.items():
        assert history.read(f"depot:{path}") == text
    assert history.read("depot~2:folder_paths.py").count("@depot.") == 1
    assert history.read("depot~2:server.py") == FILES["server.py"]
    assert history.git("status", "--porcelain") == ""
    assert history.text("folder_paths.py") == PATHS
    assert history.git("log", "-1", "--format=%an <%ae> %b", "depot") == (
        "A User <user@example.org> Why: It is needed.\nUpstream: v0.3..\nDrop-when: never."
    )
    assert weave(home, "verify", "depot", folder=history.folder).returncode == 0


def test_a_bare_repository_will_do(home, history, tmp_path):
    bare = tmp_path / "bare.git"
    assert run("git", "clone", "-q", "--bare", history.folder, bare).returncode == 0
    done = weave(home, "apply", "master", "--commit", "--branch", "ours/depot", "--repo", bare)
    assert done.returncode == 0, done.stderr
    found = run("git", "-C", bare, "show", "ours/depot:folder_paths.py")
    assert found.stdout == WOVEN["folder_paths.py"]


def test_a_file_keeps_its_mode_and_its_line_ends(home, tmp_path):
    history = History(tmp_path / "ComfyUI", {**FILES, "folder_paths.py": PATHS.replace("\n", "\r\n")})
    history.git("update-index", "--chmod=+x", "folder_paths.py")
    history.commit({}, "Make it a program", add=False)
    assert apply(home, history, "HEAD").returncode == 0
    assert history.git("ls-tree", "depot", "folder_paths.py").startswith("100755 blob")
    assert history.git("ls-tree", "depot", "server.py").startswith("100644 blob")
    raw = history.git("cat-file", "-p", "depot:folder_paths.py")
    assert "import os\nfrom comfy_depot" in raw  # read as text; the bytes are compared by their size below
    wanted = WOVEN["folder_paths.py"].replace("\n", "\r\n").encode()
    assert int(history.git("cat-file", "-s", "depot:folder_paths.py")) == len(wanted)


def test_lines_of_a_patch_that_is_left_out_go(home, history):
    assert apply(home, history, "master").returncode == 0
    words = ("--without", "routes", "apply", "depot", "--commit", "--branch", "fewer")
    done = weave(home, *words, folder=history.folder)
    assert done.returncode == 0, done.stderr
    assert history.read("fewer:server.py") == FILES["server.py"]
    assert history.read("fewer:folder_paths.py") == WOVEN["folder_paths.py"]


def test_a_patch_that_is_not_for_the_version_makes_no_commit(history, tmp_path):
    texts = {
        name: patch_text(name, places, versions="v0.9.." if name == "fetch" else "v0.3..")
        for name, places in PATCHES.items()
    }
    home = write_series(tmp_path / "Depot", texts)
    done = apply(home, history, "master")
    assert done.returncode == 0, done.stderr
    assert history.subjects("master..depot") == ["Do lists", "Do routes"]
    assert "Not for v0.4.0: fetch." in done.stdout


def test_one_missing_place_leaves_no_branch_at_all(home, history):
    history.commit({"server.py": FILES["server.py"].replace("add_routes", "mount_routes")})
    done = apply(home, history, "master")
    assert done.returncode == 1
    assert "routes: server.py: `enter PromptServer.add_routes(self)` is not there" in done.stderr
    assert history.git("branch", "--list", "depot") == ""


def test_a_branch_that_is_there_is_kept_unless_it_is_to_be_replaced(home, history):
    history.git("branch", "depot", "master")
    done = apply(home, history, "master")
    assert done.returncode == 1 and "is there already" in done.stderr and "--replace" in done.stderr
    assert history.git("rev-parse", "depot") == history.first
    assert apply(home, history, "master", "--replace").returncode == 0
    assert history.subjects("master..depot") == SUBJECTS


def test_a_branch_that_a_work_tree_has_checked_out_is_refused(home, history, tmp_path):
    done = apply(home, history, "master", "--branch", "master", "--replace")
    assert done.returncode == 1 and "is checked out in" in done.stderr
    history.git("worktree", "add", "-q", "-b", "depot", str(tmp_path / "second"))
    done = apply(home, history, "master", "--replace")
    assert done.returncode == 1 and str(tmp_path / "second") in done.stderr
    assert history.git("rev-parse", "master") == history.git("rev-parse", "depot") == history.first


@pytest.mark.parametrize("name", ["a b", "-x", "a..b", "refs/heads/"])
def test_a_bad_name_of_a_branch_is_refused(home, history, name):
    done = apply(home, history, "master", f"--branch={name}")
    assert done.returncode == 1 and "cannot be the name of a branch" in done.stderr


def test_a_name_that_is_no_commit_is_refused(home, history):
    done = apply(home, history, "v9.9.9")
    assert done.returncode == 1 and "'v9.9.9' is neither a folder nor a commit" in done.stderr


def test_a_folder_is_no_commit(home, history, tmp_path):
    done = weave(home, "apply", history.folder, "--commit", folder=tmp_path)
    assert done.returncode == 1 and f"weave.py apply HEAD --commit --repo {history.folder}" in done.stderr


def test_who_commits_must_be_known(home, history):
    done = apply(home, history, "master", environment={})
    assert done.returncode == 1 and "git does not know who makes the commits" in done.stderr
    assert "user.email" in done.stderr
    assert history.git("branch", "--list", "depot") == ""


def test_what_has_the_series_already_gets_no_branch(home, history):
    apply(home, history, "master")
    done = apply(home, history, "depot", "--branch", "again")
    assert done.returncode == 0 and "there is nothing to do" in done.stdout
    assert history.git("branch", "--list", "again") == ""


def test_lines_of_another_series_are_taken_out_first(history, tmp_path):
    old = write_series(
        tmp_path / "Old",
        {
            "old": patch_text(
                "old", "@@ enter PromptServer.queue_updated(self)\n+depot.changed()\n", "server.py"
            )
        },
    )
    apply(old, history, "master", "--branch", "old")
    new = write_series(tmp_path / "New")
    done = apply(new, history, "old")
    assert done.returncode == 0, done.stderr
    assert history.subjects("old..depot") == ["Take ComfyUI Depot's lines out", *SUBJECTS]
    assert history.git("diff", "master", "depot~3") == ""
    assert history.read("depot:server.py") == WOVEN["server.py"]


def make_packages(home):
    for path in (
        "comfy_depot/hooks.py",
        "comfy_depot/web/panel.js",
        "comfy_fleet/rank.py",
        "web/depot/panel.js",
        "model_manifests/README.md",
        "comfy_depot/__pycache__/hooks.pyc",
    ):
        (home.parent / path).parent.mkdir(parents=True, exist_ok=True)
        (home.parent / path).write_text(f"{path}\n")
    (home.parent / "comfy_depot/run.sh").write_text("exit\n")
    (home.parent / "comfy_depot/run.sh").chmod(0o755)


def test_our_packages_are_a_commit_of_their_own(home, history):
    make_packages(home)
    history.commit({"comfy_depot/of_an_older_version.py": "", "model_manifests/mine.json": "{}"})
    done = apply(home, history, "master", "--with-packages")
    assert done.returncode == 0, done.stderr
    assert history.subjects("master..depot") == ["Add ComfyUI Depot's packages", *SUBJECTS]
    files = history.git("ls-tree", "-r", "--name-only", "depot").splitlines()
    assert {"comfy_depot/hooks.py", "comfy_fleet/rank.py", "web/depot/panel.js"} <= set(files)
    assert "comfy_depot/of_an_older_version.py" not in files
    assert "model_manifests/mine.json" in files and "model_manifests/README.md" not in files  # the user's own
    assert not [file for file in files if "__pycache__" in file]
    assert history.git("ls-tree", "depot", "comfy_depot/run.sh").startswith("100755")
    assert history.read("depot:comfy_depot/hooks.py") == "comfy_depot/hooks.py\n"
    again = apply(home, history, "depot", "--with-packages", "--branch", "again")
    assert "nothing to do" in again.stdout


def test_packages_that_are_not_there_are_not_committed(home, history):
    done = apply(home, history, "master", "--with-packages")
    assert done.returncode == 1 and "comfy_depot is not there" in done.stderr
    assert history.git("branch", "--list", "depot") == ""
