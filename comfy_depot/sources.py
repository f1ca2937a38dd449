"""From the URL in a manifest to the one that serves the bytes: redirects, credentials, validators, refusals.

Redirects are followed here and not by aria2, because aria2 would send the manifest's headers to whatever
host a redirect names. The headers of an entry are credentials: they go to the scheme, host and port of
its first URL and to nothing else; a token of the environment goes to the host it belongs to. No message
holds a query string, since signed URLs carry their secret there.
"""

from __future__ import annotations

import contextlib
import email.utils
import functools
import http.client
import os
import re
import shlex
import ssl
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import quote, urljoin, urlsplit

from comfy_depot import gate, schemes
from comfy_depot.aria2 import AGENT
from comfy_depot.errors import DownloadFailed, SourceRefused, WrongContent
from comfy_depot.journal import Validator
from comfy_depot.manifest import Entry
from comfy_depot.schemes import plain_url

MOST_REDIRECTS = 10
ANSWER_SECONDS = 20.0
LIST_SECONDS = 60.0
_ASCII = "".join(map(chr, range(0x21, 0x7F)))
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


class Busy(DownloadFailed):
    """A source did not answer properly now and may do so later; `retry_after` is its own wish in seconds."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


@dataclass(frozen=True)
class Remote:
    """A source that is ready to serve."""

    url: str
    headers: tuple[str, ...]
    validator: Validator
    ranges: bool
    host: str
    port: int
    seconds_to_answer: float = 0.0


@dataclass(frozen=True)
class Answer:
    """Status and headers (lower-case names) of one request."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""
    seconds: float = 0.0
    """From the connection's begin to the head of the answer."""


def resolve(
    entry: Entry, url: str, *, allow_hosts: Iterable[str] = (), seconds: float = ANSWER_SECONDS,
    tokens: Mapping[str, str] = schemes.TOKENS,
) -> Remote:
    """Follow `url` to where its bytes are; raises SourceRefused, WrongContent, Busy or DownloadFailed.

    `tokens` maps a host to the environment variable whose token belongs to it.
    """
    current, hosts = schemes.request_url(url), tuple(allow_hosts)
    credentials, missing = _credentials(entry, current, hosts, tokens)
    for _ in range(MOST_REDIRECTS):
        headers = credentials.get(origin_of(current), {})
        answer = ask(entry, current, headers, hosts, seconds)
        if answer.status in (301, 302, 303, 307, 308) and "location" in answer.headers:
            onward = _onward(entry, current, answer.headers["location"])
            if current.startswith("https:") and not onward.startswith("https:"):
                raise SourceRefused(
                    f"'{entry.key}': {shown(current)} redirects to {shown(onward)} without encryption, "
                    "which the depot does not follow. Write the final https address into the manifest."
                )
            current = onward
            continue
        if answer.status == 403 and current != schemes.at_mirror(plain_url(url)):
            raise Busy(
                f"'{entry.key}': {shown(url)} redirects to {shown(current)}, which answered 403: "
                f"the signed address has expired already, or: {_credential_advice(entry, missing)}",
                retry_after=retry_after(answer.headers.get("retry-after")) or 0.2,
            )
        return _remote(entry, current, headers, answer, missing)
    raise DownloadFailed(
        f"'{entry.key}': {shown(url)} redirects more than {MOST_REDIRECTS} times. "
        "Correct the url in the manifest."
    )


def _credentials(
    entry: Entry, start: str, allow_hosts: tuple[str, ...], tokens: Mapping[str, str]
) -> tuple[dict[tuple[str, str, int], dict[str, str]], list[str]]:
    """Headers by the scheme, host and port that may get them, and the variables that are not set."""
    owner = origin_of(plain_url(entry.urls[0]))
    _refuse_foreign_tokens(entry, owner[1], allow_hosts, tokens)
    own, missing = expand_headers(entry.headers)
    credentials = {owner: own}
    name = None if entry.is_anonymous else schemes.token_name(start, tokens)
    if name is not None and not any(header.lower() == "authorization" for header in own):
        with_token, unset = expand_headers({"Authorization": f"Bearer ${name}"})
        credentials[origin_of(start)] = {**credentials.get(origin_of(start), {}), **with_token}
        missing += unset
    return credentials, missing


