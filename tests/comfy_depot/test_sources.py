"""From a manifest's URL to the one that serves the bytes, and each refusal in words that help."""

from __future__ import annotations

import time
from email.utils import formatdate
from pathlib import Path

import pytest

from comfy_depot import sources
from comfy_depot.errors import DownloadFailed, SourceRefused, WrongContent
from comfy_depot.sources import Busy
from tests.fakes.fetching import entry
from tests.fakes.origin import Origin, safetensors, weights

LOCAL = ("127.0.0.1", "localhost")


def test_the_answer_tells_size_validators_and_ranges() -> None:
    with Origin() as origin:
        url = origin.put("/a", weights(1000))
        remote = sources.resolve(entry(url), url, allow_hosts=LOCAL)
        assert remote.url == url and remote.ranges
        assert remote.validator.size == 1000 and remote.validator.etag and remote.validator.last_modified
        origin.put("/a", weights(1000), ranges=False)
        assert not sources.resolve(entry(url), url, allow_hosts=LOCAL).ranges
        origin.put("/a", weights(1000), ranges=False, length_known=False)
        assert sources.resolve(entry(url), url, allow_hosts=LOCAL).validator.size is None
        assert max(hit.sent for hit in origin.hits("/a")) <= 1000


def test_an_empty_file_has_the_size_zero() -> None:
    with Origin() as origin:
        url = origin.put("/a", b"")
        assert sources.resolve(entry(url), url, allow_hosts=LOCAL).validator.size == 0


def test_redirects_are_followed_and_headers_stay_with_their_own_host() -> None:
    with Origin() as origin:
        target = origin.put("/target", b"x")
        url = origin.put("/a", redirect_to="/b")
        origin.put("/b", redirect_to=origin.at("localhost", target))
        remote = sources.resolve(entry(url, headers={"X-Key": "k"}), url, allow_hosts=LOCAL)
        assert remote.url == origin.at("localhost", target) and remote.headers == ()
        sent = [(hit.path, hit.headers.get("x-key")) for hit in origin.log]
        assert sent == [("/a", "k"), ("/b", "k"), ("/target", None)]


def test_a_mirror_does_not_get_the_headers_of_the_first_url() -> None:
    with Origin() as origin:
        url = origin.put("/a", b"x")
        mirror = origin.at("localhost", url)
        both = entry(url, mirror, headers={"X-Key": "k"})
        assert sources.resolve(both, url, allow_hosts=LOCAL).headers == ("X-Key: k",)
        assert sources.resolve(both, mirror, allow_hosts=LOCAL).headers == ()


def refused(origin: Origin, kind: type[DownloadFailed], url: str, **fields: object) -> str:
    """The message with which `url` is refused."""
    with pytest.raises(kind) as caught:
        sources.resolve(entry(url, **fields), url, allow_hosts=LOCAL, seconds=2)
    return str(caught.value)


def test_each_status_is_explained() -> None:
    with Origin() as origin:
        message = refused(origin, DownloadFailed, origin.url + "/none")
        assert "answered 404 (not found). Correct the url" in message and "'checkpoints'" in message
        message = refused(origin, SourceRefused, origin.put("/403", status=403))
        assert "answered 403 (access refused)" in message and "$MODELS_TOKEN" in message
        assert "HF_TOKEN" not in message, "nobody is led to send it to another host"
        message = refused(origin, Busy, origin.put("/503", status=503, retry_after="9"))
        assert "answered 503 (busy or broken). Try again later" in message
        message = refused(origin, DownloadFailed, origin.put("/418", status=418))
        assert "answered 418, which the depot cannot use" in message


def test_a_missing_token_is_named_and_a_refused_one_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MY_TOKEN", raising=False)
    headers = {"Authorization": "Bearer $MY_TOKEN"}
    with Origin() as origin:
        url = origin.put("/a", b"x", token="right")
        message = refused(origin, SourceRefused, url, headers=headers)
        assert "Set the environment variable $MY_TOKEN" in message
        assert "authorization" not in origin.log[-1].headers
        monkeypatch.setenv("MY_TOKEN", "wrong")
        message = refused(origin, SourceRefused, url, headers=headers)
        assert "is not accepted: renew it" in message and "wrong" not in message
        monkeypatch.setenv("MY_TOKEN", "right")
        sources.resolve(entry(url, headers=headers), url, allow_hosts=LOCAL)


def test_a_web_page_in_place_of_a_model_is_refused() -> None:
    with Origin() as origin:
        url = origin.put("/a", b"<html>", content_type="text/html; charset=utf-8")
        assert "a web page instead of a model" in refused(origin, WrongContent, url)


def test_another_size_than_the_manifest_promises_is_refused_before_the_download() -> None:
    with Origin() as origin:
        url = origin.put("/a", weights(10))
        assert "offers 10 bytes and the manifest promises 20" in refused(origin, WrongContent, url, size=20)


