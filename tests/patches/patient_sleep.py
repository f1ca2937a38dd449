"""A plugin for pytest in upstream's own tests.

Their fixtures sleep four seconds, five times, until the server that they have started should listen; on a
busy machine each such sleep lasts until it does.
"""

import os
import socket
import time

STEP = 4
SECONDS = 180
PORT = int(os.environ["UPSTREAM_TEST_PORT"])
sleep = time.sleep


def sleep_until_it_listens(seconds):
    sleep(seconds)
    end = time.monotonic() + SECONDS
    while seconds == STEP and time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", PORT)) == 0:
                return
        sleep(0.2)


time.sleep = sleep_until_it_listens