def _refuse_foreign_tokens(
    entry: Entry, host: str, allow_hosts: tuple[str, ...], tokens: Mapping[str, str]
) -> None:
    """SourceRefused where a manifest would send a well-known token to a host that it does not belong to."""
    named = {a or b for value in entry.headers.values() for a, b in _VARIABLE.findall(value)}
    homes = {variable: home for home, variable in schemes.TOKENS.items()}
    for name in sorted(named):
        home = homes.get(name, _home_of_own(name))
        is_allowed = any(key.partition(":")[0] == host and value == name for key, value in tokens.items())
        if home in (None, host) or is_allowed or host in {one.partition(":")[0] for one in allow_hosts}:
            continue
        raise SourceRefused(
            f"'{entry.key}': its headers would send ${name} to {host}, but that secret belongs to {home}. "
            f"Use another variable, or allow it: --depot-tokens {host}={name}"
        )


def _home_of_own(name: str) -> str | None:
    """Where a secret belongs that has no host of its own."""
    if name == "DEPOT_TOKEN":
        return "a library of your own"
    return "a store of your own" if name.upper().startswith("AWS_") else None


def _onward(entry: Entry, current: str, location: str) -> str:
    """Where a redirect leads; its bytes may be anything."""
    try:
        onward = urljoin(current, quote(location.encode("latin-1"), safe=_ASCII))
        origin_of(onward)
    except ValueError:
        raise DownloadFailed(
            f"'{entry.key}': {shown(current)} redirects to something that is no address. "
            "Correct the url in the manifest."
        ) from None
    return onward


def origin_of(url: str) -> tuple[str, str, int]:
    """(scheme, host, port): what credentials belong to."""
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = None
    return parts.scheme, (parts.hostname or "").lower(), port or (443 if parts.scheme == "https" else 80)


def shown(url: str) -> str:
    """A URL that may be shown: without query, fragment and user name."""
    if (file := schemes.local_file(url)) is not None:
        return str(file)
    with contextlib.suppress(SourceRefused):  # a malformed mirror: the address is shown as it is written
        url = plain_url(url)
    scheme, host, port = origin_of(url)
    usual = port == (443 if scheme == "https" else 80)
    return f"{scheme}://{host}{'' if usual else f':{port}'}{urlsplit(url).path}"


