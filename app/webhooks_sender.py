"""Posts the messages of webhooks, and tries again later what has failed."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from app import guarded_http
from app.webhooks_store import Message, WebhookStore

log = logging.getLogger(__name__)

PAUSES = (1.0, 5.0, 30.0, 120.0, 600.0, 1800.0, 3600.0, 7200.0, 14400.0)
"""Seconds before the second, third, ... try; after the last one the message is given up (eight hours)."""
ANSWER_SECONDS = 15.0
AT_ONCE = 8
AT_ONCE_PER_HOST = 2
GONE = 410
FOLLOWED = (307, 308)
"""Redirects that keep method and body."""


class Sender:
    """A thread that looks for messages that are due, and a few that post them.

    `sign(message, timestamp)` gives the headers of a try. A receiver that hangs holds up its own only.
    """

    def __init__(
        self,
        store: WebhookStore,
        hosts: Callable[[], guarded_http.Hosts],
        *,
        sign: Callable[[Message, int], dict[str, str]],
        pauses: tuple[float, ...] = PAUSES,
    ) -> None:
        self._store, self._hosts, self._sign, self._pauses = store, hosts, sign, pauses
        self._wake = threading.Event()
        self._stopped = False
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="webhook")
        self._on_their_way: dict[str, str] = {}
        self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Post nothing more; waits for the answers to what is on its way."""
        self._stopped = True
        self._wake.set()
        self._thread.join()
        self._pool.shutdown(cancel_futures=True)

    def wake(self) -> None:
        """There is a new message."""
        self._wake.set()

    def _run(self) -> None:
        while not self._stopped:
            self._wake.clear()
            self._send_due()
            seconds = self._store.seconds_to_next()
            # What is on its way is due too, and wakes this thread when it is done.
            self._wake.wait(seconds if seconds or not self._on_their_way else 0.5)

    def _send_due(self) -> None:
        """Post as many as may be on their way."""
        while not self._stopped:
            going = self._on_their_way.copy()
            full = [host for host, count in Counter(going.values()).items() if count >= AT_ONCE_PER_HOST]
            found = self._store.due(1, but=going, but_hosts=full) if len(going) < AT_ONCE else []
            if not found:
                return
            self._on_their_way[found[0].id] = found[0].host
            self._pool.submit(self._deliver, found[0])

    def _deliver(self, message: Message) -> None:
        try:
            problem, is_final = self._post(message)
            where = guarded_http.shown(message.url)
            if problem is None:
                self._store.delivered(message)
            elif is_final or message.tries >= len(self._pauses):
                log.error("Webhook %s is given up: %s", where, problem)
                self._store.delivered(message)
            else:
                pause = self._pauses[message.tries]
                log.warning("Webhook %s: %s. Next try in %g s.", where, problem, pause)
                self._store.put_off(message, pause)
        except Exception:  # the thread's end would be silent, and the message stays written down
            log.exception("A webhook could not be posted.")
            self._store.put_off(message, self._pauses[-1])
        finally:
            self._on_their_way.pop(message.id, None)
            self._wake.set()

    def _post(self, message: Message) -> tuple[str | None, bool]:
        """(what went wrong or None, whether another try is of no use)."""
        try:
            with guarded_http.request(
                "POST", message.url, self._hosts(), seconds=ANSWER_SECONDS, body=message.body,
                headers=self._sign(message, int(time.time())), follows=FOLLOWED,
            ) as answer:
                if 200 <= answer.status < 300:
                    return None, False
                return f"it answered {answer.status}", answer.status == GONE
        except guarded_http.RefusedError as error:
            return str(error), True
        except guarded_http.UnreachableError as error:
            return str(error), False
