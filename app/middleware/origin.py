"""Which pages may call the server.

A web site that a user visits can make the browser send requests to 127.0.0.1. Such a request says where
it comes from: Sec-Fetch-Site is "cross-site", or Origin names another host than Host. Both are refused
unless --enable-cors-header is set.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import urllib.parse

from aiohttp import web

ALLOWED_METHODS = "POST, GET, DELETE, PUT, OPTIONS, PATCH, HEAD"
ALLOWED_HEADERS = "Content-Type, Authorization, Comfy-User, Comfy-Usage-Source, Cache-Control"


def means_this_machine(address: str) -> bool:
    """Does a connection to this address stay on this machine? ValueError for what is no address."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    plain = getattr(ip, "ipv4_mapped", None) or ip
    # 0.0.0.0 and [::] reach the loopback too, and browsers let pages call them.
    return bool(plain.is_loopback or plain.is_unspecified)


async def is_loopback(host: str | None) -> bool:
    """Does the host name mean this machine, and only this machine?"""
    host = (host or "").rstrip(".")
    if not host:
        return False
    try:
        return means_this_machine(host)
    except ValueError:
        pass
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    return bool(found) and all(means_this_machine(entry[4][0]) for entry in found)


def same_host(host_header: str, origin_header: str) -> bool:
    """Do Host and Origin name the same place? Ports count only where both give one. An origin without a host,
    such as the "null" of a page in a sandbox, is no place.
    """
    try:
        host = urllib.parse.urlsplit("//" + host_header.lower())
        origin = urllib.parse.urlsplit(origin_header.lower())
        ports = (host.port, origin.port)
    except ValueError:
        return False
    same_name = bool(host.hostname) and host.hostname == origin.hostname
    return same_name and (None in ports or ports[0] == ports[1])


async def is_foreign(headers) -> bool:
    """Was the request made by a page of another site?"""
    site = headers.get("Sec-Fetch-Site", "").lower()
    if site == "cross-site":
        return True
    host, origin = headers.get("Host", ""), headers.get("Origin", "")
    if not host or not origin or same_host(host, origin):
        return False
    if origin == "null" and site == "same-origin":  # a page that hides where it is, but not from its browser
        return False
    try:
        return await is_loopback(urllib.parse.urlsplit("//" + host.lower()).hostname)
    except ValueError:  # no browser sends such a name
        return True


@web.middleware
async def refuse_other_sites(request: web.Request, handler) -> web.StreamResponse:
    """Refuse requests that other sites' pages send to this machine."""
    if await is_foreign(request.headers):
        logging.warning(
            "Refused %s %s from %s. To let other pages in, start with --enable-cors-header.",
            request.method, request.path, request.headers.get("Origin", "another site"),
        )  # fmt: skip
        return web.Response(status=403)
    return await answer_options(request, handler)


@web.middleware
async def answer_options(request: web.Request, handler) -> web.StreamResponse:
    """Answer the question of browsers whether they may ask."""
    return web.Response() if request.method == "OPTIONS" else await handler(request)


def create_cors_headers(allowed_origin: str):
    """A header setter that lets pages of `allowed_origin` ("*": any) read answers."""
    headers = {
        "Access-Control-Allow-Origin": allowed_origin,
        "Access-Control-Allow-Methods": ALLOWED_METHODS,
        "Access-Control-Allow-Headers": ALLOWED_HEADERS,
        "Access-Control-Allow-Credentials": "true",
    }

    async def set_cors_headers(request: web.Request, response: web.StreamResponse) -> None:
        response.headers.update(headers)

    return set_cors_headers