def expand_headers(headers: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Headers with $VARIABLE from the environment, and the names of variables that are not set.

    A header that needs an unset variable is left out. A bare token in Authorization becomes "Bearer <token>".
    """
    ready: dict[str, str] = {}
    missing: list[str] = []
    for name, value in headers.items():
        unset = [a or b for a, b in _VARIABLE.findall(value) if not os.environ.get(a or b)]
        missing += unset
        if unset:
            continue
        full = _VARIABLE.sub(lambda found: os.environ[found[1] or found[2]], value).strip()
        if name.lower() == "authorization" and " " not in full:
            full = f"Bearer {full}"
        if re.search(r"[\r\n\0]", name + full):
            raise SourceRefused(
                f"The header {name!r} holds a line break. Correct the manifest or the variable."
            )
        ready[name] = full
    return ready, missing


def read(
    entry: Entry, url: str, *, most_bytes: int, allow_hosts: Iterable[str] = (),
    tokens: Mapping[str, str] = schemes.TOKENS,
) -> bytes:
    """The whole of a small file, such as a list of models; errors as `resolve` has them."""
    remote = resolve(entry, url, allow_hosts=allow_hosts, tokens=tokens)
    headers = dict(line.split(": ", 1) for line in remote.headers)
    answer = ask(entry, remote.url, headers, tuple(allow_hosts), ANSWER_SECONDS, most_bytes=most_bytes)
    if answer.status != 200:
        raise _refusal(entry, remote.url, answer, [])
    if len(answer.body) > most_bytes:
        raise WrongContent(f"'{entry.key}': {shown(url)} sends more than {most_bytes >> 20} MiB. "
                           "Correct the url, or split the list.")
    if remote.validator.size is not None and len(answer.body) != remote.validator.size:
        raise Busy(f"'{entry.key}': {shown(url)} sent {len(answer.body)} of {remote.validator.size} bytes. "
                   "Try again later.")
    return answer.body


def answers_head(entry: Entry, remote: Remote, *, allow_hosts: Iterable[str] = ()) -> bool:
    """Whether the source tells its size without sending the file; signed addresses often refuse that."""
    headers = dict(line.split(": ", 1) for line in remote.headers)
    try:
        answer = ask(entry, remote.url, headers, tuple(allow_hosts), ANSWER_SECONDS, method="HEAD")
    except DownloadFailed:
        return False
    return answer.status == 200 and _size(answer) == remote.validator.size


def ask(
    entry: Entry,
    url: str,
    headers: Mapping[str, str],
    allow_hosts: tuple[str, ...],
    seconds: float,
    method: str = "GET",
    most_bytes: int | None = None,
) -> Answer:
    """One request over a connection that the gate opened; follows nothing.

    GET asks for the first byte only, unless `most_bytes` is given: then the body is read, to one byte more.
    """
    scheme, host, port = origin_of(url)
    parts = urlsplit(url)
    if scheme not in ("http", "https") or not _is_host(host) or parts.username or parts.password:
        raise SourceRefused(
            f"'{entry.key}': {shown(url)} is no plain http(s) address. "
            "Write https://host/path into the manifest; "
            "a user name or token belongs into 'headers', as the name of an environment variable."
        )
    target = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._") + (f"?{parts.query}" if parts.query else "")
    connection, begun = http.client.HTTPConnection(host, port, timeout=seconds), time.monotonic()
    try:
        sock = gate.connect(host, port, allow_hosts, min(seconds, gate.CONNECT_SECONDS))
        connection.sock = sock
        sock.settimeout(seconds)
        if scheme == "https":
            connection.sock = _tls().wrap_socket(sock, server_hostname=host)
            connection.default_port = 443
        sent = {"User-Agent": AGENT, "Accept-Encoding": "identity", **headers}
        if method == "GET" and most_bytes is None:
            sent["Range"] = "bytes=0-0"
        connection.request(method, target, headers=sent)
        response = connection.getresponse()
        answered = time.monotonic()
        # A value may go over several lines; what is sent on in a header must not.
        headers = {name.lower(): " ".join(value.split()) for name, value in response.getheaders()}
        body = b"" if most_bytes is None else _body(response, most_bytes + 1, time.monotonic() + LIST_SECONDS)
        return Answer(response.status, headers, body, answered - begun)
    except gate.AddressRefused as error:
        raise SourceRefused(
            f"'{entry.key}': {error}. "
            f"If this host is a mirror of your own, name it: --depot-allow-hosts {host}"
        ) from None
    except (OSError, http.client.HTTPException) as error:
        reason = error.strerror or str(error) if isinstance(error, OSError) else repr(error)
        raise Busy(
            f"'{entry.key}': {shown(url)} cannot be reached ({reason}). "
            "Check the network and the host name in the manifest; what has arrived is kept."
        ) from None
    finally:
        connection.close()


def _body(response: http.client.HTTPResponse, most_bytes: int, deadline: float) -> bytes:
    """The body, as far as `most_bytes`; OSError when it is not whole by the deadline (`time.monotonic()`)."""
    body = bytearray()
    while len(body) < most_bytes and (piece := response.read1(min(1 << 16, most_bytes - len(body)))):
        body += piece
        if time.monotonic() > deadline:
            raise OSError(f"it sent {len(body)} bytes in {LIST_SECONDS:.0f} s and was not done")
    return bytes(body)


def _remote(entry: Entry, url: str, headers: Mapping[str, str], answer: Answer, missing: list[str]) -> Remote:
    """What an answer promises, or the error that it means."""
    if answer.status not in (200, 206) and not (answer.status == 416 and _size(answer) == 0):
        raise _refusal(entry, url, answer, missing)
    kind = answer.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind in ("text/html", "application/xhtml+xml") and not entry.name.endswith((".html", ".xhtml")):
        raise WrongContent(
            f"'{entry.key}': {shown(url)} answers with a web page instead of a model. "
            f"It may ask for a login: {_credential_advice(entry, missing)}"
        )
    validator = Validator(_size(answer), answer.headers.get("etag"), answer.headers.get("last-modified"))
    if entry.size is not None and validator.size is not None and entry.size != validator.size:
        raise WrongContent(
            f"'{entry.key}': {shown(url)} offers {validator.size} bytes "
            f"and the manifest promises {entry.size}. "
            "The file at the source has changed or the manifest is wrong: correct size and sha256 there."
        )
    _, host, port = origin_of(url)
    sent = tuple(f"{name}: {value}" for name, value in headers.items())
    return Remote(url, sent, validator, answer.status != 200, host, port, answer.seconds)


def _refusal(entry: Entry, url: str, answer: Answer, missing: list[str]) -> DownloadFailed:
    """The error of a status that is no success."""
    where, status = f"'{entry.key}': {shown(url)} answered {answer.status}", answer.status
    if status in (401, 403) and "retry-after" not in answer.headers:  # with it, it means: too many requests
        return SourceRefused(f"{where} (access refused). {_credential_advice(entry, missing)}")
    if status in (404, 410):
        return DownloadFailed(
            f"{where} (not found). Correct the url in the manifest, "
            f"or put the file into the folder '{entry.folder}' yourself."
        )
    if status in (401, 403, 408, 425, 429) or status >= 500:
        return Busy(
            f"{where} (busy or broken). Try again later or add another url to the manifest; "
            "what has arrived is kept.",
            retry_after(answer.headers.get("retry-after")),
        )
    return DownloadFailed(f"{where}, which the depot cannot use. Correct the url in the manifest.")


def _credential_advice(entry: Entry, missing: list[str]) -> str:
    if missing:
        names = " and ".join(f"${name}" for name in missing)
        which = "which the manifest's 'headers' name" if entry.headers else "whose token belongs to that host"
        return (f"Set the environment variable {names}, {which}, start again, "
                "and accept the model's licence on its page if there is one.")
    if entry.is_anonymous:
        return (
            "A workflow has named this model, and no token of this server is sent for it. To allow that: "
            f"python -m comfy_depot offers --accept {shlex.quote(entry.key)}"
        )
    if entry.headers:
        return (
            "The token in the manifest's 'headers' is not accepted: renew it, "
            "and accept the model's licence on its page if there is one."
        )
    return (
        "Accept the model's licence on its page if there is one. If the host asks for a token, "
        'set one in the environment, such as MODELS_TOKEN, and name it in the manifest entry: '
        '"headers": {"Authorization": "Bearer $MODELS_TOKEN"}.'
    )


def retry_after(value: str | None) -> float | None:
    """Seconds from a Retry-After header, which holds a number or a date."""
    if value is None:
        return None
    if (seconds := _whole(value.strip())) is not None:
        return float(seconds)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError):
        return None


def _size(answer: Answer) -> int | None:
    """Size of the whole file, from Content-Range or, for a whole answer, Content-Length."""
    found = re.search(r"/(\d+)\s*$", answer.headers.get("content-range", ""))
    if found:
        return _whole(found[1])
    return _whole(answer.headers.get("content-length", "")) if answer.status == 200 else None


def _whole(digits: str) -> int | None:
    """A number as a header writes it; None for anything else (`isdigit` and `int` accept more)."""
    return int(digits) if re.fullmatch(r"[0-9]{1,30}", digits) else None


def _is_host(name: str) -> bool:
    try:
        return bool(name.encode("idna"))
    except UnicodeError:
        return False


@functools.cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()
