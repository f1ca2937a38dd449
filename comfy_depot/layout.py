"""Where the depot keeps things on disk.  Nobody else joins path strings.

models/checkpoints/
├── sd15.safetensors                         a finished, verified file under its final name
└── .depot/                                  hidden, on the same file system, never listed
    ├── sd15.safetensors.5f1c0e2a.part        the partial (a sparse file while it grows)
    ├── sd15.safetensors.5f1c0e2a.part.aria2  what aria2 is told about the partial
    ├── sd15.safetensors.5f1c0e2a.part.1      a link to the partial, for each further window (windows.py)
    ├── sd15.safetensors.5f1c0e2a.json        the record: validators of the source and the journal of pieces
    ├── sd15.safetensors.5f1c0e2a.lock        one writer at a time over all processes
    └── sd15.safetensors.5f1c0e2a.bad         the last copy that failed verification
<state folder>/
├── bundles/.depot/KEY.archive.5f1c0e2a.part  an archive of which members are wanted (bundles.py), and so on
├── bundles/KEY.wanted                        locked by all who want one
└── aria2-XXXX/                              private folder of one daemon, gone with it
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from comfy_depot.errors import UnsafeName

HIDDEN = ".depot"
BUNDLES = "bundles"  # of the state folder: archives while models are unpacked from them
LONGEST_PART = 200  # bytes: file systems allow 255, and the partial's name adds a digest and an ending
LONGEST_NAME = 1024
_UNFINISHED = re.compile(r"(.+)\.[0-9a-f]{8}\.(?:part|bad)")
_USUAL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{,98}[A-Za-z0-9_]")
FORBIDDEN = frozenset('<>:"|?*\\')
DEVICES = frozenset(
    ["con", "prn", "aux", "nul", "conin$", "conout$",
     *(f"{port}{n}" for port in ("com", "lpt") for n in "0123456789\u00b9\u00b2\u00b3")]
)


@dataclass(frozen=True)
class Place:
    """All paths that belong to one destination file."""

    file: Path
    partial: Path
    control: Path
    record: Path
    lock: Path
    quarantine: Path


@dataclass(frozen=True)
class Layout:
    """The depot's tree on disk; `state_dir` holds what belongs to no single model folder."""

    state_dir: Path

    def place(self, destination: Path) -> Place:
        """The paths of a destination file; nothing is created."""
        file = Path(destination).absolute()
        digest = hashlib.sha256(file.name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        stem = file.parent / HIDDEN / f"{file.name}.{digest}"
        return Place(
            file=file,
            partial=stem.with_name(stem.name + ".part"),
            control=stem.with_name(stem.name + ".part.aria2"),
            record=stem.with_name(stem.name + ".json"),
            lock=stem.with_name(stem.name + ".lock"),
            quarantine=stem.with_name(stem.name + ".bad"),
        )

    def archive(self, key: str) -> Place:
        """An archive in the state folder; its lock is the lease wherever the archive lies."""
        return self.place(self.state_dir / BUNDLES / f"{key}.archive")

    def archive_mark(self, key: str) -> Path:
        """Locked by all who want members of an archive."""
        return self.state_dir / BUNDLES / f"{key}.wanted"


def owner_of(file: Path) -> Path:
    """The destination of which `file` is the partial or the bad copy; any other file is its own."""
    found = _UNFINISHED.fullmatch(file.name) if file.parent.name == HIDDEN else None
    return file.parent.parent / found[1] if found else file


def safe_name(name: str) -> str:
    """Return `name` ("/" for subfolders) when it can only mean a file below its folder.

    Every name that comes from a manifest, a peer or a prompt passes here; raises UnsafeName.
    """
    if not isinstance(name, str) or not name:
        raise UnsafeName("A model name is empty or no text. Write a file name such as 'sd15.safetensors'.")
    if len(name) > LONGEST_NAME:
        raise UnsafeName(f"A model name has {len(name)} characters. Keep it at or below {LONGEST_NAME}.")
    for part in name.split("/"):
        reason = _reason_against(part)
        if reason:
            raise UnsafeName(
                f"The model name {name!r} is refused: {reason}. "
                "Write a relative name with '/' between folders, such as 'sd15/model.safetensors'."
            )
    return name


def destination(folder: Path, name: str) -> Path:
    """Path of `name` below `folder`, with links followed; raises UnsafeName when it would lie elsewhere."""
    root = Path(folder).resolve()
    file = (root / safe_name(name)).parent.resolve() / name.rsplit("/", 1)[-1]
    if root != file.parent and root not in file.parents:
        raise UnsafeName(
            f"The model name {name!r} leads out of {root} through a link. "
            "Remove the link or use another folder."
        )
    if "custom_nodes" in file.parts:
        raise UnsafeName(
            f"{file} lies inside custom_nodes, where code is run. Choose a model folder instead."
        )
    return file


def _reason_against(part: str) -> str:
    """Why one component of a name is refused; empty when it is fine."""
    if _USUAL.fullmatch(part) and part.partition(".")[0].lower() not in DEVICES:
        return ""  # as nearly all: a catalogue may hold 100,000
    if part == "":
        return "it is absolute or has an empty component"
    if part.startswith("."):
        return "a component starts with a dot (hidden files and '..' are not models)"
    if part[-1] in ". " or part[0] == " ":
        return "a component starts or ends with a blank or ends with a dot"
    if FORBIDDEN.intersection(part):
        return f"it holds one of the characters {' '.join(sorted(FORBIDDEN))}"
    is_plain = part.isascii() and part.isprintable()
    if not is_plain and any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in part):
        return "it holds control or invisible characters"
    if part.split(".")[0].strip().lower() in DEVICES:
        return "a component is the name of a device on Windows"
    if len(part.encode("utf-8")) > LONGEST_PART:
        return f"a component is longer than {LONGEST_PART} bytes"
    return ""