def test_a_ring_of_redirects_ends() -> None:
    with Origin() as origin:
        url = origin.put("/a", redirect_to="/a")
        assert "redirects more than 10 times" in refused(origin, DownloadFailed, url)


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("http://[bad/x", "redirects to something that is no address"),
        (f"http://{'a' * 70}.example/x", "no plain"),
        ("http://.../x", "no plain"),
        ("file:///etc/passwd", "no plain"),
        ("http://me:pw@127.0.0.1/x", "no plain"),
    ],
)
def test_a_redirect_to_nonsense_is_refused(location: str, words: str) -> None:
    with Origin() as origin:
        assert words in refused(origin, DownloadFailed, origin.put("/a", redirect_to=location))


def test_a_redirect_that_is_not_plain_ascii_is_followed() -> None:
    """Signed addresses may hold a file name, and some hosts write it as it is."""
    with Origin() as origin:
        origin.put("/b", weights(10))
        url = origin.put("/a", redirect_to="/b?name=caf\u00e9 1.safetensors")
        remote = sources.resolve(entry(url), url, allow_hosts=LOCAL)
    assert remote.url.endswith("/b?name=caf%C3%A9%201.safetensors") and remote.validator.size == 10


@pytest.mark.parametrize("digits", ["\u00b2", "-5", "9" * 5000, "1e3", ""])
def test_a_number_in_a_header_that_is_none_counts_as_absent(digits: str) -> None:
    answer = sources.Answer(200, {"content-length": digits, "content-range": f"bytes 0-0/{digits}"})
    assert sources._size(answer) is None
    assert sources.retry_after(digits) is None


def test_a_redirect_from_https_to_http_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = sources.Answer(302, {"location": "http://example.org/a?sig=SECRET"})
    monkeypatch.setattr(sources, "ask", lambda *_, **__: answer)
    with pytest.raises(SourceRefused, match="without encryption") as caught:
        sources.resolve(entry("https://example.org/a"), "https://example.org/a")
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize("url", ["ftp://h/a", "file:///etc/passwd", "https://me:pw@h/a", "https:///a", "a"])
def test_only_plain_http_addresses_are_asked(url: str) -> None:
    with pytest.raises(SourceRefused, match="no plain") as caught:
        sources.resolve(entry(url), url)
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "10.0.0.1", "169.254.169.254", "0.0.0.0"]
)
def test_addresses_inside_are_refused_unless_allowed(host: str) -> None:
    with pytest.raises(SourceRefused, match="not public.*--depot-allow-hosts"):
        sources.resolve(entry(f"http://{host}:9/a"), f"http://{host}:9/a")


def test_a_redirect_to_an_address_inside_is_refused() -> None:
    with Origin() as origin:
        url = origin.put("/a", redirect_to=f"http://[::ffff:127.0.0.1]:{origin.port}/b")
        with pytest.raises(SourceRefused, match="not public"):
            sources.resolve(entry(url), url, allow_hosts=("127.0.0.1",))
        assert not origin.hits("/b")


def test_a_dead_host_is_said_to_be_unreachable() -> None:
    for url in ("http://127.0.0.1:1/a?sig=SECRET", "http://no-such-host.invalid/a"):
        with pytest.raises(Busy, match="cannot be reached.*Check the network") as caught:
            sources.resolve(entry(url), url, allow_hosts=LOCAL)
        assert "SECRET" not in str(caught.value)


def test_a_host_that_speaks_no_http_is_said_to_be_unreachable(tmp_path: Path) -> None:
    import socket
    import threading

    with socket.create_server(("127.0.0.1", 0)) as server:

        def babble() -> None:
            client, _ = server.accept()
            with client:
                client.recv(1000)
                client.sendall(b"hello\r\n\r\n")

        thread = threading.Thread(target=babble)
        thread.start()
        with pytest.raises(Busy, match="BadStatusLine"):
            url = f"http://127.0.0.1:{server.getsockname()[1]}/a"
            sources.resolve(entry(url), url, allow_hosts=LOCAL)
        thread.join()


@pytest.mark.parametrize(
    ("headers", "ready"),
    [
        ({"Authorization": "Bearer $A_TOKEN"}, {"Authorization": "Bearer secret"}),
        ({"Authorization": "$A_TOKEN"}, {"Authorization": "Bearer secret"}),
        ({"X-Key": "${A_TOKEN}-1"}, {"X-Key": "secret-1"}),
        ({"X-Key": "$NOT_SET_ANYWHERE"}, {}),
        ({"X-Plain": "plain"}, {"X-Plain": "plain"}),
    ],
)
def test_headers_take_their_secrets_from_the_environment(
    headers: dict[str, str], ready: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_TOKEN", "secret")
    assert sources.expand_headers(headers)[0] == ready


def test_a_line_break_in_a_header_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_TOKEN", "a\r\nX-Evil: 1")
    with pytest.raises(SourceRefused, match="line break"):
        sources.expand_headers({"X-Key": "$A_TOKEN"})


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ("hf://a/b/c/d.safetensors", "https://huggingface.co/a/b/resolve/main/c/d.safetensors"),
        (
            "hf://a/b/d.safetensors@refs/pr/1",
            "https://huggingface.co/a/b/resolve/refs%2Fpr%2F1/d.safetensors",
        ),
        ("civitai://123", "https://civitai.com/api/download/models/123"),
        ("modelscope://a/b/d.bin", "https://modelscope.cn/models/a/b/resolve/master/d.bin"),
        ("https://h/x", "https://h/x"),
        ("s3://bucket/x", "s3://bucket/x"),
        ("/library/x", "/library/x"),
    ],
)
def test_short_addresses_stand_for_long_ones(short: str, long: str) -> None:
    assert sources.plain_url(short) == long


