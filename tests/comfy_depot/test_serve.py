"""A folder over HTTP: ranges, validators, tokens, and nothing outside the folder."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from comfy_depot.serve import Library, Span, parse_range

BODY = bytes(range(256)) * 40


@asynccontextmanager
async def client(directory: Path, **options: Any) -> AsyncIterator[TestClient[web.Request, web.Application]]:
    async with TestClient(TestServer(Library(directory, **options).application())) as made:
        yield made


@pytest.fixture
def library(tmp_path: Path) -> Path:
    folder = tmp_path / "library"
    (folder / "loras" / "sub").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "x").write_bytes(b"hidden")
    (folder / "loras" / "a b.safetensors").write_bytes(BODY)
    (folder / "loras" / "sub" / "c.safetensors").write_bytes(b"c")
    (tmp_path / "secret").write_bytes(b"secret")
    (folder / "loras" / "link").symlink_to(tmp_path / "secret")
    return folder


@pytest.mark.parametrize(
    "header, span",
    [
        (None, Span(0, 100)),
        ("bytes=0-", Span(0, 100)),
        ("bytes=10-19", Span(10, 10)),
        ("bytes=90-500", Span(90, 10)),
        ("bytes=-30", Span(70, 30)),
        ("bytes=-500", Span(0, 100)),
        ("bytes=99-99", Span(99, 1)),
        ("bytes=100-", None),
        ("bytes=20-10", None),
        ("bytes=-0", None),
        ("bytes=-", None),
        ("bytes=0-1,5-6", None),
        ("items=0-1", None),
        ("bytes=a-b", None),
    ],
)
def test_a_range_header_names_a_part(header: str | None, span: Span | None) -> None:
    assert parse_range(header, 100) == span


async def test_a_file_and_its_parts_are_served(library: Path) -> None:
    async with client(library) as http:
        whole = await http.get("/loras/a b.safetensors")
        assert whole.status == 200 and await whole.read() == BODY
        assert whole.headers["Accept-Ranges"] == "bytes" and whole.content_length == len(BODY)
        part = await http.get("/loras/a b.safetensors", headers={"Range": "bytes=100-299"})
        assert part.status == 206 and await part.read() == BODY[100:300]
        assert part.headers["Content-Range"] == f"bytes 100-299/{len(BODY)}"
        head = await http.head("/loras/a b.safetensors")
        assert head.status == 200 and head.headers["Content-Length"] == str(len(BODY))
        beyond = await http.get("/loras/a b.safetensors", headers={"Range": "bytes=99999-"})
        assert beyond.status == 416 and beyond.headers["Content-Range"] == f"bytes */{len(BODY)}"


async def test_a_changed_file_is_served_whole_to_whoever_goes_on(library: Path) -> None:
    async with client(library) as http:
        etag = (await http.head("/loras/a b.safetensors")).headers["ETag"]
        same = await http.get("/loras/a b.safetensors", headers={"Range": "bytes=5-9", "If-Range": etag})
        assert same.status == 206
        (library / "loras" / "a b.safetensors").write_bytes(b"new body")
        changed = await http.get("/loras/a b.safetensors", headers={"Range": "bytes=5-9", "If-Range": etag})
        assert changed.status == 200 and await changed.read() == b"new body"
        assert changed.headers["ETag"] != etag


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/no",
        "/loras",
        "/loras/link",
        "/.hidden/x",
        "/..%2fsecret",
        "/loras/..%2f..%2fsecret",
        "/%2fetc/passwd",
    ],
)
async def test_nothing_else_is_served(library: Path, path: str) -> None:
    async with client(library) as http:
        answer = await http.get(path)
        assert answer.status == 404
        assert "GET /manifest.json lists what there is." in await answer.text()


async def test_the_manifest_names_every_model_and_leads_here(library: Path) -> None:
    async with client(library) as http:
        manifest = await (await http.get("/manifest.json")).json()
        assert set(manifest) == {"loras"} and set(manifest["loras"]) == {
            "a b.safetensors",
            "sub/c.safetensors",
        }
        entry = manifest["loras"]["a b.safetensors"]
        assert entry["size"] == len(BODY) and "headers" not in entry
        assert await (await http.get(entry["url"].split(str(http.port))[1])).read() == BODY


async def test_a_token_is_asked_for(library: Path) -> None:
    async with client(library, token="s3cret") as http:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "s3cret"}):
            refused = await http.get("/manifest.json", headers=headers)
            assert refused.status == 401 and "Authorization: Bearer TOKEN" in await refused.text()
        given = await http.get("/manifest.json", headers={"Authorization": "Bearer s3cret"})
        assert given.status == 200
        entry = (await given.json())["loras"]["sub/c.safetensors"]
        assert entry["headers"] == {"Authorization": "Bearer $DEPOT_TOKEN"}, "the token itself is not given"


async def test_the_rate_is_a_limit_of_all_connections_together(library: Path) -> None:
    (library / "big").write_bytes(b"x" * 60_000)
    async with client(library, rate=200_000) as http:
        start = time.monotonic()
        answers = [await http.get("/big"), await http.get("/big")]
        assert [len(await answer.read()) for answer in answers] == [60_000, 60_000]
        assert time.monotonic() - start > 0.5


async def test_a_client_that_hangs_up_before_the_answer_is_no_error(
    library: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with client(library) as one:
        for _ in range(20):
            with socket.create_connection((one.host, one.port)) as connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.sendall(b"GET /loras/a%20b.safetensors HTTP/1.1\r\nHost: here\r\n\r\n")
        assert (await one.get("/loras/a b.safetensors")).status == 200
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
