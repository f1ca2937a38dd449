"""Vocabularies of text encoders that come without one in their checkpoint: where their files are, and their
use.

The program that serves says where by `find_with`; this package knows no folders.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

# Packs build tokenizers without a word about files, so the way to them is kept here for all.
_find: Callable[[str], str] | None = None


def find_with(find: Callable[[str], str] | None) -> None:
    """`find("t5/tokenizer.json")` gives the path of that file, or raises."""
    global _find
    _find = find


def tokenizer_file(name: str) -> str:
    """Path of the file `name`, such as "t5/tokenizer.json".

    Raises:
        FileNotFoundError: nobody said where such files are; or what the way to them raises.
    """
    if _find is None:
        raise FileNotFoundError(
            f"The vocabulary '{name}' is needed, and where vocabularies are was not said. "
            "Start the server with main.py, or call comfy.tokenizer_files.find_with first."
        )
    return _find(name)


class TokenizerFile:
    """A `tokenizer.json`: called with a text, it gives {"input_ids": numbers with the special tokens}."""

    def __init__(self, path: str):
        self._tokenizer = _read(path)

    @classmethod
    def from_pretrained(cls, path: str) -> TokenizerFile:
        return cls(path)

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": self._tokenizer.encode(text).ids}

    def get_vocab(self) -> dict[str, int]:
        return self._tokenizer.get_vocab()


@functools.lru_cache(maxsize=4)
def _read(path: str):
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(path)
    tokenizer.no_padding()  # chunks are padded by their text encoder's own rule
    tokenizer.no_truncation()
    return tokenizer
