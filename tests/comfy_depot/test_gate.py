"""The gate lets a transfer out to its own source and nowhere else."""

from __future__ import annotations

import base64
import socket

import pytest

from comfy_depot import gate
from tests.fakes.origin import Origin, weights


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("127.0.0.1", False),
        ("::1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("fe80::1%eth0", False),
        ("fc00::1", False),
        ("0.0.0.0", False),
        ("255.255.255.255", False),
        ("224.0.0.1", False),
        ("ff02::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:93.184.216.34", True),
        ("64:ff9b::7f00:1", False),
        ("2002:7f00:1::1", False),
        ("192.0.0.192", False),  # a cloud's metadata
        ("168.63.129.16", False),  # another's
        ("fec0::1", False),
        ("64:ff9b:1::7f00:1", False),
        ("::7f00:1", False),
        ("3fff::1", False),
        ("2606:4700::1111", True),
    ],
)
def test_only_addresses_of_the_open_internet_are_public(address: str, public: bool) -> None:
    assert gate.is_public(address) is public


def test_a_name_that_means_an_address_inside_is_refused_at_the_connection() -> None:
    with pytest.raises(gate.AddressRefused, match="localhost has the address"):
        gate.connect("localhost", 9)


@pytest.mark.parametrize("allowed", ["localhost", "LOCALHOST", "localhost:{port}"])
def test_an_allowed_host_is_reached(allowed: str) -> None:
    with Origin() as origin:
        gate.connect("localhost", origin.port, [allowed.format(port=origin.port)]).close()
        with pytest.raises(gate.AddressRefused):
            gate.connect("localhost", origin.port, ["localhost:1"])


def asked_through(port: int, request: str, credentials: str | None) -> bytes:
    """The first line of the gate's answer, and what follows."""
    line = ""
    if credentials is not None:
        line = f"Proxy-Authorization: Basic {base64.b64encode(credentials.encode()).decode()}\r\n"
    with socket.create_connection(("127.0.0.1", port), 5) as sock:
        sock.sendall(f"{request}\r\n{line}\r\n".encode())
        answer = sock.recv(1000)
        if b" 200 " in answer:
            sock.sendall(b"GET /a HTTP/1.0\r\n\r\n")
            while more := sock.recv(1 << 16):
                answer += more
        return answer


def test_a_pass_leads_to_one_host_and_port_for_those_who_know_its_password() -> None:
    with Origin() as origin:
        origin.put("/a", weights(1000))
        door = gate.Pass("pw", ("127.0.0.1", origin.port), ["127.0.0.1"])
        there = f"CONNECT 127.0.0.1:{origin.port} HTTP/1.1"
        assert asked_through(door.port, there, "me:pw").endswith(weights(1000))
        assert b" 403 " in asked_through(door.port, there, "me:wrong")
        assert b" 403 " in asked_through(door.port, there, None)
        assert b" 403 " in asked_through(door.port, f"CONNECT localhost:{origin.port} HTTP/1.1", "me:pw")
        assert b" 403 " in asked_through(door.port, f"CONNECT 127.0.0.1:{origin.port + 1} HTTP/1.1", "me:pw")
        assert b" 403 " in asked_through(door.port, f"GET {origin.url}/a HTTP/1.1", "me:pw")
        assert len(origin.hits()) == 1
        door.shut()


def test_a_pass_that_is_shut_ends_its_tunnels_and_opens_no_more() -> None:
    with Origin() as origin:
        door = gate.Pass("pw", ("127.0.0.1", origin.port), ["127.0.0.1"])
        with socket.create_connection(("127.0.0.1", door.port), 5) as sock:
            key = base64.b64encode(b"me:pw").decode()
            head = f"CONNECT 127.0.0.1:{origin.port} HTTP/1.1\r\nProxy-Authorization: Basic {key}\r\n\r\n"
            sock.sendall(head.encode())
            assert b" 200 " in sock.recv(1000)
            door.shut()
            assert sock.recv(1000) == b""
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", door.port), 1).recv(1)


def test_a_host_that_cannot_be_reached_or_must_not_be_is_a_bad_gateway() -> None:
    door = gate.Pass("pw", ("127.0.0.1", 9), [])
    assert b" 502 " in asked_through(door.port, "CONNECT 127.0.0.1:9 HTTP/1.1", "me:pw")
    door.shut()
