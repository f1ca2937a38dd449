"""Webhooks of a real server that is killed between the prompt and the message, and between two tries."""

import http.server
import json
import threading
import time

import pytest

from tests.fakes.server_process import ServerProcess, install_live_pack

pytestmark = pytest.mark.slow


class Receiver(http.server.ThreadingHTTPServer):
    """Keeps what is posted; answers `status`."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.status, self.got = 500, []
        self.url = f"http://127.0.0.1:{self.server_port}/done"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error):
        self.shutdown()
        self.server_close()

    def until(self, count, seconds=40):
        deadline = time.monotonic() + seconds
        while len(self.got) < count:
            assert time.monotonic() < deadline, self.got
            time.sleep(0.02)
        return self.got


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((self.server.status, self.headers["webhook-id"], json.loads(body)))
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


def slow(seconds):
    return {"1": {"class_type": "LiveSlow", "inputs": {"steps": 10, "seconds": seconds / 10}}}


def test_a_message_that_failed_is_sent_after_a_kill(tmp_path):
    install_live_pack(tmp_path)
    server = ServerProcess(tmp_path, "--webhook-hosts", "127.0.0.1")
    with Receiver() as receiver:
        with server:
            body = {"prompt": slow(0.1), "webhook": {"url": receiver.url, "secret": "s"}}
            prompt_id = server.post_json("/prompt", body)["prompt_id"]
            receiver.until(1)
            server.kill()
        receiver.status = 200
        before = len(receiver.got)
        with server:
            receiver.until(before + 1)
        assert {message_id for _, message_id, _ in receiver.got} == {receiver.got[0][1]}
        assert receiver.got[-1][2]["prompt_id"] == prompt_id
        assert receiver.got[-1][2]["type"] == "prompt.complete"


def test_a_prompt_that_was_killed_runs_again_and_is_told_once(tmp_path):
    install_live_pack(tmp_path)
    server = ServerProcess(tmp_path, "--webhook-hosts", "127.0.0.1")
    with Receiver() as receiver:
        receiver.status = 200
        with server:
            prompt_id, waits = (
                server.post_json("/prompt", {"prompt": slow(seconds), "webhook": receiver.url})["prompt_id"]
                for seconds in (60, 0.1)
            )
            while not server.get_json("/queue")["queue_running"]:
                time.sleep(0.02)
            server.kill()
        with server:
            server.post_json(f"/api/jobs/{prompt_id}/cancel", {})
            got = receiver.until(2)
            time.sleep(0.5)
        told = {message["prompt_id"]: message["type"] for _, _, message in got}
        assert told == {prompt_id: "prompt.cancelled", waits: "prompt.complete"} and len(got) == 2
