"""The fake origin does what real ones do, so that what the depot survives there means something."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request

import pytest

from comfy_depot.hashing import check_safetensors
from tests.fakes.origin import Fault, Origin, Throttle, safetensors, weights

MIB = 1 << 20


def get(url: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    request = urllib.request.Request(url, headers={k.replace("_", "-"): v for k, v in headers.items()})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read()


def test_it_serves_whole_files_and_ranges_with_validators() -> None:
    body = weights(1000)
    with Origin() as origin:
        url = origin.put("/a", body)
        status, headers, got = get(url)
        assert (status, got) == (200, body) and headers["ETag"] and headers["Last-Modified"]
        status, headers, got = get(url, Range="bytes=10-19")
        assert (status, got, headers["Content-Range"]) == (206, body[10:20], "bytes 10-19/1000")
        assert get(url, Range="bytes=990-")[2] == body[990:]
        assert get(url, Range="bytes=1000-")[0] == 416
        assert [hit.range for hit in origin.hits("/a")][:2] == [None, "bytes=10-19"]


def test_a_range_of_a_changed_file_is_answered_with_the_whole_file() -> None:
    with Origin() as origin:
        url = origin.put("/a", weights(1000))
        _, headers, _ = get(url)
        assert get(url, Range="bytes=0-9", If_Range=headers["ETag"])[0] == 206
        origin.put("/a", weights(1000, 1))
        assert get(url, Range="bytes=0-9", If_Range=headers["ETag"])[0] == 200


def test_statuses_are_answered_in_order_and_then_the_file() -> None:
    with Origin() as origin:
        url = origin.put("/a", b"x", statuses=[503, 429], retry_after="7")
        assert get(url)[0] == 503
        status, headers, _ = get(url)
        assert (status, headers["Retry-After"]) == (429, "7")
        assert get(url)[0] == 200
        assert get(origin.url + "/missing")[0] == 404


def test_a_token_is_asked_for() -> None:
    with Origin() as origin:
        url = origin.put("/a", b"x", token="t")
        assert get(url)[0] == 401
        assert get(url, Authorization="Bearer t")[0] == 200


def test_a_signed_address_expires() -> None:
    with Origin() as origin:
        url = origin.put("/a", b"x", signed_ttl=0.3)
        assert get(url)[0] == 200
        signed = f"{origin.url}/signed/a?{origin.log[-1].query}"
        assert get(signed)[0] == 200
        time.sleep(0.35)
        assert get(signed)[0] == 403


@pytest.mark.parametrize("fault", ["truncate_at", "reset_at"])
def test_a_body_can_break_off(fault: str) -> None:
    with Origin() as origin:
        url = origin.put("/a", weights(MIB), **{fault: MIB // 2}, resets_left=1)
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            get(url)
        assert len(get(url)[2]) == MIB


def test_an_answer_can_fail_in_a_way_of_its_own() -> None:
    faults = iter([Fault(status=429, retry_after="7"), Fault(ignores_range=True), None])
    with Origin() as origin:
        url = origin.put("/a", weights(1000), fault_for=lambda hit: next(faults))
        status, headers, _ = get(url, Range="bytes=0-9")
        assert (status, headers["Retry-After"]) == (429, "7")
        assert get(url, Range="bytes=0-9")[::2] == (200, weights(1000))
        assert get(url, Range="bytes=0-9")[::2] == (206, weights(10))


def test_a_body_can_stall_with_its_connection_open() -> None:
    with Origin() as origin:
        url = origin.put("/a", weights(MIB), fault_for=lambda hit: Fault(stall_at=1 << 16))
        with urllib.request.urlopen(url, timeout=0.2) as answer, pytest.raises(TimeoutError):
            assert len(answer.read(1 << 16)) == 1 << 16
            answer.read(1)


def test_a_file_can_become_another_one_after_so_many_bytes() -> None:
    with Origin() as origin:
        url = origin.put("/a", weights(1 << 16), swap_after=1 << 16, swap_to=weights(9, 1))
        assert [get(url)[2], get(url)[2]] == [weights(1 << 16), weights(9, 1)]


def test_the_throttles_hold_the_rate() -> None:
    throttle = Throttle(1000)
    assert throttle.delay(100) == pytest.approx(0.1, abs=0.02)
    assert throttle.delay(100) == pytest.approx(0.2, abs=0.02)
    with Origin(rate_per_connection=2 * MIB) as origin:
        url = origin.put("/a", weights(MIB))
        started = time.monotonic()
        get(url)
        assert time.monotonic() - started > 0.4


def test_made_weights_are_a_safetensors_file_of_the_wanted_size(tmp_path) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "a.safetensors"
    file.write_bytes(safetensors(5000))
    assert file.stat().st_size == 5000
    check_safetensors(file, "a")
