"""Gives the server's queue its journal and its limits, as the command line says."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import folder_paths
import protocol
from comfy_execution.queueing.durable import DurableQueue
from comfy_execution.queueing.journal import Journal, JournalInUseError

log = logging.getLogger(__name__)

MOST_SERVERS_ON_ONE_FOLDER = 64


def open_journal(options: Any) -> Journal | None:
    """The journal of this server; None with `--journal off`. Raises JournalError.

    Without `--journal` it is `__queue/queue.db` in the user folder. Of several servers on one folder the
    second gets `queue-2.db`, and so on.
    """
    settings = {"sync": options.journal_sync, "encode": protocol.to_json}
    if options.journal == "off":
        return None
    if options.journal is not None:
        return Journal(os.path.abspath(options.journal), **settings)
    folder = Path(folder_paths.get_system_user_directory("queue"))
    for number in range(1, MOST_SERVERS_ON_ONE_FOLDER):
        path = folder / ("queue.db" if number == 1 else f"queue-{number}.db")
        try:
            return Journal(path, **settings)
        except JournalInUseError:
            log.info("The queue's journal %s is used by another server. This one gets its own.", path)
    return Journal(folder / "queue.db", **settings)


def attach(server: Any, options: Any) -> None:
    """Set the limits of the server's queue, and take up what its journal holds. Raises JournalError."""
    queue = server.prompt_queue
    queue.max_waiting, queue.history_size = options.max_queue, options.history_size
    if options.start_paused:
        queue.paused = True
    journal = open_journal(options)
    if journal is None:
        log.info("The queue is kept in memory only (--journal off).")
        return
    durable = DurableQueue(
        journal,
        history_size=queue.limit_of_history,
        max_deaths=options.max_deaths,
        temp_directory=folder_paths.get_temp_directory,
    )
    found = queue.attach(durable)
    if options.start_paused:
        durable.set_paused(True)
    server.number = max(server.number, found.counter)
    server.missed.expect_back(found.clients, durable)
    folder_paths.chooses_number = durable.number_for
    if len(found.waiting):
        again = f" {found.was_running[1]} was running and is the first." if found.was_running else ""
        log.info("%d prompts wait since the last time.%s", len(found.waiting), again)
    if queue.paused:
        log.info("The queue is paused. To go on: POST /depot/queue/resume")