def test_what_is_shown_of_a_url_holds_no_secret() -> None:
    assert sources.shown("https://u:p@h.example:8443/a/b?sig=S#f") == "https://h.example:8443/a/b"
    assert sources.shown("https://h.example:443/a") == "https://h.example/a"
    assert sources.shown("s3://bucket/a/b?versionId=1") == "s3://bucket/a/b"
    assert sources.shown("file:///library/a%20b") == "/library/a b"


def test_a_token_goes_to_its_own_host_and_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "t")
    with Origin() as origin:
        url = origin.put("/a", redirect_to="/b")
        origin.put("/b", redirect_to=origin.at("localhost", origin.put("/c", b"x")))
        tokens = {url.split("/")[2]: "MY_TOKEN"}
        remote = sources.resolve(entry(url), url, allow_hosts=LOCAL, tokens=tokens)
        assert remote.headers == ()
        sent = [(hit.path, hit.headers.get("authorization")) for hit in origin.log]
        assert sent == [("/a", "Bearer t"), ("/b", "Bearer t"), ("/c", None)]
        mirror = entry(origin.at("localhost", url), url)
        assert not sources.resolve(mirror, mirror.urls[0], allow_hosts=LOCAL, tokens=tokens).headers
        stranger = entry(url, is_anonymous=True)
        origin.log.clear()
        sources.resolve(stranger, url, allow_hosts=LOCAL, tokens=tokens)
        assert all("authorization" not in hit.headers for hit in origin.log), "a workflow gets no token"


def test_a_manifests_own_header_counts_before_the_hosts_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "t")
    monkeypatch.setenv("OTHER", "o")
    with Origin() as origin:
        url = origin.put("/a", b"x", token="o")
        tokens = {url.split("/")[2]: "MY_TOKEN"}
        own = entry(url, headers={"Authorization": "Bearer $OTHER"})
        remote = sources.resolve(own, url, allow_hosts=LOCAL, tokens=tokens)
        assert remote.headers == ("Authorization: Bearer o",)


def test_a_missing_token_of_a_host_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MY_TOKEN", raising=False)
    with Origin() as origin:
        url = origin.put("/a", b"x", token="right")
        tokens = {url.split("/")[2]: "MY_TOKEN"}
        with pytest.raises(SourceRefused, match="environment variable \\$MY_TOKEN, whose token belongs"):
            sources.resolve(entry(url), url, allow_hosts=LOCAL, tokens=tokens)
        with pytest.raises(SourceRefused, match="offers --accept checkpoints/a.safetensors"):
            sources.resolve(entry(url, is_anonymous=True), url, allow_hosts=LOCAL, tokens=tokens)


def test_a_mirror_gets_no_token_and_its_refusal_is_no_expired_signature(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    url = "https://huggingface.co/o/r/resolve/main/a.safetensors"
    with Origin() as origin:
        monkeypatch.setenv("HF_ENDPOINT", origin.url)
        origin.put("/o/r/resolve/main/a.safetensors", safetensors(1024))
        assert sources.resolve(entry(url), url, allow_hosts=LOCAL).validator.size == 1024
        assert all("authorization" not in hit.headers for hit in origin.hits())
        origin.assets["/o/r/resolve/main/a.safetensors"].status = 403
        with pytest.raises(SourceRefused, match="answered 403 .access refused"):
            sources.resolve(entry(url), url, allow_hosts=LOCAL)


@pytest.mark.parametrize(
    ("variable", "home"), [("HF_TOKEN", "huggingface.co"), ("AWS_SECRET_ACCESS_KEY", "a store of your own")]
)
def test_a_manifest_cannot_send_a_well_known_secret_elsewhere(
    monkeypatch: pytest.MonkeyPatch, variable: str, home: str
) -> None:
    monkeypatch.setenv(variable, "secret")
    url = "https://evil.example/a.safetensors"
    thief = entry(url, headers={"X-Key": f"${{{variable}}}"})
    with pytest.raises(SourceRefused, match=f"{variable} to evil.example, but that .* {home}") as caught:
        sources.resolve(thief, url)
    assert f"--depot-tokens evil.example={variable}" in str(caught.value)


def test_retry_after_is_a_number_or_a_date() -> None:
    assert sources.retry_after("7") == 7
    assert sources.retry_after(formatdate(time.time() + 30, usegmt=True)) == pytest.approx(30, abs=2)
    assert sources.retry_after("soon") is None and sources.retry_after(None) is None
