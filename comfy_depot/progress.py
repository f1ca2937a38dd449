"""Progress bars of the command line: one per transfer, on the standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from comfy_depot.transfers import Transfer


@contextmanager
def progress_bars(*, is_shown: bool) -> Iterator[Callable[[Transfer], None]]:
    """A function that draws a transfer's progress; it draws nothing when bars are not shown."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
               TimeRemainingColumn())
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=console, disable=not (is_shown and console.is_terminal)) as progress:

        def show(transfer: Transfer) -> None:
            if transfer.id not in tasks:
                tasks[transfer.id] = progress.add_task(transfer.entry.key)
            phase = "" if transfer.state.value == "downloading" else f": {transfer.state.value}"
            progress.update(tasks[transfer.id], description=f"{transfer.entry.key}{phase}",
                            completed=transfer.bytes_done, total=transfer.bytes_total)

        yield show
