"""A Python file as text: its lines with their ends, and its syntax tree."""

from __future__ import annotations

import ast
import functools
import gc
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from weaving.errors import SourceError

BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Source:
    """A file of a core."""

    path: str
    text: str
    bom: bytes = b""

    @functools.cached_property
    def lines(self) -> list[str]:
        """Its lines with their ends, as the compiler counts them."""
        return re.findall(r"[^\n]*\n|[^\n]+", self.text)

    @functools.cached_property
    def newline(self) -> str:
        """How its lines end."""
        return "\r\n" if self.lines and self.lines[0].endswith("\r\n") else "\n"

    @functools.cached_property
    def tree(self) -> ast.Module:
        """Its syntax tree, whose positions fit `lines`."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the core's own escapes are the core's own business
                return ast.parse(self.text, self.path)
        except (SyntaxError, ValueError) as error:
            line = getattr(error, "lineno", None)
            raise SourceError(f"{self.path}{'' if line is None else f':{line}'} is not valid Python "
                              f"({error.args[0]}). Is a conflict left in it? Solve that first.") from error

    @property
    def data(self) -> bytes:
        """It, as it stands on the disk."""
        return self.bom + self.text.encode()

    def line(self, number: int) -> str:
        """The line of a number of the syntax tree, without its end."""
        return self.lines[number - 1].rstrip("\r\n")


def read(path: str, data: bytes) -> Source:
    """A file's content; SourceError for what cannot be told apart into lines with certainty."""
    bom = BOM if data.startswith(BOM) else b""
    try:
        text = data[len(bom):].decode("utf-8")
    except UnicodeDecodeError as error:
        raise SourceError(f"{path} is not UTF-8 (byte {error.start}). Convert it first.") from error
    if "\r" in text.replace("\r\n", ""):
        raise SourceError(f"{path} has carriage returns inside of lines. Correct its line ends first.")
    return Source(path, text, bom)


@contextmanager
def many_trees() -> Iterator[None]:
    """For work on many files: without the search for cycles, of which a syntax tree has none, each is read in
    half the time.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
