"""`python -m comfy_depot`: see `cli.py`."""

from __future__ import annotations

import sys

from comfy_depot.cli import main

if __name__ == "__main__":
    sys.exit(main())
