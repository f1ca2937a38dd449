"""Print what a manifest says of a file: its size, its sha256 and the digests of its pieces.

    python scripts/hash_pieces.py FILE [--bytes 16M] [--kind sha256|blake2b]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from comfy_depot import hashing, piece_hashes
from comfy_depot.options import parse_size


def main(given: Sequence[str] | None = None) -> None:
    """Read the file twice and print JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--bytes", type=parse_size, default=16 << 20, help="of a piece (default: 16M)")
    parser.add_argument("--kind", choices=list(piece_hashes.DIGESTS), default="sha256")
    chosen = parser.parse_args(given)
    if chosen.bytes < piece_hashes.LEAST_BYTES:
        parser.error(f"pieces have at least {piece_hashes.LEAST_BYTES} bytes. Write --bytes 16M")
    pieces = piece_hashes.digests_of(chosen.file, chosen.bytes, chosen.kind)
    print(json.dumps({"size": chosen.file.stat().st_size, "sha256": hashing.sha256_file(chosen.file),
                      "pieces": {"bytes": pieces.length, pieces.kind: pieces.digests}}, indent=1))


if __name__ == "__main__":
    main()
