"""Refuse an unsuitable Python with a sentence instead of a stack of install errors."""

import sys

if not (3, 10) <= sys.version_info[:2] <= (3, 13):
    version = ".".join(map(str, sys.version_info[:2]))
    sys.exit(
        "ComfyUI Depot runs on Python 3.10 to 3.13, and this is " + version + ". "
        "Name another one: make PYTHON=python3.12 run"
    )
