#!/usr/bin/env python3
"""Put the lines of this folder's patches into a ComfyUI, and keep them there.

    python patches/weave.py check [TARGET]         what would happen (exit 0: good, 3: untested, 1: no)
    python patches/weave.py apply [FOLDER]         weave, and put our packages beside
    python patches/weave.py apply REF --commit     the same as commits of a branch, one for each patch
    python patches/weave.py remove [FOLDER]        take every line of ours out again
    python patches/weave.py verify [TARGET]        prove that the lines there are the series
    python patches/weave.py install-driver [REPO]  from now on git merges and rebases past our lines
    python patches/weave.py run MAIN.PY [ARGS]     run with the lines woven in and no file changed
    python patches/weave.py matrix REPO            many versions; writes COMPATIBILITY.md
    python patches/weave.py accept [TARGET]        note the bodies of this version as tested

TARGET is a folder, or a commit of the repository that --repo names. Standard library only.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))

from weaving import command_line  # noqa: E402 - the folder must be known first

if __name__ == "__main__":
    sys.exit(command_line.main(HERE, sys.argv[1:]))
