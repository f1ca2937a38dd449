"""Single flight: who may bring a file now, over threads and processes.

A lease belongs to one destination file. It only saves bandwidth: what stands under the final name is right
without it, because of the rename at the end. Holders on many nodes need another implementation of `Leases`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from comfy_depot.layout import Place
from comfy_depot.locks import file_lock


class Leases(Protocol):
    """One holder per file, wherever the others who want it are."""

    def hold(self, place: Place, *, on_wait: Callable[[], None]) -> AbstractContextManager[None]:
        """Hold the lease of a file; while another has it, `on_wait` is called several times a second.

        `on_wait` may raise to give up. A lease ends with its holder, however the holder dies, and another
        has it within seconds.
        """


class FileLeases:
    """Leases of one machine: a locked file beside each partial. Threads exclude each other like processes."""

    def hold(self, place: Place, *, on_wait: Callable[[], None]) -> AbstractContextManager[None]:
        """See `Leases`."""
        return file_lock(place.lock, on_wait=on_wait)
