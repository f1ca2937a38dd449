"""A git repository with a ComfyUI of four files, and a folder with a series of three patches for it."""

import contextlib
import io
import os
import shutil
import subprocess
from pathlib import Path

from weaving import command_line

ROOT = Path(__file__).resolve().parents[2]
WITHOUT_CONFIGURATION = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull, "HOME": "/nowhere"}
IDENTITY = {
    f"GIT_{who}_{what}": text
    for who in ("AUTHOR", "COMMITTER")
    for what, text in (("NAME", "A User"), ("EMAIL", "user@example.org"))
}
IMPORT = "from comfy_depot import hooks as depot\n"
PATHS = """import os


def recursive_search(directory, excluded=None):
    return sorted(os.listdir(directory))


def get_full_path(folder_name, filename):
    return os.path.join(folder_name, filename)
"""
SERVER = '''import os


class PromptServer:
    def add_routes(self):
        """Mount them."""
        return self.routes

    def queue_updated(self):
        self.send_sync("status", os.name)
'''
FILES = {
    "pyproject.toml": '[project]\nname = "ComfyUI"\n',
    "comfyui_version.py": '__version__ = "0.4.0"\n',
    "execution.py": "import os\n",
    "folder_paths.py": PATHS,
    "server.py": SERVER,
}
PATCHES = {
    "lists": "@@ before def recursive_search(directory)\n+@depot.adds_names\n",
    "fetch": "@@ before def get_full_path(folder_name, filename)\n+@depot.fetches\n",
    "routes": "@@ enter PromptServer.add_routes(self)\n+depot.add_routes(self.routes)\n",
}
PATCHED_FILES = {"lists": "folder_paths.py", "fetch": "folder_paths.py", "routes": "server.py"}
WOVEN = {
    "folder_paths.py": PATHS.replace("import os\n", f"import os\n{IMPORT}")
    .replace("def recursive", "@depot.adds_names\ndef recursive")
    .replace("def get", "@depot.fetches\ndef get"),
    "server.py": SERVER.replace("import os\n", f"import os\n{IMPORT}").replace(
        "        return self.routes", "        depot.add_routes(self.routes)\n        return self.routes"
    ),
}


def patch_text(name, places, file=None, versions="v0.3.."):
    """A patch file for one file of the core."""
    return (
        f"Subject: Do {name}\nWhy: It is needed.\nUpstream: {versions}\nDrop-when: never.\n\n"
        f"--- {file or PATCHED_FILES[name]}\n@@ after imports\n+{IMPORT}{places}"
    )


def write_series(folder, patches=None):
    """`patches/` of a project, with the real weave.py and this series; returns the folder."""
    home = Path(folder) / "patches"
    home.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "patches/weave.py", home)
    shutil.copytree(
        ROOT / "patches/weaving",
        home / "weaving",
        dirs_exist_ok=True,
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    patches = (
        {name: patch_text(name, places) for name, places in PATCHES.items()} if patches is None else patches
    )
    for old in home.glob("*.patch"):
        old.unlink()
    for name, text in patches.items():
        (home / f"{name}.patch").write_text(text, encoding="utf-8")
    (home / "series").write_text("".join(f"{name}.patch\n" for name in patches), encoding="utf-8")
    (home / "tested.json").write_text('{"bodies": {}, "watches": {}}', encoding="utf-8")
    return home


def run(*words, folder=None, environment=None):
    """A finished process, in an environment without the machine's git configuration."""
    return subprocess.run(
        [str(word) for word in words],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, **WITHOUT_CONFIGURATION, **(IDENTITY if environment is None else environment)},
    )


class History:
    """A repository that grows by commits of whole files."""

    def __init__(self, folder, files=None):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True)
        self.git("init", "-q", "-b", "master")
        self.first = self.commit(FILES if files is None else files, "First")

    def copy(self, folder):
        """The same in another folder."""
        made = object.__new__(History)
        made.folder, made.first = Path(shutil.copytree(self.folder, folder)), self.first
        return made

    def git(self, *words, check=True):
        """What git writes; with check=False how it ended."""
        done = run("git", *words, folder=self.folder)
        if not check:
            return done
        assert done.returncode == 0, f"git {words}: {done.stderr}{done.stdout}"
        return done.stdout.strip()

    def commit(self, files, subject="Change", add=True):
        """Write files, commit them, return the commit."""
        for path, text in files.items():
            (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / path).write_text(text, encoding="utf-8", newline="")
        if add:
            self.git("add", "-A")
        self.git("commit", "-q", "-m", subject)
        return self.git("rev-parse", "HEAD")

    def read(self, name):
        """The content of COMMIT:PATH."""
        done = run("git", "cat-file", "blob", name, folder=self.folder)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def text(self, path):
        """A file of the work tree."""
        return (self.folder / path).read_bytes().decode()

    def subjects(self, commits):
        """The subjects of a range of commits, oldest first."""
        return self.git("log", "--reverse", "--format=%s", commits).splitlines()


def weave(home, *words, folder=None, environment=None):
    """`weave.py` of a folder as a user runs it in another one, without a process of its own."""
    output, errors, here = io.StringIO(), io.StringIO(), os.getcwd()
    before = {name: os.environ.get(name) for name in (*WITHOUT_CONFIGURATION, *IDENTITY)}
    for name in before:
        os.environ.pop(name, None)
    os.environ.update({**WITHOUT_CONFIGURATION, **(IDENTITY if environment is None else environment)})
    os.chdir(folder or here)
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            status = command_line.main(Path(home), [str(word) for word in words])
    finally:
        os.chdir(here)
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
    return subprocess.CompletedProcess(words, status, output.getvalue(), errors.getvalue())
