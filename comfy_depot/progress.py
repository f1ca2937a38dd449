"""Progress bars of the command line: one per transfer, on the standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn

from comfy_depot.commands.printing import human_size
from comfy_depot.transfers import Transfer


@contextmanager
def progress_bars(*, is_shown: bool) -> Iterator[Callable[[Transfer], None]]:
    """A function that draws a transfer's progress; it draws nothing when bars are not shown.

    Rate and time left are the transfer's own: rich would count what an earlier try brought as come at once.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True),
               TextColumn("{task.fields[rate]}"), TextColumn("{task.fields[left]}"))
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=console, disable=not (is_shown and console.is_terminal)) as progress:

        def show(transfer: Transfer) -> None:
            if transfer.id not in tasks:
                tasks[transfer.id] = progress.add_task(transfer.entry.key, rate="", left="")
            phase = "" if transfer.state.value == "downloading" else f": {transfer.state.value}"
            progress.update(tasks[transfer.id], description=f"{transfer.entry.key}{phase}",
                            completed=transfer.bytes_done, total=transfer.bytes_total,
                            rate=shown_rate(transfer.bytes_per_second),
                            left=shown_time(transfer.seconds_left))

        yield show


def shown_rate(bytes_per_second: int) -> str:
    """"4.2 MiB/s", or nothing while it is not known."""
    return f"{human_size(bytes_per_second)}/s" if bytes_per_second else ""


def shown_time(seconds: float | None) -> str:
    """"1:02:03" or "2:03", or nothing where it is not known."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
