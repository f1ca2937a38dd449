"""The short form of `benchmarks/queue_kills.py`: real processes, killed at random moments."""

import re
import subprocess
import sys

import pytest

from tests.fakes.server_process import ROOT


@pytest.mark.slow
def test_no_kill_loses_a_prompt_or_commits_an_output_twice():
    command = [sys.executable, "benchmarks/queue_kills.py", "--kills", "10", "--milliseconds", "250"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    said = re.search(r"10 kills, (\d+) prompts accepted, .*: 0 lost, 0 committed twice, 0 out", done.stdout)
    assert said is not None and int(said[1]) > 0, done.stdout + done.stderr
