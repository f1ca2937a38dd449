"""The short form of `benchmarks/download_faults.py`: a run of each kind that takes a second or less."""

from __future__ import annotations

import re

import pytest

from benchmarks import download_faults


def test_faults_of_sources_end_with_the_right_file_and_show_nothing_before(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAULTS_TOKEN", "")  # the script sets it; this takes it back
    kinds = "resets,expiry_storm"
    status = download_faults.main(["--seeds", "1", "--first-seed", "1", "--only", kinds, "--looks", "200"])
    said = capsys.readouterr().out
    assert status == 0 and said.count(" 1/1 ") == 2, said
    assert re.search(r"expiry_storm +1/1 +[1-9]", said), "no address has expired, and the run shows nothing"


def test_a_run_that_shows_a_wrong_file_or_a_token_is_found_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def careless(run: download_faults.Run) -> None:
        run.file.parent.mkdir()
        run.file.write_bytes(run.body[:-1] + b"x")
        (run.folder / "state.json").write_text(download_faults.TOKEN)
        while run.early == 0:
            pass

    monkeypatch.setenv("FAULTS_TOKEN", "")
    monkeypatch.setitem(download_faults.FAULTS, "careless", (careless, 1))
    assert download_faults.main(["--seeds", "1", "--only", "careless", "--looks", "1"]) == 1
    said = capsys.readouterr().out
    assert re.search(r"careless +0/1 +0.0 +0 +\d+ +1 +1 .* 1 ", said) and "state.json" in said
